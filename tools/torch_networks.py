"""The networks of the paper in PyTorch, layer by layer as in `crl_tf/models/backbones/`, for `bench_networks.py --peer=torch`.

PyTorch is no requirement of this package: `pip install -e '.[bench]'`. Images are channels-last in memory, which PyTorch's
convolutions are faster with on a CPU. Weights start by PyTorch's rules, which no time depends on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CifarNet(nn.Module):
    """Two convolutions with local response normalisation and pooling, layers of 384 and 192 units."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 64, 5, padding=2), nn.Conv2d(64, 64, 5, padding=2)
        channel = torch.arange(64)
        self.near = ((channel[:, None] - channel[None, :]).abs() <= 4).float()[:, :, None, None]
        self.third, self.fourth = nn.Linear(64 * 8 * 8, 384), nn.Linear(384, 192)

    def forward(self, images: Tensor) -> Tensor:
        variance, mean = torch.var_mean(images, dim=(1, 2, 3), keepdim=True, correction=0)
        x = (images - mean) * torch.rsqrt(variance.clamp(min=1.0 / images[0].numel()))
        x = self._normalized(F.max_pool2d(F.relu(self.first(x)), 2))
        x = F.max_pool2d(self._normalized(F.relu(self.second(x))), 2)
        return F.relu(self.fourth(F.dropout(F.relu(self.third(x.flatten(1))), 0.5, self.training)))

    def _normalized(self, x: Tensor) -> Tensor:
        # As ours, in float32. nn.LocalResponseNorm takes several times as long.
        with torch.autocast("cpu", enabled=False):
            wide = x.float()
            root = torch.rsqrt(1.0 + 0.001 / 9 * F.conv2d(wide.square(), self.near))
            return (wide * root * root.sqrt()).to(x.dtype)


class LocallyShared(nn.Module):
    """`crl_tf.layers.LocallySharedConv2D`: filters of its own for each region of the output; height and width are multiples."""

    def __init__(self, channels: int, filters: int, size: int, region: int, rows: int, columns: int) -> None:
        super().__init__()
        self.size, self.region, self.rows, self.columns = size, region, rows, columns
        self.kernel = nn.Parameter(torch.randn(rows * columns, size * size * channels, filters) * 0.05)
        self.bias = nn.Parameter(torch.zeros(rows * columns, 1, filters))

    def forward(self, images: Tensor) -> Tensor:
        batch, region, size = len(images), self.region, self.size
        height, width = self.rows * region, self.columns * region
        # As ours: positions before the batch, and the inputs of a position along a row, then along a column.
        x = images.permute(2, 3, 0, 1)
        x = torch.cat([x[:, j : j + width] for j in range(size)], dim=-1)
        x = torch.cat([x[i : i + height] for i in range(size)], dim=-1)
        x = x.reshape(self.rows, region, self.columns, region, batch, -1).transpose(1, 2)
        x = x.reshape(self.rows * self.columns, region * region * batch, -1)
        x = torch.baddbmm(self.bias, x, self.kernel).view(self.rows, self.columns, region, region, batch, -1)
        return F.relu(x.permute(4, 5, 0, 2, 1, 3).reshape(batch, -1, height, width))


class DeepID2(nn.Module):
    """Four convolutions, the last two locally shared, at 55 x 47, and 160 features."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 20, 4), nn.Conv2d(20, 40, 3)
        self.third = LocallyShared(40, 60, 3, region=2, rows=5, columns=4)
        self.fourth = LocallyShared(60, 80, 2, region=1, rows=4, columns=3)
        self.features = nn.Linear(60 * 5 * 4 + 80 * 4 * 3, 160)

    def forward(self, images: Tensor) -> Tensor:
        x = images * (1 / 127.5) - 1.0
        for convolution in (self.first, self.second, self.third):
            x = F.max_pool2d(F.relu(convolution(x)), 2, ceil_mode=True)
        return F.relu(self.features(torch.cat([x.flatten(1), self.fourth(x).flatten(1)], dim=1)))


class _Block(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.of_first, self.of_second = nn.BatchNorm2d(filters), nn.BatchNorm2d(filters)
        self.stride, self.missing = stride, filters - channels

    def forward(self, x: Tensor) -> Tensor:
        residual = self.of_second(self.second(F.relu(self.of_first(self.first(x)))))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.missing:
            x = F.pad(x, (0, 0, 0, 0, self.missing // 2, self.missing - self.missing // 2))
        return F.relu(x + residual)


class ResNet32(nn.Module):
    """Three stages of five blocks; shortcuts without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.of_first = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        channels = [16, *(filters for filters in (16, 32, 64) for _ in range(5))]
        pairs = itertools.pairwise(channels)
        self.blocks = nn.Sequential(*(_Block(before, after, 1 if before == after else 2) for before, after in pairs))

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.of_first(self.first(images * (1 / 127.5) - 1.0)))
        return self.blocks(x).mean(dim=(2, 3))


