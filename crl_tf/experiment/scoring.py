"""Scores of `--compare=auto`: trainings on validation images, and at the end the finalists on test images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from ml_collections import ConfigDict

from crl_tf.decision import rule_offsets
from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.config import at_length, override
from crl_tf.experiment.data import Data
from crl_tf.experiment.intervals import SHARES, bootstrap_intervals, paired_difference
from crl_tf.experiment.measure import evaluate_validation
from crl_tf.experiment.predictions import (
    PREDICTIONS,
    Predictions,
    collect_outputs,
    decisions,
    load_predictions,
    save_predictions,
)
from crl_tf.experiment.run import Context, on_one_device, prepare, train
from crl_tf.experiment.trainers.gradient import usual_epoch_seconds
from crl_tf.experiment.workdir import VALIDATION, open_run
from crl_tf.files import read_json, write_json
from crl_tf.progress import Progress

REPLICATES = 300
"""Of the bootstrap over validation images, which every training is scored with."""


def train_and_score(
    config: ConfigDict, method: str, epochs: int, folder: Path, data: Data, progress: Progress, clock: Callable[[], float]
) -> dict[str, Any]:
    """Trains a method to the end of a schedule of so many epochs and scores it on the validation images.

    Writes validation.json and the predictions on validation images. A training that an earlier sitting finished is not repeated;
    one that it did not finish goes on from its checkpoint.

    Returns:
        {"rule": the best decision rule, each share under it, "intervals": {share: [low, high] or None}, "seconds": of the
        training, "measuring", "total": seconds by the clock, "epoch": seconds of an epoch, None where the trainer does not
        record epochs}.
    """
    parts = assemble(override(at_length(config, epochs), {"method": method}))
    open_run(parts.recipe, folder, resume=True)
    if (folder / VALIDATION).is_file():
        return read_json(folder / VALIDATION)["score"]
    began = clock()
    keras.utils.set_random_seed(parts.names["seed"])
    context = Context(parts, data, folder, progress)
    model, seconds, facts = train(context, prepare(context))
    trained = clock()
    score = _score(on_one_device(context, model), data, folder, progress)
    # Of a training in several sittings, the clock has seen the last one only.
    times = {"measuring": clock() - trained, "total": max(clock() - began, seconds), "epoch": usual_epoch_seconds(folder)}
    score |= {"seconds": round(seconds, 1), **times}
    write_json(folder / VALIDATION, {"seconds": score["seconds"], **facts, "score": score})
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return score


def _score(model: keras.Model, data: Data, folder: Path, progress: Progress) -> dict[str, Any]:
    schema, validation = data.dataset.schema, data.batches("validation")
    rules = evaluate_validation(model, validation, schema, data.counts, progress=progress)["rules"]
    best, sizes = ranked(rules)[0], schema.num_classes
    offsets = rule_offsets(best, data.counts, list(rules[best]["strengths"].values()))
    outputs = collect_outputs(model, validation, sizes, progress=progress)
    decided = {best: decisions(outputs.logits, sizes, lambda logits: logits + offsets)}
    predictions = Predictions(outputs.labels, decided, best, sizes, tuple(np.asarray(count) for count in data.counts))
    save_predictions(predictions, folder / PREDICTIONS)
    intervals = bootstrap_intervals(outputs, predictions, replicates=REPLICATES, ranking_replicates=1)["rules"][best]
    return {"rule": best, **{share: rules[best][share] for share in SHARES}, "intervals": intervals}


def ranked(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names by class-balanced accuracy, the best first; equal ones by the rarest third. One without a number is the worst.

    >>> ranked({"ce": {"balanced_accuracy": 0.5, "rarest_third": 0.2}, "focal": {"balanced_accuracy": 0.5, "rarest_third": 0.3}})
    ['focal', 'ce']
    """

    def quality(name: str) -> tuple[float, ...]:
        return tuple(-1.0 if scores[name][share] is None else scores[name][share] for share in SHARES[:2])

    return sorted(scores, key=quality, reverse=True)


def difference_on_validation(better: Path, other: Path) -> list[float | None]:
    """The difference in class-balanced accuracy of two trainings on the validation images: [difference, low, high]."""
    return list(paired_difference(load_predictions(better / PREDICTIONS), load_predictions(other / PREDICTIONS)))


def compared(results: Sequence[Mapping[str, Any]], folders: Sequence[Path], reference: int) -> list[dict[str, Any]]:
    """What the report says of each finalist: its shares on the test images, and how far it is above the reference.

    Args:
        results: their `result.json`. folders: where their predictions are. reference: which of them is cross-entropy under its
            best decision rule; "plain" is the same model under the largest logit.
    Returns:
        for each, {"name", "rule", each share, "intervals", "above_reference": {share: [difference, low, high]}, "above_plain":
        the same}; None for what is compared with itself.
    """
    predictions = [load_predictions(folder / PREDICTIONS) for folder in folders]
    base, final = predictions[reference], []
    for place, (result, own) in enumerate(zip(results, predictions, strict=True)):
        above = {}
        for name, rule in (("above_reference", None), ("above_plain", "argmax")):
            itself = place == reference and rule in (None, own.rule)
            above[name] = None if itself else {s: list(paired_difference(own, base, s, rule_b=rule)) for s in SHARES}
        shares = {share: result[share] for share in SHARES}
        intervals = result["intervals"]["rules"][result["rule"]]
        final.append({"name": result["method"], "rule": result["rule"], **shares, "intervals": intervals, **above})
    return final
