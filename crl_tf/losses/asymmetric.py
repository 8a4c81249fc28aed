"""Asymmetric loss: binary problems whose easy negatives fall silent and whose positives are never forgotten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.layout import PADDING_LOGIT, Layout, class_members, log_probabilities
from crl_tf.losses.base import ByLabelLoss, mean_over_annotated, nan_if_unknown


def log_complements(log_probability: tf.Tensor, layout: Layout) -> tf.Tensor:
    """log(1 - p) from log p, both float32 [sum(num_classes), B], exact and finite where p rounds to 1.

    1 - p of a likely class is the sum of the others of its label, whose logarithms are at hand; of any other, log1p serves.
    """
    # At most one class of a label is above 0.6, whatever the rounding.
    likely = log_probability > math.log(0.6)
    label, labels = tf.constant(layout.column_label), len(layout)
    others = tf.where(likely, PADDING_LOGIT, log_probability)
    top = tf.stop_gradient(tf.math.unsorted_segment_max(others, label, labels))
    total = tf.math.unsorted_segment_sum(tf.exp(others - tf.gather(top, label)), label, labels)
    of_likely = tf.gather(top + tf.math.log(total), label)
    return tf.where(likely, of_likely, tf.math.log1p(-tf.exp(tf.where(likely, -1.0, log_probability))))


@keras.saving.register_keras_serializable(package="crl_tf")
class AsymmetricLoss(ByLabelLoss):
    """Sum over the labels of the mean of -L+ for positives and -L- for negatives, with asymmetric focusing and shifting.

    L+ = (1 - p)^gamma_positive log p, L- = p_m^gamma_negative log(1 - p_m), p_m = max(p - clip, 0): Ridnik, Ben-Baruch, Zamir,
    Noy, Friedman, Protter & Zelnik-Manor, *Asymmetric Loss for Multi-Label Classification* (2021), whose labels are all binary.

    Decision, ours: a label of two classes is one such problem, p the probability of its second class (present); a label of more
    classes is one problem per class, p its softmax probability, the true class positive, the others negative, added up.
    Decision, ours: the gradient goes through the focusing factors too, as the gradient of the formula does; the authors' code
    can stop it there.

    Args:
        num_classes: an int for one label, or one int per label.
        gamma_positive, gamma_negative: >= 0; focusing of positives and of negatives.
        clip: in [0, 1); negatives of a probability up to it count nothing.
        from_logits: False when the model ends in probabilities.
    Returns (from `call`):
        float32 [B], whose mean is the loss.

    >>> loss = AsymmetricLoss(2, gamma_positive=1.0)
    >>> [round(float(loss([label], tf.zeros([1, 2]))), 4) for label in (1, 0)]  # 0.5 ln 2 and -0.45^4 ln 0.55
    [0.3466, 0.0245]
    """

    def __init__(
        self,
        num_classes: int | Sequence[int],
        gamma_positive: float = 0.0,
        gamma_negative: float = 4.0,
        clip: float = 0.05,
        **parameters: Any,
    ) -> None:
        super().__init__(num_classes, **{"name": "asymmetric", **parameters})
        for name, value in (("gamma_positive", gamma_positive), ("gamma_negative", gamma_negative)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a number >= 0, received {value!r}")
        if not 0 <= clip < 1:
            raise ValueError(f"clip must be a number in [0, 1), received {clip!r}")
        self.gamma_positive, self.gamma_negative, self.clip = float(gamma_positive), float(gamma_negative), float(clip)
        # Of a binary label, the column of "present" is the one problem there is.
        layout = self._layout
        self._is_problem = (np.asarray(layout.sizes)[layout.column_label] > 2) | (layout.column_class == 1)

    def by_sample(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        layout = self._layout
        log_p = log_probabilities(logits, layout)
        log_q = log_complements(log_p, layout)
        positive = tf.exp(self.gamma_positive * log_q) * log_p
        terms = tf.where(class_members(labels, layout), positive, self._negative(log_p, log_q))
        terms = tf.where(self._is_problem[:, None], terms, 0.0)
        terms = tf.math.unsorted_segment_sum(terms, layout.column_label, len(layout))
        return mean_over_annotated(nan_if_unknown(-terms, labels, layout), labels)

    def _negative(self, log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
        """L- from log p and log(1 - p): p_m^gamma_negative log(1 - p_m), where 1 - p_m = 1 - p + clip."""
        p = tf.exp(log_p)
        counts = p > self.clip
        if self.clip > 0:
            log_clip = math.log(self.clip)
            log_q = log_clip + tf.math.softplus(log_q - log_clip)  # log(q + clip)
        # A power below 1 has no finite slope at 0: the base is 1 where nothing counts.
        focus = tf.pow(tf.where(counts, p - self.clip, 1.0), self.gamma_negative)
        return tf.where(counts, focus * log_q, 0.0)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("gamma_positive", "gamma_negative", "clip")}
        return {**super().get_config(), **own}
