"""The balanced objective of eq. 8 as a Keras loss: rectification and cross-entropy, weighted by each label's imbalance."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from crl_tf.imbalance import imbalance_measure
from crl_tf.layout import (
    Layout,
    checked_feature_shape,
    class_logits,
    integer_labels,
    log_probabilities,
    plain_sizes,
    rows_of_labels,
    split_features,
)
from crl_tf.losses.base import ByLabelLoss, FeatureLoss, counts_by_label, per_sample_weight
from crl_tf.losses.crl.rectification import Rectification, Rectifier
from crl_tf.losses.cross_entropy import cross_entropy_by_sample


class Objective(NamedTuple):
    """per_sample: float32 [B], whose mean is eq. 8. cross_entropy, rectification: scalars, L_ce (or the loss of `base` in its
    place) and L_crl summed over labels.

    minority_classes, triplets, active: scalars, counts of this batch over all labels.
    """

    per_sample: tf.Tensor
    cross_entropy: tf.Tensor
    rectification: tf.Tensor
    minority_classes: tf.Tensor
    triplets: tf.Tensor
    active: tf.Tensor


@keras.saving.register_keras_serializable(package="crl_tf")
class CRL(keras.losses.Loss):
    """Sum over labels j of alpha_j L_crl,j + (1 - alpha_j) L_ce,j (eq. 8 of Dong, Gong & Zhu).

    Targets: integers [B, L] (or [B], [B, 1] for one label), -1 = not annotated; or one-hot [B, sum(num_classes)].
    Outputs: concatenated logits [B, sum(num_classes)], label after label; where all labels are binary also one sigmoid logit
    per label [B, L]. Labels and loss are computed in float32 whatever the policy.

    Each replica of a `tf.distribute` strategy profiles and mines its own share of the batch. `sample_weight` weighs a sample's
    cross-entropy and the terms it is the anchor of.

    Args:
        num_classes: an int for one label, or one int per label.
        level: "class" or "instance". The instance level needs features: train with `CRLModel`, or join features and logits
            into the one output that a Keras loss sees (`JoinFeatures`) and give `feature_shape`.
        comparison: "relative", "absolute" or "distribution".
        class_counts: training samples per class, one sequence per label: alpha_j = eta * Omega_j, clipped to [0, 1].
        alpha: overrides it: one number in [0, 1], or one per label. A balanced training set has Omega = 0: give 0.5.
        eta: weight of the rectification per unit of imbalance; the paper's 0.01 for attributes, 0.5 for deep networks on
            imbalanced CIFAR-100.
        kappa, rho, margin, scope, num_bins: as in `class_rectification_loss`.
        base: the loss of logits that takes the place of L_ce (`FocalLoss`, `LDAMLoss`, ...), made for the same num_classes; by
            default the cross-entropy. Its `progress`, where it has one, is the CRL's too; its from_logits and reduction are not
            looked at.
        from_logits: False when the model ends in probabilities.
        feature_shape: D or (L, D), when the first columns of the output are features and the rest are logits.
    Returns (from `call`):
        float32 [B]: sample i carries B times its share of every term, so that the mean is eq. 8.

    >>> loss = CRL(3, alpha=0.5)
    >>> round(float(loss([0, 0, 0, 1, 1, 2], tf.zeros([6, 3]))), 4)  # 0.5 * margin 0.5 + 0.5 * ln 3
    0.7993
    """

    def __init__(
        self,
        num_classes: int | Sequence[int],
        *,
        level: str = "class",
        comparison: str = "relative",
        class_counts: Sequence[Sequence[int]] | None = None,
        alpha: float | Sequence[float] | None = None,
        eta: float = 0.01,
        kappa: int | None = 25,
        rho: float = 0.5,
        margin: float | Sequence[float] | None = None,
        scope: str = "minority",
        num_bins: int = 100,
        base: ByLabelLoss | None = None,
        from_logits: bool = True,
        feature_shape: int | Sequence[int] | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "crl",
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype="float32")
        self._layout = Layout.of(num_classes)
        self._rectifier = Rectifier(self._layout, level, comparison, kappa, rho, margin, scope, num_bins)
        self._alpha = balance_weights(self._layout, class_counts=class_counts, alpha=alpha, eta=eta)
        self._feature_shape = checked_feature_shape(feature_shape, self._layout)
        self._base = checked_base(base, self._layout)
        if hasattr(base, "progress"):
            self.progress = base.progress
        self.from_logits = bool(from_logits)
        # What `AlphaWarmup` turns; a variable, so that a traced training step sees it move.
        self.alpha_scale = tf.Variable(1.0, trainable=False, name="alpha_scale", dtype=tf.float32)
        self._config = {
            "num_classes": plain_sizes(num_classes),
            "level": level,
            "comparison": comparison,
            "class_counts": None
            if class_counts is None
            else [counts.tolist() for counts in counts_by_label(class_counts, self._layout)],
            "alpha": _plain(alpha),
            "eta": float(eta),
            "kappa": _plain(kappa),
            "rho": float(rho),
            "margin": _plain(margin),
            "scope": scope,
            "num_bins": int(num_bins),
            "from_logits": self.from_logits,
            "feature_shape": _plain(feature_shape),
        }

    @property
    def alpha(self) -> np.ndarray:
        """alpha_j of every label, float32 [L], before any warm-up."""
        return self._alpha.copy()

    @property
    def level(self) -> str:
        return self._rectifier.level

    @property
    def base(self) -> ByLabelLoss | None:
        """What takes the place of the cross-entropy; None for the cross-entropy itself."""
        return self._base

    def __call__(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
        return super().__call__(y_true, y_pred, None if sample_weight is None else per_sample_weight(sample_weight))

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        features, logits = split_features(tf.convert_to_tensor(y_pred), self._layout, self._feature_shape)
        return self.objective(y_true, logits, features).per_sample

    def objective(self, y_true: tf.Tensor, logits: tf.Tensor, features: tf.Tensor | None = None) -> Objective:
        """Eq. 8 with its parts, for a training step that has logits and features at hand.

        Args:
            y_true, logits: as for the loss.
            features: float [B, L, D] or [B, D]; needed at the instance level only.
        """
        labels = rows_of_labels(integer_labels(y_true, self._layout))
        logits = class_logits(logits, self._layout, self.from_logits)
        log_probability = log_probabilities(logits, self._layout)
        if self._base is None:
            cross_entropy = cross_entropy_by_sample(labels, log_probability, self._layout)
        else:
            cross_entropy = self._base.by_sample(labels, logits)
        rectification = self._rectify(labels, log_probability, features)
        alpha = self._alpha[:, None] * tf.convert_to_tensor(self.alpha_scale)
        by_label = alpha * rectification.by_sample + (1.0 - alpha) * cross_entropy
        return Objective(
            tf.reduce_sum(by_label, axis=0) * tf.cast(tf.shape(labels)[1], tf.float32),
            tf.reduce_sum(cross_entropy),
            tf.reduce_sum(rectification.by_sample),
            tf.reduce_sum(rectification.minority_classes),
            tf.reduce_sum(rectification.triplets),
            tf.reduce_sum(rectification.active),
        )

    def _rectify(self, labels: tf.Tensor, log_probability: tf.Tensor, features: tf.Tensor | None) -> Rectification:
        if self.level == "class":
            return self._rectifier(labels, log_probability)
        if features is None:
            raise ValueError(
                "CRL(level='instance') needs features beside the logits: train with crl_tf.CRLModel, or end the model in"
                " crl_tf.JoinFeatures()([features, logits]) and pass feature_shape=D or (L, D); received logits only"
            )
        return self._rectifier(labels, features)

    def get_config(self) -> dict[str, Any]:
        base = None if self._base is None else keras.saving.serialize_keras_object(self._base)
        return {**self._config, "base": base, "reduction": self.reduction, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CRL:
        base = config.get("base")  # files of 0.1.0 have none
        return cls(**{**config, "base": keras.saving.deserialize_keras_object(base) if isinstance(base, dict) else base})


def checked_base(base: ByLabelLoss | None, layout: Layout) -> ByLabelLoss | None:
    """`base` as it is: None, or a loss of logits for the same labels."""
    if base is None:
        return None
    if not isinstance(base, ByLabelLoss) or isinstance(base, FeatureLoss):
        raise ValueError(f"base must be a loss of logits, such as crl_tf.FocalLoss(num_classes), received {base!r}")
    if Layout.of(base.num_classes) != layout:
        raise ValueError(
            f"base must be made for the same num_classes={list(layout.sizes)}, received one for num_classes={base.num_classes!r}"
        )
    return base


def balance_weights(
    layout: Layout,
    *,
    class_counts: Sequence[Sequence[int]] | None,
    alpha: float | Sequence[float] | None,
    eta: float,
) -> np.ndarray:
    """alpha_j of eq. 8, float32 [L]: as given, or eta * Omega_j clipped to [0, 1]."""
    if alpha is not None:
        weights = np.asarray(alpha, np.float64)
        if weights.shape not in ((), (len(layout),)) or not ((weights >= 0) & (weights <= 1)).all():
            raise ValueError(f"alpha must be a number in [0, 1], or one per label ({len(layout)}), received {alpha!r}")
        return np.broadcast_to(weights.astype(np.float32), [len(layout)])
    if class_counts is None:
        raise ValueError(
            "CRL needs class_counts (training samples per class, one sequence per label), from which alpha = eta * Omega"
            " follows, or alpha itself (one number in [0, 1], or one per label); received neither"
        )
    if not np.isfinite(eta) or eta < 0:
        raise ValueError(f"eta must be a number >= 0, received {eta!r}")
    omega = np.array([imbalance_measure(counts) for counts in counts_by_label(class_counts, layout)])
    if not omega.any():
        warnings.warn("class_counts are balanced: Omega = 0 switches rectification off; give alpha=0.5 instead", stacklevel=4)
    return np.clip(eta * omega, 0.0, 1.0).astype(np.float32)


def crl_losses(
    num_classes: Mapping[str, int],
    *,
    class_counts: Mapping[str, Sequence[int]] | None = None,
    alpha: float | Mapping[str, float] | None = None,
    **parameters: Any,
) -> dict[str, CRL]:
    """A `CRL` for every output of a model with one output per label, for `model.compile(loss=crl_losses(...))`.

    Keras adds the losses of the outputs up, which is the sum over labels of eq. 8.

    Args:
        num_classes: classes by output name.
        class_counts: training samples per class by output name.
        alpha: one number for all, or one by output name.
        parameters: anything else that `CRL` takes, the same for all outputs.

    >>> sorted(crl_losses({"season": 4, "colour": 7}, alpha=0.5))
    ['colour', 'season']
    """
    for name, given in (("class_counts", class_counts), ("alpha", alpha)):
        if isinstance(given, Mapping) and set(given) != set(num_classes):
            raise ValueError(f"{name} must name the outputs {sorted(num_classes)}, received {sorted(given)}")
    return {
        output: CRL(
            size,
            class_counts=None if class_counts is None else [class_counts[output]],
            alpha=alpha[output] if isinstance(alpha, Mapping) else alpha,
            **{"name": f"{output}_crl", **parameters},
        )
        for output, size in num_classes.items()
    }


def _plain(value: Any) -> Any:
    """NumPy numbers and arrays as what JSON can hold."""
    if value is None:
        return None
    return np.asarray(value).tolist()
