"""What `--compare=auto` tries: every method that may help on the data, the most promising first."""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict

from crl_tf.experiment.assemble import Parts
from crl_tf.experiment.compare import plan
from crl_tf.experiment.data import Data
from crl_tf.experiment.methods import METHODS, canonical, combined, stands_alone

NAME = "auto"
"""In place of a list of methods, or at its beginning: the methods of `candidates`."""

REFERENCE = "ce"
"""Is in every rung and in the final measurement."""

PROMISE = (
    "logit_adjusted",
    "class_rel+gated+logit_adjusted_base",
    "class_balanced_sampling",
    "class_rel+pairs",
    "class_dis+logit_adjusted_base",
    "class_rel",
    "class_rel+gated+logit_adjusted_base+pairs",
    "class_rel+class_balanced_sampling",
    "class_rel+per_anchor",
    "class_dis",
    "class_balanced",
    "ldam",
    "instance_rel",
    "cost_sensitive",
    "focal",
)
"""The methods that start first where a budget is too small for all. Other rows of `METHODS` follow in the order of the table.
Names joined by + are candidates only if they stand here."""

LEFT_OUT = {"balanced_softmax": "it is logit_adjusted with tau = 1"}
"""Rows that are no candidates unless they are named, each with the reason."""

SLOWEST = 4
"""A method whose epoch has more than so many times the images of the training set is no candidate unless it is named."""


def candidates(config: ConfigDict, named: Sequence[str], data: Data) -> tuple[dict[str, Parts], dict[str, str]]:
    """The challengers of cross-entropy, the most promising first, and the methods that are left out, each with the reason.

    Challengers are the methods that are named, those of `PROMISE`, and every other row of `METHODS`, but for decision rules (each
    model is measured under all of them), rows with a training of their own, and what the data give no meaning.

    Raises:
        MeaninglessForData: the data give a named method no meaning.
    """
    named = checked_names(named)
    plan(config, [REFERENCE, *named], data=data)
    rows = [name for name in METHODS if stands_alone(name) and name not in (REFERENCE, *PROMISE)]
    rows = [name for name in rows if combined(name).rule == "argmax"]
    left_out = {name: reason for name, reason in LEFT_OUT.items() if name not in named}
    for name in rows:
        if name not in named and combined(name).trainer != "gradient":
            left_out[name] = "it has a training of its own"
    names = [name for name in dict.fromkeys([*named, *PROMISE, *rows]) if name not in left_out]
    planned = plan(config, [REFERENCE, *names], data=data, leave_out=True)
    challengers = {one.method: one.parts for one in planned.runs if one.method != REFERENCE}
    left_out |= {name: reason.removeprefix("left out: ") for name, reason in planned.left_out.items()}
    for name, parts in list(challengers.items()):
        factor = images_factor(parts, data)
        if factor > SLOWEST and name not in named:
            left_out[name] = f"its epochs are {factor:.1f} times as long"
            del challengers[name]
    return challengers, left_out


def images_factor(parts: Parts, data: Data) -> float:
    """How many images an epoch has, as a multiple of the training set."""
    if parts.resample is None:
        return 1.0
    train_split = data.dataset.splits["train"]
    indices = parts.resample(train_split.labels, data.dataset.schema).indices
    return len(indices(0) if callable(indices) else indices) / len(train_split)


def with_rule(method: str, rule: str) -> str:
    """The name of a method that decides by a rule.

    >>> with_rule("class_rel", "logit_adjustment"), with_rule("ce", "argmax")
    ('class_rel+logit_adjustment', 'ce')
    """
    rows = [name for name, row in METHODS.items() if row.sets == {"rule": rule}]
    return canonical("+".join([method, *rows[:1]]))


def checked_names(named: Sequence[str]) -> list[str]:
    """The spelling of methods that are named beside "auto"."""
    names = [canonical(name) for name in named]
    for name in names:
        if combined(name).rule != "argmax":
            raise ValueError(f"compare: {NAME} measures every method under every decision rule: name {name!r} without its rule")
    return [name for name in dict.fromkeys(names) if name != REFERENCE]
