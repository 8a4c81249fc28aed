"""Figures of a run's scores and decisions on the test images: precision and recall, confusions, reliability."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from crl_tf.calibration import Reliability
from crl_tf.experiment.report.figures import COLOURS, GREY, fitted, legend_above, panel_grid, style, write_png
from crl_tf.ranking import label_columns, one_against_rest_scores
from crl_tf.schema import AttributeSchema

MOST_PANELS = 42
"""A figure shows at most so many labels: those with the rarest classes."""

NAMED_CLASSES = 12
"""Up to so many classes of a label, a confusion picture names each."""

POINTS = 200
"""A curve is drawn through at most so many points."""


def precision_recall(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of detecting the k highest scores, for every k at which the score changes, each [k].

    >>> recall, precision = precision_recall(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]))
    >>> recall.tolist(), precision.round(2).tolist()
    ([0.5, 0.5, 1.0], [1.0, 0.5, 0.67])
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    return hits[last] / max(1, hits[-1]), hits[last] / (last + 1)


def save_precision_recall(
    logits: np.ndarray,
    labels: np.ndarray,
    schema: AttributeSchema,
    train_counts: Sequence[np.ndarray],
    path: str | os.PathLike[str],
) -> None:
    """Writes a PNG with a panel per label: precision over recall of its rarest classes, and how often each occurs.

    Args:
        logits: of the test images, float [n, sum(num_classes)]. labels: int [n, L], -1 = not annotated.
        train_counts: training samples per class of every label. path: of the PNG.
    """
    shown = _rarest_labels(train_counts)
    figure, axes = panel_grid(len(shown), min(len(shown), 6), (2.3, 2.1), 0.8)
    columns = list(label_columns(schema.num_classes))
    for panel, label in zip(axes, shown, strict=True):
        known = labels[:, label] >= 0
        of_label, truth = one_against_rest_scores(logits[known][:, columns[label]]), labels[known, label]
        # Of a binary label the rarer class says it all.
        classes = np.argsort(train_counts[label], kind="stable")[: 1 if len(train_counts[label]) == 2 else 3]
        for rank, k in enumerate(classes):
            positive = truth == k
            if not positive.any():
                continue
            recall, precision = precision_recall(of_label[:, k], positive)
            some = np.unique(np.linspace(0, len(recall) - 1, POINTS).astype(int))
            panel.plot(recall[some], precision[some], color=COLOURS[rank], linewidth=1.5)
            # What a detector without any evidence has: how often the class occurs.
            panel.axhline(positive.mean(), color=COLOURS[rank], linewidth=0.7, linestyle=":")
        panel.set_title(fitted(schema.names[label], 2.3, 9), fontsize=9, parse_math=False)
        style(panel, hidden=())
    axes[0].set_xlim(0, 1)
    axes[0].set_ylim(0, 1.02)
    for axis in (axes[0].xaxis, axes[0].yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.supxlabel("recall", fontsize=10)
    figure.supylabel("precision", fontsize=10)
    names = ("the rarest class", "the second rarest", "the third rarest")
    entries = [Line2D([], [], color=COLOURS[rank], label=name) for rank, name in enumerate(names)]
    several = any(len(train_counts[label]) > 2 for label in shown)
    entries = entries if several else entries[:1]
    legend_above(figure, [*entries, Line2D([], [], color=GREY, linestyle=":", label="share of the images")])
    write_png(figure, path)


def save_confusions(labels: Mapping[str, Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Writes a PNG with a panel per label: of the test images of each class, the share that was decided to be each class.

    Args:
        labels: "labels" of a result. path: of the PNG.
    """
    counts = [np.array(list(facts["train_counts"].values())) for facts in labels.values()]
    shown = _rarest_labels(counts)
    names = list(labels)
    size = (2.5, 2.5) if len(shown) > 1 else (5.0, 4.6)
    figure, axes = panel_grid(len(shown), min(len(shown), 6), size, 0.8, share=False)
    for panel, label in zip(axes, shown, strict=True):
        facts = labels[names[label]]
        # The rarest class first, in rows and in columns.
        order = np.argsort(counts[label], kind="stable")
        matrix = np.array(facts["confusion"], np.float64)[np.ix_(order, order)]
        total = matrix.sum(axis=1, keepdims=True)
        shares = np.divide(matrix, total, out=np.full_like(matrix, np.nan), where=total > 0)
        panel.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
        # The title stands over the squares alone, beside which are the names of the classes.
        panel.set_title(fitted(names[label], size[0] - 0.9, 9), fontsize=9, parse_math=False)
        classes = np.array(list(facts["train_counts"]))[order]
        if len(classes) <= NAMED_CLASSES:
            shortened = [fitted(str(name), 0.9, 6) for name in classes]
            panel.set_xticks(range(len(classes)), shortened, rotation=90, fontsize=6, parse_math=False)
            panel.set_yticks(range(len(classes)), shortened, fontsize=6, parse_math=False)
        else:
            panel.set_xticks([])
            panel.set_yticks([0, len(classes) - 1], ["rarest", "most frequent"], fontsize=6)
        if len(classes) <= 4:
            for row, column in np.argwhere(np.isfinite(shares)):
                colour = "white" if shares[row, column] > 0.5 else "black"
                panel.text(column, row, f"{shares[row, column]:.0%}", ha="center", va="center", fontsize=7, color=colour)
    figure.supxlabel("decision", fontsize=10)
    figure.supylabel("truth; the rarest class first", fontsize=10)
    write_png(figure, path)


def save_reliability(diagrams: Mapping[str, Mapping[str, Reliability]], path: str | os.PathLike[str]) -> None:
    """Writes a PNG: how often a class is right, over its score, of the rarest and the most frequent third of the classes.

    Args:
        diagrams: by title, by third ("rarest_third", "most_frequent_third").
    """
    figure, axes = panel_grid(len(diagrams), len(diagrams), (3.6, 3.2), 0.9)
    for panel, (title, of_thirds) in zip(axes, diagrams.items(), strict=True):
        panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
        for colour, diagram in zip(COLOURS[1::-1], of_thirds.values(), strict=True):
            filled = diagram.count > 0
            panel.plot(diagram.mean_score[filled], diagram.share[filled], color=colour, marker="o", markersize=4)
        errors = " and ".join(
            "–" if math.isnan(diagram.error) else f"{100 * diagram.error:.1f} %" for diagram in of_thirds.values()
        )
        panel.set_title(f"{title}: error {errors}", fontsize=9)
        style(panel, hidden=())
    for axis in (axes[0].xaxis, axes[0].yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.supxlabel("score", fontsize=10)
    figure.supylabel("share that is of the class", fontsize=10)
    words = ("rarest third of the classes", "most frequent third")
    legend_above(figure, [Line2D([], [], color=c, marker="o", label=w) for c, w in zip(COLOURS[1::-1], words, strict=True)])
    write_png(figure, path)


def _rarest_labels(train_counts: Sequence[np.ndarray]) -> list[int]:
    """The labels that a figure shows, in their order."""
    smallest = np.array([counts.min() for counts in train_counts])
    return sorted(np.argsort(smallest, kind="stable")[:MOST_PANELS].tolist())
