"""One run: prepare, train, measure, save, over one context whose data are loaded once."""

from __future__ import annotations

import logging
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from crl_tf.crl_model import CRLModel
from crl_tf.datasets.sources.celeba import ALIGNED_SIZE
from crl_tf.experiment.agreement import agree_on_data, agree_on_settings
from crl_tf.experiment.assemble import Parts, assemble
from crl_tf.experiment.card import card
from crl_tf.experiment.data import Data
from crl_tf.experiment.deciding import Decision, decide
from crl_tf.experiment.devices import told_of_lost_machines, writes
from crl_tf.experiment.health import judged
from crl_tf.experiment.measure import Measured, measure_outputs
from crl_tf.experiment.network_summary import network_summary
from crl_tf.experiment.precision import settled
from crl_tf.experiment.predictions import PREDICTIONS, Outputs, collect_outputs, save_predictions
from crl_tf.experiment.report import (
    save_class_distributions,
    save_confusions,
    save_precision_recall,
    save_reliability,
    save_sensitivity_by_frequency,
)
from crl_tf.experiment.same_data import check_same_data, described
from crl_tf.experiment.trainers.archive import load_trained
from crl_tf.experiment.trainers.base import Task, Trained
from crl_tf.experiment.trainers.features import features_and_logits
from crl_tf.experiment.trainers.gradient import CHECKPOINTS, HISTORY, TALLIES
from crl_tf.experiment.workdir import (
    CONFIG,
    CONVERTED,
    EXPORT,
    MODEL,
    RESULT,
    VALIDATION,
    config_in,
    finished_runs,
    held,
    open_run,
    read_description,
    read_result,
)
from crl_tf.files import read_json, write_json, write_whole
from crl_tf.losses.base import Loss
from crl_tf.losses.table import Problem
from crl_tf.machine import bfloat16
from crl_tf.models import BACKBONE
from crl_tf.models.backbones.panda import regions_of_landmarks
from crl_tf.progress import SILENT, Progress
from crl_tf.serving.export import export_saved_model

_log = logging.getLogger(__name__)

OF_TRAINING = ("epochs_trained", "epochs_kept", "rectification", "clustering_seconds")
"""What trainers add to result.json."""


@dataclass(frozen=True)
class Context:
    """What a run works on: the parts of its configuration, its data, its folder, and who sees its progress."""

    parts: Parts
    data: Data
    workdir: Path
    progress: Progress = SILENT


def run(config: ConfigDict, workdir: Path, **options: Any) -> dict[str, Any]:
    """Trains and measures one configuration, and leaves everything in `workdir`; returns the content of `result.json`.

    Args:
        config: as a recipe gives it (`crl_tf.experiment.config`).
        workdir, options: as for `run_parts`.
    """
    going_on = Path(workdir) if options.get("resume") else None
    return run_parts(assemble(settled(config, going_on)), workdir, **options)


