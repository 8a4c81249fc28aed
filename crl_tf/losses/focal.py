"""Focal loss: cross-entropy with less weight on samples that are already easy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.checks import real
from crl_tf.layout import PADDING_LOGIT
from crl_tf.losses.base import Loss, Terms, mean_over_annotated, nan_if_unknown
from crl_tf.serialization import registered


@registered
class FocalLoss(Loss):
    """Sum over the labels of the mean of -alpha_t (1 - p_a)^gamma log p_a, a the true class (Lin et al. 2017, eq. 5).

    Lin, Goyal, Girshick, He & Dollar, *Focal Loss for Dense Object Detection*. A label of two classes has their alpha_t: alpha
    for the second class ("present", their y = 1), 1 - alpha for the first; p is then their sigmoid. A label of more classes,
    which they do not have, weighs all its classes by alpha. Computed by `keras.losses.categorical_focal_crossentropy`: p is a
    softmax and is clipped to [1e-7, 1 - 1e-7] (`keras.config.epsilon()`), beyond which the gradient is 0.

    Args:
        num_classes: an int for one label, or one int per label.
        gamma: >= 0; 0 is cross-entropy times alpha_t.
        alpha: > 0, and < 1 where a label has two classes.
        from_logits, reduction, name: as in Keras.
    Returns (from `call`):
        float32 [B], whose mean is the loss.
    Raises:
        ValueError: gamma or alpha out of range.

    >>> loss = FocalLoss([2, 3])
    >>> [round(float(loss([label], tf.zeros([1, 5]))), 4) for label in ([1, -1], [0, -1])]  # 0.25 and 0.75, times 0.5^2 ln 2
    [0.0433, 0.13]
    """

    default_name = "focal"
    config_keys = ("gamma", "alpha")

    def __init__(self, num_classes: int | Sequence[int], gamma: float = 2.0, alpha: float = 0.25, **parameters: Any) -> None:
        super().__init__(num_classes, **parameters)
        if not 0 <= real(gamma) < float("inf"):
            raise ValueError(f"gamma must be a number >= 0, received {gamma!r}")
        if not 0 < real(alpha) < float("inf"):
            raise ValueError(f"alpha must be a number > 0, received {alpha!r}")
        if alpha >= 1 and 2 in self._layout.sizes:
            raise ValueError(f"alpha of the focal loss must be < 1 where a label has two classes, received {alpha!r}")
        self.gamma, self.alpha = float(gamma), float(alpha)

    def terms(self, labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor | None = None) -> Terms:
        # [L, B, largest]: a class that only fills up has probability 0 and is nobody's true class.
        padded = tf.transpose(self._layout.pad(logits, PADDING_LOGIT), [1, 0, 2])
        true_class = tf.one_hot(labels, self._layout.largest)
        focal = keras.losses.categorical_focal_crossentropy(true_class, padded, alpha=1.0, gamma=self.gamma, from_logits=True)
        is_binary = np.asarray(self._layout.sizes)[:, None] == 2
        alpha_t = tf.where(is_binary & (labels == 0), 1.0 - self.alpha, self.alpha)
        return Terms(mean_over_annotated(nan_if_unknown(alpha_t * focal, labels, self._layout), labels))
