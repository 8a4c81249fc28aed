"""Methods: a method is a row of this table, what it trains with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
from ml_collections import ConfigDict

from crl_tf.losses.comparison import COMPARISONS
from crl_tf.losses.crl import CRL
from crl_tf.losses.cross_entropy import MultiLabelCrossEntropy


class Method(NamedTuple):
    """make_loss: (classes per label, training samples per class and label, the `crl` section of a recipe) to its loss."""

    make_loss: Callable[[list[int], list[list[int]], ConfigDict], keras.losses.Loss]


def _cross_entropy(num_classes: list[int], class_counts: list[list[int]], settings: ConfigDict) -> keras.losses.Loss:
    return MultiLabelCrossEntropy(num_classes)


def _rectification(level: str, comparison: str) -> Callable[[list[int], list[list[int]], ConfigDict], keras.losses.Loss]:
    def make(num_classes: list[int], class_counts: list[list[int]], settings: ConfigDict) -> CRL:
        given = {name: settings[name] for name in ("alpha", "eta", "kappa", "rho", "scope", "num_bins")}
        # A recipe's margin is meant for the methods that have one, so that they can be compared with one that has none.
        margin = settings.margin if COMPARISONS[comparison].class_margin else None
        return CRL(num_classes, level=level, comparison=comparison, class_counts=class_counts, margin=margin, **given)

    return make


METHODS: dict[str, Method] = {
    "ce": Method(_cross_entropy),
    "class_rel": Method(_rectification("class", "relative")),
    "class_abs": Method(_rectification("class", "absolute")),
    "class_dis": Method(_rectification("class", "distribution")),
    "instance_rel": Method(_rectification("instance", "relative")),
    "instance_abs": Method(_rectification("instance", "absolute")),
    "instance_dis": Method(_rectification("instance", "distribution")),
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
    return METHODS[name].make_loss(list(num_classes), [counts.tolist() for counts in class_counts], settings)
