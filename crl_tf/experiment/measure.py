"""Measures a model on a split: confusion matrices first, and every number from them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from crl_tf.checks import number_or_none
from crl_tf.decision import BEST, best_rule, candidates, check_rule, chosen_strengths, rule_offsets
from crl_tf.experiment.intervals import RANKINGS, Averages, bootstrap_intervals
from crl_tf.experiment.predictions import Decide, Outputs, Predictions, collect_outputs, confusions, decisions
from crl_tf.imbalance import imbalance_ratio
from crl_tf.metrics import (
    class_balanced_accuracy,
    macro_f1,
    most_frequent_third,
    rarest_third,
    sensitivities,
    top_of_group,
)
from crl_tf.progress import SILENT, Progress
from crl_tf.ranking import class_rankings, label_columns
from crl_tf.schema import AttributeSchema

SHARES = ("balanced_accuracy", "accuracy", "macro_f1", "rarest_third", "most_frequent_third")
"""What is measured of a model as a whole."""

TOP = 5
"""How many attributes of a group are predicted present in each image, for the numbers by group (Table 7)."""


class Measured(NamedTuple):
    """numbers: the measured part of `result.json`. predictions: what the model decided on every test image. test, validation:
    labels and logits of both splits; validation None where no validation data were given.
    """

    numbers: dict[str, Any]
    predictions: Predictions
    test: Outputs
    validation: Outputs | None


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
    """The numbers of `measure_model`."""
    return measure_model(model, test, schema, train_counts, validation=validation, rule=rule, progress=progress).numbers


def measure_model(
    model: keras.Model,
    test: tf.data.Dataset,
    schema: AttributeSchema,
    train_counts: Sequence[np.ndarray],
    *,
    validation: tf.data.Dataset | None = None,
    strengths: Mapping[str, Sequence[float]] | None = None,
    rule: str = "argmax",
    progress: Progress = SILENT,
) -> Measured:
    """Measures a model on test images, in one pass.

    Args:
        model: from images to concatenated logits.
        test, validation: batches of images and labels [B, L].
        schema, train_counts, strengths, rule: as for `measure_outputs`.
    """
    _check_strengths(rule, validation is not None, strengths)
    of_validation, of_test = (
        None if data is None else collect_outputs(model, data, schema.num_classes, progress=progress)
        for data in (validation, test)
    )
    return measure_outputs(of_test, schema, train_counts, validation=of_validation, strengths=strengths, rule=rule)


def measure_outputs(
    test: Outputs,
    schema: AttributeSchema,
    train_counts: Sequence[np.ndarray],
    *,
    validation: Outputs | None = None,
    strengths: Mapping[str, Sequence[float]] | None = None,
    rule: str = "argmax",
) -> Measured:
    """Measures what a model says of test images.

    Args:
        test: of the test images.
        schema: where its attributes have groups that can be ranked, "top5" is measured as well, on the logits as they are.
        train_counts: training samples per class of every label.
        validation: on which the strength of every decision rule (`crl_tf.decision`) is chosen; adds "rules", the numbers under
            each, and "validation", `evaluate_validation`. None: the largest logit alone.
        strengths: of every rule and label, where they were chosen before; adds "rules". Not with `validation`.
        rule: the one that decides the numbers outside "rules"; `BEST` with `validation` only.
    """
    _check_strengths(rule, validation is not None, strengths)
    sizes = schema.num_classes
    on_validation = {}
    if validation is not None:
        on_validation = {"validation": _on_validation(validation, schema, train_counts, rule)}
        rule, rules = (on_validation["validation"][key] for key in ("rule", "rules"))
        strengths = {name: list(of_rule["strengths"].values()) for name, of_rule in rules.items()}
    by_rule = strengths is not None
    strengths = strengths or {"argmax": [0.0] * len(sizes)}
    decided = {
        name: decisions(test.logits, sizes, _shifted(rule_offsets(name, train_counts, chosen)))
        for name, chosen in strengths.items()
    }
    top = None
    if ranked := ranked_groups(schema):
        by_rank = functools.partial(top_of_group, num_classes=sizes, groups=ranked, k=TOP)
        top = confusions(test.labels, decisions(test.logits, sizes, by_rank), sizes)
    matrices = {name: confusions(test.labels, of_rule, sizes) for name, of_rule in decided.items()}
    numbers = measure(schema, matrices[rule], train_counts, top=top, rankings=rankings_of(test, sizes))
    if by_rule:
        numbers = {"rule": rule, **numbers, "rules": _by_rule(schema, matrices, train_counts, strengths), **on_validation}
    predictions = Predictions(test.labels, decided, rule, sizes, tuple(np.asarray(c) for c in train_counts))
    numbers = {**numbers, "intervals": bootstrap_intervals(test, predictions)}
    return Measured(numbers, predictions, test, validation)


def _check_strengths(rule: str, with_validation: bool, strengths: Mapping[str, Sequence[float]] | None) -> None:
    if rule != BEST:
        check_rule(rule)
    if not with_validation and rule not in (strengths or {"argmax": None}):
        raise ValueError(f"evaluate_model: rule {rule!r} needs validation data to choose its strength on, received none")


def evaluate_validation(
    model: keras.Model,
    validation: tf.data.Dataset,
    schema: AttributeSchema,
    train_counts: Sequence[np.ndarray],
    *,
    rule: str = "argmax",
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Measures a model on validation images alone, in one pass; no test image is read. "validation" of `result.json`.

    The strength of every decision rule is chosen for each label on these same images (`crl_tf.decision`), so that the numbers
    under a rule with several strengths are a little too good.

    Args:
        model, schema, train_counts: as for `measure_model`.
        validation: batches of images and labels [B, L].
        rule: the one that decides the numbers outside "rules".
    Returns:
        {"rule", each of `SHARES` under it, each of `crl_tf.experiment.intervals.RANKINGS`,
        "rules": {rule: {each of `SHARES`, "strengths": {label: float}}}}.
    """
    check_rule(rule)
    return _on_validation(collect_outputs(model, validation, schema.num_classes, progress=progress), schema, train_counts, rule)


