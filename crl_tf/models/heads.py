"""Heads: from the features of a backbone to the features and logits of every label."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
from keras import layers

from crl_tf.layers.logits import CosineLogits, LabelLogits


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
