"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from crl_tf.report.runs import (
    ABSENT,
    MEASURES,
    SETTING,
    check_results,
    class_counts,
    differing_fields,
    group_names,
    imbalance_text,
    ratio_text,
    seed_groups,
)

# Two lines each, so that a comparison fits a terminal of 80 columns.
_HEADINGS = {
    "balanced_accuracy": "balanced\naccuracy %",
    "rarest_third": "rarest\nthird %",
    "accuracy": "accuracy\n%",
}


def comparison_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """One row per run, the first being the baseline that differences (in points) are taken from.

    What all runs share of dataset, model, epochs and seed stands in the title, what they do not is a column. The best value
    of a column is bold; values that read the same at the decimals shown are equally good. Differences are of the exact
    values, so they may be 0.1 off those of the rounded ones.
    """
    check_results("comparison_table", results)
    several = len(results) > 1
    differing = differing_fields(results, SETTING)
    table = Table(title=_title(results, SETTING))
    for heading in ("loss", *differing):
        table.add_column(heading, overflow="fold")
    columns = [_marked([r["loss"] for r in results])] + [_marked([r[field] for r in results]) for field in differing]
    for measure in MEASURES:
        table.add_column(_HEADINGS[measure], justify="right", no_wrap=True)
        values = [r[measure] for r in results]
        columns.append(_marked([_percent(v) for v in values], _best(_percent_digits(values), max)))
        if several and measure != "accuracy":
            table.add_column("Δ\npoints", justify="right", no_wrap=True)
            columns.append(_marked(["", *(_points(v, values[0]) for v in values[1:])]))
    table.add_column("seconds", justify="right", no_wrap=True)
    seconds = [r["seconds"] for r in results]
    columns.append(_marked([_seconds(s) for s in seconds], _best([float(_seconds(s).replace(",", "")) for s in seconds], min)))
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    return table


def label_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """One row per label, however many there are: its classes, its imbalance, and each run's class-balanced accuracy.

    The labels are those of all runs, in order of appearance. Where runs were trained on different counts, each distinct
    number of classes and imbalance is shown, in the order of the runs. The best run of a label is bold.
    """
    check_results("label_table", results)
    table = Table(title=Text("class-balanced accuracy % by label\n").append(_title(results, SETTING)))
    table.add_column("label", overflow="fold")
    for heading in ("classes", "imbalance", *_run_names(results)):
        table.add_column(Text(heading), justify="right", overflow="fold")
    for name in dict.fromkeys(name for r in results for name in r["labels"]):
        of_runs = [r["labels"].get(name) for r in results]
        counts = [class_counts(label) for label in of_runs if label is not None]
        values = [None if label is None else label["balanced_accuracy"] for label in of_runs]
        table.add_row(
            Text(name),
            " | ".join(dict.fromkeys(str(c.size) for c in counts)),
            " | ".join(dict.fromkeys(imbalance_text(c) for c in counts)),
            *_marked([_percent(v) for v in values], _best(_percent_digits(values), max)),
        )
    return table


def group_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """One row per group of attributes and their mean: the largest imbalance, and each run's class-balanced accuracy.

    For results with "top5" (of a dataset with groups, such as DeepFashion): Table 7. An attribute counts as predicted present
    where its score is among the 5 highest of its group, see `crl_tf.metrics.top_of_group`. The mean is over the attributes of
    all groups, not over the groups. The best run of a row is bold.

    Raises:
        ValueError: if no result has groups.
    """
    check_results("group_table", results)
    groups = group_names(results)
    if not groups:
        raise ValueError("group_table: no result has 'top5', which is measured where attributes have groups")
    table = Table(title=Text("top-5 class-balanced accuracy % by group\n").append(_title(results, SETTING)))
    table.add_column("group", overflow="fold")
    for heading in ("imbalance", *_run_names(results)):
        table.add_column(Text(heading), justify="right", overflow="fold")
    of_runs = [r.get("top5", {"balanced_accuracy": None, "groups": {}}) for r in results]
    for name in groups:
        present = [top["groups"].get(name) for top in of_runs]
        ratios = [group["imbalance"] for group in present if group is not None]
        values = [None if group is None else group["balanced_accuracy"] for group in present]
        shown = " | ".join(dict.fromkeys(ABSENT if ratio is None else ratio_text(ratio) for ratio in ratios))
        table.add_row(Text(name), shown, *_marked([_percent(v) for v in values], _best(_percent_digits(values), max)))
    table.add_section()
    means = [top["balanced_accuracy"] for top in of_runs]
    table.add_row("mean over attributes", "", *_marked([_percent(v) for v in means], _best(_percent_digits(means), max)))
    return table


