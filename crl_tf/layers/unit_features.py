"""Features of length 1, of all labels or of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="crl_tf")
class UnitFeatures(keras.layers.Layer):
    """L2-normalises features [B, D] or [B, L, D] over D; a vector of zeros stays one.

    Args:
        label: of features [B, L, D], hand on this label's only, [B, D]; [B, D] is shared by all labels, and is each one's.

    >>> UnitFeatures()(tf.constant([[3.0, 4.0]])).numpy()
    array([[0.6, 0.8]], dtype=float32)
    """

    def __init__(self, label: int | None = None, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.label = label

    def call(self, features: tf.Tensor) -> tf.Tensor:
        if self.label is not None and features.shape.rank == 3:
            features = features[:, self.label]
        return tf.math.l2_normalize(tf.cast(features, tf.float32), axis=-1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        one = self.label is not None and len(input_shape) == 3
        return (input_shape[0], input_shape[-1]) if one else tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label": self.label}
