"""Cross-entropy of many labels at once (eq. 2), not-annotated samples left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.layout import (
    Layout,
    class_logits,
    class_members,
    compiled_by_xla,
    integer_labels,
    log_probabilities,
    plain_sizes,
    rows_of_labels,
)


def cross_entropy_by_sample(labels: tf.Tensor, log_probability: tf.Tensor, layout: Layout) -> tf.Tensor:
    """-log p[i, j, a] over the annotated samples of each label: [L, B] whose sum over B is L_ce per label (eq. 2).

    Args:
        labels: int32 [L, B], -1 = not annotated.
        log_probability: float32 [sum(num_classes), B], from `layout.log_probabilities`.
    """
    annotated = labels >= 0
    of_class = tf.where(class_members(labels, layout), log_probability, 0.0)
    of_class = tf.math.unsorted_segment_sum(of_class, layout.column_label, len(layout))
    if compiled_by_xla():
        # XLA has dropped the check of the labels: a wrong one must still not pass for a number.
        of_class = tf.where(labels < np.asarray(layout.sizes, np.int32)[:, None], of_class, float("nan"))
    count = tf.reduce_sum(tf.cast(annotated, tf.float32), axis=1, keepdims=True)
    return tf.where(annotated, -of_class, 0.0) / tf.maximum(count, 1.0)


def per_sample_weight(sample_weight: tf.Tensor) -> tf.Tensor:
    """float32 [B] from [B] or [B, 1]; a weight per label has no meaning for terms that pair samples, and is refused."""
    weight = tf.cast(tf.convert_to_tensor(sample_weight), tf.float32)
    if weight.shape.rank == 2 and weight.shape[1] == 1:
        weight = weight[:, 0]
    if weight.shape.rank not in (1, None):
        raise ValueError(
            f"sample_weight must hold one weight per sample, [B] or [B, 1], received shape {weight.shape}; to leave a label of"
            " a sample out, give it the class -1"
        )
    return weight


@keras.saving.register_keras_serializable(package="crl_tf")
class MultiLabelCrossEntropy(keras.losses.Loss):
    """Sum over the labels of their mean cross-entropy (eq. 2): the baseline, on the same targets and outputs as `CRL`.

    Args:
        num_classes: an int for one label, or one int per label.
        from_logits: False when the model ends in probabilities.
    Returns (from `call`):
        float32 [B], whose mean is the loss.

    >>> loss = MultiLabelCrossEntropy([2, 3])
    >>> round(float(loss([[0, 2]], tf.zeros([1, 5]))), 4)  # ln 2 + ln 3
    1.7918
    """

    def __init__(
        self,
        num_classes: int | Sequence[int],
        *,
        from_logits: bool = True,
        reduction: str = "sum_over_batch_size",
        name: str = "cross_entropy",
    ) -> None:
        # float32 whatever the policy: in bfloat16 the label 257 would become 256.
        super().__init__(reduction=reduction, name=name, dtype="float32")
        self.num_classes = plain_sizes(num_classes)
        self.from_logits = from_logits
        self._layout = Layout.of(num_classes)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        labels = rows_of_labels(integer_labels(y_true, self._layout))
        log_probability = log_probabilities(class_logits(y_pred, self._layout, self.from_logits), self._layout)
        by_sample = tf.reduce_sum(cross_entropy_by_sample(labels, log_probability, self._layout), axis=0)
        return by_sample * tf.cast(tf.shape(labels)[1], tf.float32)

    def __call__(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
        return super().__call__(y_true, y_pred, None if sample_weight is None else per_sample_weight(sample_weight))

    def get_config(self) -> dict[str, Any]:
        return {
            "num_classes": self.num_classes,
            "from_logits": self.from_logits,
            "reduction": self.reduction,
            "name": self.name,
        }
