"""Thresholds, temperatures and calibration of a measured model: chosen on validation images, measured on test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from crl_tf.calibration import Reliability, reliability_of_classes, temperatures
from crl_tf.checks import number_or_none
from crl_tf.decision import rule_offsets
from crl_tf.experiment.predictions import Outputs, confusions, decisions
from crl_tf.imbalance import class_priors
from crl_tf.layout import Layout
from crl_tf.metrics import class_balanced_accuracy, most_frequent_of, rarest_of
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
    of_rule = rule_offsets(rule, train_counts, strengths)
    sizes = schema.num_classes
    plain = Scoring()
    diagrams = {"as trained": _diagrams(scores_of(test.logits, plain, sizes), test.labels, sizes, train_counts)}
    numbers: dict[str, Any] = {"calibration": {"as_trained": _errors(diagrams["as trained"])}}
    if goal is None and not calibrate:
        return Decision(Scoring(offsets=of_rule), numbers, diagrams)
    scale = temperatures(validation.logits, validation.labels, sizes) if calibrate else None
    scaled = Scoring(temperatures=scale)
    if calibrate:
        diagrams["calibrated"] = _diagrams(scores_of(test.logits, scaled, sizes), test.labels, sizes, train_counts)
        numbers["calibration"]["calibrated"] = _errors(diagrams["calibrated"])
        numbers["temperatures"] = dict(zip(schema.names, map(float, scale), strict=True))
    layout = Layout(sizes)
    # Logits are divided by the temperature, and so is what the rule adds to them: the decisions stay.
    of_rule = of_rule if scale is None else of_rule / scale[layout.column_label]
    if goal is None:
        scoring = Scoring(temperatures=scale, decision_offsets=of_rule)
    else:
        priors = [class_priors(counts) for counts in train_counts]
        chosen = choose_thresholds(scores_of(validation.logits, scaled, sizes), validation.labels, sizes, priors, goal)
        values = [np.array([of_class.threshold for of_class in of_label]) for of_label in chosen]
        # Of more than two classes the rule decides: a class that hardly occurs has a threshold near 0, which any score reaches.
        binary = np.asarray(sizes)[layout.column_label] == 2
        offsets = np.where(binary, decision_offsets(values), of_rule).astype(np.float32)
        scoring = Scoring(temperatures=scale, decision_offsets=offsets, thresholds=np.concatenate(values))
        numbers |= {"goal": str(goal), "thresholds": _described(schema, chosen, test, scaled, values)}
    decided = decisions(test.logits, sizes, lambda logits: scoring.deciding(scoring.log_scores(logits, Layout(sizes))))
    of_label = [class_balanced_accuracy(matrix) for matrix in confusions(test.labels, decided, sizes)]
    known = [value for value in of_label if np.isfinite(value)]
    numbers["balanced_accuracy"] = float(np.mean(known)) if known else None
    return Decision(scoring, numbers, diagrams)


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


def _described(
    schema: AttributeSchema, chosen: Sequence[Sequence[Chosen]], test: Outputs, scaled: Scoring, values: Sequence[np.ndarray]
) -> dict[str, Any]:
    """The thresholds of every class, with what they reach on the validation images and on the test images."""
    scores = scores_of(test.logits, scaled, schema.num_classes)
    # As the exports compare.
    values = [np.asarray(of_label, np.float32) for of_label in values]
    described: dict[str, Any] = {}
    for place, (attribute, of_label) in enumerate(zip(schema.attributes, chosen, strict=True)):
        truth, columns = test.labels[:, place], scores[:, schema.columns(attribute.name)]
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
                "test": _reached_by(columns[:, k] >= values[place][k], truth, k),
            }
            for k, (name, of_class) in enumerate(zip(attribute.classes, of_label, strict=True))
        }  # fmt: skip
    return described


def _reached_by(detected: np.ndarray, truth: np.ndarray, k: int) -> dict[str, Any]:
    positive, known = truth == k, truth >= 0
    hits = int((detected & positive).sum())
    found, images = int((detected & known).sum()), int(positive.sum())
    return {"recall": hits / images if images else None, "precision": hits / found if found else None, "images": images}
