"""DenseNet-40 (Huang et al., 2017), the third network of the paper's CIFAR-100 experiments (Sec. 4.3)."""

from __future__ import annotations

import keras
from keras import layers

from crl_tf.layers.batch_normalization import BatchNormalization
from crl_tf.models.heads import scaled


def densenet(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """3 blocks of 12 convolutions; each takes the outputs of all before it in its block and adds 12 filters: L = 40, k = 12.

    The paper does not say which DenseNet it used. Its 74.0 % on CIFAR-100 (Table 8) is nearer the 75.6 % published for this one,
    without bottlenecks, than the 77.7 % of the one with 100 layers and bottlenecks. With 10 classes it has 1,019,722 trainable
    parameters, as published. No dropout, as published for training with augmentation.

    Args:
        images: [B, H, W, 3] in [-1, 1], of any size from 8 x 8 on (published with 32 x 32).
        width: multiplies the 16 filters of the first layer and the 12 that each adds.
    Returns:
        features [B, 448]: 16 + 3 * 12 * 12.
    """
    growth = scaled(12, width)
    x = _convolution(images, scaled(16, width), 3)
    for block in range(3):
        if block:
            x = layers.AveragePooling2D(2)(_convolution(_activated(x), x.shape[-1], 1))
        for _ in range(12):
            x = layers.Concatenate()([x, _convolution(_activated(x), growth, 3)])
    return layers.GlobalAveragePooling2D()(_activated(x))


def _activated(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.ReLU()(BatchNormalization()(x))


def _convolution(x: keras.KerasTensor, filters: int, kernel: int) -> keras.KerasTensor:
    return layers.Conv2D(filters, kernel, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