def run_parts(
    parts: Parts,
    workdir: Path,
    *,
    resume: bool = False,
    export: bool = True,
    data: Data | None = None,
    trained: Path | None = None,
    changed_rows: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Trains and measures the parts of a configuration, and leaves everything in `workdir`.

    Args:
        workdir: a new or empty folder; with `resume`, also one that an earlier run of the same configuration left.
        resume: continue from its last checkpoint. Only `crl_tf.experiment.workdir.FREE_ON_RESUME` may differ from the
            configuration that it was started with.
        export: write `export/`, the SavedModel, with the decision rule inside.
        data: the data of this configuration, where they are loaded already.
        trained: a finished run, or a training of a search, that differs in the decision rule alone: its model is taken, and
            nothing is trained.
        changed_rows: a resumed run may go on with other rows than it was started with; never with other labels or classes.
        progress: receives the progress.
    Returns:
        the content of `result.json`; nothing on a machine that takes part in a training which another one writes.
    Raises:
        ValueError: the folder or the data are not what they should be.
        MeaninglessForData: the data give the method no meaning.
        Diverged: the loss is not finite any more.
    """
    workdir = Path(workdir)
    if not writes(parts.strategy()):
        if not resume or open_run(parts.recipe, workdir, resume) is None:
            _take_part(parts, workdir, resume)
        return {}
    with held(workdir):
        finished = open_run(parts.recipe, workdir, resume)
        if finished is not None:
            return finished
        names = (parts.names[name] for name in ("dataset", "model", "method", "seed"))
        _log.info("\n%s · %s · %s · seed %d → %s", *names, workdir)
        # Before the first image is read, which starts TensorFlow.
        if (replicas := parts.strategy().num_replicas_in_sync) > 1:
            _log.info("%d replicas share each batch", replicas)
        if data is None:
            parts.check_weights()
            data = _same_everywhere(parts, workdir, progress)
        context = Context(_long_enough(parts, data), data, workdir, progress)
        if (workdir / CONFIG).is_file():
            check_data(context, f"resume {workdir}", changed_rows)
        return _run(context, trained, export)


def _same_everywhere(parts: Parts, workdir: Path, progress: Progress) -> Data:
    """Loads the data; of several machines all have to have the same, and the same settings."""
    strategy = parts.strategy()
    with told_of_lost_machines(strategy, workdir, begun=False):
        agree_on_settings(strategy, parts.recipe, workdir / HISTORY)
        data = parts.load(progress=progress)
        agree_on_data(strategy, data)
    return data


def _take_part(parts: Parts, workdir: Path, resume: bool) -> None:
    """Trains together with the machine that writes the run, in a folder of its own, which begins as a copy of what it resumes."""
    with tempfile.TemporaryDirectory() as scratch:
        own = Path(scratch) / workdir.name
        own.mkdir()
        for name in (CONFIG, HISTORY, TALLIES) if resume else ():
            if (workdir / name).is_file():
                shutil.copy(workdir / name, own)
        if resume and (workdir / CHECKPOINTS).is_dir():
            shutil.copytree(workdir / CHECKPOINTS, own / CHECKPOINTS)
        data = _same_everywhere(parts, workdir, SILENT)
        context = Context(_long_enough(parts, data), data, own)
        keras.utils.set_random_seed(parts.names["seed"])
        with told_of_lost_machines(parts.strategy(), workdir):
            _outputs(context, context.parts.trainer.train(prepare(context)).model, parts.strategy())


def _run(context: Context, trained: Path | None, export: bool) -> dict[str, Any]:
    names, strategy = context.parts.names, context.parts.strategy()
    keras.utils.set_random_seed(names["seed"])
    model, seconds, facts = train(context, prepare(context), trained)
    with told_of_lost_machines(strategy, context.workdir):
        measured = measure(context, model, strategy if trained is None else None)
    model = on_one_device(context, model)
    decision = decided(context, measured)
    result = {**names, "seconds": round(seconds, 1), **facts, **measured.numbers, "decision": decision.numbers}
    result |= judged(result["labels"], context.workdir / HISTORY)
    for complaint in result["complaints"]:
        _log.warning("%s: %s", names["method"], complaint)
    return save(context, model, result, measured, decision, export=export)


def prepare(context: Context) -> Task:
    """What the trainer is given: the samples of an epoch, and how network, loss and optimizer are made for these data."""
    parts, data = context.parts, context.data
    train, schema = data.dataset.splits["train"], data.dataset.schema
    resampled = None if parts.resample is None else parts.resample(train.labels, schema)
    if resampled is not None:
        _log.info("%s", resampled.summary)
    regions = _regions(parts, train.extras.get("landmarks"))

    def make_model() -> CRLModel:
        network = parts.build_network(image_size=data.image_size, num_classes=schema.num_classes, regions=regions)
        return CRLModel(network, dtype=parts.precision)

    def make_optimizer(model: CRLModel, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        return parts.make_optimizer(steps_per_epoch=steps_per_epoch, backbone=model.network.get_layer(BACKBONE))

    def make_loss() -> Loss:
        return parts.make_loss(problem=Problem(schema.num_classes, data.counts, parts.cosine_scale))

    def begin(model: CRLModel | None = None) -> None:
        if model is not None:
            _log.info("%s", network_summary(context.parts.network, context.data, model))
        # An export, or predictions, of fewer epochs must not stay beside a newer model.
        for name in (RESULT, PREDICTIONS):
            (context.workdir / name).unlink(missing_ok=True)
        for name in (EXPORT, CONVERTED):
            shutil.rmtree(context.workdir / name, ignore_errors=True)
        write_json(context.workdir / CONFIG, _description(context))

    return Task(
        data=data,
        workdir=context.workdir,
        seed=parts.names["seed"],
        epochs=parts.names["epochs"],
        keep=parts.keep,
        patience=parts.patience,
        checkpoint_every=parts.checkpoint_every,
        make_model=make_model,
        make_optimizer=make_optimizer,
        make_loss=make_loss,
        indices=resampled and resampled.indices,
        pairs=parts.pairs,
        compile_options=parts.compile_options,
        linear_svm=parts.linear_svm,
        embedding=parts.embedding,
        begin=begin,
        progress=context.progress,
        strategy=parts.strategy(),
    )


def train(context: Context, task: Task, trained: Path | None = None) -> Trained:
    """Trains the model, or takes that of a finished run, and saves it as model.keras."""
    if trained is None:
        with told_of_lost_machines(task.strategy, context.workdir):
            result = context.parts.trainer.train(task)
    else:
        _log.info("the model of %s: only the decision rule is another", trained)
        task.begin()
        of_other = read_json(next(path for path in (trained / RESULT, trained / VALIDATION) if path.is_file()))
        facts = {key: of_other[key] for key in OF_TRAINING if key in of_other}
        result = Trained(load_trained(trained / MODEL), of_other["seconds"], facts)
    write_whole(context.workdir / MODEL, result.model.save)
    return result


def on_one_device(context: Context, model: keras.Model) -> keras.Model:
    """The trained model, which is saved, with the variables of one device."""
    return model if context.parts.strategy().num_replicas_in_sync == 1 else load_trained(context.workdir / MODEL)


def measure(context: Context, model: keras.Model, strategy: tf.distribute.Strategy | None = None) -> Measured:
    """Measures the test split under every decision rule, whose strengths are chosen on the validation split.

    Args:
        strategy: that the model was trained with, on whose devices, of all machines, it is measured; None: on one.
    """
    validation, test = _outputs(context, model, strategy)
    data = context.data
    return measure_outputs(test, data.dataset.schema, data.counts, validation=validation, rule=context.parts.rule)


def _outputs(context: Context, model: keras.Model, strategy: tf.distribute.Strategy | None) -> list[Outputs]:
    """What the model says of the validation and the test images."""
    data, sizes = context.data, context.data.dataset.schema.num_classes
    return [
        collect_outputs(model, data.batches(split, strategy=strategy), sizes, strategy=strategy, progress=context.progress)
        for split in ("validation", "test")
    ]


def decided(context: Context, measured: Measured) -> Decision:
    """Thresholds and temperatures of a measured model, as its configuration asks, and its calibration."""
    data, rule = context.data, measured.numbers["rule"]
    return decide(
        measured.validation,
        measured.test,
        data.dataset.schema,
        data.counts,
        rule=rule,
        strengths=list(measured.numbers["rules"][rule]["strengths"].values()),
        goal=context.parts.goal,
        calibrate=context.parts.calibrate,
    )


def export_model(context: Context, model: keras.Model, result: dict[str, Any], decision: Decision) -> None:
    """Writes export/, the SavedModel, with its scores and decisions, and what is known of the model."""
    data = context.data
    export_saved_model(
        model,
        data.dataset.schema,
        data.image_size,
        context.workdir / EXPORT,
        scoring=decision.scoring,
        features_and_logits=features_and_logits(model),
        card=card(result, decision),
    )


def save(
    context: Context,
    model: keras.Model,
    result: dict[str, Any],
    measured: Measured,
    decision: Decision,
    *,
    export: bool = True,
) -> dict[str, Any]:
    """Writes export/, figures/, predictions.npz and result.json; returns the result."""
    workdir, data = context.workdir, context.data
    if export:
        export_model(context, model, result, decision)
    save_figures([result], workdir)
    save_decision_figures(workdir, result, measured.test, data, decision)
    save_predictions(measured.predictions, workdir / PREDICTIONS)
    # Last: a folder with a result holds everything else as well.
    write_json(workdir / RESULT, result)
    return result


def evaluate(workdir: Path, *, changed_rows: bool = False, progress: Progress = SILENT) -> list[dict[str, Any]]:
    """Measures a finished run, each run of a comparison or each finalist of a search again; writes nothing.

    Runs of a comparison that have the same data share them.

    Args:
        changed_rows: measure on other rows than those of the training too; never with other labels or classes.
    """
    results, context = [], None
    for folder in finished_runs(Path(workdir)):
        parts = assemble(config_in(folder, CONFIG))
        same_data = context is not None and context.parts.data_settings == parts.data_settings
        data = context.data if same_data else parts.load(use_cache=False, progress=progress)
        context = Context(parts, data, folder, progress)
        check_data(context, f"evaluate {folder}", changed_rows)
        measured = measure(context, load_trained(folder / MODEL))
        numbers = {**measured.numbers, "decision": decided(context, measured).numbers}
        results.append({**read_result(folder), "method": parts.names["method"], **numbers})
    return results


def save_figures(results: list[dict[str, Any]], workdir: Path) -> None:
    """Saves class distributions, and sensitivity against training frequency, the methods side by side."""
    figures = workdir / "figures"
    save_class_distributions(results, figures / "class_distributions.png")
    save_sensitivity_by_frequency(results, figures / "sensitivity_by_frequency.png")


def save_decision_figures(workdir: Path, result: dict[str, Any], test: Outputs, data: Data, decision: Decision) -> None:
    """Saves confusions, curves of precision and recall, and reliability, of the test images."""
    figures = workdir / "figures"
    save_confusions(result["labels"], figures / "confusions.png")
    save_precision_recall(test.logits, test.labels, data.dataset.schema, data.counts, figures / "precision_recall.png")
    save_reliability(decision.diagrams, figures / "reliability.png")


def _regions(parts: Parts, landmarks: np.ndarray | None) -> list[Any] | None:
    """Where the parts of an image are, for a network that looks at parts, by the mean landmarks of the training images."""
    if not parts.takes_regions or landmarks is None:
        return None
    _log.info("%s: parts around the mean landmarks of %s training images", parts.names["model"], f"{len(landmarks):,}")
    return regions_of_landmarks(landmarks.reshape(len(landmarks), -1, 2), ALIGNED_SIZE)


def _long_enough(parts: Parts, data: Data) -> Parts:
    longer = parts.for_images(len(data.dataset.splits["train"]))
    before, now = parts.names["epochs"], longer.names["epochs"]
    if now > before:
        _log.info("%d epochs in place of %d, for %d steps (train.least_steps)", now, before, parts.recipe["train"]["least_steps"])
    return longer


def check_data(context: Context, where: str, changed_rows: bool) -> None:
    """Refuses data that are not those that the run in the folder was started with."""
    kept, data = read_description(context.workdir), context.data
    check_same_data(kept, data.dataset, data.digests, where=where, changed_rows=changed_rows)


def _description(context: Context) -> dict[str, Any]:
    """The content of config.json: everything needed to repeat the run, and the versions and the processor it ran with."""
    return {
        "recipe": dict(context.parts.recipe),
        "versions": {"python": platform.python_version(), "tensorflow": tf.__version__, "keras": keras.__version__},
        "bfloat16": bfloat16().why,
        **described(context.data.dataset, context.data.digests),
    }
