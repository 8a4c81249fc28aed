"""The last layer of a network: the logits of all labels at once, from features."""

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
class CosineLogits(layers.Layer):
    """Logits that are `scale` times the cosine between features and a class's weights, as `crl_tf.LDAMLoss` wants them.

    Features [B, D] that all labels share, or [B, L, D], to concatenated logits [B, sum(num_classes)]; no bias. Features of length
    0 have the cosine 0 with everything.

    Args:
        num_classes: one int per label.
        scale: what cosines are multiplied by, > 0 (Cao et al. 2019: 30).

    >>> logits = CosineLogits([2, 3], scale=30.0)(tf.ones([4, 8]))
    >>> tuple(logits.shape), bool(tf.reduce_all(tf.abs(logits) <= 30.0))
    ((4, 5), True)
    """

    def __init__(self, num_classes: int | Sequence[int], scale: float, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        if not scale > 0:
            raise ValueError(f"scale must be > 0, received {scale!r}")
        self.num_classes = plain_sizes(num_classes)
        self.scale = float(scale)
        self._layout = Layout.of(num_classes)

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], self._layout.width), initializer="glorot_uniform")

    def call(self, features: tf.Tensor) -> tf.Tensor:
        features = _unit_length(features, axis=-1)
        kernel = _unit_length(self.kernel, axis=0)
        if len(features.shape) == 2:
            return self.scale * tf.matmul(features, kernel)
        of_columns = tf.gather(features, self._layout.column_label, axis=1)
        return self.scale * tf.einsum("bcd,dc->bc", of_columns, kernel)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        return (input_shape[0], self._layout.width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes, "scale": self.scale}


def _unit_length(vectors: tf.Tensor, axis: int) -> tf.Tensor:
    # The largest of the two, not their sum: vectors of any length but almost 0 come out exact, and 0 has a finite gradient.
    return tf.math.l2_normalize(vectors, axis=axis, epsilon=1e-12)
