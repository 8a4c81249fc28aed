"""What finished runs found: tables for the terminal and figures as PNG files, made from their `result.json` dicts.

A result is the dict a run leaves behind, with shares in [0, 1] and `None` for a class that the test set does not hold:

    {"dataset": str, "model": str, "loss": str, "seed": int, "epochs": int, "seconds": float,
     "balanced_accuracy": float, "accuracy": float, "rarest_third": float,
     "labels": {label: {"balanced_accuracy": float, "accuracy": float, "sensitivity": {class: float | None},
                        "confusion": [[int]], "train_counts": {class: int}}}}

Tables and figures show shares as percentages with one decimal, differences in points.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator, PercentFormatter
from rich.table import Table
from rich.text import Text

from crl_tf.imbalance import imbalance_ratio

ABSENT = "–"
"""Stands where there is no number: a label that a run lacks, a measure that nothing was measured for."""

NAMED_CLASSES = 12
"""Up to so many classes in a label, the figure of its distribution names each of them."""

FREQUENCY_BINS = 8
"""Bins, of equal width on the log axis, of the mean line over training frequency."""

# Okabe & Ito's palette without its yellow, which a white page swallows.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "#767676"
_SETTING = ("dataset", "model", "epochs", "seed")
_MEASURES = ("balanced_accuracy", "rarest_third", "accuracy")
_HEADINGS = {
    "balanced_accuracy": "class-\nbalanced\naccuracy\n%",
    "rarest_third": "rarest\nthird of\nclasses\n%",
    "accuracy": "accuracy\n%",
}


def rarest_third(labels: Mapping[str, Mapping[str, Any]]) -> float:
    """Mean sensitivity over the rarest third of all classes, those a class-balanced loss is there for.

    Decision, ours: the classes of all labels go into one pool, those that the test set does not hold (sensitivity None) are
    left out, and the ceil(n/3) with the fewest *training* samples of the n that remain are averaged. Equal counts keep the
    order of the labels and classes. A class never trained on (count 0) belongs to the rarest.

    Args:
        labels: the "labels" of a result; only "sensitivity" and "train_counts" are read.

    >>> rarest_third({"hat": {"sensitivity": {"no": 0.9, "yes": 0.4}, "train_counts": {"no": 90, "yes": 10}}})
    0.4
    """
    counts, sensitivities = _pooled_classes("rarest_third", labels)
    if not counts.size:
        raise ValueError(f"rarest_third: at least one class must occur in the test set; none does, over labels {list(labels)}")
    rarest = np.argsort(counts, kind="stable")[: math.ceil(counts.size / 3)]
    return float(sensitivities[rarest].mean())


def comparison_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """One row per run, the first being the baseline that differences (in points) are taken from.

    What all runs share of dataset, model, epochs and seed stands in the title, what they do not is a column. The best value
    of a column is bold; values that read the same at the decimals shown are equally good. Differences are of the exact
    values, so they may be 0.1 off those of the rounded ones.
    """
    _check_results("comparison_table", results)
    several = len(results) > 1
    differing = _differing(results, _SETTING)
    table = Table(title=_title(results, _SETTING))
    for heading in ("loss", *differing):
        table.add_column(heading, overflow="fold")
    columns = [_marked([r["loss"] for r in results])] + [_marked([r[field] for r in results]) for field in differing]
    for measure in _MEASURES:
        table.add_column(_HEADINGS[measure], justify="right", no_wrap=True)
        values = [r[measure] for r in results]
        columns.append(_marked([_percent(v) for v in values], _best(_percent_digits(values), max)))
        if several and measure != "accuracy":
            table.add_column("Δ\npoints", justify="right", no_wrap=True)
            columns.append(_marked(["", *(_points(v, values[0]) for v in values[1:])]))
    table.add_column("seconds", justify="right", no_wrap=True)
    seconds = [r["seconds"] for r in results]
    columns.append(_marked([_seconds(s) for s in seconds], _best([float(_seconds(s).replace(",", "")) for s in seconds], min)))
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    return table


def label_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """One row per label, however many there are: its classes, its imbalance, and each run's class-balanced accuracy.

    The labels are those of all runs, in order of appearance. Where runs were trained on different counts, each distinct
    number of classes and imbalance is shown, in the order of the runs. The best run of a label is bold.
    """
    _check_results("label_table", results)
    table = Table(title=_title(results, _SETTING))
    table.add_column("label", overflow="fold")
    for heading in ("classes", "imbalance", *_run_names(results)):
        table.add_column(Text(heading), justify="right", overflow="fold")
    for name in dict.fromkeys(name for r in results for name in r["labels"]):
        of_runs = [r["labels"].get(name) for r in results]
        counts = [_counts(label) for label in of_runs if label is not None]
        values = [None if label is None else label["balanced_accuracy"] for label in of_runs]
        table.add_row(
            Text(name),
            " | ".join(dict.fromkeys(str(c.size) for c in counts)),
            " | ".join(dict.fromkeys(_imbalance(c) for c in counts)),
            *_marked([_percent(v) for v in values], _best(_percent_digits(values), max)),
        )
    return table


def seeds_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """One row per loss over its seeds: mean ± sample standard deviation (ddof = 1; none with a single seed).

    Runs that differ in dataset, model or epochs are never averaged: such a field splits the groups and becomes a column.
    Nothing is marked best, since a difference of means may lie within the spread.
    """
    _check_results("seeds_table", results)
    setting = tuple(field for field in _SETTING if field != "seed")
    differing = _differing(results, setting)
    table = Table(title=_title(results, setting))
    for heading in ("loss", *differing):
        table.add_column(heading, overflow="fold")
    for heading in ("seeds", *_HEADINGS.values(), "mean seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for key, runs in _groups(results).items():
        seeds = [r["seed"] for r in runs]
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds_table: a seed may occur once per group, but {' '.join(map(str, key))} has seeds {seeds}")
        table.add_row(
            *(Text(str(part)) for part in key),
            str(len(runs)),
            *(_mean_and_spread([r[measure] for r in runs]) for measure in _MEASURES),
            _seconds(float(np.mean([r["seconds"] for r in runs]))),
        )
    return table


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
        _check_results("save_class_distributions", results_or_labels)
        labels = {}
        for result in results_or_labels:
            labels = {**result["labels"], **labels}
    size, columns, font = _grid(len(labels))
    rows = math.ceil(len(labels) / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    every_count = np.concatenate([_counts(label) for label in labels.values()])
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
    _write_png(figure, path)


def save_sensitivity_by_frequency(results: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Writes a PNG of every class's sensitivity against its training frequency: one panel per loss, axes shared.

    The line is the mean sensitivity per frequency bin; the first loss's is repeated, dashed, in the other panels. Seeds of one
    loss share a panel. Classes that were never trained on stand apart at the left, at 0, with a mean of their own.
    """
    _check_results("save_sensitivity_by_frequency", results)
    where = "save_sensitivity_by_frequency"
    names, points = [], []
    for key, runs in _groups(results).items():
        pooled = [_pooled_classes(where, r["labels"]) for r in runs]
        names.append(" · ".join(map(str, key)))
        points.append((np.concatenate([c for c, _ in pooled]), np.concatenate([s for _, s in pooled])))
    every_count = np.concatenate([counts for counts, _ in points])
    if not every_count.size:
        raise ValueError(f"{where}: at least one class must occur in the test set; none does")
    trained = every_count[every_count > 0]
    low, high = (trained.min(), trained.max()) if trained.size else (1, 1)
    edges = np.geomspace(low, high, FREQUENCY_BINS + 1) if high > low else np.array([low, low])
    zero = low / 4 if (every_count == 0).any() else None

    columns = 2 if len(names) == 4 else min(len(names), 3)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(max(6.0, 4.0 * columns), 3.4 * rows + 0.8), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for index, (panel, name, (counts, sensitivities)) in enumerate(zip(axes, names, points, strict=False)):
        colour = _COLOURS[index % len(_COLOURS)]
        places = np.where(counts > 0, counts, zero or 0)
        panel.scatter(places, sensitivities, s=16, color=colour, alpha=0.45, linewidths=0, zorder=3)
        if index:
            _draw_mean(panel, *points[0], edges, zero, color=_GREY, linestyle="--", marker="o", markersize=3, linewidth=1.4)
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
    _write_png(figure, path)


