"""The table of trainers: how a model is trained for a method."""

from __future__ import annotations

from crl_tf.experiment.trainers import gradient, hog_knn, lmle, triplet_knn
from crl_tf.experiment.trainers.base import Trainer
from crl_tf.layers import hog

TRAINERS: dict[str, Trainer] = {
    "gradient": Trainer(gradient.train, resampling=True, distributed=True),
    "lmle": Trainer(lmle.train),
    "triplet_knn": Trainer(triplet_knn.train),
    "hog_knn": Trainer(hog_knn.train, smallest_side=hog.SMALLEST_SIDE),
}
