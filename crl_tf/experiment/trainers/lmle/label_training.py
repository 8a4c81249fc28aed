"""One label of LMLE: clustering, quintuplets and training by turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from rich.progress import track

from crl_tf.datasets.pipeline import AUGMENTATIONS
from crl_tf.experiment.trainers.base import StageInput
from crl_tf.experiment.trainers.features import extract_features, feature_model, inference, warn_if_collapsed
from crl_tf.experiment.trainers.lmle.anchors import class_costs, draw_anchors
from crl_tf.experiment.trainers.lmle.clusters import cluster_classes
from crl_tf.experiment.trainers.lmle.learned import Learned
from crl_tf.experiment.trainers.lmle.quintuplets import Quintuplets, find_quintuplets
from crl_tf.losses.quintuplet import triple_header_hinge

Step = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def learn_label(given: StageInput, label: int, start: Sequence[np.ndarray], iterations: int) -> Learned:
    """A network for one label, and the clusters of its features.

    Every `cluster_every` iterations, and once more at the end, the label's annotated training images are brought to features
    and clustered. A batch brings batch_size // 5 anchors, at least one, so that a step has no more images than another method's.

    Args:
        start: the weights that every label starts from.
        iterations: how long to train; where no quintuplet is left (a label without two samples of a class), not at all.
    """
    began = time.perf_counter()
    keras.utils.set_random_seed((given.seed + 1 + label) % 2**32)
    model = given.make_model()
    model.network.set_weights(start)
    unit = feature_model(model, label)
    features_of = inference(unit)
    # Compiling wraps the optimizer as the precision wants it.
    model.compile(given.make_optimizer(model, given.steps_per_epoch))
    step = _make_step(unit, model.optimizer, given.settings.margins)

    labels = given.dataset.splits["train"].labels[:, label].astype(np.int64)
    annotated = np.flatnonzero(labels >= 0)
    classes = labels[annotated]
    name = given.dataset.schema.names[label]
    done = 0
    while True:
        rng = np.random.default_rng([given.seed, label, done])
        features = extract_features(features_of, given.pipeline("train", False, annotated))
        clusters = cluster_classes(features, classes, size=given.settings.cluster_size, seed=int(rng.integers(2**31)))
        if done >= iterations or not unit.trainable_variables:
            break
        quintuplets = find_quintuplets(features, clusters)
        if not quintuplets.usable.any():
            print(f"lmle: {name} has no two training images of a class and is not trained", flush=True)
            break
        count = min(given.settings.cluster_every, iterations - done)
        _train(given, step, annotated, classes, quintuplets, count, rng, f"lmle: {name}, {done:,} of {iterations:,}")
        done += count
    warn_if_collapsed(features, f"lmle, {name}")
    return Learned(model.network.get_weights(), iterations, time.perf_counter() - began, clusters.centres, clusters.classes)


def _train(
    given: StageInput,
    step: Step,
    samples: np.ndarray,
    classes: np.ndarray,
    quintuplets: Quintuplets,
    iterations: int,
    rng: np.random.Generator,
    title: str,
) -> None:
    """So many steps on these quintuplets, whose indices are places in `samples`."""
    size = max(1, given.batch_size // 5)
    drawn = draw_anchors(classes, quintuplets.usable, batches=iterations, size=size, rng=rng)
    indices = samples[quintuplets.index[drawn]].reshape(-1)
    valid, cost = quintuplets.valid[drawn], class_costs(classes[drawn])
    data = given.pipeline("train", False, indices).rebatch(5 * size)
    for number, (images, _) in enumerate(track(data, title, total=iterations, transient=True)):
        for place, augmentation in enumerate(given.augment):
            seed = tf.constant([int(rng.integers(2**31)), place], tf.int64)
            images = AUGMENTATIONS[augmentation](images, seed)
        step(images, tf.constant(valid[number]), tf.constant(cost[number]))


def _make_step(unit: keras.Model, optimizer: keras.optimizers.Optimizer, margins: Sequence[float]) -> Step:
    variables = unit.trainable_variables
    optimizer.build(variables)

    @tf.function(reduce_retracing=True)
    def step(images: tf.Tensor, valid: tf.Tensor, cost: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            features = unit(images, training=True)
            five = tf.unstack(tf.reshape(features, [-1, 5, features.shape[-1]]), axis=1)
            loss = tf.reduce_sum(triple_header_hinge(*five, margins=margins, valid=valid, cost=cost))
            loss = tf.add_n([loss, *(tf.cast(term, tf.float32) for term in unit.losses)])
            scaled = optimizer.scale_loss(loss)
        optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))
        return loss

    return step
