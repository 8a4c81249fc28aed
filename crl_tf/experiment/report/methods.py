"""Tables of many methods over seeds: what each reaches, under which decision rule, and at which label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from crl_tf.experiment.report.averages import SHARES, Runs, grouped, label_rows, method_rows, rule_names
from crl_tf.experiment.report.cells import Cell, Grid, best_of, percent, percent_digits, rich_table, seconds_text, setting_title
from crl_tf.experiment.report.runs import ABSENT, UNSEEDED, differing_fields, ratio_text

SIGNIFICANT = 0.05
"""Below this p-value a difference to the baseline is marked."""

_HEADINGS = {
    "balanced_accuracy": "balanced\naccuracy %",
    "accuracy": "accuracy\n%",
    "macro_f1": "macro\nF1 %",
    "rarest_third": "rarest\nthird %",
    "most_frequent_third": "most freq.\nthird %",
}


def methods_table(results: Runs, baseline: str | None = None) -> Table:
    """One row per method over its seeds: mean ± sample standard deviation, seconds, and their ratio to the baseline's.

    The best mean of a column is bold, as it reads at the decimals shown; * marks what differs from the baseline by a paired
    t-test. Runs that differ in dataset, model or epochs are never averaged: such a field splits the rows and becomes a column,
    and each setting has its own baseline and best. Args and errors as for `crl_tf.experiment.report.averages.method_rows`.
    """
    return rich_table(methods_grid(results, baseline))


def rules_table(results: Runs) -> Table:
    """Class-balanced accuracy of every method under every decision rule, mean ± sample standard deviation over its seeds.

    The best of the table is bold, the best rule of each method is marked ^. Runs without "rules" have no numbers.

    Raises:
        ValueError: if results are none or incomplete, or none of them was measured under rules.
    """
    return rich_table(rules_grid(results))


def methods_grid(results: Runs, baseline: str | None = None) -> Grid:
    """`methods_table` before it has a form."""
    base = grouped(results, baseline, "methods_table")[1]
    rows = method_rows(results, base)
    differing = differing_fields(results, UNSEEDED)
    settings = [tuple(row[field] for field in differing) for row in rows]
    columns = [_plain([row[name] for row in rows]) for name in ("method", *differing)]
    # Where all have as many, the caption says it, and a terminal of 80 columns has more room for names.
    counted = ["seeds"] if differing_fields(rows, ["seeds"]) else []
    columns += [_plain([row[name] for row in rows]) for name in counted]
    for share in SHARES:
        best = _best_within(percent_digits([row[share] for row in rows]), settings, max)
        columns.append([_share_cell(row, share, index in best) for index, row in enumerate(rows)])
    seconds = [seconds_text(row["seconds"]) for row in rows]
    best = _best_within([float(text.replace(",", "")) for text in seconds], settings, min)
    spread = ["" if row["seconds_std"] is None else f" ± {seconds_text(row['seconds_std'])}" for row in rows]
    columns.append([Cell(a + b, index in best) for index, (a, b) in enumerate(zip(seconds, spread, strict=True))])
    columns.append([Cell(_ratio(row, base)) for row in rows])
    headings = ["method", *differing, *counted, *_HEADINGS.values(), "seconds", "ratio"]
    grid_rows = list(zip(*columns, strict=True))
    return Grid(str(setting_title(results, UNSEEDED)), headings, grid_rows, _caption(rows, base), 1 + len(differing))


def rules_grid(results: Runs) -> Grid:
    """`rules_table` before it has a form."""
    grouped(results, None, "rules_table")
    rules = rule_names(results)
    if not rules:
        raise ValueError("rules_table: no result has 'rules', the numbers under each decision rule")
    rows = method_rows(results)
    differing = differing_fields(results, UNSEEDED)
    names = [f"balanced_accuracy_under_{rule}" for rule in rules]
    settings = [tuple(row[field] for field in differing) for row in rows for _ in names]
    best = _best_within(percent_digits([row[name] for row in rows for name in names]), settings, max)
    cells = []
    for index, row in enumerate(rows):
        best_rule = best_of(percent_digits([row[name] for name in names]), max)
        cells.append(
            [Cell(str(row[name])) for name in ("method", *differing)]
            + [
                Cell(_mean_and_spread(row, name), index * len(names) + place in best, "^" if place in best_rule else "")
                for place, name in enumerate(names)
            ]
        )
    title = "class-balanced accuracy % by decision rule; their strengths were chosen on validation images"
    setting = str(setting_title(results, UNSEEDED))
    caption = f"{_seeds_text(rows)}. Bold: best of the table{' in its setting' if differing else ''}. ^: best rule of a method."
    headings = ["method", *differing, *(rule.replace("_", "\n") for rule in rules)]
    return Grid("\n".join(filter(None, (title, setting))), headings, cells, caption, 1 + len(differing))


def labels_grid(results: Runs) -> Grid:
    """Class-balanced accuracy by label, mean ± sample standard deviation over the seeds, labels by rising imbalance.

    Labels are the rows; where methods are more than labels, methods are the rows. The best method of a label is bold.
    """
    rows = label_rows(results)
    differing = differing_fields(results, UNSEEDED)
    keys = list(dict.fromkeys((row["method"], *(row[field] for field in differing)) for row in rows))
    found = {(row["method"], *(row[field] for field in differing), row["label"]): row for row in rows}
    labels = labels_by_imbalance(rows)
    cells: dict[tuple[Any, ...], Cell] = {}
    for label in labels:
        of_keys = [found.get((*key, label), {"balanced_accuracy": None}) for key in keys]
        best = _best_within(percent_digits([row["balanced_accuracy"] for row in of_keys]), [key[1:] for key in keys], max)
        for place, (key, row) in enumerate(zip(keys, of_keys, strict=True)):
            cells[*key, label] = Cell(_mean_and_spread(row, "balanced_accuracy"), place in best)
    title = f"class-balanced accuracy % by label, by rising imbalance\n{setting_title(results, UNSEEDED)}".strip()
    if len(keys) > len(labels):
        grid_rows = [[*map(Cell, map(str, key)), *(cells[*key, label] for label in labels)] for key in keys]
        headings = ["method", *differing, *(f"{label}\n{ratio}" for label, ratio in labels.items())]
        return Grid(title, headings, grid_rows, names=1 + len(differing))
    grid_rows = [[Cell(label), Cell(ratio), *(cells[*key, label] for key in keys)] for label, ratio in labels.items()]
    return Grid(title, ["label", "imbalance", *("\n".join(map(str, key)) for key in keys)], grid_rows)


def labels_by_imbalance(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The labels of `label_rows` by rising imbalance, each with its ratio as text; those nothing was trained on come last."""
    ratios: dict[str, float | None] = {}
    for row in rows:
        ratios.setdefault(row["label"], row["imbalance"])
    ordered = sorted(ratios.items(), key=lambda item: float("inf") if item[1] is None else item[1])
    return {label: ABSENT if ratio is None else ratio_text(ratio) for label, ratio in ordered}


