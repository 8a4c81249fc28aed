"""What `--mode=inspect` found, as tables for the terminal and as figures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from crl_tf.experiment.report.figures import COLOURS, GREY, shortened, write_png
from crl_tf.experiment.report.runs import ABSENT

RAREST = 20
"""Classes that the table of the rarest names."""

TELLING = 0.3
"""From this Cramér's V on, a pair of labels is worth a word."""

NAMED_LABELS = 80
"""Up to so many labels, a table or a figure has a line with its name for each."""


def split_table(found: Mapping[str, Any]) -> Table:
    """One row per split: its images, what is not annotated, its smallest and its largest class (a row of Table 2, turned)."""
    binary = "smallest_present" in found["splits"]["train"]
    table = _table(found, "splits")
    headings = ["images", "not\nannotated %", "images\nper class", *(["images per\nattribute present"] if binary else [])]
    for heading in ("split", *headings):
        table.add_column(heading, justify="left" if heading == "split" else "right", no_wrap=True)
    for name, facts in found["splits"].items():
        row = [f"{facts['images']:,}", _percent(facts["missing"]), f"{facts['smallest_class']:,} ~ {facts['largest_class']:,}"]
        if binary:
            row.append(f"{facts['smallest_present']:,} ~ {facts['largest_present']:,}")
        table.add_row(Text(name), *row)
    table.add_row("all", f"{sum(f['images'] for f in found['splits'].values()):,}", *[""] * (len(headings) - 1))
    return table


def imbalance_table(found: Mapping[str, Any]) -> Table:
    """One row per label, the least imbalanced first, as Table 3 has them: classes, ratio, Omega, alpha and how far CRL reaches.

    "in reach" counts the classes that at least half of the batches hold twice.
    """
    table = _table(found, f"training images per class, batches of {found['batch_size']}, eta {found['eta']:g}")
    table.add_column("label", overflow="fold")
    for heading in ("classes\nin reach", "smallest", "largest", "1:x", "Omega", "alpha", "not an-\nnotated %"):
        table.add_column(heading, justify="right", no_wrap=True)
    ordered = sorted(found["labels"].items(), key=lambda item: item[1]["ratio"] or 0)
    if len(ordered) > NAMED_LABELS:
        table.caption = f"the {NAMED_LABELS} most imbalanced of {len(ordered):,} labels; inspection.json has all"
    for name, facts in ordered[-NAMED_LABELS:]:
        counts = [c["train"] for c in facts["classes"].values()]
        reached = sum(c["two_in_batch"] >= 0.5 for c in facts["classes"].values())
        table.add_row(
            Text(name),
            f"{reached} of {len(counts)}",
            f"{min(counts):,}",
            f"{max(counts):,}",
            *(_number(facts[key], form) for key, form in (("ratio", ",.2f"), ("omega", ".3f"), ("alpha", ".4f"))),
            _percent(facts["missing"]["train"]),
        )
    return table


def rarest_table(found: Mapping[str, Any]) -> Table:
    """The rarest classes that are trained on, the rarest first: how often CRL can act on them at all, in % of the batches."""
    table = _table(found, f"rarest classes, batches of {found['batch_size']}")
    table.add_column("label = class", overflow="fold")
    for heading in ("train", "vali-\ndation", "test", "share\n%", "two in\nbatch %", "rectified\n%"):
        table.add_column(heading, justify="right", no_wrap=True)
    classes = [(label, name, c) for label, facts in found["labels"].items() for name, c in facts["classes"].items() if c["train"]]
    for label, name, c in sorted(classes, key=lambda entry: entry[2]["train"])[:RAREST]:
        counts = (f"{c[split]:,}" for split in ("train", "validation", "test"))
        table.add_row(Text(f"{label} = {name}"), *counts, *(_percent(c[key]) for key in ("share", "two_in_batch", "rectified")))
    return table


