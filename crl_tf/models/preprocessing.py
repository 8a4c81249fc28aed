"""From images in [0, 255] to what a backbone wants to see."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import layers


def to_unit_range(images: keras.KerasTensor) -> keras.KerasTensor:
    """Images in [0, 255] to [-1, 1], what most networks of the paper start from here."""
    return layers.Rescaling(1 / 127.5, offset=-1.0)(images)


def as_application(module: str) -> Callable[[keras.KerasTensor], keras.KerasTensor]:
    """What makes of images in [0, 255] what the networks of a module of keras.applications were trained on."""
    return lambda images: ApplicationInput(module)(images)


@keras.saving.register_keras_serializable(package="crl_tf")
class ApplicationInput(layers.Layer):
    """Images in [0, 255] as a network of keras.applications wants them: the `preprocess_input` of its module.

    float32 under every dtype policy; a network whose own first layers do it is given the images as they are.

    Args:
        module: of keras.applications: "resnet", "mobilenet_v2", ...

    >>> ApplicationInput("mobilenet")(tf.constant([[[[0, 255, 0]]]], tf.uint8)).numpy().tolist()
    [[[[-1.0, 1.0, -1.0]]]]
    """

    def __init__(self, module: str, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        found = getattr(keras.applications, module, None)
        if not inspect.ismodule(found) or not hasattr(found, "preprocess_input"):
            raise ValueError(f"module must be one of keras.applications, received {module!r}")
        self.module = module
        self._preprocess = found.preprocess_input

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self._preprocess(keras.ops.cast(images, "float32"))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "module": self.module}
