"""CifarNet, the first network of the paper's CIFAR-100 experiments (Sec. 4.3): TF-Slim's `nets/cifarnet.py` of 2016."""

from __future__ import annotations

import keras
from keras import layers

from crl_tf.layers.local_response_normalization import LocalResponseNormalization
from crl_tf.models.heads import scaled


def cifarnet(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """Two 5x5 convolutions with local response normalisation and 2x2 pooling, then layers of 384 and 192 units.

    The paper cites Krizhevsky's report for it, which describes CIFAR-10 and no such network; TF-Slim is where TensorFlow had a
    network of this name. docs/networks.md says where the tutorial's network differs. In training, dropout of a half follows the
    first fully connected layer. Weights start from a truncated normal distribution: 0.05 in convolutions, 0.04 in the layers
    behind them, whose biases start at 0.1.

    Args:
        images: [B, H, W, 3], each with mean 0 and standard deviation 1, of any size from 4 x 4 on (published with 32 x 32).
        width: multiplies the filters and units.
    Returns:
        features [B, 192], non-negative.
    """
    x = _convolution(images, scaled(64, width))
    x = LocalResponseNormalization()(layers.MaxPooling2D(2)(x))
    x = LocalResponseNormalization()(_convolution(x, scaled(64, width)))
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    x = _fully_connected(x, scaled(384, width), "fc3")
    return _fully_connected(layers.Dropout(0.5)(x), scaled(192, width), "fc4")


def _convolution(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    start = keras.initializers.TruncatedNormal(stddev=0.05)
    return layers.Conv2D(filters, 5, padding="same", activation="relu", kernel_initializer=start)(x)


def _fully_connected(x: keras.KerasTensor, units: int, name: str) -> keras.KerasTensor:
    start = keras.initializers.TruncatedNormal(stddev=0.04)
    biases = keras.initializers.Constant(0.1)
    return layers.Dense(units, "relu", kernel_initializer=start, bias_initializer=biases, name=name)(x)
