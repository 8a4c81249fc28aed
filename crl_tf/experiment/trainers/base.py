"""What a method with a training stage of its own is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from crl_tf.crl_model import CRLModel
from crl_tf.datasets.source import Dataset


class StageInput(NamedTuple):
    """All that a stage may look at.

    settings: the `embedding` section of a recipe.
    counts: training samples per class, an array per label.
    epochs, batch_size: as long, and with as many images a step, as any other method trains.
    workdir: the run's folder; a stage keeps what it may go on from in "embedding" inside.
    image_size: height, width.
    make_model: builds the recipe's network anew, not compiled.
    make_optimizer: from such a model and the steps of an epoch.
    pipeline: (split, training, indices or None) to batches of images uint8 [B, *image_size, 3] and labels int32 [B, L]; in
        order where not training.
    augment: names in `crl_tf.datasets.pipeline.AUGMENTATIONS`, for a stage that needs its training images in order.
    """

    settings: ConfigDict
    dataset: Dataset
    counts: list[np.ndarray]
    seed: int
    batch_size: int
    epochs: int
    workdir: Path
    image_size: tuple[int, int]
    make_model: Callable[[], CRLModel]
    make_optimizer: Callable[[CRLModel, int], keras.optimizers.Optimizer]
    pipeline: Callable[[str, bool, np.ndarray | None], tf.data.Dataset]
    augment: tuple[str, ...] = ()

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.dataset.splits["train"]) / self.batch_size)


Stage = Callable[[StageInput], tuple[keras.Model, float]]
"""To a model from images [B, *image_size, 3] in [0, 255] to numbers float32 [B, sum(num_classes)], the largest of a label's
being its decision, and the seconds of training."""


def check_settings(settings: ConfigDict) -> None:
    """Refuses what the `embedding` section of a recipe cannot mean.

    >>> from ml_collections import ConfigDict
    >>> check_settings(ConfigDict({"cluster_every": 0}))
    Traceback (most recent call last):
    ...
    ValueError: embedding.cluster_every must be an int >= 1, received 0
    """
    for name, least in (
        ("cluster_every", 1),
        ("cluster_size", 1),
        ("neighbours", 1),
        ("references", 1),
        ("pretraining_epochs", 0),
    ):
        value = settings[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"embedding.{name} must be an int >= {least}, received {value!r}")
    if not _is_margin(settings.margin):
        raise ValueError(f"embedding.margin must be a number >= 0, received {settings.margin!r}")
    if len(settings.margins) != 3 or not all(map(_is_margin, settings.margins)):
        raise ValueError(f"embedding.margins must be three numbers >= 0, received {tuple(settings.margins)!r}")


def _is_margin(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
