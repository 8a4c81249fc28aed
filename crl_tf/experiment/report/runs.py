"""What tables and figures both need of results: that they are whole, what they differ in, their classes' counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crl_tf.imbalance import imbalance_ratio

ABSENT = "–"
"""Stands where there is no number: a label that a run lacks, a measure that nothing was measured for."""

SETTING = ("dataset", "model", "epochs", "seed")
"""The fields of a result that say what, beside the method, a run was made with."""

UNSEEDED = tuple(field for field in SETTING if field != "seed")
"""Of those, what runs that are averaged must agree on."""

MEASURES = ("balanced_accuracy", "rarest_third", "accuracy")
"""The fields of a result that say how good a run is, in the order tables show them."""


def check_results(where: str, results: Sequence[Mapping[str, Any]]) -> None:
    """Raises a ValueError, naming `where`, unless results is a sequence of at least one complete result."""
    if isinstance(results, Mapping) or not results:
        received = "a mapping" if isinstance(results, Mapping) else "none"
        raise ValueError(f"{where}: needs a sequence of at least one result, received {received}")
    for index, result in enumerate(results):
        missing = [key for key in (*SETTING, "method", "seconds", *MEASURES, "labels") if key not in result]
        if missing:
            raise ValueError(f"{where}: result {index} lacks {missing}; it has {list(result)}")
        if not result["labels"]:
            raise ValueError(f"{where}: result {index} has no labels")


def differing_fields(results: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> list[str]:
    """Those of the fields that the runs do not all agree on, in the order given."""
    return [field for field in fields if len({r[field] for r in results}) > 1]


def seed_groups(results: Sequence[Mapping[str, Any]]) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    """Runs that differ in nothing but the seed, by (method, fields that differ between groups), in order of appearance."""
    fields = ("method", *differing_fields(results, UNSEEDED))
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(tuple(result[field] for field in fields), []).append(result)
    return groups


def group_names(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The groups of attributes that any of the runs was measured by, in order of appearance."""
    return list(dict.fromkeys(name for r in results if "top5" in r for name in r["top5"]["groups"]))


def class_counts(label: Mapping[str, Any]) -> np.ndarray:
    """Training samples per class, [C], of one label of a result."""
    return np.array(list(label["train_counts"].values()), np.int64)


def imbalance_text(counts: np.ndarray) -> str:
    """The ratio 1:x over the classes that occur, and how many do not."""
    if not counts.any():
        return ABSENT
    shown = ratio_text(imbalance_ratio(counts))
    empty = int((counts == 0).sum())
    return f"{shown}, {empty} empty" if empty else shown


def ratio_text(ratio: float) -> str:
    """1:733, and a decimal where the ratio is small and not whole."""
    return f"1:{ratio:,.0f}" if ratio >= 10 or ratio == round(ratio) else f"1:{ratio:.1f}"
