"""Cross-entropy of logits that are shifted by the class frequencies in training: logit adjustment and balanced softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from crl_tf.checks import real
from crl_tf.imbalance import class_priors
from crl_tf.layout import log_probabilities
from crl_tf.losses.base import ClassCountsLoss, Terms, by_column
from crl_tf.losses.cross_entropy import cross_entropy_by_sample
from crl_tf.serialization import registered


@registered
class LogitAdjustedLoss(ClassCountsLoss):
    """Sum over the labels of the mean cross-entropy of z + tau log pi, pi the shares of the classes (Menon et al. 2021, eq. 10).

    Menon, Jayasumana, Rawat, Jain, Veit & Kumar, *Long-tail learning via logit adjustment*. Predictions use z unshifted.
    A class without a training image counts as one with one image.

    Args:
        num_classes: an int for one label, or one int per label.
        class_counts: training samples per class, one sequence per label.
        tau: >= 0; 0 is cross-entropy.
        from_logits, reduction, name: as in Keras.
    Returns (from `call`):
        float32 [B], whose mean is the loss.

    >>> loss = LogitAdjustedLoss(2, [75, 25])
    >>> round(float(loss([1], tf.zeros([1, 2]))), 4)  # -ln 0.25
    1.3863
    """

    default_name = "logit_adjusted"
    config_keys = ("tau",)

    def __init__(
        self, num_classes: int | Sequence[int], class_counts: Sequence[Sequence[int]], tau: float = 1.0, **parameters: Any
    ) -> None:
        super().__init__(num_classes, class_counts, **parameters)
        if not 0 <= real(tau) < float("inf"):
            raise ValueError(f"tau must be a number >= 0, received {tau!r}")
        self.tau = float(tau)
        self._shift = by_column([tau * np.log(class_priors(counts)) for counts in self.class_counts])

    def terms(self, labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor | None = None) -> Terms:
        log_probability = log_probabilities(logits + self._shift, self._layout)
        return Terms(cross_entropy_by_sample(labels, log_probability, self._layout))


@registered
class BalancedSoftmaxLoss(LogitAdjustedLoss):
    """Sum over the labels of the mean of -log(n_a e^{z_a} / sum_k n_k e^{z_k}), n the training images (Ren et al. 2020, eq. 4).

    Ren, Yu, Sheng, Ma, Zhao, Yi & Li, *Balanced Meta-Softmax for Long-Tailed Visual Recognition*, its balanced softmax; equal to
    `LogitAdjustedLoss` with tau=1. A class without a training image counts as one with one image.

    Args:
        num_classes: an int for one label, or one int per label.
        class_counts: training samples per class, one sequence per label.
        from_logits, reduction, name: as in Keras.
    Returns (from `call`):
        float32 [B], whose mean is the loss.

    >>> loss = BalancedSoftmaxLoss(2, [75, 25])
    >>> round(float(loss([1], tf.zeros([1, 2]))), 4)  # -ln(25 / 100)
    1.3863
    """

    default_name = "balanced_softmax"
    config_keys = ()

    def __init__(self, num_classes: int | Sequence[int], class_counts: Sequence[Sequence[int]], **parameters: Any) -> None:
        super().__init__(num_classes, class_counts, 1.0, **parameters)
        self._shift = by_column([np.log(np.maximum(counts, 1)) for counts in self.class_counts])
