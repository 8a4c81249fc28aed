"""Heads: from the features of a backbone to the features and logits of every label. All are float32 under every dtype policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
from keras import layers

from crl_tf.layers.logits import CosineLogits, LabelLogits

Head = Callable[..., dict[str, keras.KerasTensor]]
"""(features [B, F], num_classes, width = 1.0, cosine_scale = None) to {"features": [B, D] or [B, L, D], "logits": [B,
sum(num_classes)]}, float32. width multiplies the units of its layers; with a cosine_scale the logits are `CosineLogits`."""


def scaled(units: int, width: float) -> int:
    """The number of units or filters, times the width of the network, at least 1.

    >>> scaled(64, 1.0), scaled(20, 0.5), scaled(3, 0.1)
    (64, 10, 1)
    """
    return max(1, round(units * width))


def branches(*units: int) -> Head:
    """A head with a branch per label: fully connected layers, then the logits of the label (Sec. 4.1, 4.2).

    Args:
        units: of each layer of a branch, first to last; DeepID2 has `branches(64)`.
    """

    def head(
        features: keras.KerasTensor, num_classes: Sequence[int], width: float = 1.0, cosine_scale: float | None = None
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
                # He's rule for the matrix of one label; not every version of Keras tells labels from inputs in "he_normal".
                kernel_initializer=keras.initializers.RandomNormal(stddev=(2.0 / x.shape[-1]) ** 0.5),
                dtype="float32",
                name=f"label_features_{number}",
            )(x)
        sizes = list(num_classes)
        logits = LabelLogits(sizes, name="logits") if cosine_scale is None else CosineLogits(sizes, cosine_scale, name="logits")
        return {"features": x, "logits": logits(x)}

    return head


def linear(
    features: keras.KerasTensor, num_classes: Sequence[int], width: float = 1.0, cosine_scale: float | None = None
) -> dict[str, keras.KerasTensor]:
    """A head of one layer: the logits of all labels from features [B, D] that they share. `width` has no effect."""
    features = layers.Activation("linear", dtype="float32", name="features")(features)
    logits = layers.Dense(sum(num_classes), dtype="float32", name="logits")
    if cosine_scale is not None:
        logits = CosineLogits(list(num_classes), cosine_scale, name="logits")
    return {"features": features, "logits": logits(features)}