def _caption(rows: Sequence[Mapping[str, Any]], base: str) -> str:
    """What the numbers and marks are, and how far they can be trusted."""
    parts = [f"Mean ± sample standard deviation over {_seeds_text(rows)}" if _most_seeds(rows) > 1 else _seeds_text(rows)]
    if len(rows) > 1:
        parts.append("Bold: best mean of a column" + (" in its setting" if len({r["method"] for r in rows}) < len(rows) else ""))
    if any(row["method"] != base for row in rows):
        parts.append(f"Ratio: of the seconds to {base}'s, mean over common seeds")
        parts.append(
            f"*: differs from {base}, paired over common seeds, with p < {SIGNIFICANT} (two-sided paired t-test, not corrected"
            " for the number of comparisons)"
        )
        common = max(row["common_seeds"] for row in rows)
        parts.append(
            f"With {common} common seeds little can be significant: a difference must be large against its spread"
            if common > 1
            else "With fewer than 2 common seeds there is no test"
        )
    decided = {row["method"]: row["rule"] for row in rows if row["rule"] != "argmax"}
    if decided:
        named = ", ".join(method if method == rule else f"{method} ({rule})" for method, rule in decided.items())
        parts.append(f"Decided by the largest logit, but for {named}")
    return ". ".join(parts) + "."


def _most_seeds(rows: Sequence[Mapping[str, Any]]) -> int:
    return max(row["seeds"] for row in rows)


def _seeds_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many seeds a row has.

    >>> _seeds_text([{"seeds": 1}, {"seeds": 3}])
    '1 to 3 seeds'
    """
    fewest, most = min(row["seeds"] for row in rows), _most_seeds(rows)
    return f"{fewest} to {most} seeds" if fewest < most else "1 seed" if most == 1 else f"{most} seeds"


def _share_cell(row: Mapping[str, Any], share: str, bold: bool) -> Cell:
    p_value = row[f"{share}_p"]
    marked = row[share] is not None and p_value is not None and p_value < SIGNIFICANT
    return Cell(_mean_and_spread(row, share), bold, "*" if marked else "")


def _mean_and_spread(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return ABSENT
    std = row[f"{name}_std"]
    return percent(row[name]) if std is None else f"{percent(row[name])} ± {percent(std)}"


def _ratio(row: Mapping[str, Any], base: str) -> str:
    if row["method"] == base:
        return "1.00"
    return ABSENT if row["seconds_ratio"] is None else f"{row['seconds_ratio']:.2f}"


def _plain(values: Sequence[object]) -> list[Cell]:
    return [Cell(str(value)) for value in values]


def _best_within(
    values: Sequence[float | None], settings: Sequence[tuple[Any, ...]], choose: Callable[[list[float]], float]
) -> set[int]:
    """Where the best of each setting stands: accuracies on different data say nothing about one another."""
    best: set[int] = set()
    for setting in set(settings):
        places = [index for index, other in enumerate(settings) if other == setting]
        best |= {places[index] for index in best_of([values[place] for place in places], choose)}
    return best
