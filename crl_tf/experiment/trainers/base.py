"""The interface of trainers: what one is given, what it returns, and what the table of trainers says of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from crl_tf.crl_model import CRLModel
from crl_tf.datasets.pipeline import EpochNumber
from crl_tf.experiment.data import Data
from crl_tf.experiment.devices import Batches
from crl_tf.experiment.trainers.best_epoch import LAST
from crl_tf.losses.base import Loss
from crl_tf.progress import SILENT, Progress


@dataclass(frozen=True)
class Task:
    """What a trainer is given.

    data: the dataset, its class counts, and batches of it.
    workdir: the folder of the run. A trainer keeps there what a stopped run continues from.
    seed, epochs: as in the configuration. Every trainer takes as many steps as `epochs` means for the others.
    make_model: builds the network with random or pretrained weights, not compiled.
    make_optimizer: from a model and the steps of an epoch to a new optimizer.
    make_loss: builds the loss. Trainers that have a loss of their own do not call it.
    indices: the training images of an epoch where they are resampled (an array, or a function of the epoch), else None.
    pairs: whether images of a class come in pairs (`crl_tf.datasets.ordering.paired`).
    compile_options: arguments of `keras.Model.compile`: steps_per_execution, jit_compile.
    linear_svm: whether a linear SVM per label replaces the last layer after training.
    begin: deletes the old result and writes config.json; a trainer calls it just before it trains, with the model that it
        trains, if there is one, for a line on what is trained.
    keep: which epoch's weights are kept, "last" or "best" by the validation score. patience: the training ends after so many
        epochs without a better score; None: never. checkpoint_every: steps between two checkpoints within an epoch; None:
        none. These three are for the trainer by gradient.
    embedding: the settings of the trainers that decide by neighbours (the configuration's section "embedding").
    progress: receives the progress.
    strategy: the devices that share each batch.
    epoch: the number of the next epoch of the training batches (`Draws` sets it).
    """

    data: Data
    workdir: Path
    seed: int
    epochs: int
    make_model: Callable[[], CRLModel]
    make_optimizer: Callable[[CRLModel, int], keras.optimizers.Optimizer]
    make_loss: Callable[[], Loss]
    indices: np.ndarray | Callable[[int], np.ndarray] | None
    compile_options: Mapping[str, Any]
    linear_svm: bool
    embedding: Mapping[str, Any]
    pairs: bool = False
    keep: str = LAST
    patience: int | None = None
    checkpoint_every: int | None = None
    begin: Callable[..., None] = lambda model=None: None
    progress: Progress = SILENT
    strategy: tf.distribute.Strategy = field(default_factory=tf.distribute.get_strategy)
    epoch: EpochNumber = field(default_factory=EpochNumber)

    def training_batches(self, first_batch: int = 0) -> Batches:
        """The training batches of an epoch, without the first so many."""
        options = {"indices": self.indices, "pairs": self.pairs, "epoch": self.epoch, "first_batch": first_batch}
        return self.data.batches("train", training=True, strategy=self.strategy, **options)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.data.dataset.splits["train"]) / self.data.batch_size)


class Trained(NamedTuple):
    """model: from images [B, H, W, 3] in [0, 255] to scores float32 [B, sum(num_classes)]; the largest of a label is its
    decision. seconds: the time of training, without what an earlier, stopped run has spent where that is not known. facts: what
    else result.json says of the training."""

    model: keras.Model
    seconds: float
    facts: Mapping[str, Any] = MappingProxyType({})


class Trainer(NamedTuple):
    """A row of the table of trainers.

    train: trains a model, from the last checkpoint in the task's workdir if there is one.
    smallest_side: the least height and width of its images.
    resampling: whether it takes the indices and the pairs of a task; a trainer that draws its own samples does not.
    distributed: whether it trains on the devices of a task's strategy.
    """

    train: Callable[[Task], Trained]
    smallest_side: int = 1
    resampling: bool = False
    distributed: bool = False
