"""Converts finished runs to smaller formats, and holds each file to the model on the test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crl_tf.checks import number_or_none
from crl_tf.datasets.ordering import by_rarest_class
from crl_tf.experiment.card import card
from crl_tf.experiment.data import Data
from crl_tf.experiment.deciding import Decision, scores_of
from crl_tf.experiment.finished import Finished
from crl_tf.experiment.measure import class_balanced_accuracy, measure
from crl_tf.experiment.predictions import Outputs, confusions, decisions
from crl_tf.experiment.workdir import CONVERTED
from crl_tf.files import read_json, write_json
from crl_tf.layout import Layout
from crl_tf.metrics import rarest_of
from crl_tf.progress import SILENT, Progress
from crl_tf.serving.convert import CONVERSIONS, check_installed, convert
from crl_tf.serving.converted import load_converted
from crl_tf.serving.scoring import DETECTED, INDEX

FACTS = "exports.json"

MOST_LOST = 0.01
"""An export that loses more than a point of class-balanced accuracy, or of the rarest third, is not good; with thresholds, of
what they detect too."""

UNMEASURED, NOT_GOOD = "unmeasured-", "not_good-"
"""What the name of a file begins with until it is measured, and after it has lost too much."""

CALIBRATION_IMAGES = 300
"""Training images from which the ranges of an int8 export are taken."""

SHARES = ("balanced_accuracy", "rarest_third")
DETECTIONS = ("detection", "rarest_third_detection")
"""Of all classes and of their rarest third, the mean of a class's sensitivity and specificity by its threshold."""


def export_finished(finished: Finished, kinds: Sequence[str], *, progress: Progress = SILENT) -> list[dict[str, Any]]:
    """Converts the model of a finished run, and measures each file on the test images.

    Writes `exports/` with the files and `exports.json`, which keeps the rows of earlier calls as long as their files are there. A
    file that is not good is called `not_good-NAME`.

    Args:
        kinds: rows of `crl_tf.serving.convert.CONVERSIONS`.
    Returns:
        for each kind {"kind", "file", "bytes", "good", "same_decisions" (share), "before" and "after": each of `SHARES` and
        "labels": {label: each of `SHARES`}}; the numbers are under the decisions that are inside the file. With thresholds,
        "same_detections" (share) and each of `DETECTIONS` too.
    Raises:
        ImportError: a library is missing. ValueError: the format cannot hold the model.
    """
    check_installed(kinds)
    folder, data, decision = finished.context.workdir, finished.context.data, finished.decision
    rows = []
    for kind in kinds:
        # Under its own name only once it is measured: this can be stopped at any time.
        path = folder / CONVERTED / (UNMEASURED + CONVERSIONS[kind].file)
        convert(
            *(finished.model, data.dataset.schema, data.image_size, path, kind),
            scoring=decision.scoring,
            calibration=_calibration_images(data) if CONVERSIONS[kind].calibrated else None,
            card=card(finished.result, decision),
        )
        rows.append({"kind": kind, **compared(path, data, finished.measured.test, decision, progress=progress)})
        _save(rows[-1], folder / CONVERTED / FACTS)
    return rows


def compared(path: Path, data: Data, test: Outputs, decision: Decision, *, progress: Progress = SILENT) -> dict[str, Any]:
    """Runs a converted file on the test images beside the model's outputs, and gives it its final name.

    Args:
        path: of the file, whose name begins with `UNMEASURED`.
        test: labels and logits of the model. decision: which is inside the file.
    Returns:
        as a row of `export_finished`, without its kind.
    """
    schema, scoring = data.dataset.schema, decision.scoring
    layout = Layout(schema.num_classes)
    name = path.name.removeprefix(UNMEASURED)
    of_file, detected_by_file = _outputs_of(path, data, scoring.thresholds is not None, f"measuring {name}", progress)
    of_model = decisions(test.logits, schema.num_classes, lambda logits: scoring.deciding(scoring.log_scores(logits, layout)))
    before, after = (_numbers(test.labels, decided_on, data) for decided_on in (of_model, of_file))
    same = {"same_decisions": float((of_model == of_file).mean())}
    if scoring.thresholds is not None:
        detected = scores_of(test.logits, scoring, schema.num_classes) >= np.asarray(scoring.thresholds, np.float32)
        same["same_detections"] = float((detected == detected_by_file).mean())
        before |= _detections(test.labels, detected, data)
        after |= _detections(test.labels, detected_by_file, data)
    shares = [share for share in (*SHARES, *DETECTIONS) if after.get(share) is not None]
    good = all(after[share] >= before[share] - MOST_LOST for share in shares)
    final = path.with_name(name if good else NOT_GOOD + name)
    # What an earlier export left: it may have been of another decision.
    path.with_name(NOT_GOOD + name if good else name).unlink(missing_ok=True)
    path.replace(final)
    return {"file": final.name, "bytes": final.stat().st_size, "good": good, **same, "before": before, "after": after}


