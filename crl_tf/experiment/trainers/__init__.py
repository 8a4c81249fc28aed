"""Methods with a training stage of their own: features are learned or computed first, and then compared with what is remembered.

`stage` says what a stage is given; `lmle`, `triplet_knn` and `hog_knn` are the stages.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from ml_collections import ConfigDict

from crl_tf.experiment.trainers.base import Stage, check_settings
from crl_tf.experiment.trainers.hog_knn import learn_hog_knn
from crl_tf.experiment.trainers.lmle.trainer import learn_lmle
from crl_tf.experiment.trainers.triplet_knn import learn_triplet_knn
from crl_tf.layers.hog import check_size

STAGES: dict[str, Stage] = {"lmle": learn_lmle, "triplet_knn": learn_triplet_knn, "hog_knn": learn_hog_knn}


def check_stage(name: str, settings: ConfigDict, image_size: Sequence[int]) -> None:
    """Refuses what a stage could not do with these settings, this image size and what is installed, before anything is read."""
    check_settings(settings)
    if name == "hog_knn":
        check_size(image_size)
        if importlib.util.find_spec("skimage") is None:
            raise ValueError("hog_knn wants scikit-image, which is not installed: pip install -e '.[hog]'")
