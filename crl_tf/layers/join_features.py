"""Features and logits joined into one output, for losses that need both in a plain `model.compile`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers


@keras.saving.register_keras_serializable(package="crl_tf")
class JoinFeatures(layers.Layer):
    """Features and logits as the one output that a plain Keras loss sees: [features flattened, logits].

    The way to `CRL(level="instance", feature_shape=...)` in `model.compile`; features [B, D] or [B, L, D].

    >>> joined = JoinFeatures()([tf.zeros([4, 2, 8]), tf.zeros([4, 5])])
    >>> tuple(joined.shape)  # 2 * 8 + 5
    (4, 21)
    """

    def __init__(self, **kwargs: Any) -> None:
        # float32 under every policy, as the loss that it feeds.
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        features, logits = inputs
        columns = 1
        for size in features.shape[1:]:
            columns *= size
        return tf.concat([tf.reshape(features, [-1, columns]), tf.cast(logits, features.dtype)], axis=1)
