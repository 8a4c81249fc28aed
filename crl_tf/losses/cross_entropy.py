"""Cross-entropy of many labels at once (eq. 2), not-annotated samples left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.layout import Layout, class_members, compiled_by_xla, log_probabilities
from crl_tf.losses.base import ByLabelLoss, mean_over_annotated


def cross_entropy_by_sample(labels: tf.Tensor, log_probability: tf.Tensor, layout: Layout) -> tf.Tensor:
    """-log p[i, j, a] over the annotated samples of each label: [L, B] whose sum over B is L_ce per label (eq. 2).

    Args:
        labels: int32 [L, B], -1 = not annotated.
        log_probability: float32 [sum(num_classes), B], from `layout.log_probabilities`.
    """
    of_class = tf.where(class_members(labels, layout), log_probability, 0.0)
    of_class = tf.math.unsorted_segment_sum(of_class, layout.column_label, len(layout))
    if compiled_by_xla():
        # XLA has dropped the check of the labels: a wrong one must still not pass for a number.
        of_class = tf.where(labels < np.asarray(layout.sizes, np.int32)[:, None], of_class, float("nan"))
    return mean_over_annotated(-of_class, labels)


@keras.saving.register_keras_serializable(package="crl_tf")
class MultiLabelCrossEntropy(ByLabelLoss):
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

    def __init__(self, num_classes: int | Sequence[int], **parameters: Any) -> None:
        super().__init__(num_classes, **{"name": "cross_entropy", **parameters})

    def by_sample(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return cross_entropy_by_sample(labels, log_probabilities(logits, self._layout), self._layout)
