"""The table of losses: how each is made, which settings it reads, who proposed it and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

from crl_tf.losses.asymmetric import AsymmetricLoss
from crl_tf.losses.base import Loss
from crl_tf.losses.crl.comparison import COMPARISONS
from crl_tf.losses.crl.loss import CRL
from crl_tf.losses.cross_entropy import MultiLabelCrossEntropy
from crl_tf.losses.curriculum import CurriculumLoss
from crl_tf.losses.focal import FocalLoss
from crl_tf.losses.ldam import LDAMLoss
from crl_tf.losses.logit_adjusted import BalancedSoftmaxLoss, LogitAdjustedLoss
from crl_tf.losses.reweighted import ClassBalancedLoss, CostSensitiveLoss

Sections = Mapping[str, Mapping[str, Any]]
"""The sections of a configuration by name, such as {"crl": {"rho": 0.5}, "focal": {"gamma": 2.0}}."""


class Problem(NamedTuple):
    """What a loss is made for.

    num_classes: classes per label. class_counts: training samples per class, one sequence per label.
    cosine_scale: the factor of the cosines that are the logits; None for any other logits.
    """

    num_classes: Sequence[int]
    class_counts: Sequence[Sequence[int] | np.ndarray]
    cosine_scale: float | None = None


@dataclass(frozen=True)
class Row:
    """A row of `LOSSES`.

    make: (problem, **parameters) to the loss.
    source, cost: paper and equation; the cost compared with cross-entropy, in words.
    section: the section of a configuration that holds its parameters; None without parameters.
    parameters: the keys of that section, with their defaults.
    settings: other settings that the loss fixes, by dotted key.
    shared: keys of the section "crl" that are parameters of this loss too.
    without: keys of its section that have no meaning for this loss, which is made without them.
    """

    make: Callable[..., Loss]
    source: str
    cost: str
    section: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


_NO_SETTINGS = {"num_classes", "level", "comparison", "class_counts", "from_logits", "feature_shape"}
_NO_SETTINGS |= {"mining", "reduction", "name"}
CRL_PARAMETERS: Mapping[str, Any] = {
    **{name: one.default for name, one in signature(CRL).parameters.items() if name not in _NO_SETTINGS},
    "base": "ce",
}
"""The section "crl": the arguments of `CRL` with their defaults. base: a row of `LOSSES` that needs no features."""

SAME_COST, CLASS_COST, INSTANCE_COST = "as ce", "a step ~1 % more", "a step ~12 % more"


def _crl(level: str, comparison: str, equations: str, cost: str) -> Row:
    # One recipe serves all six: these are for the comparisons where they have a meaning.
    without = () if COMPARISONS[comparison].class_margin else ("margin", "gate", "normalization")
    without += () if comparison == "absolute" else ("squared_positives",)

    def make(problem: Problem, **parameters: Any) -> CRL:
        parameters = {key: value for key, value in parameters.items() if key not in without}
        return CRL(problem.num_classes, level=level, comparison=comparison, class_counts=problem.class_counts, **parameters)

    return Row(make, f"Dong et al. 2018, eqs. {equations}", cost, "crl", CRL_PARAMETERS, without=without)


def _ldam(problem: Problem, **parameters: Any) -> LDAMLoss:
    if not problem.cosine_scale or problem.cosine_scale < 0:
        raise ValueError(
            "network.cosine_scale must be > 0 for ldam, whose margins are of cosines (the paper's: 30), received"
            f" {problem.cosine_scale}"
        )
    return LDAMLoss(problem.num_classes, problem.class_counts, scale=problem.cosine_scale, **parameters)


def _of_sizes(kind: Callable[..., Loss]) -> Callable[..., Loss]:
    return lambda problem, **parameters: kind(problem.num_classes, **parameters)


def _of_counts(kind: Callable[..., Loss]) -> Callable[..., Loss]:
    return lambda problem, **parameters: kind(problem.num_classes, problem.class_counts, **parameters)


LOSSES: dict[str, Row] = {
    "ce": Row(_of_sizes(MultiLabelCrossEntropy), "cross-entropy, eq. 2", "1"),
    "class_rel": _crl("class", "relative", "8, 9, 10", CLASS_COST),
    "class_abs": _crl("class", "absolute", "8, 10, 13", CLASS_COST),
    "class_dis": _crl("class", "distribution", "8, 10, 14-16", "a step ~2 % more"),
    "instance_rel": _crl("instance", "relative", "8, 9, 11", INSTANCE_COST),
    "instance_abs": _crl("instance", "absolute", "8, 11, 13", INSTANCE_COST),
    "instance_dis": _crl("instance", "distribution", "8, 11, 14-16", "a step ~14 % more"),
    "cost_sensitive": Row(_of_counts(CostSensitiveLoss), "w = exp(-r), Dong et al. 2018, Sec. 4.1", SAME_COST),
    "focal": Row(_of_sizes(FocalLoss), "Lin et al. 2017, eq. 5", SAME_COST, "focal", {"gamma": 2.0, "alpha": 0.25}),
    "class_balanced": Row(
        _of_counts(ClassBalancedLoss),
        "Cui et al. 2019, eq. 2 (effective number)",
        SAME_COST,
        "class_balanced",
        {"beta": 0.9999},
    ),
    "ldam": Row(
        _ldam,
        "Cao et al. 2019, eqs. 12, 13, deferred re-weighting",
        SAME_COST,
        "ldam",
        {"max_margin": 0.5, "beta": 0.9999, "defer_until": 0.8},
        {"network.cosine_scale": 30.0},
    ),
    "balanced_softmax": Row(
        _of_counts(BalancedSoftmaxLoss), "Ren et al. 2020, eq. 4", f"{SAME_COST}; is logit_adjusted at tau = 1"
    ),
    "logit_adjusted": Row(_of_counts(LogitAdjustedLoss), "Menon et al. 2021, eq. 10", SAME_COST, "logit_adjusted", {"tau": 1.0}),
    "asymmetric": Row(
        _of_sizes(AsymmetricLoss),
        "Ridnik et al. 2021",
        SAME_COST,
        "asymmetric",
        {"gamma_positive": 0.0, "gamma_negative": 4.0, "clip": 0.05},
    ),
    "curriculum": Row(
        _of_counts(CurriculumLoss),
        "Wang et al. 2019, DCL",
        INSTANCE_COST,
        "curriculum",
        {"scheduler": "cos"},
        shared=("rho",),
    ),
}


def make_loss(name: str, sections: Sections, problem: Problem, *, mining: str = "replica") -> Loss:
    """The loss of a row of `LOSSES`, with the parameters that the configuration gives it.

    Args:
        sections: by name; what a section does not say is as the row has it.
        mining: over which samples it compares and averages on several replicas (`Loss`).
    Raises:
        ValueError: a name that is no row, a parameter out of its range, or a `crl.base` that needs features.

    >>> problem = Problem([2], [[75, 25]])
    >>> make_loss("focal", {"focal": {"gamma": 1.5}}, problem).gamma
    1.5
    >>> make_loss("class_rel", {"crl": {"eta": 0.3, "base": "focal"}}, problem).base.gamma  # alpha = 0.3 * (75 - 25) / (2 * 75)
    2.0
    """
    if name not in LOSSES:
        raise ValueError(f"loss must be one of {list(LOSSES)}, received {name!r}")
    row = LOSSES[name]
    parameters = {**row.parameters, **(sections.get(row.section, {}) if row.section else {})}
    parameters |= {key: {**CRL_PARAMETERS, **sections.get("crl", {})}[key] for key in row.shared}
    if row.section == "crl":
        parameters["base"] = None if parameters["base"] == "ce" else _base(parameters["base"], sections, problem)
    return row.make(problem, mining=mining, **parameters)


def _base(name: str, sections: Sections, problem: Problem) -> Loss:
    # A rectification beside itself would never end.
    loss = make_loss(name, sections, problem) if name in LOSSES and LOSSES[name].section != "crl" else None
    if loss is None or loss.needs_features:
        raise ValueError(f"crl.base must be a loss of logits alone, such as 'focal', received {name!r}")
    return loss
