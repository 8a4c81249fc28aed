"""One run: prepare, train, measure, save."""

from __future__ import annotations

import logging
import math
import platform
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from ml_collections import ConfigDict

from crl_tf.crl_model import CRLModel
from crl_tf.datasets.resampling import resample
from crl_tf.datasets.sources.celeba import ALIGNED_SIZE
from crl_tf.decision import rule_offsets
from crl_tf.experiment.config import check, flattened, loss_sections, resolved
from crl_tf.experiment.data import Data, load_data
from crl_tf.experiment.measure import evaluate_model
from crl_tf.experiment.methods import Method, combined
from crl_tf.experiment.report import save_class_distributions, save_sensitivity_by_frequency
from crl_tf.experiment.settings import XLA
from crl_tf.experiment.trainers import TRAINERS
from crl_tf.experiment.trainers.base import Task, Trained
from crl_tf.experiment.trainers.optimizer import make_optimizer
from crl_tf.experiment.workdir import (
    COMPARISON,
    CONFIG,
    MODEL,
    RESULT,
    config_in,
    folder_of,
    methods_and_seeds,
    open_run,
)
from crl_tf.files import read_json, write_json, write_whole
from crl_tf.losses.base import Loss
from crl_tf.losses.table import Problem, make_loss
from crl_tf.models import BACKBONE, build_network, find_network
from crl_tf.models.backbones.panda import regions_of_landmarks
from crl_tf.models.transfer import weighted_layers
from crl_tf.progress import SILENT, Progress
from crl_tf.serving.export import export_saved_model

_log = logging.getLogger(__name__)


