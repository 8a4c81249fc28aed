"""CifarNet, the three-convolution network of the paper's CIFAR-100 experiments (Sec. 4.3; Krizhevsky's cuda-convnet)."""

from __future__ import annotations

import keras
from keras import layers

from crl_tf.models.heads import scaled


def cifarnet(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """Three 5x5 convolutions, each pooled 3x3 with stride 2.

    Args:
        images: [B, H, W, 3] in [-1, 1], of any size from 8 x 8 on (published with 32 x 32).
        width: multiplies the filters.
    Returns:
        features [B, 64 H/8 W/8].
    """
    x = images
    for filters, pool in ((32, layers.MaxPooling2D), (32, layers.AveragePooling2D), (64, layers.AveragePooling2D)):
        x = layers.Conv2D(scaled(filters, width), 5, padding="same", activation="relu", kernel_initializer="he_normal")(x)
        x = pool(3, strides=2, padding="same")(x)
    return layers.Flatten()(x)
