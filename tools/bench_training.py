"""Measures images per second of training with steps_per_execution, XLA and mixed precision, against none of them.

    python tools/bench_training.py                                       as celeba_paper: DeepID2, 40 labels, batch 256, 55 x 47
    python tools/bench_training.py --loss=instance_rel --model=cifarnet --batch_size=32 --config.data.image_size="(16, 16)"
    python tools/bench_training.py --quick                               only that it works, in seconds: no figures to quote

A measurement is one `fit` of --images generated images, in memory, through the pipeline of a run; where one execution takes more
images, of as many as it takes. One process, interleaved: every round visits every row once. A row shows the median of its
rounds, the smallest and the largest; ratios to the first row are taken within each round. The row measured twice (A/A) shows how
far from 1 a ratio is by chance. `first` is how much longer the first fit, which traces and compiles, took than the second, in
seconds. Takes every flag of `crl_tf.main` as well, and --images, --rounds and --json as `bench_input.py` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import app, flags
from bench_input import machine, measured
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from crl_tf import main
from crl_tf.datasets import Dataset, Split
from crl_tf.ending import ended_in_one_line
from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.config import load_recipe, override
from crl_tf.experiment.data import Data
from crl_tf.experiment.run import Context, prepare
from crl_tf.experiment.trainers.gradient import compiled
from crl_tf.files import write_json
from crl_tf.imbalance import class_counts
from crl_tf.schema import Attribute, AttributeSchema

LABELS = 40
BASELINE, CONTROL = "none of them", "none of them, again (A/A)"
PLAIN = {"steps_per_execution": 1, "xla": "off", "precision": "float32"}
ROWS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    CONTROL: {},
    "steps_per_execution 2": {"steps_per_execution": 2},
    "steps_per_execution 8": {"steps_per_execution": 8},
    "steps_per_execution 32": {"steps_per_execution": 32},
    "xla": {"xla": "on"},
    "mixed_bfloat16": {"precision": "mixed_bfloat16"},
    "mixed_float16": {"precision": "mixed_float16"},
    "xla, mixed_bfloat16": {"xla": "on", "precision": "mixed_bfloat16"},
}
QUICK_ROWS = (BASELINE, CONTROL, "steps_per_execution 2", "xla", "mixed_bfloat16")


def generated(config: ConfigDict, count: int, num_labels: int) -> Dataset:
    """`count` training images of noise in the configuration's size; labels of two classes, common to rare as in CelebA."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *config.data.image_size, 3), np.uint8)
    labels = (rng.random((count, num_labels)) < np.linspace(0.5, 0.02, num_labels)).astype(np.int32)
    # Every class has to occur in training to have a weight.
    labels[:2] = [[0] * num_labels, [1] * num_labels]
    schema = AttributeSchema([Attribute(f"attribute_{i}", ("no", "yes")) for i in range(num_labels)])
    few = Split(images[:2], labels[:2])
    return Dataset("generated", schema, {"train": Split(images, labels), "validation": few, "test": few})


def training(
    config: ConfigDict, settings: dict[str, Any], dataset: Dataset, images: int, first: list[float]
) -> Callable[[], float]:
    """Measures one epoch: images per second. Appends to `first` how many seconds the first one takes longer."""
    config = override(config, {f"train.{name}": value for name, value in {**PLAIN, **settings}.items()})
    batch_size = config.train.batch_size
    # Whole batches: XLA compiles once for every shape. And whole executions: Keras cuts them to the epoch.
    steps = max(images // batch_size, config.train.steps_per_execution)
    steps -= steps % config.train.steps_per_execution
    split = dataset.splits["train"]
    part = Split(split.images[: steps * batch_size], split.labels[: steps * batch_size])
    dataset = Dataset(dataset.name, dataset.schema, {**dataset.splits, "train": part})
    keras.utils.set_random_seed(config.seed)
    counts = class_counts(part.labels, dataset.schema.num_classes)
    data = Data(dataset, counts, config.data.image_size, batch_size, config.seed, config.data.augment)
    model, _, batches = compiled(prepare(Context(assemble(config), data, Path())))
    taken: list[float] = []

    def measure() -> float:
        started = time.perf_counter()
        model.fit(batches, shuffle=False, verbose=0)
        taken.append(time.perf_counter() - started)
        if len(taken) == 2:
            first.append(taken[0] - taken[1])
        return len(part) / taken[-1]

    return measure


def spread(values: Sequence[float]) -> dict[str, Any]:
    return {"median": float(np.median(values)), "smallest": min(values), "largest": max(values), "rounds": list(values)}


def table(rows: dict[str, dict[str, Any]], title: str) -> Table:
    shown = Table("", "images/s", "smallest", "largest", "ratio", "smallest", "largest", "first, s", title=title)
    shown.title_justify = "left"
    for column in shown.columns[1:]:
        column.justify = "right"
    for name, row in rows.items():
        of_images, of_ratio = (
            [format(row[key][what], digits) for what in ("median", "smallest", "largest")]
            for key, digits in (("images_per_second", ",.0f"), ("ratio", ".3f"))
        )
        shown.add_row(name, *of_images, *of_ratio, f"{row['first_seconds']:.1f}")
    return shown


def run(argv: Sequence[str]) -> None:
    """Measures what the flags say, prints the table and writes --json."""
    values = flags.FLAGS
    rounds, images, num_labels = (2, 64, 3) if values.quick else (values.rounds, values.images, LABELS)
    with ended_in_one_line():
        named = values["config"].present or values["dataset"].present
        config = main.configuration(None if named else load_recipe("celeba_paper"))
        if values.quick:
            config = override(config, {"train.batch_size": 16, "model": "cifarnet", "data.image_size": (16, 16)})
        if images < config.train.batch_size:
            raise ValueError(f"images must be >= batch_size ({config.train.batch_size}), received {images}")
        chosen = {name: settings for name, settings in ROWS.items() if not values.quick or name in QUICK_ROWS}
        longest = max(row.get("steps_per_execution", 1) for row in chosen.values())
        dataset = generated(config, max(images, longest * config.train.batch_size), num_labels)
        first: dict[str, list[float]] = {name: [] for name in chosen}
        by_name = {name: training(config, row, dataset, images, first[name]) for name, row in chosen.items()}
        speeds = measured(by_name, rounds)
    rows = {
        name: {
            "images_per_second": spread(row),
            "ratio": spread([a / b for a, b in zip(row, speeds[BASELINE], strict=True)]),
            "first_seconds": first[name][0],
        }
        for name, row in speeds.items()
    }
    result = {"machine": machine(), "recipe": config.to_dict(), "rows": rows}
    console = Console()
    console.print(" · ".join(f"{key} {value}" for key, value in result["machine"].items()), highlight=False)
    size = " x ".join(map(str, config.data.image_size))
    about = f"{config.model}, {config.method}, {num_labels} labels, batch {config.train.batch_size}, {size}, {rounds} rounds"
    console.print(table(rows, about))
    if values.json:
        write_json(Path(values.json), result)


if __name__ == "__main__":
    app.run(run)
