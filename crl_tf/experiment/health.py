"""What says that a finished training is no result: scores that tell nothing, a loss beyond any sense, majority votes."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crl_tf.checks import number_or_none
from crl_tf.metrics import class_balanced_accuracy, macro_f1, most_frequent_third, rarest_third, sensitivities

EXPLODED = 100.0
"""A loss of so many times that of equal scores is beyond any sense."""

NO_SKILL = 0.55
"""Below this mean AUROC over the classes of a label, its scores tell next to nothing; 0.5 is chance."""


def majority_vote(labels: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers of a model that gives every image the class with the most training images, for each label.

    Args:
        labels: "labels" of `result.json`; of each, the confusion matrix gives the images of the split, `train_counts` the
            training images. Of equal classes the first is the majority.
    Returns:
        {"balanced_accuracy", "accuracy", "macro_f1", "rarest_third", "most_frequent_third", "labels": {label: the first of
        these}}; None where a label, or every label, has no image in the split.

    >>> label = {"confusion": [[6, 2], [1, 1]], "train_counts": {"no": 70, "yes": 30}}
    >>> numbers = majority_vote({"hat": label})
    >>> numbers["balanced_accuracy"], numbers["accuracy"], numbers["rarest_third"]  # 1/2, 8/10, "yes"
    (0.5, 0.8, 0.0)
    """
    voted, shares = {}, {"balanced_accuracy": [], "accuracy": [], "macro_f1": []}
    for name, label in labels.items():
        confusion, counts = np.asarray(label["confusion"]), list(label["train_counts"].values())
        decided = np.zeros_like(confusion)
        decided[:, int(np.argmax(counts))] = confusion.sum(axis=1)
        of_class = dict(zip(label["train_counts"], sensitivities(decided).tolist(), strict=True))
        total = decided.sum()
        shares["balanced_accuracy"].append(class_balanced_accuracy(decided))
        shares["accuracy"].append(np.trace(decided) / total if total else math.nan)
        shares["macro_f1"].append(macro_f1(decided))
        voted[name] = {
            "balanced_accuracy": number_or_none(shares["balanced_accuracy"][-1]),
            "sensitivity": {key: number_or_none(value) for key, value in of_class.items()},
            "train_counts": label["train_counts"],
        }
    means = {name: _mean(values) for name, values in shares.items()}
    thirds = {
        "rarest_third": number_or_none(rarest_third(voted)),
        "most_frequent_third": number_or_none(most_frequent_third(voted)),
    }
    return {**means, **thirds, "labels": {name: label["balanced_accuracy"] for name, label in voted.items()}}


def without_skill(labels: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The labels that are decided no better than by majority vote, and whose scores tell next to nothing either.

    A label whose scores rank well is not among them: there another decision rule helps. Labels without AUROC, of results of
    older versions, and labels without images of two classes are not judged.
    """
    votes = majority_vote(labels)["labels"]
    names = []
    for name, label in labels.items():
        aurocs = [value for value in label.get("auroc", {}).values() if value is not None]
        if not aurocs or None in (votes[name], label["balanced_accuracy"]):
            continue
        if label["balanced_accuracy"] <= votes[name] + 1e-9 and np.mean(aurocs) < NO_SKILL:
            names.append(name)
    return names


def largest_loss(history: Path) -> float | None:
    """The largest loss of an epoch, of training or validation, in `history.csv`; None where there is no such file."""
    if not history.is_file():
        return None
    with open(history, newline="", encoding="utf-8") as file:
        losses = [float(row[name]) for row in csv.DictReader(file) for name in ("loss", "val_loss") if row.get(name)]
    return max(losses, default=None)


def judged(labels: Mapping[str, Mapping[str, Any]], history: Path) -> dict[str, Any]:
    """Whether a finished training is a result at all, and what is wrong with it: a part of `result.json`.

    Args:
        labels: "labels" of `result.json`.
        history: the run's `history.csv`.
    Returns:
        {"is_result": False where the loss exploded or no label is better than a majority vote,
        "complaints": a sentence each, with what to do}.
    """
    sentences, dead, is_result = [], without_skill(labels), True
    loss = largest_loss(history)
    # Cross-entropy of equal scores, summed over the labels.
    at_chance = sum(math.log(max(2, len(label["train_counts"]))) for label in labels.values())
    if loss is not None and not loss <= EXPLODED * at_chance:
        is_result = False
        sentences.append(
            f"the loss reached {loss:.3g}, where equal scores have {at_chance:.3g}: the training exploded. Lower learning_rate,"
            " or set train.clip_norm=1"
        )
    if len(dead) == len(labels):
        is_result = False
        sentences.append(
            "every label is decided by majority vote, and the scores tell nothing: the network is dead. Lower learning_rate,"
            " raise alpha_warmup_epochs where the loss has alpha, or train for more epochs"
        )
    elif dead:
        sentences.append(
            f"{len(dead)} of {len(labels)} labels are decided no better than by majority vote: {named(dead)}. Train for more"
            " epochs, or look at their images and labels with --mode=inspect"
        )
    return {"is_result": is_result, "complaints": sentences}


def named(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are.

    >>> named(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else None
