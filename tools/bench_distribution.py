"""Measures what several replicas cost and see: steps with global and replica mining, and the rare classes that are rectified.

    python tools/bench_distribution.py --json=bench.json        DeepID2 with CelebA's labels on 2 and 4 logical CPUs
    python tools/bench_distribution.py --quick                  only that it works, in seconds: no figures to quote

Steps: a batch of --batch images on one device, and on N logical CPUs that share the machine's cores, so that only the overhead
can be seen: the strategy's and the gather's. For each N a process of its own, interleaved rounds (tools/measuring.py), ratios to
one device within each round; replica mining is measured twice (A/A).

Rectified: of the minority classes of a batch of the class sizes of CIFAR-100-imb(1), which share has two samples on some replica,
by the program's own profiling; batches are drawn at random. Global mining sees what one replica would.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import measuring
import numpy as np
import tensorflow as tf
from absl import app, flags
from measuring import Item
from rich.console import Console
from rich.table import Table

from crl_tf.crl_model import CRLModel
from crl_tf.datasets.sources.cifar100 import LARGEST, NUM_CLASSES, SMALLEST
from crl_tf.experiment.config import base_config
from crl_tf.experiment.devices import strategy_of, turn_tuning_off
from crl_tf.files import write_json
from crl_tf.imbalance import power_law_counts
from crl_tf.layout import Layout
from crl_tf.losses.crl.profiling import class_histogram, minority_mask
from crl_tf.losses.table import Problem, make_loss
from crl_tf.models import build_network, find_network

_REPLICAS = flags.DEFINE_list("replicas", ["2", "4"], "numbers of logical CPUs")
_LOSSES = flags.DEFINE_list("losses", ["class_rel", "instance_rel"], "rows of LOSSES")
_NETWORK = flags.DEFINE_string("network", "deepid2", "a row of NETWORKS")
_BATCH = flags.DEFINE_integer("batch", 256, "images of a step, on all replicas together", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "visits of every row", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 1.0, "a row repeats its step for so long", lower_bound=0.0)
_DRAWS = flags.DEFINE_integer("draws", 200, "batches in which rectified classes are counted", lower_bound=1)
_QUICK = flags.DEFINE_bool("quick", False, "CifarNet, 2 replicas, 2 rounds of a moment: that it works")
_JSON = flags.DEFINE_string("json", None, "JSON file for every number")

ONE, CONTROL = "one device", "replica mining, again (A/A)"
MANY = (1, 2, 4, 8)
"""Replicas of which rectified classes are counted."""


def step(strategy: tf.distribute.Strategy, network: str, loss: str, mining: str, batch: int) -> Item:
    """A training step on a batch that stays, to be repeated n times."""
    row, rng = find_network(network), np.random.default_rng(0)
    sizes = row.published_classes
    labels = np.stack([rng.choice(size, batch, p=np.arange(size, 0, -1) / (size * (size + 1) / 2)) for size in sizes], axis=1)
    images = rng.integers(0, 256, (batch, *row.image_size, 3)).astype(np.uint8)
    counts = [np.bincount(column, minlength=size) for column, size in zip(labels.T, sizes, strict=True)]
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = CRLModel(build_network(network, image_size=row.image_size, num_classes=sizes))
        crl = {**base_config().crl.to_dict(), "eta": 0.1}
        model.compile(keras.optimizers.SGD(0.001), loss=make_loss(loss, {"crl": crl}, Problem(sizes, counts), mining=mining))
        model.optimizer.build(model.trainable_variables)
    options = tf.data.Options()
    options.autotune.enabled = False  # as in the pipeline
    turn_tuning_off()
    data = tf.data.Dataset.from_tensors((images, labels.astype(np.int32))).repeat().with_options(options)
    batches = iter(strategy.experimental_distribute_dataset(data))
    model.make_train_function()

    def run(times: int) -> None:
        for _ in range(times):
            logs = model.train_function(batches)
        keras.tree.map_structure(np.asarray, logs)

    return Item(mining if strategy.num_replicas_in_sync > 1 else ONE, run)


def steps(replicas: int, network: str, loss: str, batch: int, rounds: int, seconds: float) -> dict[str, Any]:
    """The rows of one number of replicas, in this process."""
    several = strategy_of(f"mirrored:{replicas}")
    items = [step(tf.distribute.get_strategy(), network, loss, "replica", batch)]
    items += [step(several, network, loss, mining, batch) for mining in ("replica", "replica", "global")]
    for item, name in zip(items[1:], ("replica mining", CONTROL, "global mining"), strict=True):
        item.name = name
    for item in items:
        measuring.calibrate(item, seconds)
    measuring.measure(items, rounds=rounds, seconds=seconds, seed=0, report=lambda _: None)
    rows = [
        {**item.statistics(), "ratio": np.quantile(measuring.quotient(item, items[0]), [0.5, 0.25, 0.75]).tolist()}
        for item in items
    ]
    return {"replicas": replicas, "loss": loss, "rows": rows}


def rectified(batch: int, draws: int) -> dict[int, float]:
    """By number of replicas: of the minority classes of a whole batch, the share that is rectified on some replica."""
    shares = power_law_counts(NUM_CLASSES, 1.0, LARGEST, SMALLEST)
    layout, rng = Layout((NUM_CLASSES,)), np.random.default_rng(0)
    found: dict[int, list[float]] = {count: [] for count in MANY}
    for _ in range(draws):
        labels = rng.choice(NUM_CLASSES, batch, p=shares / shares.sum()).astype(np.int32)
        wanted = _rectified(labels, layout)
        for count in MANY:
            parts = [_rectified(part, layout) for part in np.array_split(labels, count)]
            found[count].append(float((np.any(parts, axis=0) & wanted).sum() / max(1, wanted.sum())))
    return {count: float(np.mean(values)) for count, values in found.items()}


def _rectified(labels: np.ndarray, layout: Layout) -> np.ndarray:
    """Which classes are minority classes of which there are two samples, bool [classes]."""
    histogram = class_histogram(tf.constant(labels[np.newaxis]), layout)
    minority = minority_mask(histogram, layout, rho=0.5, scope="minority").numpy()[0]
    return minority & (np.bincount(labels, minlength=len(minority)) >= 2)


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        sys.exit(f"bench_distribution: takes flags only, received {argv[1]!r}")
    network, counts, losses, rounds, seconds, draws = (
        ("cifarnet", ["2"], _LOSSES.value[:1], 2, 0.01, 2)
        if _QUICK.value
        else (_NETWORK.value, _REPLICAS.value, _LOSSES.value, _ROUNDS.value, _SECONDS.value, _DRAWS.value)
    )
    batch = 16 if _QUICK.value else _BATCH.value
    # Each number of replicas has a process of its own: the CPUs are divided before TensorFlow starts.
    measured = [
        measuring.in_fresh_process(steps, int(count), network, loss, batch, rounds, seconds)
        for count in counts
        for loss in losses
    ]
    console = Console(width=110)
    table = Table(
        "loss", "replicas", "", "ms", "x one device", title=f"a step of {batch} images, {network}", title_justify="left"
    )
    for of_count in measured:
        for row in of_count["rows"]:
            middle, low, high = row["ratio"]
            times = f"{middle:.2f} ({low:.2f} to {high:.2f})"
            table.add_row(of_count["loss"], str(of_count["replicas"]), row["name"], f"{1000 * row['median']:.1f}", times)
    console.print(table)
    shares = rectified(batch, draws)
    table = Table(
        "replicas", *map(str, shares), title=f"minority classes that are rectified, %, batch {batch}", title_justify="left"
    )
    table.add_row("replica mining", *(f"{100 * share:.0f}" for share in shares.values()))
    table.add_row("global mining", *(f"{100 * shares[1]:.0f}" for _ in shares))
    console.print(table)
    if _JSON.value:
        write_json(Path(_JSON.value), {"machine": measuring.machine(measuring.cores()), "steps": measured, "rectified": shares})


if __name__ == "__main__":
    app.run(main)