class _Activated(nn.Module):
    def __init__(self, channels: int, filters: int, size: int) -> None:
        super().__init__()
        self.normalized = nn.BatchNorm2d(channels)
        self.convolution = nn.Conv2d(channels, filters, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(F.relu(self.normalized(x)))


class DenseNet(nn.Module):
    """Three blocks of twelve convolutions, each of which adds 12 filters to all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, channels = nn.Conv2d(3, 16, 3, padding=1, bias=False), 16
        self.blocks, self.between = nn.ModuleList(), nn.ModuleList()
        for block in range(3):
            if block:
                self.between.append(_Activated(channels, channels, 1))
            self.blocks.append(nn.ModuleList(_Activated(channels + 12 * number, 12, 3) for number in range(12)))
            channels += 12 * 12
        self.last = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images * (1 / 127.5) - 1.0)
        for number, block in enumerate(self.blocks):
            if number:
                x = F.avg_pool2d(self.between[number - 1](x), 2)
            for layer in block:
                x = torch.cat([x, layer(x)], dim=1)
        return F.relu(self.last(x)).mean(dim=(2, 3))


class _Network(nn.Module):
    """A backbone, and a head with the logits of all labels: one layer, or 64 units per label first, as DeepID2 has."""

    def __init__(self, backbone: nn.Module, features: int, num_classes: Sequence[int], units: int | None) -> None:
        super().__init__()
        self.backbone, self.labels, self.units = backbone, len(num_classes), units
        if units is None:
            self.head = nn.Linear(features, sum(num_classes))
        else:
            self.of_labels = nn.Linear(features, self.labels * units)
            self.kernel = nn.Parameter(torch.randn(self.labels, units, num_classes[0]) * 0.1)
            self.bias = nn.Parameter(torch.zeros(self.labels, num_classes[0]))

    def forward(self, images: Tensor, autocast: bool) -> Tensor:
        """Logits [B, L, C], float32: the head is, as in this package."""
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            features = self.backbone(images)
        features = features.float()
        if self.units is None:
            return self.head(features)[:, None]
        features = F.relu(self.of_labels(features)).view(len(images), self.labels, self.units)
        return torch.einsum("bld,ldc->blc", features, self.kernel) + self.bias


BACKBONES: dict[str, tuple[Callable[[], nn.Module], int, int | None]] = {
    "cifarnet": (CifarNet, 192, None),
    "resnet32": (ResNet32, 64, None),
    "densenet": (DenseNet, 448, None),
    "deepid2": (DeepID2, 160, 64),
}
"""Which networks there are, their features, and the units per label of their heads."""


def step_of(
    name: str, pixels: np.ndarray, labels: np.ndarray, num_classes: Sequence[int], precision: str, rates: dict[str, float]
) -> tuple[Callable[[int], None], int]:
    """A training step with cross-entropy and SGD, to be repeated n times, and the number of trained parameters.

    Args:
        pixels: uint8 [B, H, W, 3]. labels: int [B, L], of as many classes each in a network with units per label.
        precision: float32, or mixed_bfloat16, which is autocast here.
        rates: of torch.optim.SGD.
    """
    torch.manual_seed(0)
    backbone, features, units = BACKBONES[name]
    network = _Network(backbone(), features, num_classes, units).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), **rates)
    # A view of bytes whose channels come last already.
    images, targets = torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(labels.astype(np.int64))

    def run(n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            logits = network(images.float(), precision == "mixed_bfloat16")
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
            loss.backward()
            optimizer.step()
        if not np.isfinite(loss.item()):
            raise RuntimeError(f"{name} in PyTorch diverged: its time would be that of NaN")

    return run, sum(parameter.numel() for parameter in network.parameters())
