"""Registering classes with Keras, so that a saved model loads with no custom_objects."""

from __future__ import annotations

from typing import TypeVar

import keras

Class = TypeVar("Class", bound=type)


def registered(cls: Class) -> Class:
    """Registers a class under the package "crl_tf". As a decorator it keeps the type of the class, which Keras's own does not."""
    return keras.saving.register_keras_serializable(package="crl_tf")(cls)
