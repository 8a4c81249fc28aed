"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from crl_tf.experiment.report.cells import (
    best_of,
    field_text,
    marked,
    percent,
    percent_digits,
    points,
    seconds_text,
    setting_title,
)
from crl_tf.experiment.report.runs import (
    ABSENT,
    MEASURES,
    SETTING,
    check_results,
    class_counts,
    differing_fields,
    group_names,
    imbalance_text,
    ratio_text,
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
    table = Table(title=setting_title(results, SETTING))
    for heading in ("method", *differing):
        table.add_column(heading, overflow="fold")
    columns = [marked([r["method"] for r in results])] + [marked([r[field] for r in results]) for field in differing]
    for measure in MEASURES:
        table.add_column(_HEADINGS[measure], justify="right", no_wrap=True)
        values = [r[measure] for r in results]
        columns.append(marked([percent(v) for v in values], best_of(percent_digits(values), max)))
        if several and measure != "accuracy":
            table.add_column("Δ\npoints", justify="right", no_wrap=True)
            columns.append(marked(["", *(points(v, values[0]) for v in values[1:])]))
    table.add_column("seconds", justify="right", no_wrap=True)
    seconds = [r["seconds"] for r in results]
    columns.append(
        marked([seconds_text(s) for s in seconds], best_of([float(seconds_text(s).replace(",", "")) for s in seconds], min))
    )
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    return table


def label_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """One row per label, however many there are: its classes, its imbalance, and each run's class-balanced accuracy.

    The labels are those of all runs, in order of appearance. Where runs were trained on different counts, each distinct
    number of classes and imbalance is shown, in the order of the runs. The best run of a label is bold.
    """
    check_results("label_table", results)
    table = Table(title=Text("class-balanced accuracy % by label\n").append(setting_title(results, SETTING)))
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
            *marked([percent(v) for v in values], best_of(percent_digits(values), max)),
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
    table = Table(title=Text("top-5 class-balanced accuracy % by group\n").append(setting_title(results, SETTING)))
    table.add_column("group", overflow="fold")
    for heading in ("imbalance", *_run_names(results)):
        table.add_column(Text(heading), justify="right", overflow="fold")
    of_runs = [r.get("top5", {"balanced_accuracy": None, "groups": {}}) for r in results]
    for name in groups:
        present = [top["groups"].get(name) for top in of_runs]
        ratios = [group["imbalance"] for group in present if group is not None]
        values = [None if group is None else group["balanced_accuracy"] for group in present]
        shown = " | ".join(dict.fromkeys(ABSENT if ratio is None else ratio_text(ratio) for ratio in ratios))
        table.add_row(Text(name), shown, *marked([percent(v) for v in values], best_of(percent_digits(values), max)))
    table.add_section()
    means = [top["balanced_accuracy"] for top in of_runs]
    table.add_row("mean over attributes", "", *marked([percent(v) for v in means], best_of(percent_digits(means), max)))
    return table


def _run_names(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each run by its method and, in the order of the title, what else tells it from the others."""
    differing = differing_fields(results, SETTING)
    return ["\n".join([str(r["method"]), *(field_text(field, r[field]) for field in differing)]) for r in results]
