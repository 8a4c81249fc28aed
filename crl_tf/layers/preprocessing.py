"""Preprocessing: from images in [0, 255] to the input of a backbone."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from crl_tf.serialization import registered


def to_unit_range(images: keras.KerasTensor) -> keras.KerasTensor:
    """Images in [0, 255] to [-1, 1], the input of most networks of the paper here."""
    return layers.Rescaling(1 / 127.5, offset=-1.0)(images)


@registered
class ApplicationInput(layers.Layer):
    """Applies the `preprocess_input` of a module of keras.applications to images in [0, 255].

    float32 under every dtype policy. A network whose own first layers preprocess gets the images unchanged.

    Args:
        module: of keras.applications: "resnet", "mobilenet_v2", ...

    >>> ApplicationInput("mobilenet")(tf.constant([[[[0, 255, 0]]]], tf.uint8)).numpy().tolist()
    [[[[-1.0, 1.0, -1.0]]]]
    """

    def __init__(self, module: str, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        functions = getattr(keras.applications, module, None)
        if not inspect.ismodule(functions) or not hasattr(functions, "preprocess_input"):
            raise ValueError(f"module must be one of keras.applications, received {module!r}")
        self.module = module
        self._preprocess = functions.preprocess_input

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self._preprocess(keras.ops.cast(images, "float32"))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "module": self.module}


@registered
class StandardizedImages(layers.Layer):
    """Gives each image [H, W, C] mean 0 and standard deviation 1 over its pixels and channels, as TensorFlow's CIFAR input does.

    The values of `tf.image.per_image_standardization`: the deviation is at least 1 / sqrt(H W C), so that an image of one colour
    becomes 0. float32 under every dtype policy.

    >>> StandardizedImages()(tf.constant([[[[10.0], [20.0]]]])).numpy().tolist()
    [[[[-1.0], [1.0]]]]
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, images: tf.Tensor) -> tf.Tensor:
        images = tf.cast(images, tf.float32)
        mean, variance = tf.nn.moments(images, axes=[1, 2, 3], keepdims=True)
        return (images - mean) * tf.math.rsqrt(tf.maximum(variance, 1.0 / math.prod(images.shape[1:])))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(input_shape)