def association_line(found: Mapping[str, Any]) -> str | None:
    """The pairs of labels that tell much of one another, in a line; None where there is none."""
    pairs = [f"{a} and {b} {value:.2f}" for a, b, value in found["co_occurrence"] if value >= TELLING][:5]
    return f"labels that tell of one another (Cramér's V in the training images): {', '.join(pairs)}" if pairs else None


def save_class_sizes(found: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes a PNG of every label's class sizes on one log axis, the most imbalanced label on top (as Fig. 1 shows them).

    With more than `NAMED_LABELS` labels, the sizes of their smallest and largest classes over the rank of the label.
    """
    ordered = sorted(found["labels"].items(), key=lambda item: item[1]["ratio"] or 0)
    counts = [np.array([c["train"] for c in facts["classes"].values()]) for _, facts in ordered]
    named = len(ordered) <= NAMED_LABELS
    figure = Figure(figsize=(8.0, 1.2 + 0.2 * len(ordered)) if named else (8.0, 5.0), layout="constrained")
    axes = figure.subplots()
    low = max(0.5, 0.6 * min(c[c > 0].min(initial=c.max(initial=1)) for c in counts))
    if named:
        axes.set_xscale("log")
        for place, ((_, facts), sizes) in enumerate(zip(ordered, counts, strict=True)):
            trained = sizes[sizes > 0]
            if trained.size:
                axes.plot([trained.min(), trained.max()], [place, place], color=GREY, linewidth=0.8, zorder=1)
                axes.scatter(trained, np.full(trained.size, place), s=14, color=COLOURS[0], alpha=0.6, linewidths=0, zorder=2)
            ratio = ABSENT if facts["ratio"] is None else f"1:{facts['ratio']:,.0f}"
            axes.annotate(ratio, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=7, color=GREY)
        axes.set_yticks(range(len(ordered)), [shortened(name, 30) for name, _ in ordered], fontsize=7, parse_math=False)
        axes.set_ylim(-0.8, len(ordered) - 0.2)
        axes.set_xlim(low, 1.6 * max(c.max() for c in counts))
        axes.set_xlabel("training images of a class (log)")
    else:
        axes.set_yscale("log")
        for extreme, colour, name in ((np.max, COLOURS[0], "largest class"), (np.min, COLOURS[1], "smallest class")):
            axes.plot([max(low, extreme(c)) for c in counts], color=colour, linewidth=1.2, label=name)
        axes.set_xlabel(f"{len(ordered)} labels, the least imbalanced first")
        axes.set_ylabel("training images (log)")
        axes.legend(frameon=False)
    axes.grid(True, axis="x" if named else "y", which="major", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    write_png(figure, path)


def save_association(names: Sequence[str], values: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Writes a PNG of how much each label tells of each other, Cramér's V [L, L] in [0, 1]; NaN stays white."""
    side = min(14.0, 3.0 + 0.18 * len(names))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(np.where(np.eye(len(names)), np.nan, values), vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    if len(names) <= NAMED_LABELS:
        short = [shortened(name, 24) for name in names]
        axes.set_xticks(range(len(names)), short, rotation=90, fontsize=7, parse_math=False)
        axes.set_yticks(range(len(names)), short, fontsize=7, parse_math=False)
    else:
        axes.xaxis.set_major_locator(NullLocator())
        axes.yaxis.set_major_locator(NullLocator())
    figure.colorbar(shown, label="Cramér's V: 0 = nothing, 1 = everything", shrink=0.7)
    write_png(figure, path)


def _table(found: Mapping[str, Any], what: str) -> Table:
    # Without lines between columns, so that the numbers of a label fit a terminal of 80 columns.
    return Table(title=Text(f"{found['dataset']} · {what}"), box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def _percent(share: float) -> str:
    # Two digits that count, however small: a rare class's share is the point.
    return f"{100 * share:.1f}" if share >= 0.001 or share == 0 else f"{100 * share:.2g}"


def _number(value: float | None, form: str) -> str:
    return ABSENT if value is None else format(value, form)