def seeds_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """One row per loss over its seeds: mean ± sample standard deviation (ddof = 1; none with a single seed).

    Runs that differ in dataset, model or epochs are never averaged: such a field splits the groups and becomes a column.
    Nothing is marked best, since a difference of means may lie within the spread.
    """
    check_results("seeds_table", results)
    setting = tuple(field for field in SETTING if field != "seed")
    differing = differing_fields(results, setting)
    table = Table(title=_title(results, setting))
    for heading in ("loss", *differing):
        table.add_column(heading, overflow="fold")
    for heading in ("seeds", *_HEADINGS.values(), "mean seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for key, runs in seed_groups(results).items():
        seeds = [r["seed"] for r in runs]
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds_table: a seed may occur once per group, but {' '.join(map(str, key))} has seeds {seeds}")
        table.add_row(
            *(Text(str(part)) for part in key),
            str(len(runs)),
            *(_mean_and_spread([r[measure] for r in runs]) for measure in MEASURES),
            _seconds(float(np.mean([r["seconds"] for r in runs]))),
        )
    return table


def _title(results: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> Text:
    """The fields all runs agree on; a Text, because a name may hold brackets that rich would read as markup."""
    shared = [field for field in fields if field not in differing_fields(results, fields)]
    return Text(" · ".join(_named(field, results[0][field]) for field in shared))


def _run_names(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each run by its loss and, in the order of the title, what else tells it from the others."""
    differing = differing_fields(results, SETTING)
    return ["\n".join([str(r["loss"]), *(_named(field, r[field]) for field in differing)]) for r in results]


def _named(field: str, value: Any) -> str:
    if field == "epochs":
        return "1 epoch" if value == 1 else f"{value} epochs"
    return f"seed {value}" if field == "seed" else str(value)


def _measured(share: float | None) -> bool:
    return share is not None and math.isfinite(share)


def _percent(share: float | None) -> str:
    return f"{100 * share:.1f}" if _measured(share) else ABSENT


def _percent_digits(shares: Sequence[float | None]) -> list[float | None]:
    """The numbers as shown, so that only what a reader sees decides which one is best."""
    return [float(_percent(share)) if _measured(share) else None for share in shares]


def _points(share: float | None, baseline: float | None) -> str:
    if not (_measured(share) and _measured(baseline)):
        return ABSENT
    shown = f"{100 * (share - baseline):+.1f}"
    return "0.0" if float(shown) == 0 else shown


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"


def _mean_and_spread(shares: Sequence[float | None]) -> str:
    if not all(map(_measured, shares)):
        return ABSENT
    mean = _percent(float(np.mean(shares)))
    return mean if len(shares) == 1 else f"{mean} ± {_percent(float(np.std(shares, ddof=1)))}"


def _best(values: Sequence[float | None], choose: Callable[[list[float]], float]) -> set[int]:
    """Where the best value stands; nowhere if there are not at least two to choose from."""
    present = [value for value in values if value is not None]
    return {i for i, value in enumerate(values) if value == choose(present)} if len(present) > 1 else set()


def _marked(cells: Sequence[object], bold: Set[int] = frozenset()) -> list[Text]:
    return [Text(str(cell), style="bold" if index in bold else "") for index, cell in enumerate(cells)]
