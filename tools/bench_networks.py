"""Measures what each network costs: parameters, FLOPs, and the time of a forward pass and a training step against DeepID2's.

    python tools/bench_networks.py --json=bench.json                all own networks, and a small one of keras.applications
    python tools/bench_networks.py --networks=deepid2,resnet32,keras:ResNet50
    python tools/bench_networks.py --markdown                       a table for the documents
    python tools/bench_networks.py --peer=keras,torch --threads=1   steps in both precisions beside others (network_peers.py)
    python tools/bench_networks.py --quick                          only that it works, in seconds: no figures to quote

Each network at width 1, for images and labels as published. Images are noise; each class of a label is rarer than the one before.
A step is `CRLModel`'s with the loss `class_rel` and SGD; a forward pass ends at the logits. Times are per image. A batch has
--pixels in all (401,408: 8 images of 224 x 224) and 128 images at most, so that large networks take less than 24 GiB.

One process, interleaved rounds (tools/measuring.py), medians with quartiles. Ratios are taken within each round. DeepID2 is
measured twice: the ratio of "deepid2, again" shows how far from 1 a ratio is by chance. Networks too slow for --seconds do a
fifth of the rounds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import benchmark_tables
import keras
import measuring
import network_peers
import numpy as np
import tensorflow as tf
from absl import app, flags
from counting import flops
from measuring import Item, repeated
from rich.console import Console

from crl_tf.crl_model import CRLModel
from crl_tf.experiment.config import base_config
from crl_tf.files import write_json
from crl_tf.imbalance import class_counts
from crl_tf.losses.table import Problem, make_loss
from crl_tf.models import NETWORKS, build_network, find_network
from crl_tf.models.describe import parameters

BASELINE, CONTROL = "deepid2", "deepid2, again (A/A)"
LARGEST_BATCH = 128
SAMPLES = 2048
"""Labels that class sizes are counted in; the first of them are the batch."""

_NETWORKS = flags.DEFINE_list("networks", [*NETWORKS, "keras:MobileNetV3Small"], "which networks; deepid2 is always measured")
_PEER = flags.DEFINE_list(
    "peer", [], "keras, torch: compare steps of --networks, or of the paper's on faces and CIFAR, with theirs"
)
_ROUNDS = flags.DEFINE_integer("rounds", 10, "visits of every row", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 0.4, "a row repeats what it measures for so long", lower_bound=0.0)
_PIXELS = flags.DEFINE_integer("pixels", 8 * 224 * 224, "of all images of a batch; an image at least", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", None, "threads of TensorFlow; default: the machine's", lower_bound=1)
_QUICK = flags.DEFINE_bool("quick", False, "one network besides DeepID2 and 2 rounds: that it works")
_MARKDOWN = flags.DEFINE_bool("markdown", False, "print the table as markdown")
_JSON = flags.DEFINE_string("json", None, "JSON file for every number")

# This program makes a tf.function for every row, of which TensorFlow warns.
tf.get_logger().setLevel("ERROR")


def labels_of(num_classes: Sequence[int]) -> np.ndarray:
    """int32 [SAMPLES, L]: of every label the k-th class 1/k as often as the first, and each at least once."""
    rng = np.random.default_rng(0)
    columns = []
    for classes in num_classes:
        shares = 1 / np.arange(1, classes + 1)
        drawn = rng.choice(classes, SAMPLES - classes, p=shares / shares.sum())
        columns.append(rng.permutation(np.concatenate([drawn, np.arange(classes)])))
    return np.stack(columns, axis=1).astype(np.int32)


def programs(name: str, batch_size: int) -> tuple[Callable[[int], Any], Callable[[int], Any], dict[str, Any]]:
    """A forward pass and a training step of a network, each to be repeated n times, and its counts."""
    row, config = find_network(name), base_config()
    keras.utils.set_random_seed(config.seed)
    network = build_network(name, image_size=row.image_size, num_classes=row.published_classes)
    counted = {"parameters": parameters(network).total, "flops": flops(network), "image_size": list(row.image_size)}
    labels = labels_of(row.published_classes)
    counts = class_counts(labels, row.published_classes)
    model = CRLModel(network)
    loss = make_loss("class_rel", {}, Problem(row.published_classes, counts))
    # The steps repeat one batch: at a rate that could diverge, NaN would be timed.
    model.compile(keras.optimizers.SGD(1e-6, config.train.momentum, weight_decay=config.train.weight_decay), loss=loss)
    model.optimizer.build(model.trainable_variables)
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, *row.image_size, 3), np.uint8)
    images, targets = tf.constant(pixels), tf.constant(labels[:batch_size])
    forward = tf.function(lambda: model(images, training=False))
    step = tf.function(lambda: model.train_step((images, targets)))

    return repeated(forward), repeated(step), {**counted, "batch_size": batch_size}


def measured(names: Sequence[str], rounds: int, seconds: float, pixels: int, progress: Console) -> dict[str, dict[str, Any]]:
    """Every network by its name, as JSON: seconds per image, and the ratios to DeepID2's."""
    items: dict[tuple[str, str], Item] = {}
    rows: dict[str, dict[str, Any]] = {}
    for shown in (BASELINE, CONTROL, *(name for name in names if name != BASELINE)):
        name = BASELINE if shown == CONTROL else shown
        progress.print(f"preparing {shown}", highlight=False)
        height, width = find_network(name).image_size
        forward, step, rows[shown] = programs(name, min(LARGEST_BATCH, max(1, pixels // (height * width))))
        for what, run in (("forward", forward), ("step", step)):
            items[shown, what] = Item(f"{shown}/{what}", run)
            measuring.calibrate(items[shown, what], seconds)
    everything = list(items.values())
    measuring.measure(
        everything, rounds=rounds, seconds=seconds, seed=0, report=lambda n: progress.print(f"round {n} of {rounds}")
    )
    for (shown, _), item in items.items():
        item.by_round = {number: value / rows[shown]["batch_size"] for number, value in item.by_round.items()}
    for (shown, what), item in items.items():
        rows[shown][f"{what}_seconds"] = measuring.quartiles(list(item.by_round.values()))
        rows[shown][f"{what}_ratio"] = measuring.quartiles(measuring.quotient(item, items[BASELINE, what]))
    return rows


def run(argv: Sequence[str]) -> None:
    """Measures what the flags say, prints the table and writes --json."""
    if len(argv) > 1:
        sys.exit(f"bench_networks: takes flags only, received {argv[1]!r}")
    names = ["cifarnet"] if _QUICK.value and not flags.FLAGS["networks"].present else _NETWORKS.value
    rounds, seconds, pixels = (2, 0.05, 1) if _QUICK.value else (_ROUNDS.value, _SECONDS.value, _PIXELS.value)
    try:
        for name in names:
            find_network(name)
        if unknown := set(_PEER.value) - {"keras", "torch"}:
            raise ValueError(f"peer must be keras, torch or both, received {unknown.pop()!r}")
    except ValueError as error:
        sys.exit(f"bench_networks: --networks: {error}")
    threads = _THREADS.value or measuring.cores()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    started = time.perf_counter()
    progress = Console(stderr=True)
    if _PEER.value:
        # Without this, waiting threads of TensorFlow would count as processor time.
        tf.config.threading.set_inter_op_parallelism_threads(1)
        rows = network_peers.compared(
            names if flags.FLAGS["networks"].present or _QUICK.value else network_peers.NETWORKS,
            labels_of,
            most=8 if _QUICK.value else network_peers.BATCH,
            peers=_PEER.value,
            rounds=rounds,
            seconds=seconds,
            threads=threads,
            say=lambda line: progress.print(line, highlight=False),
        )
    else:
        rows = measured(names, rounds, seconds, pixels, progress)
    result = {**measuring.facts(threads, started), "rounds": rounds, "networks": rows}
    tables = benchmark_tables.peers(result) if _PEER.value else benchmark_tables.networks(result)
    benchmark_tables.show(result, tables, _MARKDOWN.value)
    if _JSON.value:
        write_json(Path(_JSON.value), result)


if __name__ == "__main__":
    app.run(run)
