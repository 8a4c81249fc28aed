"""What a training of these data could begin with: image size, batch, epochs, rate and augmentation, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from crl_tf.experiment.config import long_enough

AREA = 64 * 64
"""Pixels of a proposed image, at most: what a small network trains on in minutes."""

SIDE = 8
"""Sides are multiples of this, which networks halve three times."""

FEW_IMAGES = 50_000
"""With fewer training images, trained weights are the better start."""


def proposed_size(median: Sequence[int]) -> tuple[int, int]:
    """(height, width) of about the shape of the median image, and no more pixels than `AREA`.

    >>> proposed_size((80, 60)), proposed_size((218, 178)), proposed_size((28, 28)), proposed_size((3000, 20))
    ((72, 56), (72, 56), (32, 32), (784, 8))
    """
    height, width = median
    scale = min(1.0, math.sqrt(AREA / (height * width)))
    return tuple(max(SIDE, SIDE * round(side * scale / SIDE + 1e-9)) for side in (height, width))


def proposal(facts: Mapping[str, Any], config: ConfigDict) -> str:
    """What to begin with, for the terminal.

    Args:
        facts: what `crl_tf.experiment.inspect.inspect` found; without sizes of images, none is proposed.
        config: of the training, whose settings are named.
    """
    train, images = config.train, facts["splits"]["train"]["images"]
    sizes = facts.get("images", {}).get("sizes", {})
    parts = []
    if sizes:
        size = proposed_size(sizes["median"])
        parts.append(f"--config.data.image_size='{size}' (the median image is {' x '.join(map(str, sizes['median']))})")
    epochs = long_enough(config, images).train.epochs
    steps = math.ceil(images / train.batch_size)
    parts.append(f"{epochs} epochs of {steps:,} steps at --batch_size={train.batch_size}")
    parts.append(f"{train.optimizer} at the rate {train.learning_rate:g}")
    parts.append("--config.data.augment='(\"flip\",)' only if a mirrored image keeps its labels")
    if images < FEW_IMAGES and not config.network.pretrained:
        parts.append("--config=finetune starts from ImageNet's weights, which so few images gain from")
    return f"to begin with: {'; '.join(parts)}"
