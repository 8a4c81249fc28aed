"""The trunk that MTCT, DARN and DDAN share: five stacked network-in-network units (Lin et al., 2014; the paper's Sec. 4.2)."""

from __future__ import annotations

import keras
from keras import layers

from crl_tf.models.heads import scaled

UNITS = ((96, 11, 4), (256, 5, 1), (384, 3, 1), (384, 3, 1), (1024, 3, 1))
"""Filters, side and stride of each unit's first convolution."""


def nin_units(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """Five units of a k x k convolution and two 1x1, each with ReLU; 3x3 max pooling with stride 2 after the 1st, 2nd and 4th.

    Lin et al.'s ImageNet network has four units of 96, 256, 384 and 1,024 filters. The paper has five and does not publish their
    filters: here there is a second unit of 384, as AlexNet has two layers of 384 in a row. As in Lin et al., dropout of a half
    precedes the last unit and the mean over positions follows it. Differs from the paper, which pretrained on ImageNet: padding
    in every layer ("same"), so that small images are possible, and He's initialisation, which 15 layers without batch
    normalisation need when they are trained from scratch.

    Args:
        images: [B, H, W, 3] in [-1, 1], of any size from 32 x 32 on, of which one position is left.
        width: multiplies the filters.
    Returns:
        features [B, 1024], non-negative.
    """
    x = images
    for number, (filters, side, stride) in enumerate(UNITS, 1):
        for kernel, step in ((side, stride), (1, 1), (1, 1)):
            x = layers.Conv2D(
                scaled(filters, width), kernel, step, padding="same", activation="relu", kernel_initializer="he_normal"
            )(x)
        if number in (1, 2, 4):
            x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        if number == 4:
            x = layers.Dropout(0.5)(x)
    return layers.GlobalAveragePooling2D()(x)
