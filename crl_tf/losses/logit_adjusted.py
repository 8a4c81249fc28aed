"""Cross-entropy whose logits are moved by the class frequencies while training: logit adjustment and balanced softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.imbalance import class_priors
from crl_tf.layout import log_probabilities
from crl_tf.losses.base import ClassCountsLoss, columns_of
from crl_tf.losses.cross_entropy import cross_entropy_by_sample


@keras.saving.register_keras_serializable(package="crl_tf")
class LogitAdjustedLoss(ClassCountsLoss):
    """Sum over the labels of the mean cross-entropy of z + tau log pi, pi the shares of the classes (Menon et al. 2021, eq. 10).

    Menon, Jayasumana, Rawat, Jain, Veit & Kumar, *Long-tail learning via logit adjustment*. Predictions take z as it is.
    Decision, ours: a class without a training image counts as one with one image.

    Args:
        num_classes: an int for one label, or one int per label.
        class_counts: training samples per class, one sequence per label.
        tau: >= 0; 0 is cross-entropy.
        from_logits: False when the model ends in probabilities.
    Returns (from `call`):
        float32 [B], whose mean is the loss.

    >>> loss = LogitAdjustedLoss(2, [75, 25])
    >>> round(float(loss([1], tf.zeros([1, 2]))), 4)  # -ln 0.25
    1.3863
    """

    def __init__(
        self, num_classes: int | Sequence[int], class_counts: Sequence[Sequence[int]], tau: float = 1.0, **parameters: Any
    ) -> None:
        super().__init__(num_classes, class_counts, **{"name": "logit_adjusted", **parameters})
        if not 0 <= tau < float("inf"):
            raise ValueError(f"tau must be a number >= 0, received {tau!r}")
        self.tau = float(tau)
        self._shift = columns_of([tau * np.log(class_priors(counts)) for counts in self.class_counts])

    def by_sample(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return cross_entropy_by_sample(labels, log_probabilities(logits + self._shift, self._layout), self._layout)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tau": self.tau}


@keras.saving.register_keras_serializable(package="crl_tf")
class BalancedSoftmaxLoss(LogitAdjustedLoss):
    """Sum over the labels of the mean of -log(n_a e^{z_a} / sum_k n_k e^{z_k}), n the training images (Ren et al. 2020, eq. 4).

    Ren, Yu, Sheng, Ma, Zhao, Yi & Li, *Balanced Meta-Softmax for Long-Tailed Visual Recognition*, its balanced softmax; equal to
    `LogitAdjustedLoss` with tau=1. Decision, ours: a class without a training image counts as one with one image.

    Args:
        num_classes: an int for one label, or one int per label.
        class_counts: training samples per class, one sequence per label.
        from_logits: False when the model ends in probabilities.
    Returns (from `call`):
        float32 [B], whose mean is the loss.

    >>> loss = BalancedSoftmaxLoss(2, [75, 25])
    >>> round(float(loss([1], tf.zeros([1, 2]))), 4)  # -ln(25 / 100)
    1.3863
    """

    def __init__(self, num_classes: int | Sequence[int], class_counts: Sequence[Sequence[int]], **parameters: Any) -> None:
        super().__init__(num_classes, class_counts, 1.0, **{"name": "balanced_softmax", **parameters})
        self._shift = columns_of([np.log(np.maximum(counts, 1)) for counts in self.class_counts])

    def get_config(self) -> dict[str, Any]:
        return {name: value for name, value in super().get_config().items() if name != "tau"}
