"""Measures a model on a split: confusion matrices first, and every number from them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.decision import candidates, check_rule, chosen_strengths, rule_offsets
from crl_tf.imbalance import imbalance_ratio
from crl_tf.metrics import (
    ClassBalancedAccuracy,
    class_balanced_accuracy,
    macro_f1,
    most_frequent_third,
    rarest_third,
    sensitivities,
    top_of_group,
)
from crl_tf.progress import SILENT, Progress
from crl_tf.schema import AttributeSchema

Decide = Callable[[tf.Tensor], tf.Tensor]
"""From the concatenated logits [B, sum(num_classes)] to numbers of that shape, of whose columns the largest decides."""

SHARES = ("balanced_accuracy", "accuracy", "macro_f1", "rarest_third", "most_frequent_third")
"""What is measured of a model as a whole."""

TOP = 5
"""How many attributes of a group are predicted present in each image, for the numbers by group (Table 7)."""


def evaluate_model(
    model: keras.Model,
    test: tf.data.Dataset,
    schema: AttributeSchema,
    train_counts: Sequence[np.ndarray],
    *,
    validation: tf.data.Dataset | None = None,
    rule: str = "argmax",
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Measures a model on test images, in one pass; the measured part of `result.json`.

    Args:
        model: from images to concatenated logits.
        test: batches of images and labels [B, L].
        schema: where its attributes have groups that can be ranked, "top5" is measured as well, on the logits as they are.
        train_counts: training samples per class of every label.
        validation: batches on which the strength of every decision rule (`crl_tf.decision`) is chosen, in one pass; adds
            "rules", the numbers under each. None: the largest logit alone.
        rule: the one that decides the numbers outside "rules".
    """
    check_rule(rule)
    sizes = schema.num_classes
    strengths = {"argmax": [0.0] * len(sizes)}
    if validation is not None:
        strengths = strengths_on(model, validation, sizes, train_counts, progress=progress)
    elif rule not in strengths:
        raise ValueError(f"evaluate_model: rule {rule!r} needs validation data to choose its strength on, received none")
    decide: list[Decide] = [_shifted(rule_offsets(name, train_counts, chosen)) for name, chosen in strengths.items()]
    ranked = ranked_groups(schema)
    if ranked:
        decide.append(functools.partial(top_of_group, num_classes=sizes, groups=ranked, k=TOP))
    confusions = confusion_matrices_by(decide, model, test, sizes, progress=progress)
    by_rule = dict(zip(strengths, confusions, strict=False))
    result = measure(schema, by_rule[rule], train_counts, top=confusions[-1] if ranked else None)
    if validation is None:
        return result
    measured = {name: measure(schema, of_rule, train_counts) for name, of_rule in by_rule.items()}
    rules = {
        name: {
            **{share: measured[name][share] for share in SHARES},
            "strengths": dict(zip(schema.names, strengths[name], strict=True)),
        }
        for name in by_rule
    }
    return {"rule": rule, **result, "rules": rules}


def strengths_on(
    model: keras.Model,
    validation: tf.data.Dataset,
    num_classes: Sequence[int],
    train_counts: Sequence[np.ndarray],
    *,
    progress: Progress = SILENT,
) -> dict[str, list[float]]:
    """The strength of every decision rule for every label, chosen on validation images (`crl_tf.decision`)."""
    tried = candidates(train_counts)
    decide = [_shifted(offsets) for offsets in tried.values()]
    confusions = confusion_matrices_by(decide, model, validation, num_classes, progress=progress)
    accuracies = {key: [class_balanced_accuracy(c) for c in of_key] for key, of_key in zip(tried, confusions, strict=True)}
    return chosen_strengths(accuracies, len(num_classes))


def _shifted(offsets: np.ndarray) -> Decide:
    return lambda logits: logits + offsets


def confusion_matrices(
    model: keras.Model, data: tf.data.Dataset, num_classes: Sequence[int], decide: Decide = tf.identity
) -> list[np.ndarray]:
    """Counts per label, int64 [C, C] (rows = truth, columns = predicted); `model` maps images to concatenated logits."""
    return confusion_matrices_by([decide], model, data, num_classes)[0]


