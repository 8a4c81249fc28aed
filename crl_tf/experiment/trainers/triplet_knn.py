"""Trains features by the triplet loss and decides by k nearest neighbours (Schroff et al., CVPR 2015)."""

from __future__ import annotations

import time

import keras

from crl_tf.experiment.trainers.base import Task, Trained
from crl_tf.experiment.trainers.features import feature_model, freeze_beside, warn_if_collapsed
from crl_tf.experiment.trainers.gradient import fit_in_one_sitting
from crl_tf.experiment.trainers.neighbours import choose_references, decide_by_neighbours
from crl_tf.losses.triplet import TripletLoss


def train(task: Task) -> Trained:
    """Trains one network for all labels by the triplet loss with `embedding.margin`.

    Then it keeps the features of `embedding.references` training images, whose nearest `embedding.neighbours` decide. A run that
    was stopped starts again.
    """
    began = time.perf_counter()
    dataset = task.data.dataset
    references = choose_references(dataset.splits["train"].labels, task.embedding["references"], task.seed)
    keras.utils.set_random_seed(task.seed)
    model = task.make_model()
    features = feature_model(model)
    freeze_beside(model, features)
    loss = TripletLoss(list(dataset.schema.num_classes), margin=task.embedding["margin"])
    model.compile(task.make_optimizer(model, task.steps_per_epoch), loss=loss)
    task.begin(model)
    fit_in_one_sitting(task, model, task.epochs)
    decided = decide_by_neighbours(task, features, references, "triplet_knn")
    warn_if_collapsed(decided.get_layer("neighbours").known.numpy(), "triplet_knn")
    return Trained(decided, time.perf_counter() - began)
