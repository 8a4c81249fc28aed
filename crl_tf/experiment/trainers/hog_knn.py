"""HOG features and k nearest neighbours: nothing is learned but which images are remembered."""

from __future__ import annotations

import time

import keras
import numpy as np
from rich.progress import track

from crl_tf.experiment.trainers.base import StageInput, check_settings
from crl_tf.layers.hog import HOG, check_size, hog_of_images
from crl_tf.layers.nearest_neighbours import NearestNeighbours, choose_references


def learn_hog_knn(given: StageInput) -> tuple[keras.Model, float]:
    """The `references` training images by their HOG, which scikit-image computes here and the layer `HOG` of an image to decide.

    Args:
        given: of its settings, `references` and `neighbours` are looked at.
    Returns:
        a `Stage`'s model, and seconds.
    """
    check_settings(given.settings)
    check_size(given.image_size)
    began = time.perf_counter()
    labels = given.dataset.splits["train"].labels
    kept = choose_references(labels, given.settings.references, given.seed)
    data = given.pipeline("train", False, kept)
    batches = track(data, "HOG of training images", total=int(data.cardinality()), transient=True)
    features = np.concatenate([hog_of_images(images.numpy()) for images, _ in batches])
    decision = NearestNeighbours.of(
        features,
        labels[kept],
        num_classes=given.dataset.schema.num_classes,
        neighbours=given.settings.neighbours,
        name="neighbours",
    )
    images = keras.Input((*given.image_size, 3), dtype="float32", name="images")
    return keras.Model(images, decision(HOG(name="hog")(images)), name="hog_knn"), time.perf_counter() - began
