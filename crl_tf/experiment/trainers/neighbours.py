"""Decisions by the nearest training images: which of them are the references, and the model that compares with them."""

from __future__ import annotations

import keras
import numpy as np

from crl_tf.experiment.trainers.base import Task
from crl_tf.experiment.trainers.features import extract_features, inference
from crl_tf.layers.nearest_neighbours import NearestNeighbours


def choose_references(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draws training images at random, among them one of each class that occurs: their indices, int64, ascending.

    One set serves all labels: an image does not vote on a label that it is not annotated for.

    Args:
        labels: int [n, L], -1 = not annotated; an image without any annotation is never drawn.
        count: the number of images, where there are as many.
        seed: of the choice.
    Raises:
        ValueError: a count below what the classes need.

    >>> choose_references(np.array([[0], [0], [-1], [0], [1]]), 2, seed=0)[-1]
    np.int64(4)
    """
    order = np.random.default_rng([seed, 1]).permutation(np.flatnonzero((labels >= 0).any(axis=1)))
    if not len(order):
        raise ValueError("choose_references: no training image has an annotation")
    # Of each label the first image of each value, in the random order; that of -1 is not needed.
    first = [order[np.unique(column, return_index=True)[1]] for column in labels[order].T]
    needed = np.unique(np.concatenate([images[labels[images, label] >= 0] for label, images in enumerate(first)]))
    if count < len(needed):
        raise ValueError(f"embedding.references must be {len(needed)} or more to keep one image of each class, received {count}")
    others = order[~np.isin(order, needed)]
    return np.sort(np.concatenate([needed, others[: count - len(needed)]]))


def decide_by_neighbours(task: Task, features: keras.Model, references: np.ndarray, name: str) -> keras.Model:
    """The model from images to the votes of the nearest references, by the features that another model computes.

    Args:
        features: from images to features [B, D] or [B, L, D]; its layers become layers of the result.
        references: indices of training images.
        name: of the result. Its last layer, "neighbours", holds the features of the references.
    """
    dataset = task.data.dataset
    batches = task.data.batches("train", indices=references)
    tracked = task.progress.track(batches, "features of the references", total=int(batches.cardinality()))
    decision = NearestNeighbours.of(
        extract_features(inference(features), tracked),
        dataset.splits["train"].labels[references],
        num_classes=list(dataset.schema.num_classes),
        neighbours=task.embedding["neighbours"],
        name="neighbours",
    )
    return keras.Model(features.input, decision(features.output), name=name)
