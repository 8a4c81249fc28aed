"""Asymmetric loss: easy negatives lose their weight, positives keep it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from crl_tf.checks import real
from crl_tf.layout import PADDING_LOGIT, Layout, class_members, log_probabilities
from crl_tf.losses.base import Loss, Terms, mean_over_annotated, nan_if_unknown
from crl_tf.serialization import registered


def log_complements(log_probability: tf.Tensor, layout: Layout) -> tf.Tensor:
    """log(1 - p) from log p, both float32 [sum(num_classes), B], exact and finite where p rounds to 1.

    For a likely class, 1 - p is the sum of the other probabilities of its label; for any other class log1p is exact enough.
    """
    # At most one class of a label is above 0.6, whatever the rounding.
    likely = log_probability > math.log(0.6)
    label, labels = tf.constant(layout.column_label), len(layout)
    others = tf.where(likely, PADDING_LOGIT, log_probability)
    top = tf.stop_gradient(tf.math.unsorted_segment_max(others, label, labels))
    total = tf.math.unsorted_segment_sum(tf.exp(others - tf.gather(top, label)), label, labels)
    of_likely = tf.gather(top + tf.math.log(total), label)
    return tf.where(likely, of_likely, tf.math.log1p(-tf.exp(tf.where(likely, -1.0, log_probability))))


@registered
class AsymmetricLoss(Loss):
    """Sum over the labels of the mean of -L+ for positives and -L- for negatives, with asymmetric focusing and shifting.

    L+ = (1 - p)^gamma_positive log p, L- = p_m^gamma_negative log(1 - p_m), p_m = max(p - clip, 0): Ridnik, Ben-Baruch, Zamir,
    Noy, Friedman, Protter & Zelnik-Manor, *Asymmetric Loss for Multi-Label Classification* (2021), whose labels are all binary.

    A label of two classes is one binary problem, p the probability of its second class ("present"). A label of more classes is
    one problem per class, p its softmax probability: the true class is the positive, the others are negatives, added up. The
    gradient goes through the focusing factors too; the authors' code can stop it there.

    Args:
        num_classes: an int for one label, or one int per label.
        gamma_positive, gamma_negative: >= 0; focusing of positives and of negatives.
        clip: in [0, 1); negatives with a probability up to it are 0.
        from_logits, reduction, name: as in Keras.
    Returns (from `call`):
        float32 [B], whose mean is the loss.
    Raises:
        ValueError: an argument out of range.

    >>> loss = AsymmetricLoss(2, gamma_positive=1.0)
    >>> [round(float(loss([label], tf.zeros([1, 2]))), 4) for label in (1, 0)]  # 0.5 ln 2 and -0.45^4 ln 0.55
    [0.3466, 0.0245]
    """

    default_name = "asymmetric"
    config_keys = ("gamma_positive", "gamma_negative", "clip")

    def __init__(
        self,
        num_classes: int | Sequence[int],
        gamma_positive: float = 0.0,
        gamma_negative: float = 4.0,
        clip: float = 0.05,
        **parameters: Any,
    ) -> None:
        super().__init__(num_classes, **parameters)
        for name, value in (("gamma_positive", gamma_positive), ("gamma_negative", gamma_negative)):
            if not 0 <= real(value) < float("inf"):
                raise ValueError(f"{name} must be a number >= 0, received {value!r}")
        if not 0 <= real(clip) < 1:
            raise ValueError(f"clip must be a number in [0, 1), received {clip!r}")
        self.gamma_positive, self.gamma_negative, self.clip = float(gamma_positive), float(gamma_negative), float(clip)
        # A binary label has one problem: the column of "present".
        layout = self._layout
        self._is_problem = (np.asarray(layout.sizes)[layout.column_label] > 2) | (layout.column_class == 1)

    def terms(self, labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor | None = None) -> Terms:
        layout = self._layout
        log_p = log_probabilities(logits, layout)
        log_q = log_complements(log_p, layout)
        positive = tf.exp(self.gamma_positive * log_q) * log_p
        terms = tf.where(class_members(labels, layout), positive, self._negative(log_p, log_q))
        terms = tf.where(self._is_problem[:, None], terms, 0.0)
        terms = tf.math.unsorted_segment_sum(terms, layout.column_label, len(layout))
        return Terms(mean_over_annotated(nan_if_unknown(-terms, labels, layout), labels))

    def _negative(self, log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
        """L- from log p and log(1 - p): p_m^gamma_negative log(1 - p_m), where 1 - p_m = 1 - p + clip."""
        p = tf.exp(log_p)
        above_clip = p > self.clip
        if self.clip > 0:
            log_clip = math.log(self.clip)
            log_q = log_clip + tf.math.softplus(log_q - log_clip)  # log(q + clip)
        # A power below 1 has no finite slope at 0: the base is 1 where the term is 0.
        focus = tf.pow(tf.where(above_clip, p - self.clip, 1.0), self.gamma_negative)
        return tf.where(above_clip, focus * log_q, 0.0)
