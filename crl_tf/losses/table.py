"""The losses that a recipe can name, each made from the recipe's settings and the class counts of the training split."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
from ml_collections import ConfigDict

from crl_tf.losses.asymmetric import AsymmetricLoss
from crl_tf.losses.base import ByLabelLoss
from crl_tf.losses.crl.comparison import COMPARISONS
from crl_tf.losses.crl.loss import CRL
from crl_tf.losses.cross_entropy import MultiLabelCrossEntropy
from crl_tf.losses.curriculum import CurriculumLoss
from crl_tf.losses.focal import FocalLoss
from crl_tf.losses.ldam import LDAMLoss
from crl_tf.losses.logit_adjusted import BalancedSoftmaxLoss, LogitAdjustedLoss
from crl_tf.losses.reweighted import ClassBalancedLoss, CostSensitiveLoss

MakeLoss = Callable[[list[int], list[list[int]], ConfigDict], keras.losses.Loss]
"""(classes per label, training samples per class and label, recipe) to the loss."""

STAGES = ("lmle", "triplet_knn", "hog_knn")
"""What a recipe's `loss` can name besides: methods that are not trained by one loss from end to end (`crl_tf.experiment.trainers`)."""


def _rectification(level: str, comparison: str) -> MakeLoss:
    def make(num_classes: list[int], class_counts: list[list[int]], config: ConfigDict) -> CRL:
        settings = config.crl
        given = {name: settings[name] for name in ("alpha", "eta", "kappa", "rho", "scope", "num_bins")}
        # A recipe's margin is meant for the methods that have one, so that they can be compared with one that has none.
        margin = settings.margin if COMPARISONS[comparison].class_margin else None
        base = None if settings.base == "ce" else _base(settings.base, num_classes, class_counts, config)
        return CRL(num_classes, level=level, comparison=comparison, class_counts=class_counts, margin=margin, base=base, **given)

    return make


def _base(name: str, num_classes: list[int], class_counts: list[list[int]], config: ConfigDict) -> ByLabelLoss:
    if name not in BASES:
        raise ValueError(f"crl.base must be a loss of logits alone, one of {BASES}, received {name!r}")
    return LOSSES[name](num_classes, class_counts, config)


def _ldam(num_classes: list[int], class_counts: list[list[int]], config: ConfigDict) -> LDAMLoss:
    if config.network.cosine_scale <= 0:
        raise ValueError(
            f"network.cosine_scale must be > 0 for ldam, whose margins are of cosines (the paper's: 30), received"
            f" {config.network.cosine_scale}; --loss=ldam sets it"
        )
    return LDAMLoss(num_classes, class_counts, scale=config.network.cosine_scale, **config.ldam)


RECTIFICATIONS: dict[str, MakeLoss] = {
    f"{level}_{short}": _rectification(level, comparison)
    for level in ("class", "instance")
    for short, comparison in (("rel", "relative"), ("abs", "absolute"), ("dis", "distribution"))
}

LOSSES: dict[str, MakeLoss] = {
    "ce": lambda sizes, counts, config: MultiLabelCrossEntropy(sizes),
    **RECTIFICATIONS,
    "cost_sensitive": lambda sizes, counts, config: CostSensitiveLoss(sizes, counts),
    "focal": lambda sizes, counts, config: FocalLoss(sizes, **config.focal),
    "class_balanced": lambda sizes, counts, config: ClassBalancedLoss(sizes, counts, **config.class_balanced),
    "ldam": _ldam,
    "balanced_softmax": lambda sizes, counts, config: BalancedSoftmaxLoss(sizes, counts),
    "logit_adjusted": lambda sizes, counts, config: LogitAdjustedLoss(sizes, counts, **config.logit_adjusted),
    "asymmetric": lambda sizes, counts, config: AsymmetricLoss(sizes, **config.asymmetric),
    "curriculum": lambda sizes, counts, config: CurriculumLoss(sizes, counts, **config.curriculum),
}

# Losses of logits alone; dynamic curriculum learning compares features as well.
BASES = [name for name in LOSSES if name not in (*RECTIFICATIONS, "curriculum")]


def check_loss(name: str) -> None:
    known = [*LOSSES, *STAGES]
    if name not in known:
        raise ValueError(f"loss must be one of {known}, received {name!r}")


def make_loss(config: ConfigDict, *, num_classes: Sequence[int], class_counts: Sequence[np.ndarray]) -> keras.losses.Loss:
    """The loss of a recipe.

    Args:
        config: a recipe whose `loss` is a row of `LOSSES`.
        num_classes: classes per label.
        class_counts: training samples per class, one array per label.
    """
    check_loss(config.loss)
    return LOSSES[config.loss](list(num_classes), [counts.tolist() for counts in class_counts], config)
