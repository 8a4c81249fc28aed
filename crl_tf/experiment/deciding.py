"""Thresholds, temperatures and calibration of a measured model: chosen on validation images, measured on test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from crl_tf.calibration import Reliability, reliability_of_classes, temperatures
from crl_tf.checks import number_or_none
from crl_tf.decision import rule_offsets
from crl_tf.experiment.measure import SHARES, measure
from crl_tf.experiment.predictions import Outputs, confusions, decisions
from crl_tf.layout import Layout
from crl_tf.metrics import most_frequent_of, rarest_of
from crl_tf.schema import AttributeSchema
from crl_tf.serving.scoring import Scoring
from crl_tf.thresholds import Chosen, Goal, choose_thresholds, decision_offsets

THIRDS = {"rarest_third": rarest_of, "most_frequent_third": most_frequent_of}
"""The groups of classes whose calibration is measured apart: from training counts of all classes to their places."""


class Decision(NamedTuple):
    """How a model's scores are made and decided on.

    scoring: for the exports. numbers: "decision" of `result.json`. diagrams: of the test images, before and, if calibrated,
    after: by title, by third.
    """

    scoring: Scoring
    numbers: dict[str, Any]
    diagrams: dict[str, dict[str, Reliability]]


def decide(
    validation: Outputs,
    test: Outputs,
    schema: AttributeSchema,
    train_counts: Sequence[np.ndarray],
    *,
    rule: str,
    strengths: Sequence[float],
    goal: Goal | None,
    calibrate: bool,
) -> Decision:
    """Chooses temperatures and thresholds on validation images, and measures them on test images.

    Without either, the scores are the probabilities that the decision rule has adjusted. With one of them they are the model's
    own, calibrated if asked; the rule, or with a goal the thresholds, then acts on the decision alone.

    Args:
        rule, strengths: of the run's decision rule (`crl_tf.decision.rule_offsets`).
        goal: of the thresholds; None: no thresholds.
    """
    sizes = schema.num_classes
    numbers: dict[str, Any] = {}
    if calibrate:
        scale = temperatures(validation.logits, validation.labels, sizes)
        numbers["temperatures"] = dict(zip(schema.names, map(float, scale), strict=True))
    if goal is not None:
        priors = [counts / max(1, counts.sum()) for counts in train_counts]
        scores = scores_of(validation.logits, _without_thresholds(numbers, schema), sizes)
        chosen = choose_thresholds(scores, validation.labels, sizes, priors, goal)
        numbers |= {"goal": str(goal), "thresholds": _described(schema, chosen)}
    return decide_as_before(numbers, test, schema, train_counts, rule=rule, strengths=strengths)


def decide_as_before(
    before: Mapping[str, Any],
    test: Outputs,
    schema: AttributeSchema,
    train_counts: Sequence[np.ndarray],
    *,
    rule: str,
    strengths: Sequence[float],
) -> Decision:
    """Measures temperatures and thresholds that were chosen before, as "decision" of `result.json` has them, on test images."""
    sizes, layout = schema.num_classes, Layout(schema.num_classes)
    scaled = _without_thresholds(before, schema)
    of_rule = rule_offsets(rule, train_counts, strengths)
    diagrams = {"as trained": _diagrams(scores_of(test.logits, Scoring(), sizes), test.labels, sizes, train_counts)}
    numbers: dict[str, Any] = {"calibration": {"as_trained": _errors(diagrams["as trained"])}}
    if scaled.temperatures is not None:
        diagrams["calibrated"] = _diagrams(scores_of(test.logits, scaled, sizes), test.labels, sizes, train_counts)
        numbers["calibration"]["calibrated"] = _errors(diagrams["calibrated"])
        numbers["temperatures"] = dict(before["temperatures"])
        # Logits are divided by the temperature, and so is what the rule adds to them: the decisions stay.
        of_rule = of_rule / scaled.temperatures[layout.column_label]
    elif "thresholds" not in before:
        return Decision(Scoring(offsets=of_rule), numbers, diagrams)
    scoring = replace(scaled, decision_offsets=of_rule)
    if "thresholds" in before:
        values = [
            np.array([of_class["threshold"] for of_class in of_label.values()]) for of_label in before["thresholds"].values()
        ]
        # Of more than two classes the rule decides: a class that hardly occurs has a threshold near 0, which any score reaches.
        binary = np.asarray(sizes)[layout.column_label] == 2
        offsets = np.where(binary, decision_offsets(values), of_rule).astype(np.float32)
        scoring = replace(scoring, decision_offsets=offsets, thresholds=np.concatenate(values))
        numbers |= {"goal": before["goal"], "thresholds": _with_test(before["thresholds"], test, schema, scoring)}
    decided = decisions(test.logits, sizes, lambda logits: scoring.deciding(scoring.log_scores(logits, Layout(sizes))))
    measured = measure(schema, confusions(test.labels, decided, sizes), train_counts)
    return Decision(scoring, {**numbers, **{share: measured[share] for share in SHARES}}, diagrams)


def _without_thresholds(numbers: Mapping[str, Any], schema: AttributeSchema) -> Scoring:
    """The scoring of the temperatures in "decision" of `result.json`, if it has some."""
    if "temperatures" not in numbers:
        return Scoring()
    return Scoring(temperatures=np.array([numbers["temperatures"][name] for name in schema.names], np.float32))


def scores_of(logits: np.ndarray, scoring: Scoring, num_classes: Sequence[int]) -> np.ndarray:
    """The scores of all images, float32 [n, sum(num_classes)]."""
    layout = Layout.of(num_classes)
    parts = [np.zeros((0, layout.width), np.float32)]
    for start in range(0, len(logits), 4096):
        log_scores = scoring.log_scores(tf.constant(np.asarray(logits[start : start + 4096])), layout)
        parts.append(np.exp(log_scores.numpy()))
    return np.concatenate(parts)


def _diagrams(
    scores: np.ndarray, labels: np.ndarray, sizes: Sequence[int], train_counts: Sequence[np.ndarray]
) -> dict[str, Reliability]:
    pooled = np.concatenate(train_counts)
    return {name: reliability_of_classes(scores, labels, sizes, third(pooled)) for name, third in THIRDS.items()}


def _errors(diagrams: dict[str, Reliability]) -> dict[str, float | None]:
    return {name: number_or_none(diagram.error) for name, diagram in diagrams.items()}


def _described(schema: AttributeSchema, chosen: Sequence[Sequence[Chosen]]) -> dict[str, Any]:
    """The thresholds of every class, with what they reach on the validation images."""
    described: dict[str, Any] = {}
    for attribute, of_label in zip(schema.attributes, chosen, strict=True):
        described[attribute.name] = {
            name: {
                "threshold": of_class.threshold,
                "interval": [number_or_none(of_class.low), number_or_none(of_class.high)],
                "reached": of_class.reached,
                "validation": {
                    "recall": number_or_none(of_class.recall),
                    "precision": number_or_none(of_class.precision),
                    "images": of_class.positives,
                },
            }
            for name, of_class in zip(attribute.classes, of_label, strict=True)
        }
    return described


def _with_test(thresholds: Mapping[str, Any], test: Outputs, schema: AttributeSchema, scoring: Scoring) -> dict[str, Any]:
    """Thresholds with what they reach on the test images."""
    scores = scores_of(test.logits, replace(scoring, decision_offsets=None), schema.num_classes)
    described: dict[str, Any] = {}
    for place, attribute in enumerate(schema.attributes):
        truth, columns = test.labels[:, place], scores[:, schema.columns(attribute.name)]
        described[attribute.name] = {
            # As the exports compare: in float32.
            name: {**of_class, "test": _reached_by(columns[:, k] >= np.float32(of_class["threshold"]), truth, k)}
            for k, (name, of_class) in enumerate(thresholds[attribute.name].items())
        }
    return described


def _reached_by(detected: np.ndarray, truth: np.ndarray, k: int) -> dict[str, Any]:
    positive, known = truth == k, truth >= 0
    hits = int((detected & positive).sum())
    found, images = int((detected & known).sum()), int(positive.sum())
    return {"recall": hits / images if images else None, "precision": hits / found if found else None, "images": images}
