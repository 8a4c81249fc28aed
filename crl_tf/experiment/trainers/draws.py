"""Lets everything random of an epoch follow from the seed and the epoch's number, so that a resumed training is the same."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from crl_tf.datasets.pipeline import EpochNumber
from crl_tf.losses.base import Loss


def random_states(model: keras.Model) -> list[Any]:
    """The variables that hold the states of all random generators of a model and its loss, in a fixed order."""
    states = [variable for variable in model.variables if variable.name == "seed_generator_state"]
    of_loss = [generator.state for generator in model.loss.seed_generators] if isinstance(model.loss, Loss) else []
    return [*states, *of_loss]


class Draws(keras.callbacks.Callback):
    """Sets, before each epoch, the pipeline's number of the epoch and all random generators of the model and its loss.

    Keras saves no state of random generators. Without this a training that continues would mirror, drop out and choose samples
    otherwise than one that was never stopped.

    Args:
        epoch: of the pipeline of the training batches.
        seed: of the run, >= 0.
    """

    def __init__(self, epoch: EpochNumber, seed: int) -> None:
        super().__init__()
        self._epoch, self._seed = epoch, seed

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch.number = epoch
        for place, state in enumerate(random_states(self.model)):
            state.assign(np.random.SeedSequence([self._seed, epoch, place]).generate_state(2, np.uint32).astype(np.int64) >> 1)
