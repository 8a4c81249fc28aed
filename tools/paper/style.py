"""What the paper's figures share: sizes, the numbers of a line, means over seeds, titles, and errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crl_tf.experiment.report.figures import fitted, style, text_width

WIDTH = 6.0
"""Inches of every figure."""

FONT = 11.0
"""Points. At the width of a phone, 390 pixels for 6 inches, these are 10 pixels."""

MARKERS = ("o", "D", "s", "^", "v", "P", "X")

ACCURACY = "class-balanced accuracy, %"


class Series(NamedTuple):
    """What was measured, or what the paper prints, at each of several places along an axis.

    name: of the legend. places: along the axis, finite numbers; None: one value that holds at every place, drawn as a level.
    values: for each place (a level: for one place) the numbers of its seeds, in percent or points. NaN and None are left out.
    printed: whether the paper prints the numbers.
    """

    name: str
    places: Sequence[float] | None
    values: Sequence[Sequence[float | None]]
    printed: bool = False


def statistics(values: Sequence[Sequence[float | None]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sample standard deviation of the finite numbers of each place; NaN where there is none, or but one."""
    known = [of[np.isfinite(of)] for of in (np.asarray(list(of), np.float64) for of in values)]
    means = np.array([of.mean() if of.size else np.nan for of in known])
    return means, np.array([of.std(ddof=1) if of.size > 1 else np.nan for of in known])


def title_panel(panel: Axes, title: str, columns: int) -> None:
    panel.set_title(fitted(title, WIDTH / columns - 0.4, FONT), fontsize=FONT, parse_math=False)


def style_panel(panel: Axes, grid: str = "both") -> None:
    style(panel, grid)
    panel.tick_params(labelsize=FONT - 1)


def add_legend(figure: Figure, entries: Sequence[Artist], place: str = "upper") -> None:
    """A legend above ("lower": below) the panels in as many columns as fit; the figure grows by its height."""
    if not entries:
        return
    width = 0.75 + text_width(max(len(str(entry.get_label())) for entry in entries), FONT)
    columns = max(1, min(len(entries), int(WIDTH / width)))
    rows = math.ceil(len(entries) / columns)
    figure.set_figheight(figure.get_figheight() + 0.24 * rows)
    legend = figure.legend(handles=entries, loc=f"outside {place} center", ncols=columns, frameon=False, fontsize=FONT)
    for text in legend.get_texts():
        text.set_parse_math(False)


def require(what: str, holds: object, rule: str, received: object = "none") -> None:
    if not holds:
        raise ValueError(f"{what} must hold {rule}, received {received}")
