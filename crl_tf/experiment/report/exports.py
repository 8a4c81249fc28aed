"""Tables of exports beside the model that they were made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from crl_tf.experiment.report.grid import Cell, Grid, number_cells, points, rich_table, text_cells

MOST_LABELS = 40
"""The table by label is left out above this many labels; exports.json has them all."""

DECISIONS = {"balanced_accuracy": "balanced\naccuracy %", "rarest_third": "rarest\nthird %"}
DETECTIONS = {"detection": "all\nclasses %", "rarest_third_detection": "rarest\nthird %"}


def exports_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """One table of the exports, with thresholds one of what they detect, and one with what each label gains or loses.

    Args:
        rows: what `crl_tf.experiment.exporting.export_finished` returns.
    """
    tables = [rich_table(_by_file("exports on the test images", rows, "same_decisions", DECISIONS))]
    if "same_detections" in rows[0]:
        title = "what the thresholds detect: mean of sensitivity and specificity"
        tables.append(rich_table(_by_file(title, rows, "same_detections", DETECTIONS)))
    labels = list(rows[0]["before"]["labels"])
    if 1 < len(labels) <= MOST_LABELS:
        tables.append(rich_table(_by_label(rows, labels)))
    return tables


def _by_file(title: str, rows: Sequence[Mapping[str, Any]], same: str, shares: Mapping[str, str]) -> Grid:
    cells = [text_cells(["the model", "", ""]) + _numbers(rows[0]["before"], shares)]
    for row in rows:
        cells.append(text_cells([row["file"], _size(row["bytes"]), f"{100 * row[same]:.2f}"]) + _numbers(row["after"], shares))
    return Grid(title, ["file", "size", same.replace("_", "\n") + " %", *shares.values()], cells, copied=True)


def _numbers(of: Mapping[str, Any], shares: Mapping[str, str]) -> list[Cell]:
    return [cell for share in shares for cell in number_cells([of[share]])]


def _by_label(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Grid:
    cells = []
    for name in labels:
        before = rows[0]["before"]["labels"][name]
        changes = [" / ".join(_change(before, row["after"]["labels"][name], share) for share in before) for row in rows]
        cells.append(text_cells([name]) + number_cells([before["balanced_accuracy"]]) + text_cells(changes))
    title = "points that each label gains or loses: class-balanced accuracy / its rarest third"
    return Grid(title, ["label", "the model,\nbalanced %", *(row["kind"].replace("_", "\n") for row in rows)], cells)


def _change(before: Mapping[str, Any], after: Mapping[str, Any], share: str) -> str:
    return "–" if after[share] is None else points(after[share] - before[share])


def _size(count: int) -> str:
    return f"{count / 1e6:,.2f} MB" if count >= 1e5 else f"{count / 1e3:,.0f} kB"
