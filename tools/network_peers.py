"""Training steps of the networks beside those of a plain Keras model of the same layers, and of PyTorch, for bench_networks.py.

A step has cross-entropy over all labels and SGD with momentum, on one batch of noise. The plain Keras model has the same network,
with Keras's own layer wherever it has one, and Keras's own loss and training step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import measuring
import numpy as np
import tensorflow as tf
from measuring import Item, repeated

from crl_tf.crl_model import CRLModel
from crl_tf.imbalance import class_counts
from crl_tf.layers.batch_normalization import BatchNormalization
from crl_tf.losses.table import Problem, make_loss
from crl_tf.models import build_network, find_network
from crl_tf.models.backbones import Network

BATCH, OF_DENSENET = 128, 32
"""Images of a batch; fewer for the network that takes ten times as long as the others."""

NETWORKS = ("cifarnet", "resnet32", "densenet", "deepid2")
PRECISIONS = ("float32", "mixed_bfloat16")
OURS, CONTROL, KERAS, TORCH = "ours", "ours, again (A/A)", "plain Keras", "PyTorch"
RATES = {"momentum": 0.9, "weight_decay": 0.0005}
SLOW = 1e-6
"""The learning rate: the steps repeat one batch, and at a rate that could diverge, NaN would be timed."""


def _network(name: str, row: Network, precision: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_network(name, image_size=row.image_size, num_classes=row.published_classes, precision=precision)


def _step(model: keras.Model, loss: Any, images: tf.Tensor, targets: tf.Tensor) -> Callable[[int], None]:
    model.compile(keras.optimizers.SGD(SLOW, **RATES), loss=loss)
    model.optimizer.build(model.trainable_variables)
    return repeated(tf.function(lambda: model.train_step((images, targets))))


def our_step(name: str, precision: str, images: tf.Tensor, labels: np.ndarray) -> Callable[[int], None]:
    """A step of `CRLModel` with the loss `ce`, to be repeated n times."""
    row = find_network(name)
    loss = make_loss("ce", {}, Problem(row.published_classes, class_counts(labels, row.published_classes)))
    return _step(CRLModel(_network(name, row, precision), dtype=precision), loss, images, tf.constant(labels[: len(images)]))


def _of_keras(layer: keras.layers.Layer) -> keras.layers.Layer:
    kind = keras.layers.BatchNormalization if isinstance(layer, BatchNormalization) else type(layer)
    return kind.from_config(layer.get_config())


def keras_step(name: str, precision: str, images: tf.Tensor, labels: np.ndarray) -> tuple[Callable[[int], None], int]:
    """A step of a plain Keras model of the same layers, and its number of trained parameters."""
    row = find_network(name)
    network = keras.models.clone_model(_network(name, row, precision), clone_function=_of_keras, recursive=True)
    logits, classes = network.output["logits"], set(row.published_classes)
    if len(row.published_classes) > 1:
        if len(classes) > 1:
            raise ValueError(f"{name} must have labels of as many classes each, to be a plain Keras model, received {classes}")
        logits = keras.layers.Reshape((len(row.published_classes), classes.pop()), dtype="float32")(logits)
    else:
        labels = labels[:, 0]
    model = keras.Model(network.input, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return _step(model, loss, images, tf.constant(labels[: len(images)])), sum(map(np.size, model.trainable_variables))


def compared(
    names: Sequence[str],
    labels_of: Callable[[Sequence[int]], np.ndarray],
    *,
    most: int,
    peers: Sequence[str],
    rounds: int,
    seconds: float,
    threads: int,
    say: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Seconds of a step by "network/precision", of every side, and ratios within the rounds, as JSON.

    Args:
        labels_of: labels for so many classes each. most: images of a batch.
        peers: OURS is always there; "keras", "torch" or both. say: shows progress.
    """
    items: dict[tuple[str, str, str], Item] = {}
    for name in names:
        row = find_network(name)
        batch_size = most if name != "densenet" else min(most, OF_DENSENET)
        pixels = np.random.default_rng(0).integers(0, 256, (batch_size, *row.image_size, 3), np.uint8)
        labels, images = labels_of(row.published_classes), tf.constant(pixels)
        for precision in PRECISIONS:
            say(f"preparing {name}, {precision}")
            ours = our_step(name, precision, images, labels)
            sides = {OURS: ours, CONTROL: our_step(name, precision, images, labels)}
            plain, parameters = keras_step(name, precision, images, labels)
            if "keras" in peers:
                sides[KERAS] = plain
            if "torch" in peers:
                sides[TORCH], trained = _torch_step(name, precision, pixels, labels[:batch_size], row, threads)
                if trained != parameters:
                    raise ValueError(f"{name} must be the same network in PyTorch: {parameters} parameters here, {trained} there")
            for side, run in sides.items():
                items[name, precision, side] = Item(f"{name}/{precision}/{side}", run)
                measuring.calibrate(items[name, precision, side], seconds)
    every, report = list(items.values()), lambda number: say(f"round {number} of {rounds}")
    # Of the process: another one on the same core takes its time, not its work.
    measuring.measure(every, rounds=rounds, seconds=seconds, seed=0, report=report, clock=time.process_time)
    return {f"{name}/{precision}": _facts(items, name, precision) for name in names for precision in PRECISIONS}


def _torch_step(
    name: str, precision: str, pixels: np.ndarray, labels: np.ndarray, row: Network, threads: int
) -> tuple[Callable[[int], None], int]:
    # An extra.
    import torch
    import torch_networks

    torch.set_num_threads(threads)
    return torch_networks.step_of(name, pixels, labels, row.published_classes, precision, {"lr": SLOW, **RATES})


def _facts(items: Mapping[tuple[str, str, str], Item], name: str, precision: str) -> dict[str, Any]:
    of_row = {side: item for (of, at, side), item in items.items() if (of, at) == (name, precision)}
    ours = of_row[OURS]
    seconds = {side: measuring.quartiles(list(item.by_round.values())) for side, item in of_row.items()}
    ratios = {side: measuring.quartiles(measuring.quotient(ours, item)) for side, item in of_row.items() if side != OURS}
    return {"seconds": seconds, "ours_over": ratios}
