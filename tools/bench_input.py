"""Images per second of every stage of the input, from files and from the cache, against the training step and predictions.

    python tools/bench_input.py                                on 4,096 generated JPEGs of 178 x 218
    python tools/bench_input.py --data_dir=CELEBA --rounds=9   on images of a CelebA
    python tools/bench_input.py --quick                        only that it works, in seconds: no figures to quote

One process, interleaved: every round visits every row once. A row shows the median of its rounds, and the smallest and largest;
ratios are taken within each round. The row measured twice (A/A) shows how far from 1 a ratio is by chance. Training is `fit` on
real steps of the recipe (celeba_paper: DeepID2, 40 labels of 2 classes, batch 256, 55 x 47), an epoch at a time; files have been
read before and come from the system's memory.
Takes every flag of `crl_tf.main` as well.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import track
from rich.table import Table

from crl_tf import main
from crl_tf.datasets import Dataset, Split
from crl_tf.datasets.cache import MEMORY, cached
from crl_tf.datasets.images.decode import decode, read_images, resized
from crl_tf.datasets.pipeline import AUGMENTATIONS, make_pipeline
from crl_tf.datasets.sources.celeba_files import ATTRIBUTES, IMAGES, PARTITION
from crl_tf.ending import ended_in_one_line
from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.config import load_recipe, override
from crl_tf.experiment.data import Data, load_source
from crl_tf.experiment.run import Context, prepare
from crl_tf.experiment.trainers.gradient import compiled
from crl_tf.files import write_json
from crl_tf.imbalance import class_counts
from crl_tf.machine import usable_cores
from crl_tf.serving.export import DEFAULT, export_saved_model
from crl_tf.serving.predict import BATCH_SIZE, predict_files
from crl_tf.serving.served import load_served

_IMAGES = flags.DEFINE_integer("images", 4096, "training images that are used, or generated", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "measurements of each row", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 0.5, "a row other than training repeats its pass for so long", lower_bound=0.0)
_JSON = flags.DEFINE_string("json", None, "file for the measurements; default: none is written")
_QUICK = flags.DEFINE_bool("quick", False, "64 images, 2 rounds: that it works")

HEIGHT, WIDTH = 218, 178
CONTROL = "training, from an array in memory, again (A/A)"
RATIOS = {
    "training: disk cache / memory": ("training, from the disk cache", "training, from an array in memory"),
    "training: memory cache / memory": ("training, from the memory cache", "training, from an array in memory"),
    "training: JPEG files / memory": ("training, from JPEG files", "training, from an array in memory"),
    "training: memory / step alone": ("training, from an array in memory", "training step, one fixed batch"),
    "training: A/A": (CONTROL, "training, from an array in memory"),
    "predict to CSV / pipeline from JPEG files": ("predict, JPEG files to CSV", "pipeline, from JPEG files"),
    "predict to CSV / SavedModel alone": ("predict, JPEG files to CSV", "SavedModel, batches of 64 in memory"),
    "pipeline from JPEG files / training": ("pipeline, from JPEG files", "training step, one fixed batch"),
    "pipeline from the disk cache / training": ("pipeline, from the disk cache", "training step, one fixed batch"),
    "decode at the needed scale / in full": ("decode at the needed scale", "decode in full"),
}

Row = Callable[[], float]
"""Measures once: images per second."""


def write_celeba(folder: Path, count: int) -> None:
    """`count` training images and two for each other split, in the publisher's layout: smooth shapes, some texture, 40 labels.

    At JPEG quality 75 they come to the 6 to 7 kB of CelebA's own files.
    """
    rng = np.random.default_rng(0)
    (folder / IMAGES).mkdir(parents=True)
    files = [f"{number:06d}.jpg" for number in range(1, count + 5)]
    for file in files:
        image = 128 + rng.normal(0, 4.5, (HEIGHT, WIDTH, 1))
        for size, strength in ((4, 50), (12, 20), (40, 9)):
            image = image + tf.image.resize(rng.normal(0, strength, (size, size, 3)), (HEIGHT, WIDTH), "bicubic").numpy()
        pixels = tf.constant(np.clip(image, 0, 255).astype(np.uint8))
        (folder / IMAGES / file).write_bytes(tf.io.encode_jpeg(pixels, quality=75).numpy())
    # From common to rare, as CelebA's are.
    signs = np.where(rng.random((len(files), 40)) < np.linspace(0.5, 0.02, 40), "1", "-1")
    rows = [" ".join([file, *row]) for file, row in zip(files, signs, strict=True)]
    names = " ".join(f"attribute_{i}" for i in range(40))
    (folder / f"{ATTRIBUTES}.txt").write_text("\n".join([str(len(files)), names, *rows]) + "\n")
    parts = [0] * count + [1, 1, 2, 2]
    (folder / f"{PARTITION}.txt").write_text("".join(f"{file} {part}\n" for file, part in zip(files, parts, strict=True)))


def first_of(dataset: Dataset, count: int) -> Dataset:
    """At most `count` training images, and a few of the others."""
    limits = {"train": count, "validation": 2, "test": 2}
    splits = {name: Split(split.images[: limits[name]], split.labels[: limits[name]]) for name, split in dataset.splits.items()}
    return Dataset(dataset.name, dataset.schema, splits)


def rows(config: ConfigDict, files: Dataset, cache_folder: Path, seconds: float) -> dict[str, Row]:
    """Every row by its name."""
    size, batch_size = tuple(config.data.image_size), config.train.batch_size
    in_memory, on_disk = cached(files, size, MEMORY), cached(files, size, str(cache_folder))
    # An array that never was a file, as the datasets in memory are: what training is compared with.
    plain = Split(in_memory.splits["train"].images.copy(), files.splits["train"].labels)
    sources = {
        "JPEG files": files.splits["train"],
        "the memory cache": in_memory.splits["train"],
        "the disk cache": on_disk.splits["train"],
        "an array in memory": plain,
    }
    pipelines = {
        name: make_pipeline(
            split, image_size=size, batch_size=batch_size, training=True, seed=config.seed, augment=config.data.augment
        )
        for name, split in sources.items()
    }
    count = len(plain)
    stages = {
        name: _passes(data, count, seconds) for name, data in _stages(files.splits["train"], plain, size, batch_size).items()
    }
    whole = {f"pipeline, from {name}": _passes(data, count, seconds) for name, data in pipelines.items()}

    counts = class_counts(files.splits["train"].labels, files.schema.num_classes)
    keras.utils.set_random_seed(config.seed)
    data = Data(files, counts, size, batch_size, config.seed, tuple(config.data.augment))
    model, _, _ = compiled(prepare(Context(assemble(config), data, cache_folder)))
    fixed = next(iter(pipelines["an array in memory"].take(1)))
    alone = _untuned(tf.data.Dataset.from_tensors(fixed).repeat(-(-count // batch_size)))
    training = {
        "training step, one fixed batch": _epoch(model, alone, len(fixed[0]) * int(alone.cardinality())),
        **{f"training, from {name}": _epoch(model, data, count) for name, data in pipelines.items()},
        CONTROL: _epoch(model, pipelines["an array in memory"], count),
    }
    predicting = _predictions(model, files, plain, size, cache_folder.with_name("export"))
    return {**stages, **whole, **training, **predicting}


def _predictions(model: keras.Model, files: Dataset, plain: Split, size: tuple[int, int], folder: Path) -> dict[str, Row]:
    """The exported model alone, and predictions of the files to a file."""
    export_saved_model(model, files.schema, size, folder)
    served, count = load_served(folder), len(plain)
    paths = files.splits["train"].images.tolist()

    def alone() -> float:
        started = time.perf_counter()
        for start in range(0, count, BATCH_SIZE):
            served.answer(DEFAULT, images=tf.constant(plain.images[start : start + BATCH_SIZE], tf.float32))
        return count / (time.perf_counter() - started)

    def to_csv() -> float:
        output = folder.with_name("predictions.csv")
        summary = predict_files(served, paths, output)
        output.unlink()
        return summary.predicted / summary.seconds

    return {f"SavedModel, batches of {BATCH_SIZE} in memory": alone, "predict, JPEG files to CSV": to_csv}


def _stages(files: Split, plain: Split, size: tuple[int, int], batch_size: int) -> dict[str, tf.data.Dataset]:
    """A dataset for each stage, which has what comes before it done in advance."""
    cores, count = usable_cores(), len(files)
    paths = tf.data.Dataset.from_tensor_slices(files.images)
    contents = tf.data.Dataset.from_tensor_slices([Path(path).read_bytes() for path in files.images])
    images = tf.constant(plain.images[:batch_size])
    seed = tf.constant([1, 2], tf.int64)

    def in_full(content: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_image(content, channels=3, expand_animations=False)

    def augmented(name: str) -> tf.data.Dataset:
        again = tf.data.Dataset.range(-(-count // batch_size))
        return again.map(lambda i: AUGMENTATIONS[name](images, seed + i), num_parallel_calls=cores)

    # Decoded images have many sizes, so that a batch holds their numbers of pixels.
    stages = {
        "read files": paths.map(lambda path: tf.strings.length(tf.io.read_file(path)), num_parallel_calls=cores).batch(
            batch_size
        ),
        "decode in full": contents.map(lambda c: tf.size(in_full(c)), num_parallel_calls=cores).batch(batch_size),
        "decode at the needed scale": contents.map(lambda c: tf.size(decode(c, size)), num_parallel_calls=cores).batch(
            batch_size
        ),
        "decode + resize": contents.map(
            lambda c: tf.cast(resized(decode(c, size), size), tf.uint8), num_parallel_calls=cores
        ).batch(batch_size),
        "read + decode + resize": paths.batch(batch_size).map(lambda p: read_images(p, size), num_parallel_calls=cores),
        "shuffle and batch indices": tf.data.Dataset.range(count).shuffle(count).batch(batch_size),
        **{f"augment: {name}": augmented(name) for name in AUGMENTATIONS},
    }
    return {name: _untuned(data) for name, data in stages.items()}


def _untuned(data: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.autotune.enabled = False  # as in the pipeline
    return data.with_options(options)


def _passes(data: tf.data.Dataset, count: int, seconds: float) -> Row:
    def measure() -> float:
        started, passes = time.perf_counter(), 0
        while not passes or time.perf_counter() - started < seconds:
            for _ in data:
                pass
            passes += 1
        return passes * count / (time.perf_counter() - started)

    return measure


def _epoch(model: keras.Model, data: tf.data.Dataset, count: int) -> Row:
    def measure() -> float:
        started = time.perf_counter()
        model.fit(data, epochs=1, shuffle=False, verbose=0)
        return count / (time.perf_counter() - started)

    return measure


def measured(by_name: dict[str, Row], rounds: int) -> dict[str, list[float]]:
    """Images per second of every round, after a first one, which traces and compiles and is not counted."""
    values: dict[str, list[float]] = {name: [] for name in by_name}
    for number in track(range(rounds + 1), "measuring", transient=True, disable=not sys.stdout.isatty()):
        for name, row in by_name.items():
            value = row()
            if number:
                values[name].append(value)
    return values


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    devices = [device.name for device in tf.config.list_logical_devices("GPU")]
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__, "python": platform.python_version()}
    return {"cpu": cpu, "cores": usable_cores(), "gpus": len(devices), **versions}


def _spread(values: Sequence[float]) -> dict[str, float | list[float]]:
    middle = float(np.median(values))
    return {"median": middle, "smallest": min(values), "largest": max(values), "rounds": list(values)}


def _table(title: str, measurements: dict[str, dict], digits: str) -> Table:
    table = Table("", "median", "smallest", "largest", title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in measurements.items():
        table.add_row(name, *(format(row[key], digits) for key in ("median", "smallest", "largest")))
    return table


def run(argv: Sequence[str]) -> None:
    """Measures what the flags say, prints the tables and writes --json."""
    count, rounds, seconds = (64, 2, 0.0) if _QUICK.value else (_IMAGES.value, _ROUNDS.value, _SECONDS.value)
    # Until the end: the files under it are read in every round.
    with ended_in_one_line(), tempfile.TemporaryDirectory(prefix="bench_input-") as scratch:
        named = flags.FLAGS["config"].present or flags.FLAGS["dataset"].present
        config = main.configuration(None if named else load_recipe("celeba_paper"))
        if _QUICK.value:
            config = override(config, {"train.batch_size": 32})
        if config.dataset == "celeba" and config.data.dir is None:
            config.data.dir = str(Path(scratch) / "celeba")
            config.data.celeba_validation = "official"  # all that is generated for training is measured
            write_celeba(Path(config.data.dir), count)
        files = first_of(load_source(config.dataset, config.data, seed=config.seed, check_images=True), count)
        paths = files.splits["train"].images
        if not files.splits["train"].in_files:
            raise ValueError(f"dataset must be one of image files, such as celeba, received {config.dataset!r}")
        values = measured(rows(config, files, Path(scratch) / "cache", seconds), rounds)
        kilobytes = float(np.mean([os.path.getsize(path) for path in paths])) / 1000
    result = {
        "machine": machine(),
        "images": {"count": len(paths), "kilobytes": kilobytes, "of": "generated" if scratch in config.data.dir else "given"},
        "recipe": config.to_dict(),
        "images_per_second": {name: _spread(row) for name, row in values.items()},
        "ratios": {
            name: _spread([a / b for a, b in zip(values[above], values[below], strict=True)])
            for name, (above, below) in RATIOS.items()
        },
    }
    console = Console()
    console.print(" · ".join(f"{key} {value}" for key, value in result["machine"].items()), highlight=False)
    about = f"images per second: {len(paths):,} images of {kilobytes:.1f} kB, to {config.data.image_size}, {rounds} rounds"
    console.print(_table(about, result["images_per_second"], ",.0f"))
    console.print(_table("ratios within a round", result["ratios"], ".3f"))
    if _JSON.value:
        write_json(Path(_JSON.value), result)


if __name__ == "__main__":
    app.run(run)
