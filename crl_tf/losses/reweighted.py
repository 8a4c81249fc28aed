"""Cross-entropy with a weight per class: cost-sensitive (exp(-share)) and class-balanced (effective numbers)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from crl_tf.checks import real
from crl_tf.layout import Layout, class_members, log_probabilities
from crl_tf.losses.base import ClassCountsLoss, Terms, by_column
from crl_tf.losses.cross_entropy import cross_entropy_by_sample
from crl_tf.serialization import registered


def class_balanced_weights(counts: Sequence[int] | np.ndarray, beta: float) -> np.ndarray:
    """1 / E_n of every class of a label, scaled so that those of its trained classes sum to their number; float64 [C].

    E_n = (1 - beta^n) / (1 - beta) is the effective number of n images (Cui et al. 2019, eq. 2; the scaling is their Sec. 4).
    A class without a training image counts as one with one image, and has no part in the scale: otherwise a single such class
    would make all other weights tiny.

    Args:
        counts: training samples per class, [C].
        beta: in [0, 1); 0 weighs all alike, towards 1 it is the inverse frequency.

    >>> class_balanced_weights([1, 2], beta=0.5)  # E = 1, 1.5
    array([1.2, 0.8])
    """
    counts = np.asarray(counts, np.float64)
    weights = (1.0 - beta) / (1.0 - np.power(float(beta), np.maximum(counts, 1.0)))
    trained = counts > 0 if counts.any() else np.ones(counts.size, bool)
    return weights * (trained.sum() / weights[trained].sum())


def check_beta(beta: float) -> None:
    if not 0 <= real(beta) < 1:
        raise ValueError(f"beta must be a number in [0, 1), received {beta!r}")


def weights_of_samples(labels: tf.Tensor, weights: np.ndarray, layout: Layout) -> tf.Tensor:
    """The weight of each sample's class: float32 [L, B], 0 where a sample is not annotated.

    Args:
        labels: int32 [L, B], -1 = not annotated.
        weights: float32 [sum(num_classes)], label after label.
    """
    of_class = tf.where(class_members(labels, layout), tf.constant(weights)[:, None], 0.0)
    return tf.math.unsorted_segment_sum(of_class, layout.column_label, len(layout))


class _WeightedCrossEntropy(ClassCountsLoss):
    """Mean over the annotated samples of w_a L_ce, not divided by the weights (as with Keras's class_weight)."""

    _weights: np.ndarray

    def terms(self, labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor | None = None) -> Terms:
        cross_entropy = cross_entropy_by_sample(labels, log_probabilities(logits, self._layout), self._layout)
        return Terms(weights_of_samples(labels, self._weights, self._layout) * cross_entropy)


@registered
class CostSensitiveLoss(_WeightedCrossEntropy):
    """Sum over the labels of the mean of exp(-r_a) L_ce, r_a the true class's share of the training data.

    The cost-sensitive method that Dong, Gong & Zhu compare with (Sec. 4.1). The mean is over the annotated samples,
    not divided by their weights (as with Keras's class_weight).

    Args:
        num_classes: an int for one label, or one int per label.
        class_counts: training samples per class, one sequence per label.
        from_logits, reduction, name: as in Keras.
    Returns (from `call`):
        float32 [B], whose mean is the loss.

    >>> loss = CostSensitiveLoss(2, [75, 25])
    >>> round(float(loss([1], tf.zeros([1, 2]))), 4)  # exp(-0.25) * ln 2
    0.5398
    """

    default_name = "cost_sensitive"

    def __init__(self, num_classes: int | Sequence[int], class_counts: Sequence[Sequence[int]], **parameters: Any) -> None:
        super().__init__(num_classes, class_counts, **parameters)
        self._weights = by_column([np.exp(-counts / max(counts.sum(), 1)) for counts in self.class_counts])


@registered
class ClassBalancedLoss(_WeightedCrossEntropy):
    """Sum over the labels of the mean of L_ce / E_n, n the training images of the true class (Cui et al. 2019, eq. 8).

    Cui, Jia, Lin, Song & Belongie, *Class-Balanced Loss Based on Effective Number of Samples*; weights as in
    `class_balanced_weights`. The mean is over the annotated samples, not divided by their weights.

    Args:
        num_classes: an int for one label, or one int per label.
        class_counts: training samples per class, one sequence per label.
        beta: in [0, 1).
        from_logits, reduction, name: as in Keras.
    Returns (from `call`):
        float32 [B], whose mean is the loss.

    >>> loss = ClassBalancedLoss(2, [1, 2], beta=0.5)  # weights 1.2, 0.8
    >>> round(float(loss([0], tf.zeros([1, 2]))), 4)  # 1.2 * ln 2
    0.8318
    """

    default_name = "class_balanced"
    config_keys = ("beta",)

    def __init__(
        self, num_classes: int | Sequence[int], class_counts: Sequence[Sequence[int]], beta: float = 0.9999, **parameters: Any
    ) -> None:
        super().__init__(num_classes, class_counts, **parameters)
        check_beta(beta)
        self.beta = float(beta)
        self._weights = by_column([class_balanced_weights(counts, beta) for counts in self.class_counts])
