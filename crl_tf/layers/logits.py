"""The last layer of a network: from features to the logits of all labels at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from crl_tf.layout import Layout, plain_sizes
from crl_tf.serialization import registered


class _Logits(layers.Layer):
    """What the two layers share: classes per label, an output of one column per class, float32 under every dtype policy.

    float32, because mining compares probabilities, and a softmax over hundreds of classes needs the digits.
    """

    def __init__(self, num_classes: int | Sequence[int], **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.num_classes = plain_sizes(num_classes)
        self._layout = Layout.of(num_classes)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        return (input_shape[0], self._layout.width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}


@registered
class LabelLogits(_Logits):
    """A linear layer per label, all in one einsum: features [B, L, D] to concatenated logits [B, sum(num_classes)].

    Labels with fewer classes than the largest have unused columns, which are never trained.

    Args:
        num_classes: one int per label.

    >>> tuple(LabelLogits([2, 3])(tf.zeros([4, 2, 8])).shape)
    (4, 5)
    """

    def build(self, input_shape: Sequence[int | None]) -> None:
        labels, depth = len(self._layout), input_shape[-1]
        # Glorot's rule for the D x C matrix of one label. Keras would take the kernel of three dimensions for a convolution's.
        limit = (6.0 / (depth + self._layout.largest)) ** 0.5
        self.kernel = self.add_weight(
            name="kernel",
            shape=(labels, depth, self._layout.largest),
            initializer=keras.initializers.RandomUniform(-limit, limit),
        )
        self.bias = self.add_weight(name="bias", shape=(labels, self._layout.largest), initializer="zeros")

    def call(self, features: tf.Tensor) -> tf.Tensor:
        return self._layout.unpad(tf.einsum("bld,ldc->blc", features, self.kernel) + self.bias)


@registered
class CosineLogits(_Logits):
    """Logits that are `scale` times the cosine between the features and the weights of a class, as `crl_tf.LDAMLoss` needs them.

    Takes features [B, D] that all labels share, or [B, L, D]; gives concatenated logits [B, sum(num_classes)]. No bias. Features
    of length 0 have the cosine 0 with every class.

    Args:
        num_classes: one int per label.
        scale: multiplies the cosines, > 0 (Cao et al. 2019: 30).

    >>> logits = CosineLogits([2, 3], scale=30.0)(tf.ones([4, 8]))
    >>> tuple(logits.shape), bool(tf.reduce_all(tf.abs(logits) <= 30.0))
    ((4, 5), True)
    """

    def __init__(self, num_classes: int | Sequence[int], scale: float, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        if not scale > 0:
            raise ValueError(f"scale must be > 0, received {scale!r}")
        self.scale = float(scale)

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], self._layout.width), initializer="glorot_uniform")

    def call(self, features: tf.Tensor) -> tf.Tensor:
        features, kernel = _unit_length(features, axis=-1), _unit_length(self.kernel, axis=0)
        if len(features.shape) == 2:
            return self.scale * tf.matmul(features, kernel)
        by_column = tf.gather(features, self._layout.column_label, axis=1)
        return self.scale * tf.einsum("bcd,dc->bc", by_column, kernel)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}


def _unit_length(vectors: tf.Tensor, axis: int) -> tf.Tensor:
    # l2_normalize divides by sqrt(max(square, epsilon)): exact for all vectors but almost 0, with a finite gradient at 0.
    return tf.math.l2_normalize(vectors, axis=axis, epsilon=1e-12)
