"""Networks: a backbone and what stands on it, from images to features per label and concatenated logits."""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Sequence

import keras

from crl_tf.models.applications import application, application_names
from crl_tf.models.backbones import NETWORKS, Network
from crl_tf.models.transfer import BACKBONE, check_pretrained, freeze_layers, load_backbone


def network_names() -> list[str]:
    """What `--model` can be: the rows of the table, then the networks of keras.applications."""
    return [*NETWORKS, *application_names()]


def find_network(name: str) -> Network:
    """The row of a network, by its name in the table or as keras:NAME."""
    if name in NETWORKS:
        return NETWORKS[name]
    if name in application_names():
        return application(name)
    close = difflib.get_close_matches(_plain(name), {_plain(known) for known in network_names()})
    meant = [known for match in close for known in network_names() if _plain(known) == match]
    raise ValueError(
        f"model must be one of {', '.join(NETWORKS)}, or keras:NAME of keras.applications, received {name!r}"
        + (f"; did you mean {', '.join(meant)}?" if meant else "")
    )


def _plain(name: str) -> str:
    return name.lower().removeprefix("keras:").replace("-", "").replace("_", "")


def check_network(
    name: str, *, image_size: Sequence[int], width: float = 1.0, pretrained: str | None = None, cosine_scale: float = 0.0
) -> Network:
    """The row of a network, if `build_network` can make it of these; a ValueError before anything is read or built."""
    network = find_network(name)
    if not 0 < width < math.inf or (width != 1 and not network.widths):
        raise ValueError(f"width must be {'> 0' if network.widths else '1'} for {name}, received {width!r}")
    if not 0 <= cosine_scale < math.inf or (cosine_scale and network.linear_svm):
        rule = "0 for a network that ends in a linear SVM" if network.linear_svm else ">= 0"
        raise ValueError(f"cosine_scale must be {rule}, received {cosine_scale!r} for {name}")
    if len(image_size) != 2 or min(image_size) < network.smallest_side:
        raise ValueError(
            f"image_size must be (height, width), each {network.smallest_side} or more for {name}, received {tuple(image_size)}"
        )
    if pretrained is not None:
        check_pretrained(pretrained, name)
    return network


def build_network(
    name: str,
    *,
    image_size: Sequence[int],
    num_classes: Sequence[int],
    width: float = 1.0,
    pretrained: str | None = None,
    freeze: int = 0,
    cosine_scale: float = 0.0,
    regions: Sequence[tuple[float, float, float, float]] | None = None,
) -> keras.Model:
    """The network `name` with a head for every label.

    Args:
        name: a row of `NETWORKS`, or keras:NAME.
        image_size: (height, width) of its images.
        num_classes: one int per label.
        width: multiplies the filters of every layer; 1 is the published network.
        pretrained: where the weights of the backbone come from (`crl_tf.models.transfer.load_backbone`); none: from the seed.
        freeze: so many of the backbone's layers that have weights, from the first on, are not trained; -1: all of them.
        cosine_scale: above 0, logits are so many times the cosine of features and weights (`crl_tf.models.heads.CosineLogits`).
        regions: for a network that looks at parts, where they are (`crl_tf.models.backbones.panda`); none: its own.
    Returns:
        a keras.Model from images [B, H, W, 3] in [0, 255], uint8 or float, to {"features": [B, L, D] or [B, D], "logits":
        [B, sum(num_classes)]}, float32; its layer "backbone" holds all but the preprocessing and the head.

    >>> network = build_network("cifarnet", image_size=(32, 32), num_classes=[2, 3])
    >>> {k: tuple(v.shape) for k, v in network.output.items()}
    {'features': (None, 2, 64), 'logits': (None, 5)}
    """
    network = check_network(name, image_size=image_size, width=width, cosine_scale=cosine_scale)
    build = functools.partial(network.backbone, regions=regions) if network.parts and regions is not None else network.backbone
    # Keras casts what it is given to the type of this input, inside the step: bytes stay bytes until they are on the device.
    images = keras.Input((*image_size, 3), dtype="float32", name="images")
    seen = network.preprocess(images)
    inside = keras.Input(seen.shape[1:])
    backbone = keras.Model(inside, build(inside, width), name=BACKBONE)
    if pretrained is not None:
        load_backbone(backbone, pretrained, name)
    freeze_layers(backbone, freeze)
    return keras.Model(images, network.head(backbone(seen), num_classes, width, cosine_scale), name=name.replace(":", "_"))