def _outputs_of(path: Path, data: Data, detects: bool, what: str, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Decisions int64 [n, L] and detections bool [n, sum(num_classes)] of a file on the test images; without thresholds none."""
    names = data.dataset.schema.names
    run, batches = load_converted(path), data.batches("test")
    decided_on = [np.zeros((0, len(names)), np.int64)]
    detected = [np.zeros((0, sum(data.dataset.schema.num_classes) if detects else 0), bool)]
    for images, _ in progress.track(batches, what, int(batches.cardinality())):
        outputs = run(images.numpy())
        decided_on.append(np.stack([outputs[name + INDEX] for name in names], axis=1))
        if detects:
            detected.append(np.concatenate([outputs[name + DETECTED] for name in names], axis=1))
    return np.concatenate(decided_on), np.concatenate(detected)


def _detections(labels: np.ndarray, detected: np.ndarray, data: Data) -> dict[str, float | None]:
    """`DETECTIONS` of test images with labels [n, L] and detections [n, sum(num_classes)]."""
    schema = data.dataset.schema
    of_class, counts = [], []
    for place, attribute in enumerate(schema.attributes):
        truth, known = labels[:, place], labels[:, place] >= 0
        for k, found in enumerate(detected[:, schema.columns(attribute.name)].T):
            positive, negative = truth == k, known & (truth != k)
            if positive.any() and negative.any():
                of_class.append((found[positive].mean() + 1 - found[negative].mean()) / 2)
                counts.append(data.counts[place][k])
    if not of_class:
        return dict.fromkeys(DETECTIONS)
    of_all, rarest = np.array(of_class), rarest_of(np.array(counts))
    return dict(zip(DETECTIONS, (float(of_all.mean()), float(of_all[rarest].mean())), strict=True))


def _save(row: Mapping[str, Any], path: Path) -> None:
    """Puts a row into the facts, in place of an earlier one of the same kind."""
    known = {other["kind"]: other for other in read_json(path)} if path.is_file() else {}
    known[row["kind"]] = row
    present = [known[kind] for kind in CONVERSIONS if kind in known and (path.parent / known[kind]["file"]).is_file()]
    write_json(path, present)


def _numbers(labels: np.ndarray, decided_on: np.ndarray, data: Data) -> dict[str, Any]:
    schema = data.dataset.schema
    matrices = confusions(labels, decided_on, schema.num_classes)
    numbers = measure(schema, matrices, data.counts)
    of_labels = {}
    for attribute, matrix, counts in zip(schema.attributes, matrices, data.counts, strict=True):
        # The rarest third of the label's own classes, as of all classes together.
        order = np.argsort(counts, kind="stable")
        present = [k for k in order if matrix[k].sum()]
        rarest = present[: -(-len(present) // 3)]
        recalls = [matrix[k, k] / matrix[k].sum() for k in rarest]
        of_labels[attribute.name] = {
            "balanced_accuracy": number_or_none(class_balanced_accuracy(matrix)),
            "rarest_third": float(np.mean(recalls)) if recalls else None,
        }
    return {**{share: numbers[share] for share in SHARES}, "labels": of_labels}


def _calibration_images(data: Data) -> np.ndarray:
    """Training images, uint8 [n, H, W, 3], among which every class is as far as there is room, the rarest first."""
    train = data.dataset.splits["train"]
    places = by_rarest_class(train.labels, data.dataset.schema.num_classes, data.seed)[:CALIBRATION_IMAGES]
    batches = data.batches("train", indices=np.sort(places))
    return np.concatenate([images.numpy() for images, _ in batches])
