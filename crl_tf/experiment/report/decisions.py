"""Tables of the decisions of one run: its thresholds and its calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from crl_tf.experiment.report.grid import Grid, number_cells, rich_table, text_cells
from crl_tf.text import shortened

MOST_CLASSES = 40
"""The table of thresholds shows at most so many classes, the rarest; result.json has all."""


WIDTH = 24
"""Of a name in it, in characters."""

OTHER_CLASS = "Of a label of two classes the rarer one's threshold t is chosen; the other has 1 - t."


def decision_tables(result: Mapping[str, Any]) -> list[Table]:
    """What "decision" of a result holds, as tables: the thresholds of the rarest classes, and the calibration; maybe none."""
    decision = result.get("decision", {})
    tables = [thresholds_table(result)] if "thresholds" in decision else []
    return [*tables, calibration_table(decision)] if "calibration" in decision else tables


def thresholds_table(result: Mapping[str, Any]) -> Table:
    """One row per class, the rarest first: its threshold with its interval, and recall and precision on test images.

    A class without training or validation images has no row.
    """
    decision = result["decision"]
    every = [
        (result["labels"][label]["train_counts"][name], label, name, facts)
        for label, of_label in decision["thresholds"].items()
        for name, facts in of_label.items()
    ]
    rows = [row for row in every if row[0] and row[3]["validation"]["images"]]
    rows = sorted(rows, key=lambda row: row[0])
    cells = []
    for count, label, name, facts in rows[:MOST_CLASSES]:
        low, high = facts["interval"]
        interval = "–" if low is None else f"{low:.3g}–{high:.3g}"
        short = shortened(name, WIDTH)
        texts = [shortened(label, WIDTH), short if facts["reached"] else f"{short} *", f"{count:,}"]
        texts += [f"{facts['validation']['images']:,}", f"{facts['threshold']:.3g}", interval]
        cells.append(text_cells(texts) + number_cells([facts["test"]["recall"]]) + number_cells([facts["test"]["precision"]]))
    captions = []
    if len(rows) > MOST_CLASSES:
        captions.append(f"The {MOST_CLASSES} rarest of {len(rows)} classes; result.json has all.")
    if len(every) > len(rows):
        captions.append(f"{len(every) - len(rows)} of {len(every)} classes have no training or no validation image: no row.")
    if not all(row[3]["reached"] for row in rows):
        captions.append("*: not detected, because no threshold has the wanted precision.")
    captions.append(
        "Recall and precision: on the test images. Interval: over other validation images (bootstrap), – where there is one."
    )
    if any(len(of_label) == 2 for of_label in decision["thresholds"].values()):
        captions.append(OTHER_CLASS)
    headings = ["label", "class", "training\nimages", "validation\nimages", "threshold", "95 %\ninterval"]
    headings += ["recall\n%", "precision\n%"]
    title = f"thresholds for {decision['goal']}, chosen on validation images"
    return rich_table(Grid(title, headings, cells, " ".join(captions), names=2))


def calibration_table(decision: Mapping[str, Any]) -> Table:
    """The expected calibration error of the rarest and the most frequent third of the classes, in points."""
    words = {"as_trained": "as trained", "calibrated": "with temperatures"}
    rows = [
        text_cells([words[name]]) + number_cells([errors["rarest_third"]]) + number_cells([errors["most_frequent_third"]])
        for name, errors in decision["calibration"].items()
    ]
    caption = "Mean difference between score and share of images, one class against the rest, in points. 0 is best."
    return rich_table(Grid("calibration on the test images", ["scores", "rarest\nthird", "most freq.\nthird"], rows, caption))
