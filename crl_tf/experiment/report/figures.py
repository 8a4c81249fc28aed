"""Figures of data and of single runs as PNG files, and what all figures share: panels, style, texts that fit, writing."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator, PercentFormatter

from crl_tf.experiment.report.aggregate import Runs, aggregates, check_results, class_counts, first_labels
from crl_tf.experiment.report.grid import imbalance_text, ratio_text
from crl_tf.experiment.report.inspection import NAMED_LABELS
from crl_tf.files import write_whole
from crl_tf.metrics import pooled_classes
from crl_tf.text import shortened

NAMED_CLASSES = 12
"""Up to so many classes in a label, the figure of its distribution names each of them."""

FREQUENCY_BINS = 8
"""Bins, of equal width on the log axis, of the mean line over training frequency."""

# Okabe & Ito's palette without its yellow, which is invisible on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY, DARK = "#767676", "#404040"


def save_class_distributions(results_or_labels: Runs | Mapping[str, Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
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
        labels = first_labels(results_or_labels)
    # Inches of a panel, panels per row and font size, readable for one label and for forty.
    size, columns, font = ((7.0, 4.0), 1, 10) if len(labels) == 1 else ((3.6, 2.8), min(3, len(labels)), 9)
    if len(labels) > 9:
        size, columns, font = (1.9, 1.9), math.ceil(math.sqrt(len(labels))) + 1, 7
    # Shared axes set the limits of all panels again for each panel: quadratic in labels, of which there may be a thousand.
    figure, axes = panel_grid(len(labels), columns, size, 0.5, share=False)
    every_count = np.concatenate([class_counts(label) for label in labels.values()])
    # A log axis has no 0: bars start below the decade of the smallest class, so that this one still shows.
    floor = 0.6 * 10.0 ** math.floor(math.log10(every_count[every_count > 0].min(initial=every_count.max(initial=1))))
    top = 1.6 * max(10 * floor, every_count.max())
    for panel, (name, label) in zip(axes, labels.items(), strict=True):
        panel.set_yscale("log")
        panel.set_ylim(floor, top)
        panel.tick_params(axis="y", labelsize=font, labelleft=panel.get_subplotspec().is_first_col())
        _draw_distribution(panel, name, label["train_counts"], floor, font, size[0])
    figure.supylabel("training samples per class (log)", fontsize=font + 1)
    write_png(figure, path)


def save_sensitivity_by_frequency(results: Runs, path: str | os.PathLike[str]) -> None:
    """Writes a PNG of every class's sensitivity against its training frequency: one panel per method, axes shared.

    The line is the mean sensitivity per frequency bin; the first method's is repeated, dashed, in the other panels. Seeds of
    one method share a panel. Classes that were never trained on are drawn at the left, at 0, with a mean of their own.
    """
    names, points = [], []
    for method in aggregates(results, where="save_sensitivity_by_frequency"):
        names.append(method.name)
        points.append(np.concatenate([pooled_classes(run["labels"]) for run in method.runs], axis=1))
    every_count = np.concatenate([counts for counts, _ in points])
    if not every_count.size:
        raise ValueError("save_sensitivity_by_frequency: at least one class must occur in the test set; none does")
    columns = 2 if len(names) == 4 else min(len(names), 3)
    figure, axes = panel_grid(len(names), columns, (4.0, 3.4), 0.8)
    zero = frequency_axis(axes[0], every_count)
    first = {"color": GREY, "linestyle": "--", "marker": "o", "markersize": 3, "linewidth": 1.4}
    for index, (panel, name, (counts, sensitivities)) in enumerate(zip(axes, names, points, strict=True)):
        own = {"color": COLOURS[index % len(COLOURS)], "marker": "o", "markerfacecolor": "white", "linewidth": 2}
        places = np.where(counts > 0, counts, zero)
        panel.scatter(places, sensitivities, s=16, color=own["color"], alpha=0.45, linewidths=0, zorder=3)
        for of_method, line in ((points[0], first), (points[index], own))[index == 0 :]:
            means, places = bin_means(*of_method, every_count), bin_places(of_method[0], every_count, zero)
            trained = np.isfinite(means) & (places > zero)
            panel.plot(places[trained], means[trained], **line)
            # A class that was never trained on has no place on the line.
            if np.isfinite(means[0]):
                panel.plot(places[:1], means[:1], **line)
        panel.set_title(fitted(name, 4.0, 11), fontsize=11, parse_math=False)
        style(panel, hidden=())
    axes[0].set_ylim(-0.04, 1.04)
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.supxlabel("training samples of the class (log)", fontsize=10)
    figure.supylabel("sensitivity on the test set", fontsize=10)
    colour = COLOURS[0] if len(names) == 1 else DARK
    entries = [
        Line2D([], [], linestyle="", marker="o", markersize=5, alpha=0.45, color=colour, label="one class"),
        Line2D([], [], marker="o", markerfacecolor="white", linewidth=2, color=colour, label="mean per frequency bin"),
    ]
    if len(names) > 1:
        entries.append(Line2D([], [], label=f"mean of {shortened(names[0], 36)}", **first))
    legend_above(figure, entries)
    write_png(figure, path)


def save_class_sizes(inspection: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes a PNG of every label's class sizes on one log axis, the most imbalanced label on top (as Fig. 1 shows them).

    With more than `NAMED_LABELS` labels, the sizes of their smallest and largest classes over the rank of the label.
    """
    ordered = sorted(inspection["labels"].items(), key=lambda item: item[1]["ratio"] or 0)
    counts = [np.array([c["train"] for c in facts["classes"].values()]) for _, facts in ordered]
    named = len(ordered) <= NAMED_LABELS
    figure, (panel,) = panel_grid(1, 1, (8.0, 0.2 * len(ordered)) if named else (8.0, 3.8), 1.2)
    low = max(0.5, 0.6 * min(c[c > 0].min(initial=c.max(initial=1)) for c in counts))
    if named:
        panel.set_xscale("log")
        for place, ((_, facts), sizes) in enumerate(zip(ordered, counts, strict=True)):
            trained = sizes[sizes > 0]
            if trained.size:
                panel.plot([trained.min(), trained.max()], [place, place], color=GREY, linewidth=0.8, zorder=1)
                panel.scatter(trained, np.full(trained.size, place), s=14, color=COLOURS[0], alpha=0.6, linewidths=0, zorder=2)
            ratio = {"text": ratio_text(facts["ratio"]), "xycoords": ("axes fraction", "data")}
            panel.annotate(xy=(1.01, place), va="center", fontsize=7, color=GREY, **ratio)
        panel.set_yticks(range(len(ordered)), [shortened(name, 30) for name, _ in ordered], fontsize=7, parse_math=False)
        panel.set_ylim(-0.8, len(ordered) - 0.2)
        panel.set_xlim(low, 1.6 * max(c.max() for c in counts))
        panel.set_xlabel("training images of a class (log)")
    else:
        panel.set_yscale("log")
        for extreme, colour, name in ((np.max, COLOURS[0], "largest class"), (np.min, COLOURS[1], "smallest class")):
            panel.plot([max(low, extreme(c)) for c in counts], color=colour, linewidth=1.2, label=name)
        panel.set_xlabel(f"{len(ordered)} labels, the least imbalanced first")
        panel.set_ylabel("training images (log)")
        panel.legend(frameon=False)
    style(panel, "x" if named else "y")
    write_png(figure, path)


