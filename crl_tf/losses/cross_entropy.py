"""Cross-entropy of all labels at once (eq. 2); samples that are not annotated are left out."""

from __future__ import annotations

import tensorflow as tf

from crl_tf.gradients import pick
from crl_tf.layout import Layout, columns_of, length, log_probabilities
from crl_tf.losses.base import Loss, Terms, mean_over_annotated, nan_if_unknown
from crl_tf.serialization import registered


def cross_entropy_by_sample(labels: tf.Tensor, log_probability: tf.Tensor, layout: Layout) -> tf.Tensor:
    """-log p[i, j, a] over the annotated samples of each label: [L, B] whose sum over B is L_ce per label (eq. 2).

    Args:
        labels: int32 [L, B], -1 = not annotated.
        log_probability: float32 [sum(num_classes), B], from `layout.log_probabilities`.
    """
    batch = length(labels, 1)
    of_class = pick(log_probability, columns_of(labels, layout) * batch + tf.range(batch))
    return mean_over_annotated(-nan_if_unknown(of_class, labels, layout), labels)


@registered
class MultiLabelCrossEntropy(Loss):
    """Sum over the labels of the mean cross-entropy (eq. 2 of Dong, Gong & Zhu): the baseline, with the targets of `CRL`.

    Args:
        num_classes: an int for one label, or one int per label.
        from_logits, reduction, name: as in Keras.
    Returns (from `call`):
        float32 [B], whose mean is the loss.

    >>> loss = MultiLabelCrossEntropy([2, 3])
    >>> round(float(loss([[0, 2]], tf.zeros([1, 5]))), 4)  # ln 2 + ln 3
    1.7918
    """

    default_name = "cross_entropy"

    def terms(self, labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor | None = None) -> Terms:
        return Terms(cross_entropy_by_sample(labels, log_probabilities(logits, self._layout), self._layout))
