"""Figures of many methods over seeds: where they gain on the baseline, and what the decision rule does."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from crl_tf.experiment.report.averages import Runs, class_gains, grouped, label_rows, method_rows, rule_names
from crl_tf.experiment.report.figures import COLOURS, FREQUENCY_BINS, GREY, shortened, write_png
from crl_tf.experiment.report.methods import labels_by_imbalance
from crl_tf.experiment.report.runs import ABSENT, UNSEEDED, class_counts, differing_fields

DRAWN = 6
"""So many methods, the best ones, have a panel in a figure of gains; those of ALWAYS have one too."""

ALWAYS = ("class_rel", "lmle")

NAMED_BARS = 40
"""Up to so many labels or classes are bars with names; more are a line over their rank."""

_MARKERS = ("o", "D", "s", "^", "v", "P", "X")


class _Items(NamedTuple):
    """What gains are drawn over, in order: labels by rising imbalance ratio, or classes from frequent to rare."""

    kind: str
    names: list[str]
    sizes: np.ndarray
    gains: dict[tuple[Any, ...], np.ndarray]


def save_gain_by_imbalance(results: Runs, path: str | os.PathLike[str], baseline: str | None = None) -> bool:
    """Writes a PNG of what methods gain on the baseline at each label, by rising imbalance: the paper's Figs. 6 and 8.

    Gains are in class-balanced accuracy, in points, paired by seed. Of a single label they are in the sensitivity of each of
    its classes, from frequent to rare. One panel per method: the best `DRAWN` by class-balanced accuracy, and class_rel and
    lmle. More than `NAMED_BARS` labels or classes are a line over their rank, with the mean per bin of imbalance (frequency).

    Args:
        results: dicts of `result.json`.
        path: the PNG to write; its folder is created.
        baseline: as for `crl_tf.experiment.report.averages.method_rows`.
    Returns:
        False, and nothing is written, where there is nothing to compare: no second method, or no seed in common.
    """
    base = grouped(results, baseline, "save_gain_by_imbalance")[1]
    items = _items(results, base)
    names, note = _chosen(results, base, [key for key, gains in items.gains.items() if np.isfinite(gains).any()])
    if not names:
        return False
    bars = len(items.names) <= NAMED_BARS
    most = 1 if len(items.names) > 20 else 2 if len(items.names) > 8 or len(names) == 4 else 3
    columns = min(most, len(names))
    width = max(4.0, min(12.0, 0.24 * len(items.names) + 1)) if columns == 1 and bars else 9.0 if columns == 1 else 4.2
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(width * columns, 1.7 * rows + 2.2), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel, (key, name) in zip(axes.ravel(), names.items(), strict=False):
        (_draw_bars if bars else _draw_ranks)(panel, items, items.gains[key])
        panel.axhline(0, color="#404040", linewidth=0.8)
        panel.set_title(name, fontsize=10, parse_math=False)
        panel.grid(True, axis="y", color="#e4e4e4", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    _hide_rest(axes, len(names))
    measure = "class-balanced accuracy" if items.kind == "label" else "sensitivity"
    figure.supylabel(f"gain over {base}, points", fontsize=9, parse_math=False)
    along = (
        "labels by rising imbalance ratio" if items.kind == "label" else "classes from frequent to rare, with training samples"
    )
    figure.supxlabel(along if bars else f"rank: {along}", fontsize=9)
    figure.suptitle(f"gain in {measure} over {base}, mean over seeds{note}", fontsize=10, parse_math=False)
    write_png(figure, path)
    return True


def save_relative_gain(results: Runs, path: str | os.PathLike[str], baseline: str | None = None) -> bool:
    """Writes a PNG of the relative gain in class-balanced accuracy against the imbalance level: a point per binary label.

    As on slide 7 of LMLE's talk (Huang, Li, Loy & Tang, CVPR 2016). Relative gain: the gain over the baseline, in percent of
    what the baseline reaches. Imbalance level: how far the share of positives in training is from 50 %. Methods, args and what
    is returned as for `save_gain_by_imbalance`; False too where no label is binary.
    """
    base = grouped(results, baseline, "save_relative_gain")[1]
    level = {}
    for name, label in ((name, label) for r in results for name, label in r["labels"].items()):
        counts = class_counts(label)
        if counts.size == 2 and counts.any():
            level.setdefault(name, 100 * abs(counts[1] / counts.sum() - 0.5))
    points: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    differing = differing_fields(results, UNSEEDED)
    for row in label_rows(results, base):
        if row["label"] in level and row["relative_gain"] is not None:
            key = (row["method"], *(row[field] for field in differing))
            points.setdefault(key, []).append((level[row["label"]], 100 * row["relative_gain"]))
    names, note = _chosen(results, base, list(points))
    if not names:
        return False
    columns = 2 if len(names) == 4 else min(len(names), 3 if len(names) < 7 else 4)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(max(6.0, 3.0 * columns), 2.5 * rows + 1.0), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel, (key, name) in zip(axes.ravel(), names.items(), strict=False):
        levels, gains = np.array(points[key]).T
        panel.axhline(0, color="#404040", linewidth=0.8)
        panel.scatter(levels, gains, s=18, color=COLOURS[0], alpha=0.6, linewidths=0, zorder=3)
        panel.set_title(name, fontsize=10, parse_math=False)
        panel.grid(True, color="#e4e4e4", linewidth=0.6)
        panel.set_axisbelow(True)
    _hide_rest(axes, len(names))
    axes[0, 0].set_xlim(-1.5, 51.5)
    figure.supxlabel("class imbalance level: share of positives, distance from 50 %", fontsize=9)
    figure.supylabel(f"relative gain over {base}, %", fontsize=9, parse_math=False)
    figure.suptitle(f"relative gain in class-balanced accuracy, one point per label{note}", fontsize=10, parse_math=False)
    write_png(figure, path)
    return True


def save_accuracy_by_rule(results: Runs, path: str | os.PathLike[str]) -> bool:
    """Writes a PNG with a row per method, best argmax on top, and a marker per decision rule at its class-balanced accuracy.

    The line through a marker is ± a sample standard deviation over the seeds. Returns False, and writes nothing, where no run
    was measured under rules.
    """
    rows = method_rows(results)
    rules = rule_names(results)
    found = [(row, [row[f"balanced_accuracy_under_{rule}"] for rule in rules]) for row in rows]
    found = [(row, values) for row, values in found if any(value is not None for value in values)]
    if not found:
        return False
    # From the bottom up; a method without the first rule goes by the next.
    found.sort(key=lambda item: next(value for value in item[1] if value is not None))
    differing = differing_fields(results, UNSEEDED)
    figure = Figure(figsize=(8.0, 0.28 * len(found) + 1.5), layout="constrained")
    panel = figure.subplots()
    for place, rule in enumerate(rules):
        colour, marker = COLOURS[place % len(COLOURS)], _MARKERS[place % len(_MARKERS)]
        # Side by side within the row, so that equal values do not hide one another.
        offset = 0.5 * ((len(rules) - 1) / 2 - place) / max(1, len(rules))
        shown = [(y + offset, row, values[place]) for y, (row, values) in enumerate(found) if values[place] is not None]
        heights, shares = [y for y, _, _ in shown], 100 * np.array([value for _, _, value in shown])
        spreads = 100 * np.array([row[f"balanced_accuracy_under_{rule}_std"] or 0.0 for _, row, _ in shown])
        panel.hlines(heights, shares - spreads, shares + spreads, color=colour, linewidth=1.2, alpha=0.55)
        panel.plot(shares, heights, linestyle="", marker=marker, markersize=5, color=colour, label=rule.replace("_", " "))
    names = [" · ".join([row["method"], *(str(row[field]) for field in differing)]) for row, _ in found]
    panel.set_yticks(range(len(found)), [shortened(name, 48) for name in names], fontsize=9, parse_math=False)
    panel.set_ylim(-0.6, len(found) - 0.4)
    for place in range(1, len(found), 2):
        panel.axhspan(place - 0.5, place + 0.5, color="#f4f4f4", linewidth=0, zorder=0)
    panel.grid(True, axis="x", color="#e4e4e4", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
    panel.set_xlabel("class-balanced accuracy % (line: ± standard deviation over seeds)", fontsize=9)
    legend = figure.legend(loc="outside upper center", ncols=min(len(rules), 4), frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    write_png(figure, path)
    return True


def _items(results: Runs, base: str) -> _Items:
    labels = label_rows(results, base)
    ratios = labels_by_imbalance(labels)
    differing = differing_fields(results, UNSEEDED)
    if len(ratios) == 1:
        (name,) = ratios
        train_counts = next(r["labels"][name]["train_counts"] for r in results if name in r["labels"])
        counts = np.array(list(train_counts.values()), np.int64)
        order = np.argsort(-counts, kind="stable")
        gains = {key: 100 * np.array(of_key, np.float64)[order] for key, of_key in class_gains(results, name, base).items()}
        classes = list(train_counts)
        return _Items("class", [f"{classes[i]}\n{counts[i]:,}" for i in order], counts[order].astype(float), gains)
    places = {label: place for place, label in enumerate(ratios)}
    sizes = np.full(len(places), np.nan)
    gains = {}
    for row in labels:
        place = places[row["label"]]
        if row["imbalance"] is not None and np.isnan(sizes[place]):
            sizes[place] = row["imbalance"]
        if row["method"] != base and row["balanced_accuracy_gain"] is not None:
            key = (row["method"], *(row[field] for field in differing))
            gains.setdefault(key, np.full(len(places), np.nan))[place] = 100 * row["balanced_accuracy_gain"]
    names = [f"{label}\n{ratio}" for label, ratio in ratios.items()]
    return _Items("label", names, sizes, gains)


def _chosen(results: Runs, base: str, keys: Sequence[tuple[Any, ...]]) -> tuple[dict[tuple[Any, ...], str], str]:
    """The keys that have a panel, best first, each with its title; and what to say if others have none."""
    differing = differing_fields(results, UNSEEDED)
    scores: dict[tuple[Any, ...], Mapping[str, Any]] = {
        (row["method"], *(row[field] for field in differing)): row for row in method_rows(results, base)
    }
    ranked = sorted(keys, key=lambda key: -(scores[key]["balanced_accuracy"] or 0.0))
    chosen = [key for place, key in enumerate(ranked) if place < DRAWN or key[0] in ALWAYS]
    names = {}
    for key in chosen:
        share = scores[key]["balanced_accuracy"]
        names[key] = f"{' · '.join(map(str, key))} ({ABSENT if share is None else f'{100 * share:.1f} %'})"
    note = ""
    if len(chosen) < len(ranked):
        extra = [" · ".join(map(str, key)) for key in chosen[DRAWN:]]
        note = f"\nthe best {DRAWN} of {len(ranked)} methods by class-balanced accuracy" + (
            f", and {', '.join(extra)}" if extra else ""
        )
    return names, note


def _draw_bars(panel: Axes, items: _Items, gains: np.ndarray) -> None:
    places = np.arange(len(gains))
    panel.bar(
        places, np.nan_to_num(gains), width=0.75, color=[COLOURS[0] if gain >= 0 else COLOURS[1] for gain in np.nan_to_num(gains)]
    )
    for place in np.flatnonzero(np.isnan(gains)):
        panel.annotate(ABSENT, (place, 0), (0, 2), textcoords="offset points", ha="center", fontsize=8, color=GREY)
    panel.tick_params(axis="x", length=0)
    panel.set_xlim(-0.6, len(gains) - 0.4)
    few = len(gains) <= 8
    names = [f"{shortened(name.split(chr(10))[0], 12 if few else 22)}\n{name.split(chr(10))[-1]}" for name in items.names]
    # Upright names have no room for a second line beneath.
    names = names if few else [name.replace("\n", "  ") for name in names]
    panel.set_xticks(places, names, fontsize=8, rotation=0 if few else 90, parse_math=False)


def _draw_ranks(panel: Axes, items: _Items, gains: np.ndarray) -> None:
    """A thin line over the rank, and the mean of each of `FREQUENCY_BINS` bins of equal width on the log axis of sizes."""
    places = np.arange(len(gains))
    panel.plot(places, gains, color=COLOURS[5], linewidth=0.8, alpha=0.8)
    for start, end in itertools.pairwise(_bin_bounds(items.sizes)):
        inside = gains[start:end][np.isfinite(gains[start:end])]
        if inside.size:
            panel.hlines(inside.mean(), start - 0.5, end - 0.5, color=COLOURS[0], linewidth=2.2, zorder=3)
    ticks = np.unique(np.linspace(0, len(gains) - 1, 9).round().astype(int))
    # What the rank stands for is read off below it.
    panel.set_xticks(ticks, [f"{place + 1}\n{items.names[place].split(chr(10))[-1]}" for place in ticks], fontsize=8)
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlim(-0.5, len(gains) - 0.5)
    handles = [Line2D([], [], color=COLOURS[5], linewidth=0.8), Line2D([], [], color=COLOURS[0], linewidth=2.2)]
    if panel.get_subplotspec().is_first_row() and panel.get_subplotspec().is_first_col():
        mean = "mean per bin of " + ("imbalance" if items.kind == "label" else "frequency")
        panel.legend(handles, [f"one {items.kind}", mean], loc="upper left", ncols=2, frameon=False, fontsize=8)


def _bin_bounds(sizes: np.ndarray) -> list[int]:
    """Where bins begin and end in the order drawn, [bins + 1]; what has no size on a log axis is a bin of its own at the end."""
    known = int((np.nan_to_num(sizes) > 0).sum())
    bounds = [0]
    if known:
        logs = np.log(sizes[:known])
        low, high = logs.min(), logs.max()
        bins = np.minimum((FREQUENCY_BINS * np.abs(logs - logs[0]) / max(high - low, 1e-9)).astype(int), FREQUENCY_BINS - 1)
        bounds += [int(place) for place in np.flatnonzero(np.diff(bins)) + 1] + [known]
    return bounds if known == len(sizes) else [*bounds, len(sizes)]


def _hide_rest(axes: np.ndarray, used: int) -> None:
    """Panels of a grid that hold nothing are not drawn; the names below then stand under the last one of each column."""
    for index, panel in enumerate(axes.ravel()):
        panel.set_visible(index < used)
        if index < used <= index + axes.shape[1]:
            panel.tick_params(labelbottom=True)