def _check_results(where: str, results: Sequence[Mapping[str, Any]]) -> None:
    if isinstance(results, Mapping) or not results:
        received = "a mapping" if isinstance(results, Mapping) else "none"
        raise ValueError(f"{where}: needs a sequence of at least one result, received {received}")
    for index, result in enumerate(results):
        missing = [key for key in (*_SETTING, "loss", "seconds", *_MEASURES, "labels") if key not in result]
        if missing:
            raise ValueError(f"{where}: result {index} lacks {missing}; it has {list(result)}")
        if not result["labels"]:
            raise ValueError(f"{where}: result {index} has no labels")


def _pooled_classes(where: str, labels: Mapping[str, Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Training counts and sensitivities, each [n], of the classes of all labels that occur in the test set."""
    counts, sensitivities = [], []
    for name, label in labels.items():
        for class_name, sensitivity in label["sensitivity"].items():
            if class_name not in label["train_counts"]:
                raise ValueError(f"{where}: label {name!r} has no entry in train_counts for its class {class_name!r}")
            if _measured(sensitivity):
                counts.append(label["train_counts"][class_name])
                sensitivities.append(sensitivity)
    return np.array(counts, np.int64), np.array(sensitivities, np.float64)


def _counts(label: Mapping[str, Any]) -> np.ndarray:
    return np.array(list(label["train_counts"].values()), np.int64)


def _differing(results: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> list[str]:
    return [field for field in fields if len({r[field] for r in results}) > 1]


def _title(results: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> Text:
    """The fields all runs agree on; a Text, because a name may hold brackets that rich would read as markup."""
    form = {"epochs": "{} epochs", "seed": "seed {}"}
    shared = [field for field in fields if field not in _differing(results, fields)]
    return Text(" · ".join(form.get(field, "{}").format(results[0][field]) for field in shared))


def _groups(results: Sequence[Mapping[str, Any]]) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    """Runs that differ in nothing but the seed, by (loss, fields that differ between groups), in order of appearance."""
    fields = ("loss", *_differing(results, [field for field in _SETTING if field != "seed"]))
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(tuple(result[field] for field in fields), []).append(result)
    return groups


def _run_names(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each run by its loss and, in the order of the title, what else tells it from the others."""
    form = {"epochs": "{} epochs", "seed": "seed {}"}
    differing = _differing(results, _SETTING)
    return ["\n".join([str(r["loss"]), *(form.get(f, "{}").format(r[f]) for f in differing)]) for r in results]


def _measured(share: float | None) -> bool:
    return share is not None and math.isfinite(share)


def _percent(share: float | None) -> str:
    return f"{100 * share:.1f}" if _measured(share) else ABSENT


def _percent_digits(shares: Sequence[float | None]) -> list[float | None]:
    """The numbers as shown, so that only what a reader sees decides which one is best."""
    return [float(_percent(share)) if _measured(share) else None for share in shares]


def _points(share: float | None, baseline: float | None) -> str:
    if not (_measured(share) and _measured(baseline)):
        return ABSENT
    shown = f"{100 * (share - baseline):+.1f}"
    return "0.0" if float(shown) == 0 else shown


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"


def _imbalance(counts: np.ndarray) -> str:
    """The ratio 1:x over the classes that occur, and how many do not."""
    if not counts.any():
        return ABSENT
    ratio = imbalance_ratio(counts)
    shown = f"1:{ratio:,.0f}" if ratio >= 10 or ratio == round(ratio) else f"1:{ratio:.1f}"
    empty = int((counts == 0).sum())
    return f"{shown}, {empty} empty" if empty else shown


def _mean_and_spread(shares: Sequence[float]) -> str:
    mean = _percent(float(np.mean(shares)))
    return mean if len(shares) == 1 else f"{mean} ± {_percent(float(np.std(shares, ddof=1)))}"


def _best(values: Sequence[float | None], choose: Callable[[list[float]], float]) -> set[int]:
    """Where the best value stands; nowhere if there are not at least two to choose from."""
    present = [value for value in values if value is not None]
    return {i for i, value in enumerate(values) if value == choose(present)} if len(present) > 1 else set()


def _marked(cells: Sequence[object], bold: Set[int] = frozenset()) -> list[Text]:
    return [Text(str(cell), style="bold" if index in bold else "") for index, cell in enumerate(cells)]


def _shortened(name: str, length: int) -> str:
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
        panel.bar(np.arange(len(counts)) + 0.5, heights - floor, bottom=floor, width=0.8, color=_COLOURS[0])
        names = [_shortened(str(class_name), 14 if width > 2 else 9) for class_name, _ in ordered]
        # A letter is about 0.6 of the font size (in points, 72 to the inch) wide.
        upright = max(map(len, names)) * len(names) * 0.6 * font / 72 > 0.8 * width
        panel.set_xticks(np.arange(len(counts)) + 0.5, names, fontsize=font, rotation=90 if upright else 0, parse_math=False)
        for place in np.flatnonzero(counts == 0):
            panel.annotate("0", (place + 0.5, floor), (0, 2), textcoords="offset points", ha="center", fontsize=font, color=_GREY)
    else:
        # One outline instead of bars: a hundred bars of a pixel each would show the page through as stripes.
        panel.stairs(heights, np.arange(len(counts) + 1), baseline=floor, fill=True, color=_COLOURS[0])
        panel.xaxis.set_major_locator(NullLocator())
        panel.set_xlabel(f"{len(counts)} classes", fontsize=font)
    panel.set_xlim(0, len(counts))
    panel.set_title(f"{_shortened(name, 26)}\n{_imbalance(counts)}", fontsize=font + 1, parse_math=False)
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
    first = _COLOURS[0] if len(names) == 1 else "#404040"
    entries = [
        Line2D([], [], linestyle="", marker="o", markersize=5, alpha=0.45, color=first, label="one class"),
        Line2D([], [], marker="o", markerfacecolor="white", linewidth=2, color=first, label="mean per frequency bin"),
    ]
    if len(names) > 1:
        entries.append(Line2D([], [], linestyle="--", marker="o", markersize=3, color=_GREY, label=f"mean of {names[0]}"))
    legend = figure.legend(handles=entries, loc="outside upper center", ncols=len(entries), frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _write_png(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Under a temporary name beside it first, so that a half-written file never looks whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    FigureCanvasAgg(figure)
    try:
        figure.savefig(unfinished, format="png", dpi=130)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