def save_association(names: Sequence[str], values: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Writes a PNG of the association of each pair of labels, Cramér's V [L, L] in [0, 1]; NaN is white."""
    side = min(14.0, 3.0 + 0.18 * len(names))
    figure, (panel,) = panel_grid(1, 1, (side + 1, side), 0.0)
    image = panel.imshow(np.where(np.eye(len(names)), np.nan, values), vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    places = range(len(names) if len(names) <= NAMED_LABELS else 0)
    short = [shortened(names[place], 24) for place in places]
    panel.set_xticks(places, short, rotation=90, fontsize=7, parse_math=False)
    panel.set_yticks(places, short, fontsize=7, parse_math=False)
    figure.colorbar(image, label="Cramér's V\n0 = nothing\n1 = everything", shrink=0.7)
    write_png(figure, path)


def panel_grid(
    count: int, columns: int, size: tuple[float, float], extra: float, share: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels of a size in inches, `extra` higher for its titles, 6 inches wide at least."""
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(max(6.0, size[0] * columns), size[1] * rows + extra), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False).ravel()
    for index, panel in enumerate(axes):
        panel.set_visible(index < count)
        # The last panel of each column has the names below, also where the grid has an empty place below it.
        if share and index < count <= index + columns:
            panel.tick_params(labelbottom=True)
    return figure, list(axes[:count])


def style(panel: Axes, grid: str = "both", hidden: Sequence[str] = ("top", "right")) -> None:
    """A light grid along one axis or both, behind what is drawn; some of the frame's sides hidden."""
    panel.grid(True, axis=grid, which="major", color="#e4e4e4", linewidth=0.6)
    panel.set_axisbelow(True)
    for side in hidden:
        panel.spines[side].set_visible(False)


def legend_above(figure: Figure, entries: Sequence[Artist]) -> None:
    """A legend above the panels, in as many columns as fit."""
    width = 0.6 + text_width(max(len(str(entry.get_label())) for entry in entries), 9)
    columns = max(1, min(len(entries), int(figure.get_figwidth() / width)))
    legend = figure.legend(handles=entries, loc="outside upper center", ncols=columns, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)


def text_width(letters: int, font: float) -> float:
    """Inches: a letter is about 0.6 of the font size (in points, 72 to the inch) wide."""
    return letters * 0.6 * font / 72


def fitted(text: str, inches: float, font: float) -> str:
    """The text, broken into lines that are no wider than so many inches."""
    letters = max(10, int(inches / text_width(1, font)))
    # A number and its % stay together.
    lines = [textwrap.fill(line.replace(" %", "\u00a0%"), letters, break_on_hyphens=False) for line in text.split("\n")]
    return "\n".join(lines).replace("\u00a0", " ")


def frequency_bins(counts: np.ndarray, every_count: np.ndarray) -> np.ndarray:
    """Which of the `FREQUENCY_BINS` bins each class is in, by its training samples; -1 for a class without any.

    The bins have equal width on a log axis from the smallest of `every_count` that is not 0 to the largest.
    """
    low, high = _trained_range(every_count)
    edges = np.geomspace(low, high, FREQUENCY_BINS + 1)
    return np.where(counts > 0, np.clip(np.searchsorted(edges, counts, side="right") - 1, 0, FREQUENCY_BINS - 1), -1)


def bin_means(counts: np.ndarray, values: np.ndarray, every_count: np.ndarray) -> np.ndarray:
    """The mean value of the classes never trained on, and of those in each frequency bin, [1 + bins]; NaN where there is none."""
    bins = frequency_bins(counts, every_count)
    return np.array([values[bins == b].mean() if (bins == b).any() else np.nan for b in range(-1, FREQUENCY_BINS)])


def bin_places(counts: np.ndarray, every_count: np.ndarray, zero: float) -> np.ndarray:
    """The places of `bin_means` on the axis: `zero`, and the geometric mean of the counts in each bin."""
    return np.concatenate([[zero], np.exp(bin_means(counts, np.log(np.maximum(counts, 1)), every_count)[1:])])


def frequency_axis(panel: Axes, every_count: np.ndarray) -> float:
    """Gives a panel a log axis over the training samples of classes, with a tick for 0 if a class has none; returns its place."""
    low, high = _trained_range(every_count)
    zero = low / 4
    panel.set_xscale("log")
    panel.set_xlim((low if every_count.all() else zero) / 1.6, high * 1.6)
    places = [10.0**power for power in range(-1, 12) if low / 1.6 <= 10.0**power <= high * 1.6]
    # Within a single decade, powers of ten would leave the axis bare.
    if len(places) < 2:
        places = [float(low), float(high)] if high > 1.5 * low else [float(high)]
    names = [f"{place:,.0f}" for place in places]
    if not every_count.all():
        places, names = [zero, *places], ["0", *names]
    panel.xaxis.set_major_locator(FixedLocator(places))
    panel.xaxis.set_major_formatter(FixedFormatter(names))
    panel.xaxis.set_minor_locator(NullLocator())
    return zero


def write_png(figure: Figure, path: str | os.PathLike[str]) -> None:
    FigureCanvasAgg(figure)
    write_whole(Path(path), lambda partial: figure.savefig(partial, format="png", dpi=130))


def _trained_range(counts: np.ndarray) -> tuple[float, float]:
    trained = counts[counts > 0]
    return (float(trained.min()), float(trained.max())) if trained.size else (1.0, 1.0)


def _draw_distribution(panel: Axes, name: str, train_counts: Mapping[str, int], floor: float, font: float, width: float) -> None:
    ordered = sorted(train_counts.items(), key=lambda item: -item[1])
    counts = np.array([count for _, count in ordered])
    heights = np.maximum(counts, floor)
    if len(counts) <= NAMED_CLASSES:
        panel.bar(np.arange(len(counts)) + 0.5, heights - floor, bottom=floor, width=0.8, color=COLOURS[0])
        names = [shortened(str(class_name), 14 if width > 2 else 9) for class_name, _ in ordered]
        upright = text_width(max(map(len, names)) * len(names), font) > 0.8 * width
        panel.set_xticks(np.arange(len(counts)) + 0.5, names, fontsize=font, rotation=90 if upright else 0, parse_math=False)
        for place in np.flatnonzero(counts == 0):
            panel.annotate("0", (place + 0.5, floor), (0, 2), textcoords="offset points", ha="center", fontsize=font, color=GREY)
    else:
        # One outline instead of bars: between a hundred bars of a pixel each, the page would show through as stripes.
        panel.stairs(heights, np.arange(len(counts) + 1), baseline=floor, fill=True, color=COLOURS[0])
        panel.xaxis.set_major_locator(NullLocator())
        panel.set_xlabel(f"{len(counts)} classes", fontsize=font)
    panel.set_xlim(0, len(counts))
    panel.set_title(f"{shortened(name, 26)}\n{imbalance_text(counts)}", fontsize=font + 1, parse_math=False)
    panel.yaxis.set_minor_locator(NullLocator())
    style(panel, "y")
