"""From shared features to features and logits of every label, and back into one tensor for a plain Keras loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from crl_tf.layout import Layout, plain_sizes


@keras.saving.register_keras_serializable(package="crl_tf")
class LabelLogits(layers.Layer):
    """The last layer of every label at once: features [B, L, D] to concatenated logits [B, sum(num_classes)].

    One einsum over all labels; labels with fewer classes than the largest hold unused columns, which are never trained.

    Args:
        num_classes: one int per label.
    """

    def __init__(self, num_classes: int | Sequence[int], **kwargs: Any) -> None:
        # float32 under every policy: what is mined, and a softmax over hundreds of classes, wants its digits.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.num_classes = plain_sizes(num_classes)
        self._layout = Layout.of(num_classes)

    def build(self, input_shape: Sequence[int | None]) -> None:
        labels, depth = len(self._layout), input_shape[-1]
        # Glorot's rule for one label's D x C matrix; the three-dimensional kernel would be taken for a convolution's.
        limit = (6.0 / (depth + self._layout.largest)) ** 0.5
        self.kernel = self.add_weight(
            name="kernel",
            shape=(labels, depth, self._layout.largest),
            initializer=keras.initializers.RandomUniform(-limit, limit),
        )
        self.bias = self.add_weight(name="bias", shape=(labels, self._layout.largest), initializer="zeros")

    def call(self, features: tf.Tensor) -> tf.Tensor:
        return self._layout.unpad(tf.einsum("bld,ldc->blc", features, self.kernel) + self.bias)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        return (input_shape[0], self._layout.width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}


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


def multi_task_head(features: keras.KerasTensor, num_classes: Sequence[int], width: int = 64) -> dict[str, keras.KerasTensor]:
    """Per label a fully connected layer of `width` and its logits (Sec. 4.1).

    Args:
        features: [B, F].
        num_classes: one int per label.
        width: D, features per label.
    Returns:
        {"features": [B, L, D], "logits": [B, sum(num_classes)]}, float32 under every dtype policy.
    """
    labels = len(num_classes)
    own = layers.Dense(labels * width, "relu", kernel_initializer="he_normal", dtype="float32", name="label_features")
    x = layers.Reshape((labels, width), dtype="float32")(own(features))
    return {"features": x, "logits": LabelLogits(list(num_classes), name="logits")(x)}
