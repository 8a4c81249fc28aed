"""Tables of exports beside the model that they were made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from crl_tf.experiment.report.grid import Grid, number_cells, points, rich_table, text_cells

MOST_LABELS = 40
"""The table by label is left out above this many labels; exports.json has them all."""


def exports_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """One table of the exports, and one with what each label gains or loses.

    Args:
        rows: what `crl_tf.experiment.exporting.export_finished` returns.
    """
    before = rows[0]["before"]
    cells = [
        text_cells(["the model", "", ""]) + number_cells([before["balanced_accuracy"]]) + number_cells([before["rarest_third"]]),
        *(
            text_cells([row["file"], _size(row["bytes"]), f"{100 * row['same_decisions']:.2f}"])
            + number_cells([row["after"]["balanced_accuracy"]])
            + number_cells([row["after"]["rarest_third"]])
            for row in rows
        ),
    ]
    headings = ["file", "size", "same\ndecisions %", "balanced\naccuracy %", "rarest\nthird %"]
    tables = [rich_table(Grid("exports on the test images", headings, cells))]
    labels = list(before["labels"])
    if 1 < len(labels) <= MOST_LABELS:
        tables.append(rich_table(_by_label(rows, labels)))
    return tables


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
