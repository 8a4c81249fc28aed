"""ResNet-50 (He et al., 2016), the network of the paper's DeepFashion experiments (Sec. 4.2, Table 7)."""

from __future__ import annotations

import keras
from keras import layers

from crl_tf.layers.batch_normalization import BatchNormalization
from crl_tf.models.heads import scaled


def resnet50(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """A 7x7 convolution, then 3, 4, 6 and 3 bottleneck blocks of 64, 128, 256 and 512 filters, with four times as many outputs.

    The first version of ResNet: the first 1x1 convolution of a stage halves the image. Preprocessing, convolution biases, padding
    and the epsilon of batch normalisation are those of keras.applications.ResNet50, so that its weights fit, in order, and give
    the same features; but that network has no width.

    Args:
        images: [B, H, W, 3], blue, green, red, each minus its mean on ImageNet (`preprocess_input` of keras.applications.resnet),
            of any size from 32 x 32 on (published with 224 x 224).
        width: multiplies the filters.
    Returns:
        features [B, 2048].
    """
    x = layers.ZeroPadding2D(3)(images)
    x = _activated(_convolution(x, scaled(64, width), 7, stride=2, padding="valid"))
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    for stage, (filters, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            x = _block(x, scaled(filters, width), stride=2 if stage and not block else 1, widens=not block)
    return layers.GlobalAveragePooling2D()(x)


def _block(x: keras.KerasTensor, filters: int, stride: int, widens: bool) -> keras.KerasTensor:
    shortcut = _normalised(_convolution(x, 4 * filters, 1, stride)) if widens else x
    residual = _activated(_convolution(x, filters, 1, stride))
    residual = _activated(_convolution(residual, filters, 3))
    residual = _normalised(_convolution(residual, 4 * filters, 1))
    return layers.ReLU()(layers.Add()([shortcut, residual]))


def _normalised(x: keras.KerasTensor) -> keras.KerasTensor:
    return BatchNormalization(epsilon=1.001e-5)(x)


def _activated(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.ReLU()(_normalised(x))


def _convolution(x: keras.KerasTensor, filters: int, kernel: int, stride: int = 1, padding: str = "same") -> keras.KerasTensor:
    return layers.Conv2D(filters, kernel, stride, padding=padding, kernel_initializer="he_normal")(x)
