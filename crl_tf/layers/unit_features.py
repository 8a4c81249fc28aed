"""A layer that scales features to length 1, of all labels or of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from crl_tf.serialization import registered


@registered
class UnitFeatures(keras.layers.Layer):
    """Normalises features [B, D] or [B, L, D] to L2 norm 1 over D; a vector of zeros stays zero.

    Args:
        label: select this label of features [B, L, D], which gives [B, D]; features [B, D] are those of every label.

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
        selects = self.label is not None and len(input_shape) == 3
        return (input_shape[0], input_shape[-1]) if selects else tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label": self.label}
