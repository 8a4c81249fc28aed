"""`CRL`, the balanced objective of eq. 8 as a Keras loss: rectification and cross-entropy, weighted by each label's imbalance."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.callbacks import AlphaWarmup, CollapseWarning
from crl_tf.checks import real, reals
from crl_tf.gradients import scaled
from crl_tf.imbalance import imbalance_measure
from crl_tf.layout import Layout, checked_feature_shape, log_probabilities
from crl_tf.losses.base import Log, Loss, Terms, counts_by_label
from crl_tf.losses.crl.rectification import Rectification, Rectifier
from crl_tf.losses.cross_entropy import cross_entropy_by_sample
from crl_tf.serialization import registered

BALANCES = ("interpolate", "sum")


@registered
class CRL(Loss):
    """Sum over labels j of alpha_j L_crl,j + (1 - alpha_j) L_ce,j (eq. 8 of Dong, Gong & Zhu).

    *Imbalanced Deep Learning by Minority Class Incremental Rectification*.

    Targets: integers [B, L] (or [B], [B, 1] for one label), -1 = not annotated; or one-hot [B, sum(num_classes)]. The negatives
    of binary labels are 0: of labels that are 1 and -1, the -1 would be left out. Under XLA, which drops checks, a class outside
    [-1, num_classes - 1] makes the loss NaN.
    Outputs: concatenated logits [B, sum(num_classes)], label after label; where all labels are binary also one sigmoid logit
    per label [B, L]. Labels and loss are computed in float32 whatever the policy.

    `sample_weight` weighs a sample's cross-entropy and the terms whose anchor it is.

    Args:
        num_classes: an int for one label, or one int per label.
        level: "class" or "instance". The instance level needs features: train with `CRLModel`, or join features and logits
            into the one output that a Keras loss sees (`JoinFeatures`) and give `feature_shape`.
        comparison: "relative", "absolute" or "distribution".
        class_counts: training samples per class, one sequence per label: alpha_j = eta * Omega_j, clipped to [0, 1].
        alpha: overrides it: one number in [0, 1], or one per label. A balanced training set has Omega = 0: give 0.5.
        eta: weight of the rectification per unit of imbalance; the paper's 0.01 for attributes, 0.5 for deep networks on
            imbalanced CIFAR-100.
        kappa, rho, margin, scope, num_bins, normalization, squared_positives: as in `class_rectification_loss`.
        gate: multiply alpha_j in every step by max(0, 1 - L_crl,j / m_j), without gradient (in the absolute comparison half the
            square of m_j): off where the classes of the batch are not apart and rectification would pull their scores together.
            Refused without a margin.
        balance: "interpolate" for eq. 8; "sum" for alpha_j L_crl,j + L_ce,j, with alpha = 1 the form of the conference paper.
        alpha_warmup_epochs: epochs over which `AlphaWarmup`, one of `callbacks`, leads alpha up from 0; 0 for none.
        base: a loss that needs no features (`FocalLoss`, `LDAMLoss`, ...), made for the same num_classes, in place of L_ce; None
            for the cross-entropy. CRL shares its `progress`, if it has one. Its from_logits and reduction are not used.
        from_logits: False when the model ends in probabilities.
        feature_shape: D or (L, D), where the first columns of the output are features and the rest are logits.
        mining: under a `tf.distribute` strategy, "replica": each replica profiles and mines its own share of the batch; "global":
            all of it, as one device would (with `CRLModel`).
        reduction, name: as in Keras.
    Returns (from `call`):
        float32 [B]: sample i carries B times its share of every term, so that the mean is eq. 8.
    Raises:
        ValueError: an argument out of its range or of the wrong shape, or neither class_counts nor alpha; the message names it.

    >>> loss = CRL(3, alpha=0.5)
    >>> round(float(loss([0, 0, 0, 1, 1, 2], tf.zeros([6, 3]))), 4)  # 0.5 * margin 0.5 + 0.5 * ln 3
    0.7993
    """

    logged = MappingProxyType(
        {"L_ce": True, "L_crl": True, "minority_classes": False, "triplets": False, "active_triplets": False}
    )

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
        normalization: str = "triplets",
        squared_positives: bool = True,
        gate: bool = False,
        balance: str = "interpolate",
        alpha_warmup_epochs: int = 0,
        base: Loss | None = None,
        from_logits: bool = True,
        feature_shape: int | Sequence[int] | None = None,
        mining: str = "replica",
        reduction: str = "sum_over_batch_size",
        name: str = "crl",
    ) -> None:
        super().__init__(num_classes, from_logits=from_logits, mining=mining, reduction=reduction, name=name)
        self._rectifier = Rectifier(
            self._layout, level, comparison, kappa, rho, margin, scope, num_bins, normalization, squared_positives
        )
        at_constant = self._rectifier.at_constant()
        # Without a margin there is no value of the constant solution to compare with.
        self._has_constant = at_constant is not None and bool((at_constant > 0).all())
        if gate and not self._has_constant:
            raise ValueError(
                f"gate must be False without a margin > 0, received {gate!r} for comparison={comparison!r}, margin={margin!r}"
            )
        if balance not in BALANCES:
            raise ValueError(f"balance must be one of {BALANCES}, received {balance!r}")
        self._gate, self._balance = bool(gate), balance
        self._alpha = balance_weights(self._layout, class_counts=class_counts, alpha=alpha, eta=eta)
        if not real(alpha_warmup_epochs) >= 0:
            raise ValueError(f"alpha_warmup_epochs must be >= 0, received {alpha_warmup_epochs!r}")
        self.alpha_warmup_epochs = alpha_warmup_epochs
        self.needs_features = level == "instance"
        self.feature_shape = checked_feature_shape(feature_shape, self._layout)
        self._base = checked_base(base, self._layout)
        if hasattr(base, "progress"):
            self.progress = base.progress
        # A variable, so that a traced training step sees what `AlphaWarmup` does.
        self.alpha_scale = tf.Variable(1.0, trainable=False, name="alpha_scale", dtype=tf.float32)
        if class_counts is not None:
            class_counts = [counts.tolist() for counts in counts_by_label(class_counts, self._layout)]
        self._config = {
            "level": level,
            "comparison": comparison,
            "class_counts": class_counts,
            "alpha": _plain(alpha),
            "eta": float(eta),
            "kappa": _plain(kappa),
            "rho": float(rho),
            "margin": _plain(margin),
            "scope": scope,
            "num_bins": int(num_bins),
            "normalization": normalization,
            "squared_positives": bool(squared_positives),
            "gate": bool(gate),
            "balance": balance,
            "alpha_warmup_epochs": _plain(alpha_warmup_epochs),
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
    def base(self) -> Loss | None:
        """The loss in place of the cross-entropy; None for the cross-entropy itself."""
        return self._base

    def terms(self, labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor | None = None) -> Terms:
        log_probability = log_probabilities(logits, self._layout)
        if self._base is None:
            cross_entropy = cross_entropy_by_sample(labels, log_probability, self._layout)
        else:
            cross_entropy = self._base.terms(labels, logits).by_label
        rectification = self._rectifier(labels, features if self.needs_features else log_probability)
        alpha = self._alpha[:, None] * tf.convert_to_tensor(self.alpha_scale)
        tallies = self._tallies(rectification)
        if self._gate:
            alpha *= tf.nn.relu(1.0 - self._rectifier.relative_to_constant(rectification))[:, None]
        triplets, active = tf.reduce_sum(rectification.triplets), tf.reduce_sum(rectification.active)
        logs = {
            "L_ce": Log(tf.reduce_sum(cross_entropy)),
            "L_crl": Log(tf.reduce_sum(rectification.by_label)),
            "minority_classes": Log(tf.reduce_sum(tf.cast(rectification.rectified, tf.float32))),
            "triplets": Log(triplets),
            "active_triplets": Log(tf.math.divide_no_nan(active, triplets), weight=triplets),
        }
        rest = cross_entropy if self._balance == "sum" else scaled(cross_entropy, 1.0 - alpha)
        return Terms(tf.add_n([scaled(rectification.by_label, alpha), rest]), logs, tallies)

    @property
    def tallied(self) -> Mapping[str, tuple[int, ...]]:
        """steps: of training. rectified: of them, those in which CRL acted on each class. compared: on each label. relative: the
        sum of L_crl over that of the constant solution, per label."""
        relative = {"relative": (len(self._layout),)} if self._has_constant else {}
        return {"steps": (), "rectified": (self._layout.width,), "compared": (len(self._layout),), **relative}

    def _tallies(self, rectification: Rectification) -> dict[str, tf.Tensor]:
        compared = rectification.triplets > 0
        acted = tf.cast(rectification.rectified & compared[:, None], tf.float32)
        tallies = {
            "steps": tf.ones([]),
            "rectified": self._layout.unpad(acted[None])[0],
            "compared": tf.cast(compared, tf.float32),
        }
        return tallies | ({"relative": self._rectifier.relative_to_constant(rectification)} if self._has_constant else {})

    def callbacks(self, epochs: int, label_names: Sequence[str] | None = None) -> list[keras.callbacks.Callback]:
        warmup = [AlphaWarmup(self, self.alpha_warmup_epochs)] if self.alpha_warmup_epochs else []
        # A gate is what the warning advises.
        watch = [CollapseWarning(label_names)] if self._has_constant and not self._gate else []
        of_base = self._base.callbacks(epochs, label_names) if self._base else []
        # The tallies of a model are those of this loss, not of a CRL that is its base.
        return warmup + watch + [callback for callback in of_base if not isinstance(callback, CollapseWarning)]

    def facts(self, tallies: Mapping[str, np.ndarray], classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        by_label = np.split(tallies["rectified"], self._layout.offsets[1:])
        labels = {}
        for j, (label, names) in enumerate(classes.items()):
            compared = int(tallies["compared"][j])
            labels[label] = {
                "steps": compared,
                "L_crl_over_constant": float(tallies["relative"][j] / compared) if compared and self._has_constant else None,
                "classes": dict(zip(names, map(int, by_label[j]), strict=True)),
            }
        return {"rectification": {"steps": int(tallies["steps"]), "labels": labels}}

    def get_config(self) -> dict[str, Any]:
        base = None if self._base is None else keras.saving.serialize_keras_object(self._base)
        return {**super().get_config(), **self._config, "base": base}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CRL:
        base = config.get("base")  # files of 0.1.0 have none
        return cls(**{**config, "base": keras.saving.deserialize_keras_object(base) if isinstance(base, dict) else base})


def checked_base(base: Loss | None, layout: Layout) -> Loss | None:
    """`base` itself, if it is None or a loss of logits for the same labels; else raises ValueError."""
    if base is None:
        return None
    if not isinstance(base, Loss) or base.needs_features:
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
        weights = reals(alpha)
        if weights.shape not in ((), (len(layout),)) or not ((weights >= 0) & (weights <= 1)).all():
            raise ValueError(f"alpha must be a number in [0, 1], or one per label ({len(layout)}), received {alpha!r}")
        return np.broadcast_to(weights.astype(np.float32), [len(layout)])
    if class_counts is None:
        raise ValueError(
            "CRL needs class_counts (training samples per class, one sequence per label), from which alpha = eta * Omega"
            " follows, or alpha itself (one number in [0, 1], or one per label); received neither"
        )
    if not 0 <= real(eta) < np.inf:
        raise ValueError(f"eta must be a number >= 0, received {eta!r}")
    omega = np.array([imbalance_measure(counts) for counts in counts_by_label(class_counts, layout)])
    if not omega.any():
        warnings.warn("class_counts are balanced: Omega = 0 switches rectification off; give alpha=0.5 instead", stacklevel=4)
    return np.clip(eta * omega, 0.0, 1.0).astype(np.float32)


def crl_losses(
    num_classes: Mapping[str, int],
    *,
    class_counts: Mapping[str, Sequence[int]] | Sequence[Sequence[int]] | None = None,
    alpha: float | Mapping[str, float] | None = None,
    **parameters: Any,
) -> dict[str, CRL]:
    """A `CRL` for every output of a model with one output per label, for `model.compile(loss=crl_losses(...))`.

    Keras adds the losses of the outputs up, which is the sum over labels of eq. 8.

    Args:
        num_classes: classes by output name.
        class_counts: training samples per class by output name; or, as for `CRL`, one sequence per output, in the order of
            num_classes.
        alpha: one number for all, or one by output name.
        parameters: any other argument of `CRL`, the same for all outputs.
    Raises:
        ValueError: class_counts or alpha that do not name the outputs of num_classes.

    >>> sorted(crl_losses({"season": 4, "colour": 7}, alpha=0.5))
    ['colour', 'season']
    """
    if not isinstance(num_classes, Mapping):
        raise ValueError(f"num_classes must name the outputs, as in {{'colour': 4, 'size': 2}}, received {num_classes!r}")
    for name, by_output in (("class_counts", class_counts), ("alpha", alpha)):
        if isinstance(by_output, Mapping) and set(by_output) != set(num_classes):
            raise ValueError(f"{name} must name the outputs {sorted(num_classes)}, received {sorted(by_output)}")
    if class_counts is not None and not isinstance(class_counts, Mapping):
        counts = counts_by_label(class_counts, Layout.of(list(num_classes.values())))
        class_counts = dict(zip(num_classes, counts, strict=True))
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