def run(
    config: ConfigDict,
    workdir: Path,
    *,
    resume: bool = False,
    export: bool = True,
    data: Data | None = None,
    trained: Path | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Trains and measures one configuration, and leaves everything in `workdir`; returns the content of `result.json`.

    Args:
        config: as a recipe gives it (`crl_tf.experiment.config`).
        workdir: a new or empty folder; with `resume`, also one that an earlier run of the same configuration left.
        resume: continue from its last checkpoint. Only `crl_tf.experiment.workdir.FREE_ON_RESUME` may differ from the
            configuration that it was started with.
        export: write `export/`, the SavedModel, with the decision rule inside.
        data: the data of this configuration, where they are loaded already.
        trained: a finished run that differs in the decision rule alone: its model is taken, and nothing is trained.
        progress: receives the progress.
    Raises:
        ValueError: a setting, the folder or the data are not what they should be.
        MeaninglessForData: the data give the method no meaning.
        Diverged: the loss is not finite any more.
    """
    workdir, config = Path(workdir), resolved(config)
    check(config)
    finished = open_run(config, workdir, resume)
    if finished is not None:
        return finished
    _log.info("\n%s · %s · %s · seed %d → %s", config.dataset, config.model, config.method, config.seed, workdir)
    keras.utils.set_random_seed(config.seed)
    data = data or load_data(config, progress=progress)
    method = combined(config.method)
    task = prepare(config, method, data, workdir, progress)
    model, seconds = TRAINERS[method.trainer].train(task) if trained is None else _model_of(trained, task)
    write_whole(workdir / MODEL, model.save)
    measured = _measured(model, data, method.rule, progress)
    if export:
        strengths = list(measured["rules"][method.rule]["strengths"].values())
        offsets = rule_offsets(method.rule, data.counts, strengths)
        export_saved_model(model, data.dataset.schema, data.image_size, workdir / "export", offsets=offsets)
    result = {
        "dataset": config.dataset,
        "model": config.model,
        "method": config.method,
        "loss": method.loss if method.trainer == "gradient" else method.trainer,
        "seed": config.seed,
        "epochs": config.train.epochs,
        "seconds": round(seconds, 1),
        **measured,
    }
    save_figures([result], workdir)
    # Last: a folder with a result holds everything else as well.
    write_json(workdir / RESULT, result)
    return result


def prepare(config: ConfigDict, method: Method, data: Data, workdir: Path, progress: Progress = SILENT) -> Task:
    """What the trainer of a configuration is given."""
    schema, network, settings = data.dataset.schema, find_network(config.model), config.network
    resampled = None
    if method.resampling != "none":
        resampled = resample(method.resampling, data.dataset.splits["train"].labels, schema, config.seed)
        _log.info("%s", resampled.summary)
    landmarks, regions = data.dataset.splits["train"].extras.get("landmarks"), None
    if network.parts and landmarks is not None:
        regions = regions_of_landmarks(landmarks.reshape(len(landmarks), -1, 2), ALIGNED_SIZE)
        _log.info("%s: parts around the mean landmarks of %s training images", config.model, f"{len(landmarks):,}")

    def new_model() -> CRLModel:
        return CRLModel(
            build_network(
                config.model,
                image_size=data.image_size,
                num_classes=schema.num_classes,
                regions=regions,
                width=settings.width,
                pretrained=settings.pretrained,
                freeze=0 if settings.freeze == "none" else settings.freeze,
                cosine_scale=settings.cosine_scale,
                precision=config.train.precision,
            )
        )

    def new_optimizer(model: CRLModel, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        backbone = model.network.get_layer(BACKBONE)
        rate = settings.backbone_rate
        return make_optimizer(config.train, steps_per_epoch=steps_per_epoch, backbone=backbone, backbone_rate=rate)

    def new_loss() -> Loss:
        return make_loss(method.loss, loss_sections(config), Problem(schema.num_classes, data.counts, settings.cosine_scale))

    def begin(model: CRLModel | None = None) -> None:
        if model is not None:
            _log.info("%s", _network_summary(config, model))
        (workdir / RESULT).unlink(missing_ok=True)
        write_json(workdir / CONFIG, _description(config, data))

    return Task(
        data=data,
        workdir=workdir,
        seed=config.seed,
        epochs=config.train.epochs,
        make_model=new_model,
        make_optimizer=new_optimizer,
        make_loss=new_loss,
        indices=resampled and resampled.indices,
        compile_options={
            "steps_per_execution": config.train.steps_per_execution,
            "jit_compile": XLA[config.train.xla],
        },
        linear_svm=network.linear_svm,
        embedding=config.embedding,
        begin=begin,
        progress=progress,
    )


def evaluate(workdir: Path, *, progress: Progress = SILENT) -> list[dict[str, Any]]:
    """Measures a finished run, or each run of a comparison, again from its config.json and model.keras; writes nothing.

    The runs of a comparison that have the same data share them.
    """
    workdir = Path(workdir)
    if not (workdir / COMPARISON).is_file():
        missing = [name for name in (CONFIG, MODEL, RESULT) if not (workdir / name).is_file()]
        if missing:
            raise ValueError(f"workdir must hold a finished run; {workdir} lacks {', '.join(missing)}")
        folders = [workdir]
    else:
        plan = methods_and_seeds(workdir)
        folders = [folder_of(workdir, method, seed) for seed in plan["seeds"] or [None] for method in plan["methods"]]
    results, data, loaded_for = [], None, None
    # A run of a comparison that diverged, or has not started, has nothing to measure.
    for folder in (folder for folder in folders if (folder / RESULT).is_file()):
        config = config_in(folder, CONFIG)
        data_settings = {
            key: value
            for key, value in flattened(config.to_dict()).items()
            if key.startswith("data.") or key in ("dataset", "seed", "train.batch_size")
        }
        if data_settings != loaded_for:
            data, loaded_for = load_data(config, use_cache=False, progress=progress), data_settings
        model = keras.saving.load_model(folder / MODEL)
        measured = _measured(model, data, combined(config.method).rule, progress)
        results.append({**read_json(folder / RESULT), "method": config.method, **measured})
    return results


def save_figures(results: list[dict[str, Any]], workdir: Path) -> None:
    """Saves class distributions, and sensitivity against training frequency, the methods side by side."""
    figures = workdir / "figures"
    save_class_distributions(results, figures / "class_distributions.png")
    save_sensitivity_by_frequency(results, figures / "sensitivity_by_frequency.png")


def _measured(model: keras.Model, data: Data, rule: str, progress: Progress) -> dict[str, Any]:
    test, validation = data.batches("test"), data.batches("validation")
    schema = data.dataset.schema
    return evaluate_model(model, test, schema, data.counts, validation=validation, rule=rule, progress=progress)


def _model_of(finished: Path, task: Task) -> Trained:
    _log.info("the model of %s: only the decision rule is another", finished)
    task.begin()
    return Trained(keras.saving.load_model(finished / MODEL), read_json(finished / RESULT)["seconds"])


def _network_summary(config: ConfigDict, model: CRLModel) -> str:
    """One line, so that weights, frozen layers and sizes are seen to be what was meant."""
    settings, (height, width) = config.network, config.data.image_size
    layers = weighted_layers(model.network.get_layer(BACKBONE))
    frozen = sum(not layer.trainable for layer in layers)
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    parts = [
        f"{config.model} at {height} x {width} (height, width): {trained:,} of {model.count_params():,} parameters are trained"
    ]
    if settings.pretrained:
        parts.append(f"backbone from {settings.pretrained}")
    if frozen:
        parts.append(f"{frozen} of its {len(layers)} layers frozen")
    if settings.backbone_rate != 1 and frozen < len(layers):
        parts.append(f"it learns at {settings.backbone_rate:g} of the rate")
    if frozen and not settings.pretrained:
        parts.append("what is frozen keeps its random weights: no --pretrained is given")
    return "; ".join(parts)


def _description(config: ConfigDict, data: Data) -> dict[str, Any]:
    """The content of config.json: everything needed to repeat the run, and the versions it ran with."""
    return {
        "recipe": config.to_dict(),
        "schema": data.dataset.schema.to_config(),
        "versions": {"python": platform.python_version(), "tensorflow": tf.__version__, "keras": keras.__version__},
        "images": {name: len(split) for name, split in data.dataset.splits.items()},
    }
