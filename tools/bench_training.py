"""Times training steps with steps_per_execution, XLA and mixed precision, against none of them.

    python tools/bench_training.py                                       as celeba_paper: DeepID2, 40 labels, batch 256, 55 x 47
    python tools/bench_training.py --loss=instance_rel --model=cifarnet --batch_size=32 --config.data.image_size="(16, 16)"
    python tools/bench_training.py --quick                               only that it works, in seconds: no figures to quote

What is called in a loop is the function that `fit` calls: it takes as many batches as an execution has steps, from batches of
generated images that were read and augmented before. `fit` itself is not timed, as bench_input.py does with the whole pipeline.
One process, interleaved rounds (tools/measuring.py), medians with quartiles; ratios to the first row, of time, are taken within
each round. The row measured twice (A/A) shows how far from 1 a ratio is by chance. The first call, which traces and compiles, is
shown by how much longer it took than the others. Takes every flag of `crl_tf.main` as well.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import benchmark_tables
import keras
import measuring
import numpy as np
import tensorflow as tf
from absl import app, flags
from measuring import Item, repeated
from ml_collections import ConfigDict
from rich.console import Console

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

_ROUNDS = flags.DEFINE_integer("rounds", 7, "visits of every row", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 1.0, "a row repeats its steps for so long", lower_bound=0.0)
_THREADS = flags.DEFINE_integer("threads", None, "threads of TensorFlow; default: the machine's", lower_bound=1)
_QUICK = flags.DEFINE_bool("quick", False, "tiny sizes and few rows: that it works, not what it takes")
_JSON = flags.DEFINE_string("json", None, "JSON file for every number")

BATCHES = 4
"""Prepared batches, which the steps take in turn."""

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


def steps(config: ConfigDict, settings: dict[str, Any], dataset: Dataset) -> tuple[Callable[[int], None], int]:
    """run(n): n executions of training; and how many steps each of them has."""
    config = override(config, {f"train.{name}": value for name, value in {**PLAIN, **settings}.items()})
    keras.utils.set_random_seed(config.seed)
    counts = class_counts(dataset.splits["train"].labels, dataset.schema.num_classes)
    data = Data(dataset, counts, config.data.image_size, config.train.batch_size, config.seed, config.data.augment)
    model, _, batches = compiled(prepare(Context(assemble(config), data, Path())))
    prepared = list(batches.take(BATCHES))
    # Builds what the step keeps (slots of the optimizer, metrics), which a compiled step may not.
    model.train_step(prepared[0])
    model.make_train_function()
    stacked = tf.nest.map_structure(lambda *parts: tf.stack(parts), *prepared)
    again = tf.data.Dataset.from_tensor_slices(stacked).repeat()
    options = tf.data.Options()
    options.autotune.enabled = False  # as in the pipeline
    iterator = iter(again.with_options(options))
    return repeated(lambda: model.train_function(iterator)), config.train.steps_per_execution


def measured(
    config: ConfigDict, dataset: Dataset, chosen: dict[str, dict[str, Any]], rounds: int, seconds: float, progress: Console
) -> dict[str, dict[str, Any]]:
    """Seconds of a step of every row, as JSON."""
    items, first, executed = {}, {}, {}
    for name, settings in chosen.items():
        progress.print(f"preparing {name}", highlight=False)
        run, executed[name] = steps(config, settings, dataset)
        items[name] = Item(name, run)
        first[name] = measuring.timed(run, 1)
        measuring.calibrate(items[name], seconds)
    measuring.measure(
        list(items.values()),
        rounds=rounds,
        seconds=seconds,
        seed=0,
        report=lambda number: progress.print(f"round {number} of {rounds}", highlight=False),
    )
    rows = {}
    for name, item in items.items():
        first[name] -= float(np.median(list(item.by_round.values())))
        item.by_round = {number: value / executed[name] for number, value in item.by_round.items()}
    for name, item in items.items():
        taken = measuring.quartiles(list(item.by_round.values()))
        ratio = measuring.quartiles(measuring.quotient(item, items[BASELINE]))
        rows[name] = {"seconds": taken, "ratio": ratio, "first_seconds": first[name]}
    return rows


def run(argv: Sequence[str]) -> None:
    """Measures what the flags say, prints the table and writes --json."""
    rounds, seconds, num_labels = (2, 0.02, 3) if _QUICK.value else (_ROUNDS.value, _SECONDS.value, LABELS)
    started, progress = time.perf_counter(), Console(stderr=True)
    threads = _THREADS.value or measuring.cores()
    measuring.set_threads(threads)
    with ended_in_one_line():
        named = flags.FLAGS["config"].present or flags.FLAGS["dataset"].present
        config = main.configuration(None if named else load_recipe("celeba_paper"))
        if _QUICK.value:
            config = override(config, {"train.batch_size": 16, "model": "cifarnet", "data.image_size": (16, 16)})
        chosen = {name: settings for name, settings in ROWS.items() if not _QUICK.value or name in QUICK_ROWS}
        dataset = generated(config, BATCHES * config.train.batch_size, num_labels)
        rows = measured(config, dataset, chosen, rounds, seconds, progress)
    size = " x ".join(map(str, config.data.image_size))
    told = f"{config.model}, {config.method}, {num_labels} labels, batch {config.train.batch_size}, {size}, {rounds} rounds"
    result = {**measuring.facts(threads, started), "about": told, "recipe": config.to_dict(), "rounds": rounds, "rows": rows}
    benchmark_tables.show(result, benchmark_tables.training(result))
    if _JSON.value:
        write_json(Path(_JSON.value), result)


if __name__ == "__main__":
    app.run(run)
