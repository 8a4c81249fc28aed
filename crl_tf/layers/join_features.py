"""A layer that joins features and logits into one output, for losses that need both in a plain `model.compile`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from keras import layers

from crl_tf.serialization import registered


@registered
class JoinFeatures(layers.Layer):
    """Joins features [B, D] or [B, L, D] and logits into the one output that a plain Keras loss sees: [features, logits].

    With it, `CRL(level="instance", feature_shape=...)` works in `model.compile`.

    >>> joined = JoinFeatures()([tf.zeros([4, 2, 8]), tf.zeros([4, 5])])
    >>> tuple(joined.shape)  # 2 * 8 + 5
    (4, 21)
    """

    def __init__(self, **kwargs: Any) -> None:
        # float32 under every policy, like the loss that takes its output.
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        features, logits = inputs
        flat = tf.reshape(features, [-1, math.prod(features.shape[1:])])
        return tf.concat([flat, tf.cast(logits, features.dtype)], axis=1)
