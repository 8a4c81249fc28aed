"""Networks: a backbone and the multi-task head, from images to features per label and concatenated logits."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from crl_tf.models.backbones import BACKBONES
from crl_tf.models.heads import multi_task_head


def build_network(name: str, *, image_size: Sequence[int], num_classes: Sequence[int]) -> keras.Model:
    """The network `name` with a head for every label.

    Args:
        name: a row of `BACKBONES`.
        image_size: (height, width) of its images.
        num_classes: one int per label.
    Returns:
        a keras.Model from images [B, H, W, 3] in [0, 255], uint8 or float, to {"features": [B, L, 64], "logits":
        [B, sum(num_classes)]}.

    >>> network = build_network("cifarnet", image_size=(32, 32), num_classes=[2, 3])
    >>> {k: tuple(v.shape) for k, v in network.output.items()}
    {'features': (None, 2, 64), 'logits': (None, 5)}
    """
    if name not in BACKBONES:
        raise ValueError(f"model must be one of {sorted(BACKBONES)}, received {name!r}")
    backbone = BACKBONES[name]
    if len(image_size) != 2 or min(image_size) < backbone.smallest_side:
        raise ValueError(
            f"image_size must be (height, width), each {backbone.smallest_side} or more for {name}, received {tuple(image_size)}"
        )
    # Keras casts what it is given to the type of this input, inside the step: bytes stay bytes until they are on the device.
    images = keras.Input((*image_size, 3), dtype="float32", name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(images)
    return keras.Model(images, multi_task_head(backbone.build(x), num_classes), name=name)
