"""Figures of many methods over seeds: where they gain on the baseline, at how frequent classes, and under which decision rule."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from crl_tf.experiment.report.aggregate import (
    UNSEEDED,
    Aggregate,
    Runs,
    aggregates,
    class_counts,
    first_labels,
    imbalance_by_label,
    mean_and_std,
    rule_names,
)
from crl_tf.experiment.report.figures import (
    COLOURS,
    DARK,
    GREY,
    bin_means,
    bin_places,
    fitted,
    frequency_axis,
    frequency_bins,
    legend_above,
    panel_grid,
    style,
    write_png,
)
from crl_tf.experiment.report.grid import ABSENT, field_text, percent, ratio_text, seeds_text
from crl_tf.metrics import pooled_classes
from crl_tf.text import shortened

DRAWN = 6
"""So many methods, the best ones, have a panel in a figure of gains; those of ALWAYS have one too."""

ALWAYS = ("class_rel", "lmle")

NAMED_BARS = 40
"""Up to so many labels or classes are bars with names; more are a line over their rank."""

_MARKERS = ("o", "D", "s", "^", "v", "P", "X")


class _Items(NamedTuple):
    """What gains are drawn over, in order: labels by rising imbalance ratio, or classes from frequent to rare.

    keys: of each item's number in a result. texts: its imbalance ratio or training samples, as shown. sizes: the same as numbers.
    """

    kind: str
    keys: list[tuple[str, ...]]
    names: list[str]
    texts: list[str]
    sizes: np.ndarray


def save_gain_by_imbalance(results: Runs, path: str | os.PathLike[str], baseline: str | None = None) -> bool:
    """Writes a PNG of what methods gain on the baseline at each label, by rising imbalance: the paper's Figs. 6 and 8.

    Gains are in class-balanced accuracy, in points, paired by seed. Of a single label they are in the sensitivity of each of
    its classes, from frequent to rare. One panel per method: the best `DRAWN` by class-balanced accuracy, and class_rel and
    lmle. More than `NAMED_BARS` labels or classes are a line over their rank, with the mean per bin of imbalance (frequency).

    Args:
        results: dicts of `result.json`.
        path: the PNG to write; its folder is created.
        baseline: as for `crl_tf.experiment.report.aggregate.method_rows`.
    Returns:
        False, and nothing is written, where there is nothing to compare: no second method, or no seed in common.
    """
    methods = aggregates(results, baseline, "save_gain_by_imbalance")
    items = _items(results)
    gains = [100 * np.array([method.gain(*keys) for keys in items.keys], np.float64) for method in methods]
    chosen, note = _chosen(methods, [np.isfinite(of_method).any() for of_method in gains])
    if not chosen:
        return False
    bars = len(items.names) <= NAMED_BARS
    most = 1 if len(items.names) > 20 else 2 if len(items.names) > 8 or len(chosen) == 4 else 3
    columns = min(most, len(chosen))
    width = 4.2 if columns > 1 else min(12.0, 0.24 * len(items.names) + 1) if bars else 9.0
    figure, axes = panel_grid(len(chosen), columns, (width, 1.7), 2.2)
    for panel, (place, title) in zip(axes, chosen.items(), strict=True):
        (_draw_bars if bars else _draw_ranks)(panel, items, gains[place])
        panel.axhline(0, color=DARK, linewidth=0.8)
        _set_title(panel, title, columns)
        style(panel, "y")
    along, measure = "labels by rising imbalance ratio", "class-balanced accuracy"
    if items.kind == "class":
        along, measure = "classes from frequent to rare, with training samples", "sensitivity"
    base = methods[0].baseline
    title = f"gain in {measure} over {base}, mean over seeds{note}"
    _set_labels(figure, title, along if bars else f"rank: {along}", f"gain over {base}, points")
    write_png(figure, path)
    return True


def save_relative_gain(results: Runs, path: str | os.PathLike[str], baseline: str | None = None) -> bool:
    """Writes a PNG of the relative gain in class-balanced accuracy against the imbalance level: a point per binary label.

    As on slide 7 of LMLE's talk (Huang, Li, Loy & Tang, CVPR 2016). Relative gain: the gain over the baseline, in percent of
    what the baseline reaches. Imbalance level: how far the share of positives in training is from 50 %. Methods, args and what
    is returned as for `save_gain_by_imbalance`; False too where no label is binary.
    """
    methods = aggregates(results, baseline, "save_relative_gain")
    counts = {name: class_counts(label) for name, label in first_labels(results).items()}
    levels = {name: 100 * abs(c[1] / c.sum() - 0.5) for name, c in counts.items() if c.size == 2 and c.any()}
    gains = [[method.relative_gain("labels", name, "balanced_accuracy") for name in levels] for method in methods]
    chosen, note = _chosen(methods, [any(gain is not None for gain in of_method) for of_method in gains])
    if not chosen:
        return False
    columns = 2 if len(chosen) == 4 else min(len(chosen), 3 if len(chosen) < 7 else 4)
    figure, axes = panel_grid(len(chosen), columns, (3.0, 2.5), 1.0)
    for panel, (place, title) in zip(axes, chosen.items(), strict=True):
        points = [(level, 100 * gain) for level, gain in zip(levels.values(), gains[place], strict=True) if gain is not None]
        panel.axhline(0, color=DARK, linewidth=0.8)
        panel.scatter(*zip(*points, strict=True), s=18, color=COLOURS[0], alpha=0.6, linewidths=0, zorder=3)
        _set_title(panel, title, columns)
        style(panel, hidden=())
    axes[0].set_xlim(-1.5, 51.5)
    title = f"relative gain in class-balanced accuracy, one point per label{note}"
    along = "class imbalance level: share of positives, distance from 50 %"
    _set_labels(figure, title, along, f"relative gain over {methods[0].baseline}, %")
    write_png(figure, path)
    return True


def save_accuracy_by_rule(results: Runs, path: str | os.PathLike[str]) -> bool:
    """Writes a PNG with a row per method, best argmax on top, and a marker per decision rule at its class-balanced accuracy.

    The line through a marker is ± a sample standard deviation over the seeds. Returns False, and writes nothing, where no run
    was measured under rules.
    """
    rules = rule_names(results)
    rows = []
    for method in aggregates(results, where="save_accuracy_by_rule"):
        shares = [method.mean_and_std("rules", rule, "balanced_accuracy") for rule in rules]
        if any(mean is not None for mean, _ in shares):
            rows.append((method.name, shares))
    if not rows:
        return False
    # From the bottom up; a method without the first rule goes by the next.
    rows.sort(key=lambda row: next(mean for mean, _ in row[1] if mean is not None))
    figure, (panel,) = panel_grid(1, 1, (8.0, 0.28 * len(rows)), 1.5)
    entries = []
    for place, rule in enumerate(rules):
        colour, marker = COLOURS[place % len(COLOURS)], _MARKERS[place % len(_MARKERS)]
        # Side by side within the row, so that equal values do not hide one another.
        offset = 0.5 * ((len(rules) - 1) / 2 - place) / len(rules)
        measured = [(y + offset, *shares[place]) for y, (_, shares) in enumerate(rows) if shares[place][0] is not None]
        heights, means, stds = np.array([(y, 100 * mean, 100 * (std or 0.0)) for y, mean, std in measured]).reshape(-1, 3).T
        panel.hlines(heights, means - stds, means + stds, color=colour, linewidth=1.2, alpha=0.55)
        line = {"linestyle": "", "marker": marker, "markersize": 5, "color": colour, "label": rule.replace("_", " ")}
        entries += panel.plot(means, heights, **line)
    panel.set_yticks(range(len(rows)), [shortened(name, 48) for name, _ in rows], fontsize=9, parse_math=False)
    panel.set_ylim(-0.6, len(rows) - 0.4)
    for place in range(1, len(rows), 2):
        panel.axhspan(place - 0.5, place + 0.5, color="#f4f4f4", linewidth=0, zorder=0)
    style(panel, "x", hidden=("top", "right", "left"))
    panel.tick_params(axis="y", length=0)
    panel.set_xlabel("class-balanced accuracy % (line: ± standard deviation over seeds)", fontsize=9)
    legend_above(figure, entries)
    write_png(figure, path)
    return True


def save_rare_classes(
    results: Runs, path: str | os.PathLike[str], methods: Sequence[str] | None = None, baseline: str | None = None
) -> None:
    """Writes a PNG of sensitivity by how frequent a class is in training, for a few methods, and of their gain on the baseline.

    A point is the mean over the classes of a frequency bin and over the seeds; its bar is ± a sample standard deviation over the
    seeds. Gains are paired by seed. Classes that were never trained on are at 0.

    Args:
        results: dicts of `result.json`, all of one dataset, model and number of epochs.
        path: the PNG to write; its folder is created.
        methods: which to draw beside the baseline; by default all. There are colours for six.
        baseline: as for `crl_tf.experiment.report.aggregate.method_rows`.
    """
    of_name = {method.name: method for method in aggregates(results, baseline, "save_rare_classes")}
    base = next(iter(of_name.values())).baseline
    names = [base, *(name for name in methods or of_name if name != base)]
    if not set(names) <= of_name.keys() or not 2 <= len(names) <= len(COLOURS):
        raise ValueError(
            f"save_rare_classes: methods must be 1 to {len(COLOURS) - 1} of {list(of_name)} beside the baseline {base!r}, all of"
            f" one dataset, model and number of epochs, received {names[1:]}"
        )
    pooled = {name: {run["seed"]: pooled_classes(run["labels"]) for run in of_name[name].runs} for name in names}
    every_count = np.concatenate([counts for of_seeds in pooled.values() for counts, _ in of_seeds.values()])
    shares = {
        name: {seed: 100 * bin_means(*of_seed, every_count) for seed, of_seed in of_seeds.items()}
        for name, of_seeds in pooled.items()
    }
    figure, axes = panel_grid(2, 2, (3.4, 2.9), 0.3, share=False)
    for panel in axes:
        zero = frequency_axis(panel, every_count)
        style(panel)
    places = bin_places(every_count, every_count, zero)
    entries = []
    for index, name in enumerate(names):
        # Side by side, so that bars do not hide one another.
        beside = places * 1.05 ** (index - (len(names) - 1) / 2)
        colour, dashes = (DARK, "--") if name == base else (COLOURS[index - 1], "-")
        line = {"color": colour, "linestyle": dashes, "marker": _MARKERS[index], "label": shortened(name, 30)}
        entries.append(_draw_over_seeds(axes[0], beside, list(shares[name].values()), line))
        if name != base:
            common = shares[name].keys() & shares[base].keys()
            _draw_over_seeds(axes[1], beside, [shares[name][seed] - shares[base][seed] for seed in common], line)
    axes[0].set_ylim(-3, 103)
    axes[0].set_title("sensitivity on the test set, %", fontsize=9)
    axes[1].set_title(fitted(f"gain over {base}, points", 3.0, 9), fontsize=9, parse_math=False)
    axes[1].axhline(0, color=DARK, linewidth=0.8, linestyle="--")
    setting = [field_text(field, of_name[base].runs[0][field]) for field in UNSEEDED]
    setting.append(seeds_text([len(of_name[name].runs) for name in names]))
    what = "points: means over classes of similar size and over seeds; bars: ± standard deviation over seeds"
    along = f"training samples of the class (log)\n{' · '.join(setting)}\n{what}"
    figure.supxlabel(fitted(along, 6.8, 8), fontsize=8, parse_math=False)
    legend_above(figure, entries)
    write_png(figure, path)


def _draw_over_seeds(panel: Axes, places: np.ndarray, of_seeds: Sequence[np.ndarray], line: Mapping[str, Any]) -> Artist:
    """A line through the means over the seeds, with ± a standard deviation, where any seed has a number."""
    of_bins = [[share for share in of_bin if np.isfinite(share)] for of_bin in np.transpose(of_seeds)]
    points = [(place, *mean_and_std(of_bin)) for place, of_bin in zip(places, of_bins, strict=False) if of_bin]
    x, means, stds = np.array(points, np.float64).reshape(-1, 3).T
    return panel.errorbar(x, means, stds, markersize=4, linewidth=1.5, elinewidth=1, capsize=2, **line)


def _items(results: Runs) -> _Items:
    ratios = imbalance_by_label(results)
    if len(ratios) > 1:
        keys = [("labels", label, "balanced_accuracy") for label in ratios]
        return _Items(
            "label", keys, list(ratios), list(map(ratio_text, ratios.values())), np.array([*ratios.values()], np.float64)
        )
    ((label, first),) = first_labels(results).items()
    counts = dict(sorted(first["train_counts"].items(), key=lambda item: -item[1]))
    keys = [("labels", label, "sensitivity", name) for name in counts]
    return _Items(
        "class", keys, list(counts), [f"{count:,}" for count in counts.values()], np.array([*counts.values()], np.float64)
    )


def _chosen(methods: Sequence[Aggregate], drawable: Sequence[bool]) -> tuple[dict[int, str], str]:
    """The places of the methods that get a panel, best first, each with its title; and a note where others get none."""
    shares = [method.mean_and_std("balanced_accuracy")[0] for method in methods]
    ranked = sorted(np.flatnonzero(drawable), key=lambda place: -(shares[place] or 0.0))
    chosen = [place for rank, place in enumerate(ranked) if rank < DRAWN or methods[place].method in ALWAYS]
    note = ""
    if len(chosen) < len(ranked):
        note = f"\nthe best {DRAWN} of {len(ranked)} methods by class-balanced accuracy"
        note += "".join([", and ", ", ".join(methods[place].name for place in chosen[DRAWN:])]) if chosen[DRAWN:] else ""
    shown = [ABSENT if share is None else f"{percent(share)} %" for share in shares]
    return {place: f"{methods[place].name} ({shown[place]})" for place in chosen}, note


def _set_title(panel: Axes, title: str, columns: int) -> None:
    width = panel.figure.get_size_inches()[0] / columns
    panel.set_title(fitted(title, width - 0.5, 10), fontsize=10, parse_math=False)


def _set_labels(figure: Figure, title: str, along: str, up: str) -> None:
    width, height = figure.get_size_inches()
    figure.suptitle(fitted(title, width, 10), fontsize=10, parse_math=False)
    figure.supxlabel(fitted(along, width, 9), fontsize=9)
    figure.supylabel(fitted(up, height, 9), fontsize=9, parse_math=False)


def _draw_bars(panel: Axes, items: _Items, gains: np.ndarray) -> None:
    places, heights = np.arange(len(gains)), np.nan_to_num(gains)
    panel.bar(places, heights, width=0.75, color=[COLOURS[0] if gain >= 0 else COLOURS[1] for gain in heights])
    for place in np.flatnonzero(np.isnan(gains)):
        panel.annotate(ABSENT, (place, 0), (0, 2), textcoords="offset points", ha="center", fontsize=8, color=GREY)
    panel.tick_params(axis="x", length=0)
    panel.set_xlim(-0.6, len(gains) - 0.4)
    few = len(gains) <= 8
    # Upright names have no room for a second line beneath.
    length, between = (12, "\n") if few else (22, "  ")
    names = [f"{shortened(name, length)}{between}{text}" for name, text in zip(items.names, items.texts, strict=True)]
    panel.set_xticks(places, names, fontsize=8, rotation=0 if few else 90, parse_math=False)


def _draw_ranks(panel: Axes, items: _Items, gains: np.ndarray) -> None:
    """A thin line over the rank, and the mean of each of `FREQUENCY_BINS` bins of equal width on the log axis of sizes."""
    panel.plot(np.arange(len(gains)), gains, color=COLOURS[5], linewidth=0.8, alpha=0.8)
    bins = frequency_bins(np.nan_to_num(items.sizes), np.nan_to_num(items.sizes))
    for start, end in itertools.pairwise([0, *(np.flatnonzero(np.diff(bins)) + 1), len(bins)]):
        inside = gains[start:end][np.isfinite(gains[start:end])]
        if inside.size:
            panel.hlines(inside.mean(), start - 0.5, end - 0.5, color=COLOURS[0], linewidth=2.2, zorder=3)
    ticks = np.unique(np.linspace(0, len(gains) - 1, 9).round().astype(int))
    # The imbalance ratio or the training samples of a rank are below it.
    panel.set_xticks(ticks, [f"{place + 1}\n{items.texts[place]}" for place in ticks], fontsize=8)
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlim(-0.5, len(gains) - 0.5)
    if panel.get_subplotspec().is_first_row() and panel.get_subplotspec().is_first_col():
        handles = [Line2D([], [], color=COLOURS[5], linewidth=0.8), Line2D([], [], color=COLOURS[0], linewidth=2.2)]
        mean = "mean per bin of " + ("imbalance" if items.kind == "label" else "frequency")
        panel.legend(handles, [f"one {items.kind}", mean], loc="upper left", ncols=2, frameon=False, fontsize=8)
