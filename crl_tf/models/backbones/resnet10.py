"""ResNet-10: a small residual network for images of one's own (the basic blocks of He et al., 2016, one in each stage)."""

from __future__ import annotations

import keras
from keras import layers

from crl_tf.layers.batch_normalization import BatchNormalization
from crl_tf.models.heads import scaled


def resnet10(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """A convolution and 4 stages of one basic block, 16, 32, 64 and 128 filters: with the classifier 10 weighted layers.

    Batch normalisation makes it trainable at any image size and number of labels. The first convolution halves the image, and so
    does each stage but the first. Where a block changes the shape, its shortcut is a 1x1 convolution (option B).

    Args:
        images: [B, H, W, 3] in [-1, 1], of any size from 8 x 8 on.
        width: multiplies the filters.
    Returns:
        features [B, 128].
    """
    x = layers.ReLU()(_normalized(images, scaled(16, width), 3, stride=2))
    for stage, filters in enumerate((16, 32, 64, 128)):
        x = _block(x, scaled(filters, width), stride=2 if stage else 1)
    return layers.GlobalAveragePooling2D()(x)


def _block(x: keras.KerasTensor, filters: int, stride: int) -> keras.KerasTensor:
    residual = _normalized(layers.ReLU()(_normalized(x, filters, 3, stride)), filters, 3)
    if stride > 1:
        # A window of one pixel: every second one. A 1x1 convolution with a stride gives the same; its gradient in TensorFlow 2.21
        # (oneDNN, float32) writes beyond its memory where an odd number of images has fewer than 16 channels.
        x = layers.AveragePooling2D(1, strides=stride)(x)
    shortcut = x if stride == 1 and x.shape[-1] == filters else _normalized(x, filters, 1)
    return layers.ReLU()(layers.Add()([shortcut, residual]))


def _normalized(x: keras.KerasTensor, filters: int, side: int, stride: int = 1) -> keras.KerasTensor:
    x = layers.Conv2D(filters, side, stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    # A momentum of 0.9, not Keras's 0.99: a training of few steps must be able to measure with its averages.
    return BatchNormalization(momentum=0.9)(x)
