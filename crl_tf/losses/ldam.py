"""LDAM-DRW: margins that are wider for rarer classes, and class weights in the last epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.callbacks import TrainingProgress
from crl_tf.checks import real
from crl_tf.layout import class_members, log_probabilities
from crl_tf.losses.base import ClassCountsLoss, Terms, by_column, progress_variable
from crl_tf.losses.cross_entropy import cross_entropy_by_sample
from crl_tf.losses.reweighted import check_beta, class_balanced_weights, weights_of_samples
from crl_tf.serialization import registered


def ldam_margins(counts: Sequence[int] | np.ndarray, max_margin: float) -> np.ndarray:
    """Delta_k = C / n_k^(1/4), C such that the largest of a label is `max_margin` (Cao et al. 2019, eq. 13); float64 [C].

    A class without a training image gets `max_margin` and has no part in C; otherwise it would narrow all other margins.

    >>> ldam_margins([10000, 16, 0], max_margin=0.5).tolist()  # 1/10 and 1/2 of C, C = 1
    [0.1, 0.5, 0.5]
    """
    counts = np.asarray(counts, np.float64)
    fewest = counts[counts > 0].min() if counts.any() else 1.0
    return max_margin * np.power(fewest / np.maximum(counts, fewest), 0.25)


@registered
class LDAMLoss(ClassCountsLoss):
    """Sum over the labels of the mean cross-entropy, the true class's logit lowered by scale * Delta_a (Cao et al. 2019, eq. 12).

    Cao, Wei, Gaidon, Arechiga & Ma, *Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss*. Logits are
    expected to be scale * cosine, of normalised features and weights; margins are as in `ldam_margins`. When
    `progress` reaches `defer_until`, class-balanced weights multiply the terms (deferred re-weighting, Algorithm 1). The callback
    `TrainingProgress` moves `progress`, which starts at 0. The mean is over the annotated samples, not divided by their weights.

    Args:
        num_classes: an int for one label, or one int per label.
        class_counts: training samples per class, one sequence per label.
        max_margin: > 0, of the rarest class of each label, as a cosine.
        scale: > 0, by which the cosines were multiplied.
        beta: of `class_balanced_weights`; None for no re-weighting.
        defer_until: share of the training without re-weighting, in [0, 1]; 1 for no re-weighting.
        from_logits, reduction, name: as in Keras.
    Returns (from `call`):
        float32 [B], whose mean is the loss.

    >>> loss = LDAMLoss(2, [10000, 16], scale=2.0)  # margins 0.1, 0.5
    >>> round(float(loss([1], tf.zeros([1, 2]))), 4)  # ln(1 + e^(2 * 0.5))
    1.3133
    """

    default_name = "ldam"
    config_keys = ("max_margin", "scale", "beta", "defer_until")

    def __init__(
        self,
        num_classes: int | Sequence[int],
        class_counts: Sequence[Sequence[int]],
        max_margin: float = 0.5,
        scale: float = 30.0,
        beta: float | None = 0.9999,
        defer_until: float = 0.8,
        **parameters: Any,
    ) -> None:
        super().__init__(num_classes, class_counts, **parameters)
        for name, value in (("max_margin", max_margin), ("scale", scale)):
            if not 0 < real(value) < float("inf"):
                raise ValueError(f"{name} must be a number > 0, received {value!r}")
        if not 0 <= real(defer_until) <= 1:
            raise ValueError(f"defer_until must be a number in [0, 1], received {defer_until!r}")
        self.max_margin, self.scale, self.defer_until = float(max_margin), float(scale), float(defer_until)
        self.beta = None if beta is None else float(beta)
        self.progress = progress_variable()
        self._shift = by_column([scale * ldam_margins(counts, max_margin) for counts in self.class_counts])
        self._weights = None
        if beta is not None:
            check_beta(beta)
            if defer_until < 1:
                self._weights = by_column([class_balanced_weights(counts, beta) for counts in self.class_counts])

    def terms(self, labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor | None = None) -> Terms:
        shift = tf.where(class_members(labels, self._layout), tf.constant(self._shift)[:, None], 0.0)
        log_probability = log_probabilities(logits - tf.transpose(shift), self._layout)
        terms = cross_entropy_by_sample(labels, log_probability, self._layout)
        if self._weights is None:
            return Terms(terms)
        late = tf.convert_to_tensor(self.progress) >= self.defer_until
        return Terms(tf.where(late, weights_of_samples(labels, self._weights, self._layout), 1.0) * terms)

    def callbacks(self, epochs: int, label_names: Sequence[str] | None = None) -> list[keras.callbacks.Callback]:
        return [TrainingProgress(self, epochs)]
