"""Trains Large Margin Local Embedding (Huang et al., CVPR 2016): a network per label, by quintuplets, decided by clusters."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from crl_tf.datasets.pipeline import AUGMENTATIONS
from crl_tf.experiment.trainers.base import Task, Trained
from crl_tf.experiment.trainers.features import extract_features, feature_model, inference, warn_if_collapsed
from crl_tf.experiment.trainers.gradient import fit_in_one_sitting
from crl_tf.experiment.trainers.quintuplets import (
    Clusters,
    Quintuplets,
    class_costs,
    cluster_classes,
    draw_anchors,
    find_quintuplets,
    geometric_margins,
    random_half,
)
from crl_tf.files import write_whole
from crl_tf.layers.cluster_decision import ClusterDecision
from crl_tf.losses.cross_entropy import MultiLabelCrossEntropy
from crl_tf.losses.quintuplet import triple_header_hinge

_log = logging.getLogger(__name__)

FOLDER, HISTORY = "embedding", "history.csv"

Step = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
"""From images, which of a quintuplet exist, the weights of the anchors and their margins to the loss."""


class Learned(NamedTuple):
    """weights: of a network, as `get_weights` gives them. iterations: how many it was trained for. seconds: how long it took.

    centres: float32 [K, D] and classes: int64 [K], of the last clusters; empty after pretraining.
    clustering_seconds: the part of the seconds that was features of all images, clusters and the search for quintuplets.
    """

    weights: list[np.ndarray]
    iterations: int
    seconds: float
    centres: np.ndarray
    classes: np.ndarray
    clustering_seconds: float = 0.0


class _Anchors(NamedTuple):
    """What a round draws from. samples: the index of each in the training split. classes: of them, int64. quintuplets: their
    indices are positions in `samples`. margins: float32 [n, 3]."""

    samples: np.ndarray
    classes: np.ndarray
    quintuplets: Quintuplets
    margins: np.ndarray


def train(task: Task) -> Trained:
    """Trains label by label, each on a network of its own, all from the same pretrained weights.

    Pretraining is `embedding.pretraining_epochs` of cross-entropy on all labels; the paper has features of face recognition.
    A label is then trained for as many iterations as the other trainers take: epochs * ceil(n / batch_size).

    The pretrained weights and every finished label are kept in workdir/embedding, so that a stopped run continues with the next
    label; history.csv there has the seconds. The seconds that are returned include those before the run was stopped.

    Raises:
        ValueError: a label that no training image is annotated for.
    """
    labels, schema = task.data.dataset.splits["train"].labels, task.data.dataset.schema
    empty = [name for name, column in zip(schema.names, labels.T, strict=True) if not (column >= 0).any()]
    if empty:
        raise ValueError(f"lmle: every label must have an annotated training image, received none for {', '.join(empty)}")
    task.begin()
    folder, rows = task.workdir / FOLDER, ["pretraining", *schema.names]
    iterations = task.embedding["pretraining_epochs"] * task.steps_per_epoch
    start = load(folder / "start.npz", iterations) or save(folder / "start.npz", _pretrain(task))
    learned = [start]
    write_history(folder, rows, learned)
    iterations = task.epochs * task.steps_per_epoch
    for label, name in enumerate(schema.names):
        path = folder / f"label_{label:04d}.npz"
        learned.append(load(path, iterations) or save(path, learn_label(task, label, start.weights, iterations)))
        write_history(folder, rows, learned)
        seconds, left = sum(row.seconds for row in learned[1:]), len(schema) - label - 1
        rest = f"about {left * seconds / (label + 1) / 60:,.1f} min left" if left else "all labels are learned"
        _log.info("lmle %d/%d %s: %s s, %s", label + 1, len(schema), name, f"{learned[-1].seconds:,.1f}", rest)
    began = time.perf_counter()
    model = _decision_model(task, learned[1:])
    seconds = sum(row.seconds for row in learned) + time.perf_counter() - began
    clustering_seconds = sum(row.clustering_seconds for row in learned)
    return Trained(model, seconds, {"clustering_seconds": round(clustering_seconds, 1)})


def _pretrain(task: Task) -> Learned:
    began = time.perf_counter()
    keras.utils.set_random_seed(task.seed)
    model, epochs = task.make_model(), task.embedding["pretraining_epochs"]
    if epochs:
        loss = MultiLabelCrossEntropy(list(task.data.dataset.schema.num_classes))
        model.compile(task.make_optimizer(model, task.steps_per_epoch), loss=loss)
        # It stops at a NaN, which would become the start of every label.
        fit_in_one_sitting(task, model, epochs)
    none = np.zeros(0, np.float32)
    return Learned(model.network.get_weights(), epochs * task.steps_per_epoch, time.perf_counter() - began, none, none)


def learn_label(task: Task, label: int, start: Sequence[np.ndarray], iterations: int) -> Learned:
    """Trains the network of one label, and clusters its features.

    Every `embedding.cluster_every` iterations, and once more at the end, the features of the label's annotated training images
    are computed and clustered. Quintuplets are found in a random half of these images, drawn anew each time. A batch has
    batch_size // 5 anchors, at least one, so that a step takes no more images than that of another trainer.

    Args:
        start: the weights that every label starts from.
        iterations: the length of the training; a label without two samples of a class is not trained.
    """
    began = time.perf_counter()
    keras.utils.set_random_seed((task.seed + 1 + label) % 2**32)
    model = task.make_model()
    model.network.set_weights(start)
    unit = feature_model(model, label)
    compute = inference(unit)
    # `compile` wraps the optimizer as the precision needs it.
    model.compile(task.make_optimizer(model, task.steps_per_epoch))
    step = _make_step(unit, model.optimizer)

    labels = task.data.dataset.splits["train"].labels[:, label].astype(np.int64)
    annotated = np.flatnonzero(labels >= 0)
    classes = labels[annotated]
    name = task.data.dataset.schema.names[label]
    done, clustering_seconds = 0, 0.0
    while True:
        round_began = time.perf_counter()
        rng = np.random.default_rng([task.seed, label, done])
        features = extract_features(compute, task.data.batches("train", indices=annotated))
        clusters = cluster_classes(features, classes, size=task.embedding["cluster_size"], seed=int(rng.integers(2**31)))
        last = done >= iterations or not unit.trainable_variables
        anchors = None if last else _anchors(task, features, clusters, annotated, classes, rng)
        clustering_seconds += time.perf_counter() - round_began
        if anchors is None:
            break
        if not anchors.quintuplets.usable.any():
            _log.info("lmle: %s has no two training images of a class and is not trained", name)
            break
        count = min(task.embedding["cluster_every"], iterations - done)
        _train_on(task, step, anchors, count, rng, f"lmle: {name}, {done:,} of {iterations:,}")
        done += count
    warn_if_collapsed(features, f"lmle, {name}")
    seconds = time.perf_counter() - began
    return Learned(model.network.get_weights(), iterations, seconds, clusters.centres, clusters.classes, clustering_seconds)


def _anchors(
    task: Task,
    features: np.ndarray,
    clusters: Clusters,
    samples: np.ndarray,
    classes: np.ndarray,
    rng: np.random.Generator,
) -> _Anchors:
    """The quintuplets of a random half of the samples, and their margins: `embedding.margins`, or those of the geometry."""
    half, margins = random_half(classes, rng), task.embedding["margins"]
    if margins is None:
        share, non_negative = task.embedding["occupied_share"], bool((features >= 0).all())
        margins = geometric_margins(clusters, share, non_negative=non_negative)[half]
    else:
        margins = np.tile(np.float32(margins), (len(half), 1))
    of_half = Clusters(clusters.cluster[half], clusters.centres, clusters.classes)
    return _Anchors(samples[half], classes[half], find_quintuplets(features[half], of_half), margins)


def _train_on(task: Task, step: Step, anchors: _Anchors, iterations: int, rng: np.random.Generator, title: str) -> None:
    """Takes this many steps on the quintuplets of anchors that are drawn."""
    size = max(1, task.data.batch_size // 5)
    quintuplets = anchors.quintuplets
    drawn = draw_anchors(anchors.classes, quintuplets.usable, batches=iterations, size=size, rng=rng)
    indices = anchors.samples[quintuplets.index[drawn]].reshape(-1)
    by_step = zip(quintuplets.valid[drawn], class_costs(anchors.classes[drawn]), anchors.margins[drawn], strict=True)
    batches = task.data.batches("train", indices=indices).rebatch(5 * size)
    for images, _ in task.progress.track(batches, title, total=iterations):
        for place, augmentation in enumerate(task.data.augment):
            seed = tf.constant([int(rng.integers(2**31)), place], tf.int64)
            images = AUGMENTATIONS[augmentation](images, seed)
        step(images, *map(tf.constant, next(by_step)))


def _make_step(unit: keras.Model, optimizer: keras.optimizers.Optimizer) -> Step:
    variables = unit.trainable_variables
    optimizer.build(variables)

    @tf.function(reduce_retracing=True)
    def step(images: tf.Tensor, valid: tf.Tensor, cost: tf.Tensor, margins: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            features = unit(images, training=True)
            five = tf.unstack(tf.reshape(features, [-1, 5, features.shape[-1]]), axis=1)
            loss = tf.reduce_sum(triple_header_hinge(*five, margins=margins, valid=valid, cost=cost))
            loss = tf.add_n([loss, *(tf.cast(term, tf.float32) for term in unit.losses)])
            scaled = optimizer.scale_loss(loss)
        optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))
        return loss

    return step


def _decision_model(task: Task, learned: Sequence[Learned]) -> keras.Model:
    """The networks of all labels side by side, each with the clusters of its last features."""
    images = keras.Input((*task.data.image_size, 3), dtype="float32", name="images")
    scores = []
    for label, (row, size) in enumerate(zip(learned, task.data.dataset.schema.num_classes, strict=True)):
        model = task.make_model()
        model.network.set_weights(row.weights)
        features = feature_model(model, label, name=f"features_{label}")(images)
        decision = ClusterDecision.of(
            row.centres, row.classes, num_classes=size, neighbours=task.embedding["neighbours"], name=f"decision_{label}"
        )
        scores.append(decision(features))
    return keras.Model(images, keras.layers.Concatenate(name="logits")(scores) if len(scores) > 1 else scores[0], name="lmle")


def save(path: Path, learned: Learned) -> Learned:
    """Writes one `.npz` file atomically; returns what it was given."""
    content = {f"weight_{number:04d}": weight for number, weight in enumerate(learned.weights)}
    content |= {name: value for name, value in learned._asdict().items() if name != "weights"}
    write_whole(path, lambda partial: np.savez(partial, **content))
    return learned


def load(path: Path, iterations: int) -> Learned | None:
    """What `save` wrote, if it was trained for this many iterations: with other epochs, labels start anew."""
    if not path.is_file():
        return None
    with np.load(path) as content:
        weights = [content[name] for name in sorted(content.files) if name.startswith("weight_")]
        # An earlier version drew other quintuplets and did not say how long clustering took.
        if "clustering_seconds" not in content.files or int(content["iterations"]) != iterations:
            return None
        seconds, of_clustering = float(content["seconds"]), float(content["clustering_seconds"])
        return Learned(weights, iterations, seconds, content["centres"], content["classes"], of_clustering)


def write_history(folder: Path, names: Sequence[str], learned: Sequence[Learned]) -> None:
    """Writes `history.csv`: what was learned so far, for how many iterations and seconds, and how many of them clustered."""

    def write(partial: Path) -> None:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["learned", "iterations", "seconds", "clustering_seconds"])
            for name, row in zip(names, learned, strict=False):
                writer.writerow([name, row.iterations, round(row.seconds, 3), round(row.clustering_seconds, 3)])

    write_whole(folder / HISTORY, write)
