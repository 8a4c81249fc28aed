"""Methods: a method is a row of this table, what it trains with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from ml_collections import ConfigDict

from crl_tf.losses.crl import CRL
from crl_tf.losses.cross_entropy import MultiLabelCrossEntropy


class Method(NamedTuple):
    """level and comparison of the rectification; both None for cross-entropy alone. title: how tables call it."""

    title: str
    level: str | None = None
    comparison: str | None = None


METHODS: dict[str, Method] = {
    "ce": Method("cross-entropy"),
    "class_rel": Method("CRL class level, relative", "class", "relative"),
    "class_abs": Method("CRL class level, absolute", "class", "absolute"),
    "class_dis": Method("CRL class level, distribution", "class", "distribution"),
    "instance_rel": Method("CRL instance level, relative", "instance", "relative"),
    "instance_abs": Method("CRL instance level, absolute", "instance", "absolute"),
    "instance_dis": Method("CRL instance level, distribution", "instance", "distribution"),
}


def check_method(name: str) -> None:
    if name not in METHODS:
        raise ValueError(f"loss must be one of {list(METHODS)}, received {name!r}")


def make_loss(
    name: str, *, num_classes: Sequence[int], class_counts: Sequence[np.ndarray], settings: ConfigDict
) -> keras.losses.Loss:
    """The loss of a method.

    Args:
        name: a row of `METHODS`.
        num_classes: classes per label.
        class_counts: training samples per class, one array per label (for alpha, eq. 8).
        settings: the `crl` section of a recipe.
    """
    check_method(name)
    method = METHODS[name]
    if method.level is None:
        return MultiLabelCrossEntropy(list(num_classes))
    return CRL(
        list(num_classes),
        level=method.level,
        comparison=method.comparison,
        class_counts=[counts.tolist() for counts in class_counts],
        alpha=settings.alpha,
        eta=settings.eta,
        kappa=settings.kappa,
        rho=settings.rho,
        # A recipe's margin is meant for the methods that have one, so that they can be compared with one that has none.
        margin=None if method.comparison == "distribution" else settings.margin,
        scope=settings.scope,
        num_bins=settings.num_bins,
    )
