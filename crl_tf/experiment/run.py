"""One way through: dataset → pipeline → network → loss → training → measuring → export. The only file that knows every room."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from crl_tf.callbacks import AlphaWarmup, TrainingProgress
from crl_tf.crl_model import CRLModel
from crl_tf.datasets.resampling import RESAMPLING
from crl_tf.datasets.source import SPLITS, Dataset
from crl_tf.datasets.sources.celeba import ALIGNED_SIZE
from crl_tf.decision import check_rule, rule_offsets
from crl_tf.experiment import report
from crl_tf.experiment.data import load, pipeline_of, resampled, with_cache
from crl_tf.experiment.inspect import association, co_occurrence, inspect_dataset, inspect_images, save_co_occurrence
from crl_tf.experiment.measure import evaluate_model
from crl_tf.experiment.methods import method_name
from crl_tf.experiment.trainers import STAGES, check_stage
from crl_tf.experiment.trainers.base import StageInput
from crl_tf.experiment.trainers.gradient import XLA, check_execution, fit, precision, seconds_trained
from crl_tf.experiment.trainers.linear_svm import refit_last_layer
from crl_tf.experiment.trainers.optimizer import check_optimization, make_optimizer
from crl_tf.experiment.workdir import (
    COMPARISON,
    CONFIG,
    INSPECTION,
    MODEL,
    RESULT,
    folder_of,
    open_workdir,
    plan_in,
    recipe_in,
    refuse_file,
)
from crl_tf.files import read_json, write_json, write_whole
from crl_tf.imbalance import class_counts, imbalance_ratio
from crl_tf.losses.crl.loss import CRL
from crl_tf.losses.table import check_loss, make_loss
from crl_tf.metrics import ClassBalancedAccuracy
from crl_tf.models import BACKBONE, build_network, check_network, find_network
from crl_tf.models.backbones.panda import regions_of_landmarks
from crl_tf.models.transfer import weighted_layers
from crl_tf.serving.export import export_saved_model


class MeaninglessData(ValueError):
    """These data give no meaning to a method."""


def run(
    config: ConfigDict,
    workdir: Path,
    *,
    resume: bool = False,
    export: bool = True,
    dataset: Dataset | None = None,
    trained: Path | None = None,
) -> dict[str, Any]:
    """Trains and measures one recipe, leaving everything in `workdir`; returns what `result.json` says.

    Args:
        config: a recipe (`crl_tf.experiment.config`).
        workdir: a new or empty folder; with `resume`, also one that an earlier run of the same recipe left, finished or not.
        resume: go on from its last checkpoint. Only `crl_tf.experiment.workdir.FREE_ON_RESUME` may differ from the recipe it was started
            with: the length, and what changes no result (XLA: none but by rounding).
        export: write `export/`, the SavedModel, with the decision rule inside.
        dataset: already loaded, and decoded if it is to be, for several runs on the same data.
        trained: a finished run that differs in nothing but the decision rule: its model is taken, and nothing trained.
    Raises:
        divergence.Diverged: when the loss becomes no number.
    """
    workdir = Path(workdir)
    check_settings(config)
    finished = open_workdir(config, workdir, resume)
    if finished is not None:
        return finished
    method = method_name(config)
    print(f"\n{config.dataset} · {config.model} · {method} · seed {config.seed} → {workdir}", flush=True)
    keras.utils.set_random_seed(config.seed)
    given, dataset = dataset, dataset or load(config)
    counts = class_counts(dataset.splits["train"].labels, dataset.schema.num_classes)
    _check_annotated(dataset, counts)
    print(_summary(dataset, counts), flush=True)
    if given is None:
        dataset = with_cache(config, dataset)
    drawn = resampled(config, dataset)
    if drawn is not None:
        print(drawn.summary, flush=True)
    if trained is not None:
        print(f"the model of {trained}: only the decision rule is another", flush=True)
        _begin(config, dataset, workdir)
        model, seconds = keras.saving.load_model(trained / MODEL), read_json(trained / RESULT)["seconds"]
    elif config.loss in STAGES:
        model, seconds = STAGES[config.loss](_stage_input(config, dataset, counts, workdir))
    else:
        model, seconds = _fitted(config, dataset, counts, workdir)
    write_whole(workdir / MODEL, model.save)
    measured = evaluate_model(
        model,
        pipeline_of(config, dataset, "test"),
        dataset.schema,
        counts,
        validation=pipeline_of(config, dataset, "validation"),
        rule=config.rule,
    )
    if export:
        strengths = list(measured["rules"][config.rule]["strengths"].values())
        offsets = rule_offsets(config.rule, counts, strengths)
        export_saved_model(model, dataset.schema, config.data.image_size, workdir / "export", offsets=offsets)
    result = {
        "dataset": config.dataset,
        "model": config.model,
        "method": method,
        "loss": config.loss,
        "seed": config.seed,
        "epochs": config.train.epochs,
        "seconds": round(seconds, 1),
        **measured,
    }
    save_figures([result], workdir)
    # Last: whoever finds it finds everything else whole.
    write_json(workdir / RESULT, result)
    return result


def _begin(config: ConfigDict, dataset: Dataset, workdir: Path) -> None:
    """Not sooner than training can start: until here nothing that stands in the folder has been lost."""
    (workdir / RESULT).unlink(missing_ok=True)
    write_json(workdir / CONFIG, _description(config, dataset))


def _fitted(config: ConfigDict, dataset: Dataset, counts: Sequence[np.ndarray], workdir: Path) -> tuple[keras.Model, float]:
    """A model trained from end to end by one loss, and the seconds that took."""
    model, loss, data = assemble(config, dataset, counts)
    print(_network_summary(config, model), flush=True)
    _begin(config, dataset, workdir)
    callbacks = []
    if isinstance(loss, CRL) and config.crl.alpha_warmup_epochs:
        callbacks.append(AlphaWarmup(loss, config.crl.alpha_warmup_epochs))
    if getattr(loss, "progress", None) is not None:
        callbacks.append(TrainingProgress(loss, config.train.epochs))
    fit(model, data["train"], data["validation"], epochs=config.train.epochs, workdir=workdir, callbacks=callbacks)
    if find_network(config.model).linear_svm:
        print("a linear SVM per label takes the place of the last layer, which was validated until here", flush=True)
        refit_last_layer(model, pipeline_of(config, dataset, "train"), dataset.schema.num_classes)
    return model, seconds_trained(workdir)


def _stage_input(config: ConfigDict, dataset: Dataset, counts: Sequence[np.ndarray], workdir: Path) -> StageInput:
    """What a method with a training of its own is given."""
    _begin(config, dataset, workdir)

    def make_model() -> CRLModel:
        with precision(config.train.precision):
            return CRLModel(_network(config, dataset))

    return StageInput(
        settings=config.embedding,
        dataset=dataset,
        counts=list(counts),
        seed=config.seed,
        batch_size=config.train.batch_size,
        epochs=config.train.epochs,
        workdir=workdir,
        image_size=tuple(config.data.image_size),
        augment=tuple(config.data.augment),
        make_model=make_model,
        make_optimizer=lambda model, steps_per_epoch: _optimizer(config, model, steps_per_epoch),
        pipeline=lambda split, training, indices=None: pipeline_of(config, dataset, split, training=training, indices=indices),
    )


def evaluate(workdir: Path) -> list[dict[str, Any]]:
    """Measures a finished run (or each run of a comparison) again, from its config and model; writes nothing, no cache either."""
    workdir = Path(workdir)
    if (workdir / COMPARISON).is_file():
        plan = plan_in(workdir)
        runs = [folder_of(workdir, method, seed) for seed in plan["seeds"] or [None] for method in plan["methods"]]
        # One that diverged, or was not come to, has nothing to be measured.
        return [result for folder in runs if (folder / RESULT).is_file() for result in evaluate(folder)]
    missing = [name for name in (CONFIG, MODEL, RESULT) if not (workdir / name).is_file()]
    if missing:
        raise ValueError(f"workdir must hold a finished run; {workdir} lacks {', '.join(missing)}")
    config = recipe_in(workdir, CONFIG)
    before = read_json(workdir / RESULT)
    dataset = load(config)
    counts = class_counts(dataset.splits["train"].labels, dataset.schema.num_classes)
    model = keras.saving.load_model(workdir / MODEL)
    test, validation = (pipeline_of(config, dataset, split) for split in ("test", "validation"))
    measured = evaluate_model(model, test, dataset.schema, counts, validation=validation, rule=config.rule)
    return [{**before, "method": method_name(config), **measured}]


def inspect(config: ConfigDict, workdir: Path, *, check_images: bool = True) -> dict[str, Any]:
    """What a dataset is like before anything is trained on it; leaves inspection.json, co_occurrence.csv and figures.

    Args:
        config: a recipe; of training, only batch_size, eta and rho are looked at.
        workdir: a new or empty folder, or one that an earlier inspection left, which is overwritten.
        check_images: also read every image that is there.
    Returns:
        what `inspection.inspect_dataset` finds, with "images": what `inspection.inspect_images` finds.
    """
    workdir = Path(workdir)
    refuse_file(workdir)
    if workdir.is_dir() and any(workdir.iterdir()) and not (workdir / INSPECTION).is_file():
        raise ValueError(f"workdir {workdir} is not empty and holds no inspection: pass another --workdir")
    dataset = load(config, check_images=False)
    found = inspect_dataset(dataset, batch_size=config.train.batch_size, eta=config.crl.eta, rho=config.crl.rho, seed=config.seed)
    found["images"] = inspect_images(dataset, tuple(config.data.image_size)) if check_images else {}
    found["findings"] += found["images"].pop("findings", [])
    together = co_occurrence(dataset.splits["train"].labels, dataset.schema)
    save_co_occurrence(together, dataset.schema, workdir / "co_occurrence.csv")
    figures = workdir / "figures"
    report.save_class_sizes(found, figures / "class_sizes.png")
    counts = {n: {"train_counts": {k: c["train"] for k, c in f["classes"].items()}} for n, f in found["labels"].items()}
    report.save_class_distributions(counts, figures / "class_distributions.png")
    if len(dataset.schema) > 1:
        report.save_association(dataset.schema.names, association(together, dataset.schema), figures / "co_occurrence.png")
    write_json(workdir / INSPECTION, found)
    return found


def assemble(
    config: ConfigDict, dataset: Dataset, counts: Sequence[np.ndarray]
) -> tuple[CRLModel, keras.losses.Loss, dict[str, tf.data.Dataset]]:
    """The compiled model of a recipe, its loss, and its three pipelines."""
    sizes = dataset.schema.num_classes
    drawn = resampled(config, dataset)
    data = {split: pipeline_of(config, dataset, split) for split in SPLITS if split != "train"}
    data["train"] = pipeline_of(config, dataset, "train", training=True, indices=drawn and drawn.indices)
    loss = make_loss(config, num_classes=sizes, class_counts=counts)
    with precision(config.train.precision):
        model = CRLModel(_network(config, dataset))
    model.compile(
        _optimizer(config, model, int(data["train"].cardinality())),
        loss=loss,
        metrics=[ClassBalancedAccuracy(list(sizes))],
        steps_per_execution=config.train.steps_per_execution,
        jit_compile=XLA[config.train.xla],
    )
    return model, loss, data


def _optimizer(config: ConfigDict, model: CRLModel, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    backbone, rate = model.network.get_layer(BACKBONE), config.network.backbone_rate
    return make_optimizer(config.train, steps_per_epoch=steps_per_epoch, backbone=backbone, backbone_rate=rate)


def _network(config: ConfigDict, dataset: Dataset) -> keras.Model:
    """The network of a recipe for the labels of this dataset; one that looks at parts finds them by its landmarks, if any."""
    landmarks = dataset.splits["train"].extras.get("landmarks")
    regions = None
    if find_network(config.model).parts and landmarks is not None:
        regions = regions_of_landmarks(landmarks.reshape(len(landmarks), -1, 2), ALIGNED_SIZE)
        print(f"{config.model}: parts around the mean landmarks of {len(landmarks):,} training images", flush=True)
    return build_network(
        config.model,
        image_size=config.data.image_size,
        num_classes=dataset.schema.num_classes,
        regions=regions,
        **{name: config.network[name] for name in ("width", "pretrained", "freeze", "cosine_scale")},
    )


def save_figures(results: Sequence[dict[str, Any]], workdir: Path) -> None:
    """Class distributions, and sensitivity against training frequency, the losses side by side."""
    figures = workdir / "figures"
    report.save_class_distributions(results, figures / "class_distributions.png")
    report.save_sensitivity_by_frequency(results, figures / "sensitivity_by_frequency.png")


def check_settings(config: ConfigDict) -> None:
    """Refuses a recipe that cannot be run, as far as that can be told without its data."""
    check_loss(config.loss)
    check_rule(config.rule)
    if config.resampling not in ("none", *RESAMPLING):
        raise ValueError(f"resampling must be one of {['none', *RESAMPLING]}, received {config.resampling!r}")
    if config.loss in STAGES:
        check_stage(config.loss, config.embedding, config.data.image_size)
    if config.loss in STAGES and config.resampling != "none":
        raise ValueError(
            f"resampling must be none for {config.loss}, which draws its own samples, received {config.resampling!r}"
        )
    network = config.network
    given = {name: network[name] for name in ("width", "pretrained", "cosine_scale")}
    check_network(config.model, image_size=config.data.image_size, **given)
    for name, value in (("epochs", config.train.epochs), ("batch_size", config.train.batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, received {value}")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"seed must lie in [0, 2^32 - 1], received {config.seed}")
    if config.crl.alpha_warmup_epochs < 0:
        raise ValueError(f"alpha_warmup_epochs must be >= 0, received {config.crl.alpha_warmup_epochs}")
    check_optimization(config.train, config.network.backbone_rate)
    check_execution(config.train)
    if config.crl.alpha_warmup_epochs and config.train.steps_per_execution > 1:
        # The ramp moves where Python gets to run: it would become a staircase, and the result another.
        raise ValueError(
            f"steps_per_execution must be 1 with alpha_warmup_epochs = {config.crl.alpha_warmup_epochs}, which moves alpha at"
            f" every step, received {config.train.steps_per_execution}: --alpha_warmup_epochs=0 turns that off"
        )


def check_data(config: ConfigDict, dataset: Dataset) -> None:
    """Refuses a recipe whose method these data give no meaning to, with `MeaninglessData`."""
    try:
        resampled(config, dataset)
    except ValueError as error:
        raise MeaninglessData(str(error)) from error


def _check_annotated(dataset: Dataset, counts: Sequence[np.ndarray]) -> None:
    """There must be something to learn of every label, and something to measure."""
    empty = [name for name, count in zip(dataset.schema.names, counts, strict=True) if not count.any()]
    if empty:
        raise ValueError(f"dataset {dataset.name}: no training image is annotated for {', '.join(map(repr, empty))}")
    if (dataset.splits["test"].labels < 0).all():
        raise ValueError(f"dataset {dataset.name}: no test image is annotated")


def _summary(dataset: Dataset, counts: Sequence[np.ndarray]) -> str:
    """One line on what is learned from, so that a column mistaken for a label is seen before hours of training."""
    images = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    labels = f"{len(counts)} labels" if len(counts) > 1 else "1 label"
    untrained = sum(int((c == 0).sum()) for c in counts)
    note = f" ({untrained} without a training image)" if untrained else ""
    worst = max(imbalance_ratio(c) for c in counts if c.any())
    return f"{labels}, {sum(map(len, counts)):,} classes{note}, imbalance to 1:{worst:,.0f}; images: {images}"


def _network_summary(config: ConfigDict, model: CRLModel) -> str:
    """One line on what learns, so that weights, frozen layers and sizes are seen to be what was meant."""
    settings, (height, width) = config.network, config.data.image_size
    layers = weighted_layers(model.network.get_layer(BACKBONE))
    frozen = sum(not layer.trainable for layer in layers)
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    said = [
        f"{config.model} at {height} x {width} (height, width): {trained:,} of {model.count_params():,} parameters are trained"
    ]
    said += [f"backbone from {settings.pretrained}"] if settings.pretrained else []
    said += [f"{frozen} of its {len(layers)} layers frozen"] if frozen else []
    said += (
        [f"it learns at {settings.backbone_rate:g} of the rate"] if settings.backbone_rate != 1 and frozen < len(layers) else []
    )
    if frozen and not settings.pretrained:
        said.append("what is frozen keeps its random weights: no --pretrained is given")
    return "; ".join(said)


def _description(config: ConfigDict, dataset: Dataset) -> dict[str, Any]:
    """Everything needed to run it again, and what it ran with."""
    return {
        "recipe": config.to_dict(),
        "schema": dataset.schema.to_config(),
        "versions": {"python": platform.python_version(), "tensorflow": tf.__version__, "keras": keras.__version__},
        "images": {name: len(split) for name, split in dataset.splits.items()},
    }
