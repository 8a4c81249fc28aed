"""Triplet-kNN: features learned by the triplet loss, decided by k nearest neighbours (Schroff et al., CVPR 2015)."""

from __future__ import annotations

import time

import keras

from crl_tf.callbacks import StopAtNaN
from crl_tf.experiment.trainers.base import StageInput, check_settings
from crl_tf.experiment.trainers.features import extract_features, feature_model, freeze_beside, inference, warn_if_collapsed
from crl_tf.layers.nearest_neighbours import NearestNeighbours, choose_references
from crl_tf.losses.triplet import TripletLoss


def learn_triplet_knn(given: StageInput) -> tuple[keras.Model, float]:
    """All labels at once on one network, for `epochs`; then the features of `references` training images are remembered.

    A run that was stopped begins again.

    Args:
        given: of its settings, `margin`, `references` and `neighbours` are looked at.
    Returns:
        a `Stage`'s model, and seconds.
    """
    check_settings(given.settings)
    began = time.perf_counter()
    labels, num_classes = given.dataset.splits["train"].labels, list(given.dataset.schema.num_classes)
    kept = choose_references(labels, given.settings.references, given.seed)
    keras.utils.set_random_seed(given.seed)
    model = given.make_model()
    features = feature_model(model)
    freeze_beside(model, features)
    model.compile(given.make_optimizer(model, given.steps_per_epoch), loss=TripletLoss(num_classes, margin=given.settings.margin))
    model.fit(given.pipeline("train", True, None), epochs=given.epochs, shuffle=False, verbose=2, callbacks=[StopAtNaN()])

    known = extract_features(inference(features), given.pipeline("train", False, kept))
    warn_if_collapsed(known, "triplet_knn")
    decision = NearestNeighbours.of(
        known, labels[kept], num_classes=num_classes, neighbours=given.settings.neighbours, name="neighbours"
    )
    return keras.Model(features.input, decision(features.output), name="triplet_knn"), time.perf_counter() - began