def confusion_matrices_by(
    rules: Sequence[Decide],
    model: keras.Model,
    data: tf.data.Dataset,
    num_classes: Sequence[int],
    *,
    progress: Progress = SILENT,
) -> list[list[np.ndarray]]:
    """`confusion_matrices` under each of several rules, from one pass over the data."""
    metrics = [ClassBalancedAccuracy(num_classes) for _ in rules]

    @tf.function(reduce_retracing=True)
    def count(images: tf.Tensor, labels: tf.Tensor) -> None:
        logits = model(images, training=False)
        for metric, decide in zip(metrics, rules, strict=True):
            metric.update_state(labels, decide(logits))

    for images, labels in progress.track(data, "measuring", int(data.cardinality())):
        count(images, labels)
    return [[np.rint(matrix).astype(np.int64) for matrix in metric.confusion_matrices()] for metric in metrics]


def ranked_groups(schema: AttributeSchema) -> dict[str, tuple[int, ...]]:
    """The groups of which a top 5 says something: more than 5 attributes, all of them binary."""
    return {
        name: indices
        for name, indices in schema.groups.items()
        if len(indices) > TOP and all(schema.attributes[index].num_classes == 2 for index in indices)
    }


def measure(
    schema: AttributeSchema,
    confusions: Sequence[np.ndarray],
    train_counts: Sequence[np.ndarray],
    *,
    top: Sequence[np.ndarray] | None = None,
) -> dict[str, Any]:
    """The measured part of `result.json`: shares in [0, 1], None where a class or label does not occur in the split.

    Args:
        schema: the L attributes.
        confusions: of each, int [C, C], by the largest logit.
        train_counts: of each, training samples per class, [C].
        top: of each, int [C, C], where the top 5 of a group are present (`crl_tf.metrics.top_of_group`, which tells how Table 7
            was read). Adds "top5": the class-balanced accuracy of each group, a mean over its attributes, with the largest
            imbalance ratio among them, and the mean over the attributes of all groups. A group with 5 attributes or fewer, or
            with one of more than two classes, has None and is in no mean.
    """
    labels = {}
    for attribute, confusion, counts in zip(schema.attributes, confusions, train_counts, strict=True):
        total = confusion.sum()
        labels[attribute.name] = {
            "balanced_accuracy": _number(class_balanced_accuracy(confusion)),
            "accuracy": _number(np.trace(confusion) / total if total else float("nan")),
            "macro_f1": _number(macro_f1(confusion)),
            "sensitivity": dict(zip(attribute.classes, map(_number, sensitivities(confusion)), strict=True)),
            "confusion": confusion.tolist(),
            "train_counts": dict(zip(attribute.classes, map(int, counts), strict=True)),
        }
    return {
        "balanced_accuracy": _mean([label["balanced_accuracy"] for label in labels.values()]),
        "accuracy": _mean([label["accuracy"] for label in labels.values()]),
        "macro_f1": _mean([label["macro_f1"] for label in labels.values()]),
        "rarest_third": _number(rarest_third(labels)),
        "most_frequent_third": _number(most_frequent_third(labels)),
        **({"top5": _by_group(schema, top, train_counts)} if top is not None else {}),
        "labels": labels,
    }


def _by_group(schema: AttributeSchema, top: Sequence[np.ndarray], train_counts: Sequence[np.ndarray]) -> dict[str, Any]:
    ranked = ranked_groups(schema)
    accuracies = {name: [_number(class_balanced_accuracy(top[index])) for index in ranked[name]] for name in ranked}
    groups = {}
    for name, indices in schema.groups.items():
        ratios = [imbalance_ratio(train_counts[index]) for index in indices if np.any(train_counts[index])]
        groups[name] = {"balanced_accuracy": _mean(accuracies.get(name, [])), "imbalance": max(ratios, default=None)}
    return {"balanced_accuracy": _mean([a for of_group in accuracies.values() for a in of_group]), "groups": groups}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
