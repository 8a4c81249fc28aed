"""The paper's figures, drawn from numbers: each function takes plain data and returns a matplotlib Figure.

The data come from `paper.observations`; `crl_tf.experiment.report.figures.write_png` writes a figure to a file. Accuracies are in
percent and gains in points. Every figure is 6 inches wide, with letters that stay legible at the width of a phone. What was
measured here has a colour; what the paper prints is grey. Bars of error are ± a sample standard deviation over seeds.

Figure and table numbers are those of Dong, Gong & Zhu, *Imbalanced Deep Learning by Minority Class Incremental Rectification*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

from crl_tf.experiment.report.figures import COLOURS, DARK, GREY, fitted, panel_grid
from crl_tf.experiment.report.grid import ratio_text
from crl_tf.text import shortened
from paper.style import FONT, MARKERS, WIDTH, add_legend, require, statistics, style_panel, title_panel

MOST_BARS = 40
"""Up to so many classes are bars; more are one outline."""

WHITE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
"""Behind a text that lies on what is drawn."""


class FeatureMap(NamedTuple):
    """Features of images in two dimensions.

    title: of the panel. points: float [n, 2]. classes: int [n], indices into the names of the figure's classes.
    axes: what the two dimensions are.
    """

    title: str
    points: np.ndarray
    classes: np.ndarray
    axes: tuple[str, str] = ("", "")


def class_imbalance(
    datasets: Mapping[str, Mapping[str, Sequence[int]]], printed: Mapping[str, tuple[int, int]] | None = None
) -> Figure:
    """Fig. 1: the training images of every class of all labels, largest class first, on a log axis; a panel per dataset.

    Args:
        datasets: of each dataset, by its title, the training images per class of each label.
        printed: smallest and largest class in the paper (Table 2), of the datasets that it has.
    Raises:
        ValueError: no dataset, or one without any training image.

    >>> figure = class_imbalance({"digits": {"digit": [500, 20, 4]}})
    >>> [float(bar.get_height()) for bar in figure.axes[0].patches]
    [500.0, 20.0, 4.0]
    """
    counts = {title: np.concatenate([np.asarray(of, np.int64) for of in labels.values()]) for title, labels in datasets.items()}
    require("class_imbalance: datasets", counts and all(of.any() for of in counts.values()), "a training image of each dataset")
    figure, axes = panel_grid(len(counts), 1, (WIDTH, 2.6), 0.3, share=False)
    for panel, (title, of_dataset) in zip(axes, counts.items(), strict=True):
        ordered = np.sort(of_dataset)[::-1]
        bounds = (printed or {}).get(title)
        least = min([ordered[ordered > 0].min(), *(bounds or ())])
        panel.set_yscale("log")
        # Below the decade of the smallest class, so that its bar shows.
        floor = 0.6 * 10.0 ** np.floor(np.log10(least))
        panel.set_ylim(floor, 3 * max([ordered.max(), *(bounds or ())]))
        if ordered.size <= MOST_BARS:
            panel.bar(np.arange(1, ordered.size + 1), ordered, width=0.8, color=COLOURS[0])
        else:
            panel.stairs(ordered, np.arange(ordered.size + 1) + 0.5, baseline=floor, fill=True, color=COLOURS[0])
        for bound, text in zip(bounds or (), ("smallest", "largest"), strict=False):
            panel.axhline(bound, color=GREY, linestyle="--", linewidth=1.2)
            note = {"va": "bottom", "ha": "right", "fontsize": FONT - 1, "color": DARK, "bbox": WHITE}
            panel.annotate(f"{text} class in the paper: {bound:,}", (0.99, bound), xycoords=("axes fraction", "data"), **note)
        panel.set_xlim(0.5, ordered.size + 0.5)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        panel.yaxis.set_minor_locator(NullLocator())
        labels = datasets[title]
        ratio = max(map(_ratio, labels.values()))
        size = f"{len(labels)} label{'s' * (len(labels) > 1)}, {ordered.size} classes, imbalance to {ratio_text(ratio)}"
        title_panel(panel, f"{title}\n{size}", 1)
        style_panel(panel, "y")
    axes[-1].set_xlabel("rank of the class among those of all labels", fontsize=FONT)
    figure.supylabel("training images of the class (log)", fontsize=FONT)
    return figure


def feature_maps(maps: Sequence[FeatureMap], names: Sequence[str], columns: int = 2) -> Figure:
    """Fig. 2: features of the images of a few classes, in panels: a colour and a marker per class.

    Args:
        maps: in reading order.
        names: of the classes. Those that come last are drawn on top, so give the rare classes last.
        columns: of panels.
    Raises:
        ValueError: no point in any map, a class without a name, or more classes than there are colours.
    """
    require("feature_maps: maps", any(np.isfinite(of.points).all(1).any() for of in maps), "a finite point")
    beyond = max(int(np.max(of.classes, initial=0)) for of in maps)
    require("feature_maps: names", beyond < len(names) <= len(COLOURS), f"{beyond + 1} to {len(COLOURS)} names", list(names))
    figure, axes = panel_grid(len(maps), columns, (WIDTH / columns, WIDTH / columns), 0.0, share=False)
    for panel, of in zip(axes, maps, strict=True):
        for index in range(len(names)):
            members = of.points[np.asarray(of.classes) == index]
            dots = {"s": 16, "alpha": 0.7, "linewidths": 0, "color": COLOURS[index], "marker": MARKERS[index]}
            panel.scatter(members[:, 0], members[:, 1], zorder=2 + index, **dots)
        title_panel(panel, of.title, columns)
        panel.set_xlabel(of.axes[0], fontsize=FONT - 1)
        panel.set_ylabel(of.axes[1], fontsize=FONT - 1)
        style_panel(panel)
        # Distances in a map have no unit.
        panel.tick_params(labelbottom=False, labelleft=False, length=0)
        panel.grid(False)
    dot = {"linestyle": "", "markersize": 6}
    entries = [
        Line2D([], [], marker=MARKERS[index], color=COLOURS[index], label=shortened(name, 40), **dot)
        for index, name in enumerate(names)
    ]
    add_legend(figure, entries)
    return figure


def gain_by_label(
    names: Sequence[str],
    ratios: Sequence[float | None],
    gains: Mapping[str, Sequence[Sequence[float | None]]],
    baseline: str,
    printed: Mapping[str, Sequence[float | None]] | None = None,
) -> Figure:
    """Figs. 6 and 8: what each method gains on the baseline at every label, the least imbalanced label on top; a panel a method.

    Args:
        names: of the labels, [L], in any order.
        ratios: largest class over smallest of each, [L]; None, and last: not known.
        gains: of each method for each label the gain of each seed, in points of class-balanced accuracy.
        baseline: the method that they gain on, for the axis.
        printed: of a method the paper's gain at each label, [L].
    Raises:
        ValueError: no finite gain, or another number of labels somewhere.
    """
    printed = printed or {}
    for method, of_labels in [*gains.items(), *printed.items()]:
        right = len(of_labels) == len(names) == len(ratios)
        require(f"gain_by_label: gains and printed of {method!r}", right, f"{len(names)} labels", len(of_labels))
    measured = {method: statistics(of_labels) for method, of_labels in gains.items()}
    drawable = any(np.isfinite(means).any() for means, _ in measured.values())
    require("gain_by_label: gains", drawable, "a finite number")
    order = sorted(range(len(names)), key=lambda i: np.inf if ratios[i] is None else ratios[i])
    columns = min(len(gains), 2)
    size = (WIDTH / columns, 0.25 * len(names) + 0.6)
    figure, axes = panel_grid(len(gains), columns, size, 0.2)
    places = np.arange(len(names))
    for panel, (method, (means, stds)) in zip(axes, measured.items(), strict=True):
        means, stds = means[order], stds[order]
        colours = [COLOURS[0] if mean >= 0 else COLOURS[1] for mean in means]
        panel.barh(places, means, height=0.7, color=colours)
        panel.errorbar(means, places, xerr=stds, linestyle="", ecolor=DARK, elinewidth=1.2, capsize=2)
        if method in printed:
            of_paper = np.array([printed[method][i] for i in order], np.float64)
            panel.plot(of_paper, places, linestyle="", marker="D", markersize=5, color=GREY, markeredgecolor="white", zorder=4)
        panel.axvline(0, color=DARK, linewidth=0.8)
        title_panel(panel, method, columns)
        style_panel(panel, "x")
    texts = [f"{shortened(names[i], 22)}  {ratio_text(ratios[i])}" for i in order]
    axes[0].set_yticks(places, texts, fontsize=FONT - 1, parse_math=False)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    figure.supxlabel(
        fitted(f"gain over {baseline}, points of class-balanced accuracy", WIDTH, FONT), fontsize=FONT, parse_math=False
    )
    every = np.concatenate([means for means, _ in measured.values()])
    entries: list[Artist] = [
        Line2D([], [], color=colour, linewidth=7, label=name)
        for colour, name, drawn in ((COLOURS[0], "gain", every >= 0), (COLOURS[1], "loss", every < 0))
        if drawn.any()
    ]
    if any(np.isfinite(stds).any() for _, stds in measured.values()):
        entries.append(Line2D([], [], color=DARK, linewidth=1.2, label="± std over seeds"))
    if printed.keys() & gains.keys():
        entries.append(Line2D([], [], linestyle="", marker="D", markersize=5, color=GREY, label="paper"))
    add_legend(figure, entries)
    return figure


def class_size_curves(sizes: Mapping[float, Sequence[int]]) -> Figure:
    """Fig. 10a: the training images of each class of CIFAR-100-imb(gamma), a curve per gamma.

    Args:
        sizes: of each gamma the training images of class 1, 2, ….

    >>> figure = class_size_curves({1.0: [500, 419, 25]})
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [500, 419, 25]
    """
    require("class_size_curves: sizes", sizes and all(len(of) for of in sizes.values()), "a class of each gamma")
    figure, (panel,) = panel_grid(1, 1, (WIDTH, 3.4), 0.0)
    shades = _shades(len(sizes))
    entries = []
    for colour, (gamma, of_classes) in zip(shades, sorted(sizes.items()), strict=True):
        counts = np.asarray(of_classes)
        name = f"γ = {gamma:g}: {counts.sum():,} images"
        entries += panel.plot(np.arange(1, counts.size + 1), counts, color=colour, linewidth=2.2, label=name)
    panel.set_ylim(0)
    panel.set_xlabel("class i", fontsize=FONT)
    panel.set_ylabel("training images of the class", fontsize=FONT)
    style_panel(panel)
    add_legend(figure, entries)
    return figure


def relative_gain(
    levels: Sequence[float], gains: Mapping[str, Sequence[Sequence[float | None]]], baseline: str, columns: int = 2
) -> Figure:
    """Relative gain against imbalance level, a point per binary label and a panel per method.

    As on slide 7 of the talk of LMLE (Huang, Li, Loy & Tang, CVPR 2016). The slide prints no numbers.

    Args:
        levels: of each label how far the share of positives in training is from 50 %, in [0, 50].
        gains: of each method for each label the gain of each seed, in percent of what the baseline reaches.
        baseline: the method that they gain on, for the axis.
        columns: of panels.
    Raises:
        ValueError: no finite gain, or another number of labels somewhere.
    """
    for method, of_labels in gains.items():
        require(f"relative_gain: gains of {method!r}", len(of_labels) == len(levels), f"{len(levels)} labels", len(of_labels))
    measured = {method: statistics(of_labels) for method, of_labels in gains.items()}
    require("relative_gain: gains", any(np.isfinite(means).any() for means, _ in measured.values()), "a finite number")
    columns = min(columns, len(gains))
    figure, axes = panel_grid(len(gains), columns, (WIDTH / columns, 2.8), 0.5)
    for panel, (method, (means, stds)) in zip(axes, measured.items(), strict=True):
        panel.axhline(0, color=DARK, linewidth=0.8)
        dots = {"markersize": 5, "color": COLOURS[0], "ecolor": GREY, "elinewidth": 1.0, "alpha": 0.8}
        panel.errorbar(levels, means, yerr=stds, linestyle="", marker="o", **dots)
        title_panel(panel, method, columns)
        style_panel(panel)
    axes[0].set_xlim(-1.5, 51.5)
    figure.supxlabel("imbalance level: share of positives, distance from 50 %, points", fontsize=FONT)
    figure.supylabel(fitted(f"relative gain over {baseline}, %", 2.8, FONT), fontsize=FONT, parse_math=False)
    return figure


def _ratio(counts: Sequence[int]) -> float:
    known = np.asarray(counts)[np.asarray(counts) > 0]
    return float(known.max() / known.min()) if known.size else 1.0


def _shades(count: int) -> list[tuple[float, ...]]:
    """Colours in an order that is seen as one, dark to light, without the lightest."""
    return [colormaps["cividis"](0.9 * place / max(count - 1, 1)) for place in range(count)]
