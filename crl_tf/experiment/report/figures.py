"""Figures as PNG files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator, PercentFormatter

from crl_tf.experiment.report.runs import check_results, class_counts, imbalance_text, seed_groups
from crl_tf.files import write_whole
from crl_tf.metrics import pooled_classes

NAMED_CLASSES = 12
"""Up to so many classes in a label, the figure of its distribution names each of them."""

FREQUENCY_BINS = 8
"""Bins, of equal width on the log axis, of the mean line over training frequency."""

# Okabe & Ito's palette without its yellow, which a white page swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#767676"


def save_class_distributions(
    results_or_labels: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]], path: str | os.PathLike[str]
) -> None:
    """Writes a PNG with one panel per label: its classes' training counts, largest first, on a log axis that all share.

    Args:
        results_or_labels: a sequence of results, or the "labels" of one. Of several results, each label is drawn with the
            counts of the first run that has it.
        path: the PNG to write; its folder is created.
    """
    if isinstance(results_or_labels, Mapping):
        labels = dict(results_or_labels)
        if not labels or not all(isinstance(v, Mapping) and "train_counts" in v for v in labels.values()):
            raise ValueError(
                "save_class_distributions: needs a sequence of results, or a mapping of at least one label to a dict with"
                f" 'train_counts'; received a mapping with keys {list(labels)[:10]}"
            )
    else:
        check_results("save_class_distributions", results_or_labels)
        labels = {}
        for result in results_or_labels:
            labels = {**result["labels"], **labels}
    size, columns, font = _grid(len(labels))
    rows = math.ceil(len(labels) / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    every_count = np.concatenate([class_counts(label) for label in labels.values()])
    # A log axis has no zero to stand on: below the decade of the smallest class, that one still shows as a bar.
    floor = 0.6 * 10.0 ** math.floor(math.log10(every_count[every_count > 0].min(initial=every_count.max(initial=1))))
    top = 1.6 * max(10 * floor, every_count.max())
    for panel, (name, label) in zip(axes, labels.items(), strict=False):
        # Not sharey: it redoes every panel's limits with each panel drawn, quadratic in labels, of which there may be a thousand.
        panel.set_yscale("log")
        panel.set_ylim(floor, top)
        panel.tick_params(axis="y", labelsize=font, labelleft=panel.get_subplotspec().is_first_col())
        _draw_distribution(panel, name, label["train_counts"], floor, font, size[0])
    for panel in axes[len(labels) :]:
        panel.set_visible(False)
    figure.supylabel("training samples per class (log)", fontsize=font + 1)
    write_png(figure, path)


def save_sensitivity_by_frequency(results: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Writes a PNG of every class's sensitivity against its training frequency: one panel per method, axes shared.

    The line is the mean sensitivity per frequency bin; the first method's is repeated, dashed, in the other panels. Seeds of
    one method share a panel. Classes that were never trained on stand apart at the left, at 0, with a mean of their own.
    """
    check_results("save_sensitivity_by_frequency", results)
    names, points = [], []
    for key, runs in seed_groups(results).items():
        pooled = [pooled_classes(r["labels"]) for r in runs]
        names.append(" · ".join(map(str, key)))
        points.append((np.concatenate([c for c, _ in pooled]), np.concatenate([s for _, s in pooled])))
    every_count = np.concatenate([counts for counts, _ in points])
    if not every_count.size:
        raise ValueError("save_sensitivity_by_frequency: at least one class must occur in the test set; none does")
    trained = every_count[every_count > 0]
    low, high = (trained.min(), trained.max()) if trained.size else (1, 1)
    edges = np.geomspace(low, high, FREQUENCY_BINS + 1) if high > low else np.array([low, low])
    zero = low / 4 if (every_count == 0).any() else None

    columns = 2 if len(names) == 4 else min(len(names), 3)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(max(6.0, 4.0 * columns), 3.4 * rows + 0.8), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for index, (panel, name, (counts, sensitivities)) in enumerate(zip(axes, names, points, strict=False)):
        colour = COLOURS[index % len(COLOURS)]
        places = np.where(counts > 0, counts, zero or 0)
        panel.scatter(places, sensitivities, s=16, color=colour, alpha=0.45, linewidths=0, zorder=3)
        if index:
            _draw_mean(panel, *points[0], edges, zero, color=GREY, linestyle="--", marker="o", markersize=3, linewidth=1.4)
        _draw_mean(panel, counts, sensitivities, edges, zero, color=colour, marker="o", markerfacecolor="white", linewidth=2)
        panel.set_title(name, fontsize=11, parse_math=False)
        panel.grid(True, which="major", color="#e4e4e4", linewidth=0.6)
        panel.set_axisbelow(True)
    for panel in axes[len(names) :]:
        panel.set_visible(False)
    for panel in axes[max(0, len(names) - columns) : len(names)]:
        panel.tick_params(labelbottom=True)
    _frequency_axis(axes[0], low, high, zero)
    axes[0].set_ylim(-0.04, 1.04)
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.supxlabel("training samples of the class (log)", fontsize=10)
    figure.supylabel("sensitivity on the test set", fontsize=10)
    _draw_legend(figure, names)
    write_png(figure, path)


