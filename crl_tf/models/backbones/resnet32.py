"""ResNet-32 (He et al., 2016, Sec. 4.2), the second network of the paper's CIFAR-100 experiments (Sec. 4.3)."""

from __future__ import annotations

import keras
from keras import layers

from crl_tf.layers.batch_normalization import BatchNormalization
from crl_tf.models.heads import scaled


def resnet32(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """3 stages of 5 blocks of two 3x3 convolutions, 16, 32 and 64 filters: 6 * 5 + 2 weighted layers with the classifier.

    Shortcuts have no parameters (option A): where a stage halves the image and doubles the filters, they take every second pixel
    and add filters of zeros. With 10 classes it has 464,154 trainable parameters, as published.

    Args:
        images: [B, H, W, 3] in [-1, 1], of any size from 8 x 8 on (published with 32 x 32).
        width: multiplies the filters.
    Returns:
        features [B, 64].
    """
    x = _convolution(images, scaled(16, width))
    x = layers.ReLU()(BatchNormalization()(x))
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(5):
            x = _block(x, scaled(filters, width), stride=2 if stage and not block else 1)
    return layers.GlobalAveragePooling2D()(x)


def _block(x: keras.KerasTensor, filters: int, stride: int) -> keras.KerasTensor:
    residual = layers.ReLU()(BatchNormalization()(_convolution(x, filters, stride)))
    residual = BatchNormalization()(_convolution(residual, filters))
    if stride > 1:
        x = layers.AveragePooling2D(1, strides=stride)(x)  # a window of one pixel: every second one
    if missing := filters - x.shape[-1]:
        # Pads the channels with zeros, in the place of rows, which Keras can pad.
        x = layers.Permute((3, 1, 2))(x)
        x = layers.ZeroPadding2D(((missing // 2, missing - missing // 2), (0, 0)), data_format="channels_last")(x)
        x = layers.Permute((2, 3, 1))(x)
    return layers.ReLU()(layers.Add()([x, residual]))


def _convolution(x: keras.KerasTensor, filters: int, stride: int = 1) -> keras.KerasTensor:
    return layers.Conv2D(filters, 3, stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
