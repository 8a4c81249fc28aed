"""Focal loss: cross-entropy with less weight on samples that are already easy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from crl_tf.layout import PADDING_LOGIT
from crl_tf.losses.base import Loss, Terms, mean_over_annotated, nan_if_unknown
from crl_tf.serialization import registered


@registered
class FocalLoss(Loss):
    """Sum over the labels of the mean of -alpha (1 - p_a)^gamma log p_a, a the true class (Lin et al. 2017, eq. 5).

    Lin, Goyal, Girshick, He & Dollar, *Focal Loss for Dense Object Detection*. Computed by
    `keras.losses.categorical_focal_crossentropy`: p is a softmax where the paper has a sigmoid, alpha weighs all classes alike,
    and p is clipped to [1e-7, 1 - 1e-7] (`keras.config.epsilon()`), beyond which the gradient is 0.

    Args:
        num_classes: an int for one label, or one int per label.
        gamma: >= 0; 0 is cross-entropy times alpha.
        alpha: > 0.
        from_logits, reduction, name: as in Keras.
    Returns (from `call`):
        float32 [B], whose mean is the loss.
    Raises:
        ValueError: gamma or alpha out of range.

    >>> loss = FocalLoss([2, 3])
    >>> round(float(loss([[0, -1]], tf.zeros([1, 5]))), 4)  # 0.25 * (1 - 0.5)^2 * ln 2
    0.0433
    """

    default_name = "focal"
    config_keys = ("gamma", "alpha")

    def __init__(self, num_classes: int | Sequence[int], gamma: float = 2.0, alpha: float = 0.25, **parameters: Any) -> None:
        super().__init__(num_classes, **parameters)
        if not 0 <= gamma < float("inf"):
            raise ValueError(f"gamma must be a number >= 0, received {gamma!r}")
        if not 0 < alpha < float("inf"):
            raise ValueError(f"alpha must be a number > 0, received {alpha!r}")
        self.gamma, self.alpha = float(gamma), float(alpha)

    def terms(self, labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor | None = None) -> Terms:
        # [L, B, largest]: a class that only fills up has probability 0 and is nobody's true class.
        padded = tf.transpose(self._layout.pad(logits, PADDING_LOGIT), [1, 0, 2])
        true_class = tf.one_hot(labels, self._layout.largest)
        focal = keras.losses.categorical_focal_crossentropy(
            true_class, padded, alpha=self.alpha, gamma=self.gamma, from_logits=True
        )
        return Terms(mean_over_annotated(nan_if_unknown(focal, labels, self._layout), labels))