def shortened(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _grid(panels: int) -> tuple[tuple[float, float], int, float]:
    """Inches of a panel, panels per row and font size, for a figure that reads at one label and at forty."""
    if panels == 1:
        return (7.0, 4.0), 1, 10
    if panels <= 9:
        return (3.6, 2.8), min(3, panels), 9
    return (1.9, 1.9), math.ceil(math.sqrt(panels)) + 1, 7


def _draw_distribution(panel: Axes, name: str, train_counts: Mapping[str, int], floor: float, font: float, width: float) -> None:
    ordered = sorted(train_counts.items(), key=lambda item: -item[1])
    counts = np.array([count for _, count in ordered])
    heights = np.maximum(counts, floor)
    named = len(counts) <= NAMED_CLASSES
    if named:
        panel.bar(np.arange(len(counts)) + 0.5, heights - floor, bottom=floor, width=0.8, color=COLOURS[0])
        names = [shortened(str(class_name), 14 if width > 2 else 9) for class_name, _ in ordered]
        # A letter is about 0.6 of the font size (in points, 72 to the inch) wide.
        upright = max(map(len, names)) * len(names) * 0.6 * font / 72 > 0.8 * width
        panel.set_xticks(np.arange(len(counts)) + 0.5, names, fontsize=font, rotation=90 if upright else 0, parse_math=False)
        for place in np.flatnonzero(counts == 0):
            panel.annotate("0", (place + 0.5, floor), (0, 2), textcoords="offset points", ha="center", fontsize=font, color=GREY)
    else:
        # One outline instead of bars: a hundred bars of a pixel each would show the page through as stripes.
        panel.stairs(heights, np.arange(len(counts) + 1), baseline=floor, fill=True, color=COLOURS[0])
        panel.xaxis.set_major_locator(NullLocator())
        panel.set_xlabel(f"{len(counts)} classes", fontsize=font)
    panel.set_xlim(0, len(counts))
    panel.set_title(f"{shortened(name, 26)}\n{imbalance_text(counts)}", fontsize=font + 1, parse_math=False)
    panel.yaxis.set_minor_locator(NullLocator())
    panel.grid(True, axis="y", which="major", color="#e4e4e4", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _draw_mean(
    panel: Axes, counts: np.ndarray, sensitivities: np.ndarray, edges: np.ndarray, zero: float | None, **style: Any
) -> None:
    """The mean per frequency bin at the geometric mean of its counts; untrained classes have no place on that line."""
    trained = counts > 0
    bins = np.clip(np.searchsorted(edges, counts, side="right") - 1, 0, len(edges) - 2)
    filled = [trained & (bins == b) for b in range(len(edges) - 1) if (trained & (bins == b)).any()]
    panel.plot([np.exp(np.log(counts[m]).mean()) for m in filled], [sensitivities[m].mean() for m in filled], **style)
    if zero is not None and not trained.all():
        panel.plot([zero], [sensitivities[~trained].mean()], **style)


def _frequency_axis(panel: Axes, low: float, high: float, zero: float | None) -> None:
    """Log axis from `low` to `high`, with a place labelled 0 at `zero` for what a log axis cannot hold."""
    panel.set_xscale("log")
    panel.set_xlim((zero or low) / 1.6, high * 1.6)
    places = [10.0**power for power in range(-1, 12) if low / 1.6 <= 10.0**power <= high * 1.6]
    # Within a single decade, powers of ten would leave the axis bare.
    if len(places) < 2:
        places = [float(low), float(high)] if high > 1.5 * low else [float(high)]
    names = [f"{place:,.0f}" for place in places]
    if zero is not None:
        places, names = [zero, *places], ["0", *names]
    panel.xaxis.set_major_locator(FixedLocator(places))
    panel.xaxis.set_major_formatter(FixedFormatter(names))
    panel.xaxis.set_minor_locator(NullLocator())


def _draw_legend(figure: Figure, names: Sequence[str]) -> None:
    first = COLOURS[0] if len(names) == 1 else "#404040"
    entries = [
        Line2D([], [], linestyle="", marker="o", markersize=5, alpha=0.45, color=first, label="one class"),
        Line2D([], [], marker="o", markerfacecolor="white", linewidth=2, color=first, label="mean per frequency bin"),
    ]
    if len(names) > 1:
        entries.append(Line2D([], [], linestyle="--", marker="o", markersize=3, color=GREY, label=f"mean of {names[0]}"))
    legend = figure.legend(handles=entries, loc="outside upper center", ncols=len(entries), frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)


def write_png(figure: Figure, path: str | os.PathLike[str]) -> None:
    FigureCanvasAgg(figure)
    write_whole(Path(path), lambda partial: figure.savefig(partial, format="png", dpi=130))
