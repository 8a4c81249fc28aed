"""Builds networks by name: a backbone and a head, from images to the features and logits of every label."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import keras

from crl_tf.models.applications import application, application_names
from crl_tf.models.backbones import NETWORKS, Network
from crl_tf.models.backbones.panda import Region
from crl_tf.models.transfer import BACKBONE, check_pretrained, freeze_layers, load_backbone, weighted_layers

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def network_names() -> list[str]:
    """All names of networks: the rows of `NETWORKS`, then the networks of keras.applications."""
    return [*NETWORKS, *application_names()]


def find_network(name: str) -> Network:
    """The row of a network, by its name in `NETWORKS` or as keras:NAME."""
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
    name: str,
    *,
    image_size: Sequence[int],
    width: float = 1.0,
    pretrained: str | None = None,
    cosine_scale: float | None = None,
) -> Network:
    """Returns the row of a network if `build_network` can build it with these arguments. Reads and builds nothing.

    Raises:
        ValueError: it cannot.
    """
    network = find_network(name)
    if not 0 < width < math.inf or (width != 1 and not network.widths):
        raise ValueError(f"width must be {'> 0' if network.widths else '1'} for {name}, received {width!r}")
    if cosine_scale is not None and (network.linear_svm or not 0 < cosine_scale < math.inf):
        rule = "none for a network that ends in a linear SVM" if network.linear_svm else "> 0 or none"
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
    freeze: int | Literal["all"] = 0,
    cosine_scale: float | None = None,
    regions: Sequence[Region] | None = None,
    precision: str | None = None,
    synchronized: bool = False,
) -> keras.Model:
    """Builds the network `name` with a head for every label.

    Args:
        name: a row of `NETWORKS`, or keras:NAME.
        image_size: (height, width) of its images.
        num_classes: one int per label.
        width: multiplies the filters of every layer; 1 is the published network.
        pretrained: source of the backbone's weights (`crl_tf.models.transfer.load_backbone`); None for random weights.
        freeze: the number of the backbone's layers with weights, from the first on, that are not trained.
        cosine_scale: the logits are this times the cosine of features and weights (`CosineLogits`); None for plain logits.
        regions: of the parts, for a network that looks at parts (`crl_tf.models.backbones.panda`); None for its own.
        precision: the dtype policy of the backbone, one of `PRECISIONS`; None for that of the process. Heads are float32.
        synchronized: batch normalisation takes the mean and variance of a batch over all replicas, not of each share.
    Returns:
        a keras.Model from images [B, H, W, 3] in [0, 255], uint8 or float, to {"features": [B, L, D] or [B, D], "logits":
        [B, sum(num_classes)]}, float32. Its layer "backbone" holds everything but the preprocessing and the head.

    >>> network = build_network("deepid2", image_size=(55, 47), num_classes=[2, 3])
    >>> {k: tuple(v.shape) for k, v in network.output.items()}
    {'features': (None, 2, 64), 'logits': (None, 5)}
    """
    network = check_network(name, image_size=image_size, width=width, cosine_scale=cosine_scale)
    parts = {"regions": regions} if network.parts and regions is not None else {}
    with dtype_policy(precision or keras.config.dtype_policy()):
        # Keras casts to the type of this input inside the step: bytes stay bytes until they are on the device.
        images = keras.Input((*image_size, 3), dtype="float32", name="images")
        preprocessed = network.preprocess(images)
        inputs = keras.Input(preprocessed.shape[1:])
        backbone = keras.Model(inputs, network.backbone(inputs, width, **parts), name=BACKBONE)
        if pretrained is not None:
            load_backbone(backbone, pretrained, name)
        freeze_layers(backbone, freeze)
        for layer in weighted_layers(backbone):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = synchronized
        outputs = network.head(backbone(preprocessed), num_classes, width, cosine_scale)
        return keras.Model(images, outputs, name=name.replace(":", "_"))


@contextlib.contextmanager
def dtype_policy(policy: str | keras.DTypePolicy) -> Iterator[None]:
    """Gives the layers that are built inside a dtype policy, and restores that of the process afterwards.

    >>> with dtype_policy("mixed_bfloat16"):
    ...     layer = keras.layers.Dense(3)
    >>> layer.compute_dtype, layer.variable_dtype, keras.config.dtype_policy().name
    ('bfloat16', 'float32', 'float32')
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
