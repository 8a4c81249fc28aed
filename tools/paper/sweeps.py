"""The paper's sweeps of one setting: accuracy over gamma, kappa, eta or epochs (Figs. 10b, 11, 12), as `paper.figures` draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from crl_tf.experiment.report.figures import COLOURS, DARK, GREY, fitted, panel_grid
from crl_tf.text import shortened
from paper.style import ACCURACY, FONT, MARKERS, WIDTH, Series, add_legend, require, statistics, style_panel, title_panel

MOST_MARKERS = 20
"""Up to so many places of a line have a marker each."""

LEAST_SPAN = 2.0
"""Points that an axis of accuracy spans at least, so that it does not blow up noise."""


def accuracy_over(series: Sequence[Series], along: str, measure: str = ACCURACY, log: bool = False, note: str = "") -> Figure:
    """Figs. 10b and 12, and any other sweep: lines over one setting, with a level for what does not depend on it.

    What the paper prints shares the panel where it is near; else it has a panel of its own below, or ours would be a flat line.

    Args:
        series: lines and levels.
        along, measure: what the axes are, with units.
        log: whether the axis of the setting is logarithmic.
        note: a line below.
    Raises:
        ValueError: no finite number that was measured here.

    >>> figure = accuracy_over([Series("ce", [0.2, 1.0], [[40.0, 42.0], [30.0]])], "gamma")
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [41.0, 30.0]
    """
    ours = [of for of in series if not of.printed and _finite(of).size]
    theirs = [of for of in series if of.printed and _finite(of).size]
    require("accuracy_over: series", ours, "a finite number that was measured")
    apart = bool(theirs) and _apart(np.concatenate([*map(_finite, ours)]), np.concatenate([*map(_finite, theirs)]))
    figure, axes = panel_grid(1 + apart, 1, (WIDTH, 2.4 if apart else 3.4), 0.2, share=False)
    entries = _draw_series(axes[0], ours, list(COLOURS)) + _draw_series(axes[-1], theirs, [GREY] * len(theirs))
    everywhere = sorted({place for of in [*ours, *theirs] for place in of.places or ()})
    for panel in axes:
        panel.sharex(axes[0]) if panel is not axes[0] else None
        _setting_axis(panel, everywhere, log)
        _widen(panel)
        style_panel(panel)
    if apart:
        title_panel(axes[0], "here", 1)
        title_panel(axes[1], "in the paper", 1)
    axes[-1].set_xlabel(along, fontsize=FONT)
    figure.supylabel(measure, fontsize=FONT)
    if note:
        figure.supxlabel(fitted(note, WIDTH, FONT - 1), fontsize=FONT - 1, parse_math=False)
    add_legend(figure, entries)
    return figure


def accuracy_over_loss_weight(
    etas: Sequence[float], by_label: Mapping[str, Sequence[Sequence[float | None]]], levels: Sequence[Series] = ()
) -> Figure:
    """Fig. 11: accuracy over eta: the mean over the labels, and below how each label differs from its own mean over eta.

    Args:
        etas: the weights, > 0, [E].
        by_label: of each label for each eta the class-balanced accuracy of each seed, in percent; all with the same seeds.
        levels: what does not depend on eta, such as cross-entropy, and what the paper prints.
    Raises:
        ValueError: no finite number, or a label with another number of weights.
    """
    where = "accuracy_over_loss_weight: by_label"
    for name, of_etas in by_label.items():
        require(f"{where}[{name!r}]", len(of_etas) == len(etas), f"{len(etas)} weights", len(of_etas))
    for place, eta in enumerate(etas):
        seeds = [len(of[place]) for of in by_label.values()]
        require(where, len(set(seeds)) <= 1, f"as many seeds of every label at eta = {eta:g}", seeds)
    require(where, any(np.isfinite(statistics(of)[0]).any() for of in by_label.values()), "a finite number")
    several = len(by_label) > 1
    figure, axes = panel_grid(1 + several, 1, (WIDTH, 2.7), 0.2, share=False)
    means = [np.mean([np.asarray(of[place], np.float64) for of in by_label.values()], axis=0) for place in range(len(etas))]
    name = f"mean over {len(by_label)} labels" if several else next(iter(by_label))
    entries = _draw_series(axes[0], [Series(name, etas, means)], [COLOURS[0]], label_means=True)
    entries += _draw_series(axes[0], [of for of in levels if not of.printed], COLOURS[1:])
    entries += _draw_series(axes[0], [of for of in levels if of.printed], [GREY] * len(levels))
    axes[0].margins(y=0.15)
    axes[0].set_ylabel(ACCURACY, fontsize=FONT)
    add_legend(figure, entries)
    if several:
        add_legend(figure, _draw_differences(axes[1], etas, by_label), "lower")
    for panel in axes:
        _setting_axis(panel, sorted(etas), log=True)
        _widen(panel)
        style_panel(panel)
    axes[-1].set_xlabel("weight of the rectification, η (log)", fontsize=FONT)
    return figure


def _draw_differences(
    panel: Axes, etas: Sequence[float], by_label: Mapping[str, Sequence[Sequence[float | None]]]
) -> list[Artist]:
    """Draws how each label differs from its mean over eta; returns the entries of the legend, none where they are too many."""
    named = len(by_label) <= 2 * len(COLOURS)
    order = np.argsort(etas)
    lines: list[Artist] = []
    for index, (label, of_etas) in enumerate(by_label.items()):
        accuracies = statistics(of_etas)[0][order]
        if not np.isfinite(accuracies).any():
            continue
        again, place = divmod(index, len(COLOURS))
        look = {"color": COLOURS[place], "marker": MARKERS[place], "linestyle": "--" if again else "-", "markersize": 5}
        look = look if named else {"color": COLOURS[0], "linewidth": 0.8, "alpha": 0.6}
        places = np.asarray(etas, np.float64)[order]
        lines += panel.plot(places, accuracies - np.nanmean(accuracies), label=shortened(label, 24), **look)
    panel.axhline(0, color=DARK, linewidth=0.8)
    panel.set_ylabel("difference to the label's\nmean over η, points", fontsize=FONT)
    return lines if named else []


def _draw_series(panel: Axes, series: Sequence[Series], colours: Sequence[str], label_means: bool = False) -> list[Artist]:
    """Draws lines and levels; returns the entries of the legend."""
    entries: list[Artist] = []
    for index, (of, colour) in enumerate(zip(series, colours, strict=False)):
        means, stds = statistics(of.values)
        dashes = "--" if of.printed else "-"
        line = {"color": colour, "linestyle": dashes, "label": shortened(of.name, 48), "linewidth": 2.0}
        if of.places is None:
            entries.append(panel.axhline(means[0], **line | {"linestyle": ":" if of.printed else "--", "linewidth": 1.6}))
            if np.isfinite(stds[0]):
                panel.axhspan(means[0] - stds[0], means[0] + stds[0], color=colour, alpha=0.15, linewidth=0)
            continue
        order = [place for place in np.argsort(of.places) if np.isfinite(means[place])]
        x, y, bars = np.asarray(of.places, np.float64)[order], means[order], stds[order]
        marker = {"marker": MARKERS[index % len(MARKERS)], "markersize": 6} if len(order) <= MOST_MARKERS else {}
        if np.isfinite(bars).any():
            panel.errorbar(x, y, yerr=bars, linestyle="", ecolor=colour, elinewidth=1.4, capsize=3)
        entries += panel.plot(x, y, **line | marker | ({"linestyle": ""} if len(order) == 1 else {}))
        for place, mean in zip(x, y, strict=True) if label_means else ():
            panel.annotate(f"{mean:.1f}", (place, mean), (0, 8), textcoords="offset points", ha="center", fontsize=FONT - 1)
    return entries


def _setting_axis(panel: Axes, places: Sequence[float], log: bool) -> None:
    """Ticks at the places that were measured, where they are few."""
    if log:
        panel.set_xscale("log")
    if 0 < len(places) <= 10:
        panel.xaxis.set_major_locator(FixedLocator(list(places)))
        panel.xaxis.set_major_formatter(FixedFormatter([f"{place:g}" for place in places]))
        panel.xaxis.set_minor_locator(NullLocator())


def _widen(panel: Axes) -> None:
    low, high = panel.get_ylim()
    missing = max(0.0, LEAST_SPAN - (high - low)) / 2
    panel.set_ylim(low - missing, high + missing)


def _finite(series: Series) -> np.ndarray:
    means = statistics(series.values)[0]
    return means[np.isfinite(means)]


def _apart(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether two sets of numbers lie so far apart that one axis would make each of them a flat line."""
    gap = max(theirs.min() - ours.max(), ours.min() - theirs.max())
    return gap > max(5.0, 2 * np.ptp(ours))
