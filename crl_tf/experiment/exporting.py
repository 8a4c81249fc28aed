"""Converts finished runs to smaller formats, and holds each file to the model on the test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from crl_tf.datasets.ordering import by_rarest_class
from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.data import Data
from crl_tf.experiment.deciding import Decision
from crl_tf.experiment.measure import class_balanced_accuracy, measure
from crl_tf.experiment.predictions import Outputs, confusions, decisions
from crl_tf.experiment.run import Context, check_data, decided
from crl_tf.experiment.run import measure as measure_run
from crl_tf.experiment.trainers.archive import load_trained
from crl_tf.experiment.workdir import CONFIG, MODEL, config_in, held, read_result
from crl_tf.files import write_json
from crl_tf.layout import Layout
from crl_tf.progress import SILENT, Progress
from crl_tf.serving.convert import CONVERSIONS, check_installed, convert
from crl_tf.serving.converted import load_converted
from crl_tf.serving.scoring import INDEX

FOLDER = "exports"
"""Its name in the folder of a run."""

FACTS = "exports.json"

MOST_LOST = 0.01
"""An export that loses more than a point of class-balanced accuracy, or of the rarest third, is not good."""

CALIBRATION_IMAGES = 300
"""Training images from which the ranges of an int8 export are taken."""

SHARES = ("balanced_accuracy", "rarest_third")


def export_finished(
    folder: Path, kinds: Sequence[str], *, changed_rows: bool = False, progress: Progress = SILENT
) -> list[dict[str, Any]]:
    """Converts the model of a finished run, and measures each file on the test images.

    Writes `exports/` with the files and `exports.json`. A file that is not good is called `not_good-NAME`.

    Args:
        folder: of the run. kinds: rows of `crl_tf.serving.convert.CONVERSIONS`.
        changed_rows: go on with other rows than those of the training too.
    Returns:
        for each kind {"kind", "file", "bytes", "good", "same_decisions" (share), "before" and "after": each of `SHARES` and
        "labels": {label: each of `SHARES`}}; the numbers are under the decisions that are inside the file.
    Raises:
        ImportError: a library is missing. ValueError: the format cannot hold the model, or the data are others.
    """
    check_installed(kinds)
    folder = Path(folder)
    with held(folder):
        read_result(folder)
        parts = assemble(config_in(folder, CONFIG))
        data = parts.load(use_cache=False, progress=progress)
        context = Context(parts, data, folder, progress)
        check_data(context, f"export {folder}", changed_rows)
        model = load_trained(folder / MODEL)
        measured = measure_run(context, model)
        decision = decided(context, measured)
        rows = []
        for kind in kinds:
            path = folder / FOLDER / CONVERSIONS[kind].file
            calibration = _calibration_images(data) if CONVERSIONS[kind].calibrated else None
            options = {"scoring": decision.scoring, "calibration": calibration}
            convert(model, data.dataset.schema, data.image_size, path, kind, **options)
            rows.append({"kind": kind, **compared(path, data, measured.test, decision, progress=progress)})
        write_json(folder / FOLDER / FACTS, rows)
        return rows


def compared(path: Path, data: Data, test: Outputs, decision: Decision, *, progress: Progress = SILENT) -> dict[str, Any]:
    """Runs a converted file on the test images beside the model's outputs; renames a file that is not good.

    Args:
        test: labels and logits of the model. decision: which is inside the file.
    Returns:
        as a row of `export_finished`, without its kind.
    """
    schema = data.dataset.schema
    run, layout = load_converted(path), Layout(schema.num_classes)
    batches = data.batches("test")
    tracked = progress.track(batches, f"measuring {path.name}", int(batches.cardinality()))
    found = [np.zeros((0, len(schema)), np.int64)]
    for images, _ in tracked:
        outputs = run(images.numpy())
        found.append(np.stack([outputs[name + INDEX] for name in schema.names], axis=1))
    of_file = np.concatenate(found)

    def deciding(logits: tf.Tensor) -> tf.Tensor:
        return decision.scoring.deciding(decision.scoring.log_scores(logits, layout))

    of_model = decisions(test.logits, schema.num_classes, deciding)
    before, after = (_numbers(test.labels, decided_on, data) for decided_on in (of_model, of_file))
    good = all(after[share] is None or after[share] >= before[share] - MOST_LOST for share in SHARES)
    final = path.with_name(f"not_good-{path.name}")
    final.unlink(missing_ok=True)
    if not good:
        path.rename(final)
    return {
        "file": path.name if good else final.name,
        "bytes": (path if good else final).stat().st_size,
        "good": good,
        "same_decisions": float((of_model == of_file).mean()),
        "before": before,
        "after": after,
    }


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
        accuracy = class_balanced_accuracy(matrix)
        of_labels[attribute.name] = {
            "balanced_accuracy": float(accuracy) if np.isfinite(accuracy) else None,
            "rarest_third": float(np.mean(recalls)) if recalls else None,
        }
    return {**{share: numbers[share] for share in SHARES}, "labels": of_labels}


def _calibration_images(data: Data) -> np.ndarray:
    """Training images, uint8 [n, H, W, 3], among which every class is as far as there is room, the rarest first."""
    train = data.dataset.splits["train"]
    places = by_rarest_class(train.labels, data.dataset.schema.num_classes, data.seed)[:CALIBRATION_IMAGES]
    batches = data.batches("train", indices=np.sort(places))
    return np.concatenate([images.numpy() for images, _ in batches])
