"""Trains nothing: HOG features, decided by k nearest neighbours (Dalal & Triggs, CVPR 2005)."""

from __future__ import annotations

import time

import keras

from crl_tf.experiment.trainers.base import Task, Trained
from crl_tf.experiment.trainers.neighbours import choose_references, decide_by_neighbours
from crl_tf.layers.hog import HOG


def train(task: Task) -> Trained:
    """Keeps the HOG features of `embedding.references` training images, whose nearest `embedding.neighbours` decide."""
    began = time.perf_counter()
    references = choose_references(task.data.dataset.splits["train"].labels, task.embedding["references"], task.seed)
    images = keras.Input((*task.data.image_size, 3), dtype="float32", name="images")
    features = keras.Model(images, HOG(name="hog")(images))
    task.begin()
    return Trained(decide_by_neighbours(task, features, references, "hog_knn"), time.perf_counter() - began)
