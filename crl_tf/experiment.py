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

from crl_tf import report
from crl_tf.crl_model import CRLModel
from crl_tf.datasets import load_dataset
from crl_tf.datasets.cache import NONE, cached
from crl_tf.datasets.celeba import ALIGNED_SIZE
from crl_tf.datasets.checking import require_readable, without_unreadable
from crl_tf.datasets.pipeline import make_pipeline
from crl_tf.datasets.source import SPLITS, Dataset, Records
from crl_tf.evaluation import evaluate_model
from crl_tf.export import export_saved_model
from crl_tf.files import read_json, write_json, write_whole
from crl_tf.imbalance import class_counts, imbalance_ratio
from crl_tf.inspection import association, co_occurrence, inspect_dataset, inspect_images, save_co_occurrence
from crl_tf.linear_svm import refit_last_layer
from crl_tf.losses.crl import CRL
from crl_tf.losses.warmup import AlphaWarmup
from crl_tf.methods import check_method, make_loss
from crl_tf.metrics import ClassBalancedAccuracy
from crl_tf.models import BACKBONE, build_network, check_network, find_network
from crl_tf.models.backbones.panda import regions_of_landmarks
from crl_tf.models.transfer import weighted_layers
from crl_tf.optimization import check_optimization, make_optimizer
from crl_tf.training import XLA, check_execution, fit, precision, seconds_trained
from crl_tf.workdir import (
    COMPARISON,
    CONFIG,
    INSPECTION,
    MODEL,
    RESULT,
    occupied_by_run,
    open_workdir,
    recipe_in,
    refuse_file,
)


def run(
    config: ConfigDict, workdir: Path, *, resume: bool = False, export: bool = True, dataset: Dataset | None = None
) -> dict[str, Any]:
    """Trains and measures one recipe, leaving everything in `workdir`; returns what `result.json` says.

    Args:
        config: a recipe (`crl_tf.recipe`).
        workdir: a new or empty folder; with `resume`, also one that an earlier run of the same recipe left, finished or not.
        resume: go on from its last checkpoint. Only `crl_tf.workdir.FREE_ON_RESUME` may differ from the recipe it was started
            with: the length, and what changes no result (XLA: none but by rounding).
        export: write `export/`, the SavedModel.
        dataset: already loaded, and decoded if it is to be, for several runs on the same data.
    """
    workdir = Path(workdir)
    check_method(config.loss)
    _check_settings(config)
    finished = open_workdir(config, workdir, resume)
    if finished is not None:
        return finished
    print(f"\n{config.dataset} · {config.model} · {config.loss} · seed {config.seed} → {workdir}", flush=True)
    keras.utils.set_random_seed(config.seed)
    given, dataset = dataset, dataset or load(config)
    counts = class_counts(dataset.splits["train"].labels, dataset.schema.num_classes)
    _check_annotated(dataset, counts)
    print(_summary(dataset, counts), flush=True)
    if given is None:
        dataset = with_cache(config, dataset)
    model, loss, data = assemble(config, dataset, counts)
    print(_network_summary(config, model), flush=True)
    (workdir / RESULT).unlink(missing_ok=True)  # not sooner: until here nothing has been lost
    write_json(workdir / CONFIG, _description(config, dataset))

    callbacks = []
    if isinstance(loss, CRL) and config.crl.alpha_warmup_epochs:
        callbacks.append(AlphaWarmup(loss, config.crl.alpha_warmup_epochs))
    fit(model, data["train"], data["validation"], epochs=config.train.epochs, workdir=workdir, callbacks=callbacks)

    if find_network(config.model).linear_svm:
        print("a linear SVM per label takes the place of the last layer, which was validated until here", flush=True)
        refit_last_layer(model, _pipeline(config, dataset, "train"), dataset.schema.num_classes)
    write_whole(workdir / MODEL, model.save)
    if export:
        export_saved_model(model, dataset.schema, config.data.image_size, workdir / "export")
    result = {
        "dataset": config.dataset,
        "model": config.model,
        "loss": config.loss,
        "seed": config.seed,
        "epochs": config.train.epochs,
        "seconds": round(seconds_trained(workdir), 1),
        **evaluate_model(model, data["test"], dataset.schema, counts),
    }
    save_figures([result], workdir)
    # Last: whoever finds it finds everything else whole.
    write_json(workdir / RESULT, result)
    return result


def compare(
    config: ConfigDict, losses: Sequence[str], workdir: Path, *, resume: bool = False, export: bool = True
) -> list[dict[str, Any]]:
    """Runs several losses on the same data and seed, each in its own folder of `workdir`; the first is the baseline."""
    workdir = Path(workdir)
    _check_settings(config)
    for loss in losses:
        check_method(loss)
    if len(set(losses)) != len(losses):
        raise ValueError(f"compare must name each loss once, received {list(losses)}")
    if occupied_by_run(workdir, resume):
        started = read_json(workdir / COMPARISON).get("losses") if (workdir / COMPARISON).is_file() else None
        if started != list(losses):
            what = f"the comparison of {started}" if started else "no comparison"
            raise ValueError(f"resume: {workdir} holds {what}, not of {list(losses)}: pass another --workdir")
    dataset = with_cache(config, load(config))
    plan = {"losses": list(losses), "recipe": config.to_dict()}
    write_json(workdir / COMPARISON, plan)
    results = []
    for loss in losses:
        of_loss = config.copy_and_resolve_references()
        of_loss.loss = loss
        results.append(run(of_loss, workdir / loss, resume=resume, export=export, dataset=dataset))
    save_figures(results, workdir)
    write_json(workdir / COMPARISON, {**plan, "results": results})
    return results


