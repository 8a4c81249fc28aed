"""From shared features to features and logits of every label, and back into one tensor for a plain Keras loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def scaled(units: int, width: float) -> int:
    """So many filters or units, times the width of the network; never none.

    >>> scaled(64, 1.0), scaled(20, 0.5), scaled(3, 0.1)
    (64, 10, 1)
    """
    return max(1, round(units * width))


def branches(*units: int) -> Callable[..., dict[str, keras.KerasTensor]]:
    """A head with a branch per label: fully connected layers of so many units, then the label's logits (Sec. 4.1, 4.2).

    Args:
        units: of each layer, first to last; `branches(64)` is what stands on DeepID2.
    Returns:
        from (features [B, F], classes per label, width = 1.0, cosine_scale = 0.0) to {"features": [B, L, units[-1]],
        "logits": [B, sum(num_classes)]}, float32 under every dtype policy; width multiplies the units, and with a cosine_scale
        the logits are `CosineLogits`.
    """

    def head(
        features: keras.KerasTensor, num_classes: Sequence[int], width: float = 1.0, cosine_scale: float = 0.0
    ) -> dict[str, keras.KerasTensor]:
        labels, first = len(num_classes), scaled(units[0], width)
        x = layers.Dense(labels * first, "relu", kernel_initializer="he_normal", dtype="float32", name="label_features")(features)
        x = layers.Reshape((labels, first), dtype="float32", name="by_label")(x)
        for number, more in enumerate(units[1:], 2):
            x = layers.EinsumDense(
                "bld,ldu->blu",
                (labels, scaled(more, width)),
                activation="relu",
                bias_axes="lu",
                # He's rule for one label's matrix; not every version of Keras tells labels from inputs in "he_normal".
                kernel_initializer=keras.initializers.RandomNormal(stddev=(2.0 / x.shape[-1]) ** 0.5),
                dtype="float32",
                name=f"label_features_{number}",
            )(x)
        sizes = list(num_classes)
        last = CosineLogits(sizes, cosine_scale, name="logits") if cosine_scale else LabelLogits(sizes, name="logits")
        return {"features": x, "logits": last(x)}

    return head


def linear(
    features: keras.KerasTensor, num_classes: Sequence[int], width: float = 1.0, cosine_scale: float = 0.0
) -> dict[str, keras.KerasTensor]:
    """A head of one layer: the logits of all labels from the same features [B, D], which are handed on as they are.

    float32 under every dtype policy; `width` changes nothing, and is there because every head takes it. With a cosine_scale the
    logits are `CosineLogits`.
    """
    features = layers.Activation("linear", dtype="float32", name="features")(features)
    last = layers.Dense(sum(num_classes), dtype="float32", name="logits")
    if cosine_scale:
        last = CosineLogits(list(num_classes), cosine_scale, name="logits")
    return {"features": features, "logits": last(features)}
