"""Measuring a model on a split: confusion matrices first, everything else from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.progress import track

from crl_tf.metrics import ClassBalancedAccuracy, class_balanced_accuracy, rarest_third, sensitivities
from crl_tf.schema import AttributeSchema


def confusion_matrices(model: keras.Model, data: tf.data.Dataset, num_classes: Sequence[int]) -> list[np.ndarray]:
    """Counts per label, int64 [C, C] (rows = truth, columns = predicted); `model` maps images to concatenated logits."""
    metric = ClassBalancedAccuracy(num_classes)

    @tf.function(reduce_retracing=True)
    def count(images: tf.Tensor, labels: tf.Tensor) -> None:
        metric.update_state(labels, model(images, training=False))

    for images, labels in track(data, "measuring", total=int(data.cardinality()), transient=True):
        count(images, labels)
    return [np.rint(matrix).astype(np.int64) for matrix in metric.confusion_matrices()]


def measure(schema: AttributeSchema, confusions: Sequence[np.ndarray], train_counts: Sequence[np.ndarray]) -> dict[str, Any]:
    """The measured part of `result.json`: shares in [0, 1], None where a class or label does not occur in the split."""
    labels = {}
    for attribute, confusion, counts in zip(schema.attributes, confusions, train_counts, strict=True):
        total = confusion.sum()
        labels[attribute.name] = {
            "balanced_accuracy": _number(class_balanced_accuracy(confusion)),
            "accuracy": _number(np.trace(confusion) / total if total else float("nan")),
            "sensitivity": dict(zip(attribute.classes, map(_number, sensitivities(confusion)), strict=True)),
            "confusion": confusion.tolist(),
            "train_counts": dict(zip(attribute.classes, map(int, counts), strict=True)),
        }
    return {
        "balanced_accuracy": _mean([label["balanced_accuracy"] for label in labels.values()]),
        "accuracy": _mean([label["accuracy"] for label in labels.values()]),
        "rarest_third": _number(rarest_third(labels)),
        "labels": labels,
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