def evaluate(workdir: Path) -> list[dict[str, Any]]:
    """Measures a finished run (or each run of a comparison) again, from its config and model; writes nothing, no cache either."""
    workdir = Path(workdir)
    if (workdir / COMPARISON).is_file():
        return [result for loss in read_json(workdir / COMPARISON)["losses"] for result in evaluate(workdir / loss)]
    missing = [name for name in (CONFIG, MODEL, RESULT) if not (workdir / name).is_file()]
    if missing:
        raise ValueError(f"workdir must hold a finished run; {workdir} lacks {', '.join(missing)}")
    config = recipe_in(workdir, CONFIG)
    before = read_json(workdir / RESULT)
    dataset = load(config)
    counts = class_counts(dataset.splits["train"].labels, dataset.schema.num_classes)
    model = keras.saving.load_model(workdir / MODEL)
    return [{**before, **evaluate_model(model, _pipeline(config, dataset, "test"), dataset.schema, counts)}]


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


def load(config: ConfigDict, *, check_images: bool = True) -> Dataset:
    """The dataset of a recipe, without its unreadable images if the recipe says so."""
    skip = config.data.skip_unreadable
    dataset = load_dataset(
        config.dataset,
        data_dir=config.data.dir,
        seed=config.seed,
        gamma=config.data.gamma,
        download=config.data.download,
        schema=config.data.schema,
        # A missing image is as unreadable as a broken one.
        check_images=check_images and not skip,
    )
    if config.data.open_shards is not None and not isinstance(dataset.splits["train"].images, Records):
        raise ValueError(f"data.open_shards must be none for {config.dataset}: only records have shards")
    if skip and check_images:
        dataset, left_out = without_unreadable(dataset, image_size=tuple(config.data.image_size))
        if left_out:
            named = ", ".join(image.name for image in left_out[:3])
            what = "1 unreadable image" if len(left_out) == 1 else f"{len(left_out)} unreadable images"
            print(f"left out {what}: {named}{', …' if len(left_out) > 3 else ''}", flush=True)
    return dataset


def with_cache(config: ConfigDict, dataset: Dataset) -> Dataset:
    """The dataset as `data.cache` wants it, and a line on what became of that."""
    where, size = config.data.cache, config.data.image_size
    if where == NONE and not config.data.skip_unreadable:
        # A broken training image is met in the first epoch, one of these after the last. A cache meets all of them.
        require_readable(dataset, ("validation", "test"), image_size=tuple(size))
    kept = cached(dataset, tuple(size), where)
    decoded = [name for name in dataset.splits if kept.splits[name] is not dataset.splits[name]]
    if decoded:
        num_bytes = sum(kept.splits[name].images.nbytes for name in decoded)
        print(f"cache: {', '.join(decoded)} at {size[0]} x {size[1]}, {num_bytes / 1e6:,.2f} MB in {where}", flush=True)
    elif where != NONE:
        print(f"cache: nothing to keep, the images are in memory at {size[0]} x {size[1]} already", flush=True)
    return kept


def assemble(
    config: ConfigDict, dataset: Dataset, counts: Sequence[np.ndarray]
) -> tuple[CRLModel, keras.losses.Loss, dict[str, tf.data.Dataset]]:
    """The compiled model of a recipe, its loss, and its three pipelines."""
    sizes = dataset.schema.num_classes
    data = {split: _pipeline(config, dataset, split, training=split == "train") for split in SPLITS}
    loss = make_loss(config.loss, num_classes=sizes, class_counts=counts, settings=config.crl)
    with precision(config.train.precision):
        model = CRLModel(_network(config, dataset))
    optimizer = make_optimizer(
        config.train,
        steps_per_epoch=int(data["train"].cardinality()),
        backbone=model.network.get_layer(BACKBONE),
        backbone_rate=config.network.backbone_rate,
    )
    model.compile(
        optimizer,
        loss=loss,
        metrics=[ClassBalancedAccuracy(list(sizes))],
        steps_per_execution=config.train.steps_per_execution,
        jit_compile=XLA[config.train.xla],
    )
    return model, loss, data


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
        **{name: config.network[name] for name in ("width", "pretrained", "freeze")},
    )


def save_figures(results: Sequence[dict[str, Any]], workdir: Path) -> None:
    """Class distributions, and sensitivity against training frequency, the losses side by side."""
    figures = workdir / "figures"
    report.save_class_distributions(results, figures / "class_distributions.png")
    report.save_sensitivity_by_frequency(results, figures / "sensitivity_by_frequency.png")


def _pipeline(config: ConfigDict, dataset: Dataset, split: str, *, training: bool = False) -> tf.data.Dataset:
    # A cache of records is an array, of which any sample is as near as any other.
    by_shard = training and isinstance(dataset.splits[split].images, Records)
    return make_pipeline(
        dataset.splits[split],
        image_size=config.data.image_size,
        batch_size=config.train.batch_size,
        training=training,
        seed=config.seed,
        augment=config.data.augment if training else (),
        open_shards=config.data.open_shards if by_shard else None,
    )


def _check_settings(config: ConfigDict) -> None:
    network = config.network
    check_network(config.model, image_size=config.data.image_size, width=network.width, pretrained=network.pretrained)
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