def _on_validation(outputs: Outputs, schema: AttributeSchema, train_counts: Sequence[np.ndarray], rule: str) -> dict[str, Any]:
    sizes = schema.num_classes
    matrices = {
        key: confusions(outputs.labels, decisions(outputs.logits, sizes, _shifted(offsets)), sizes)
        for key, offsets in candidates(train_counts).items()
    }
    accuracies = {key: [class_balanced_accuracy(c) for c in of_key] for key, of_key in matrices.items()}
    strengths = chosen_strengths(accuracies, len(sizes))
    of_rules = {
        name: [matrices[name, strength][label] for label, strength in enumerate(chosen)] for name, chosen in strengths.items()
    }
    by_rule = _by_rule(schema, of_rules, train_counts, strengths)
    if rule == BEST:
        rule = best_rule(by_rule)
    numbers = measure(schema, of_rules[rule], train_counts, rankings=rankings_of(outputs, sizes))
    whole = {name: numbers[name] for name in (*SHARES, *RANKINGS)}
    return {"rule": rule, **whole, "rules": by_rule}


def _by_rule(
    schema: AttributeSchema,
    confusions: Mapping[str, Sequence[np.ndarray]],
    train_counts: Sequence[np.ndarray],
    strengths: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """ "rules" of `result.json`: the shares under each decision rule, and its strengths."""
    rules = {}
    for name, of_rule in confusions.items():
        numbers = measure(schema, of_rule, train_counts)
        chosen = dict(zip(schema.names, strengths[name], strict=True))
        rules[name] = {**{share: numbers[share] for share in SHARES}, "strengths": chosen}
    return rules


def _shifted(offsets: np.ndarray) -> Decide:
    return lambda logits: logits + offsets


def confusion_matrices(
    model: keras.Model, data: tf.data.Dataset, num_classes: Sequence[int], decide: Decide = tf.identity
) -> list[np.ndarray]:
    """Counts per label, int64 [C, C] (rows = truth, columns = predicted); `model` maps images to concatenated logits."""
    outputs = collect_outputs(model, data, num_classes)
    return confusions(outputs.labels, decisions(outputs.logits, num_classes, decide), num_classes)


def rankings_of(outputs: Outputs, num_classes: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """AUROC and average precision of each label's classes, each [C] (`crl_tf.ranking.class_rankings`)."""
    columns = enumerate(label_columns(num_classes))
    return [class_rankings(outputs.labels[:, index], outputs.logits[:, of_label]) for index, of_label in columns]


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
    rankings: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
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
        rankings: of each, AUROC and average precision of its classes, NaN where there is none. Adds "auroc" and
            "average_precision" to each label, and their means (`crl_tf.experiment.intervals.RANKINGS`): over labels of the
            mean over classes, and over the classes of the rarest third.
    """
    labels = {}
    for attribute, confusion, counts in zip(schema.attributes, confusions, train_counts, strict=True):
        total = confusion.sum()
        labels[attribute.name] = {
            "balanced_accuracy": number_or_none(class_balanced_accuracy(confusion)),
            "accuracy": number_or_none(np.trace(confusion) / total if total else float("nan")),
            "macro_f1": number_or_none(macro_f1(confusion)),
            "sensitivity": dict(zip(attribute.classes, map(number_or_none, sensitivities(confusion)), strict=True)),
            "confusion": confusion.tolist(),
            "train_counts": dict(zip(attribute.classes, map(int, counts), strict=True)),
        }
    numbers = {
        "balanced_accuracy": _mean([label["balanced_accuracy"] for label in labels.values()]),
        "accuracy": _mean([label["accuracy"] for label in labels.values()]),
        "macro_f1": _mean([label["macro_f1"] for label in labels.values()]),
        "rarest_third": number_or_none(rarest_third(labels)),
        "most_frequent_third": number_or_none(most_frequent_third(labels)),
        **({"top5": _by_group(schema, top, train_counts)} if top is not None else {}),
        "labels": labels,
    }
    if rankings is None:
        return numbers
    for attribute, (auroc, precision) in zip(schema.attributes, rankings, strict=True):
        labels[attribute.name] |= {
            "auroc": dict(zip(attribute.classes, map(number_or_none, auroc), strict=True)),
            "average_precision": dict(zip(attribute.classes, map(number_or_none, precision), strict=True)),
        }
    occurring = np.concatenate([confusion.sum(axis=1) > 0 for confusion in confusions])
    auroc, precision = (np.concatenate(parts)[:, np.newaxis] for parts in zip(*rankings, strict=True))
    means = Averages(schema.num_classes, train_counts, occurring).rankings(auroc, precision)
    return {**numbers, **{name: number_or_none(mean[0]) for name, mean in means.items()}}


def _by_group(schema: AttributeSchema, top: Sequence[np.ndarray], train_counts: Sequence[np.ndarray]) -> dict[str, Any]:
    ranked = ranked_groups(schema)
    accuracies = {name: [number_or_none(class_balanced_accuracy(top[index])) for index in ranked[name]] for name in ranked}
    groups = {}
    for name, indices in schema.groups.items():
        ratios = [imbalance_ratio(train_counts[index]) for index in indices if np.any(train_counts[index])]
        groups[name] = {"balanced_accuracy": _mean(accuracies.get(name, [])), "imbalance": max(ratios, default=None)}
    return {"balanced_accuracy": _mean([a for of_group in accuracies.values() for a in of_group]), "groups": groups}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
