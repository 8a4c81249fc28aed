"""Checkpoints within an epoch: what they hold beside the model, and how a training goes on from one, bit for bit."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from crl_tf.crl_model import CRLModel
from crl_tf.experiment.trainers.draws import random_states
from crl_tf.files import write_whole

_STATES, _METRICS = "random", "metric"


@dataclass(frozen=True)
class Position:
    """A place within an epoch.

    step: how many steps of the epoch are over. states: of all random generators (`random_states`). metrics: the sums of all
    metrics, in Keras's order. tallies: of the loss (`CRLModel.tallies`). seconds: of the epoch so far.
    """

    step: int
    states: list[np.ndarray]
    metrics: list[np.ndarray]
    tallies: dict[str, np.ndarray]
    seconds: float


class StepCheckpoints(keras.callbacks.Callback):
    """Saves a checkpoint after every so many steps of an epoch, and deletes those of an epoch when it is over.

    Args:
        folder: of the checkpoints.
        every: steps between two; None: none.
        seconds: that the epoch had taken before this process trained on it.
    """

    def __init__(self, folder: Path, every: int | None, seconds: float = 0.0) -> None:
        super().__init__()
        self._folder, self._every, self._before, self._saved = folder, every, seconds, 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch, self._began, self._saved = epoch, time.monotonic(), 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        step, steps = batch + 1, self.params.get("steps")
        # Of an execution of several steps, the last one is known; at the end of the epoch there is a checkpoint anyway.
        if self._every is None or step // self._every <= self._saved // self._every or step == steps:
            return
        path = path_of(self._folder, self._epoch, step)
        arrays = {f"{_STATES} {place}": np.array(state) for place, state in enumerate(random_states(self.model))}
        arrays |= {f"{_METRICS} {place}": np.array(sum_) for place, sum_ in enumerate(metric_sums(self.model))}
        tallies = self.model.tallies() if isinstance(self.model, CRLModel) else {}
        seconds = self._before + time.monotonic() - self._began
        write_whole(path.with_suffix(".npz"), lambda partial: _save(partial, **arrays, **tallies, seconds=np.array(seconds)))
        # Last: where it is, all of the checkpoint is.
        write_whole(path, self.model.save)
        for old in self._folder.glob("step-*"):
            if old.stem != path.stem:
                old.unlink()
        self._saved = step

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._before = 0.0
        for old in self._folder.glob("step-*"):
            old.unlink()


def _save(path: Path, **arrays: np.ndarray) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


def path_of(folder: Path, epoch: int, step: int) -> Path:
    """The checkpoint after so many whole epochs and so many steps of the next one."""
    return folder / f"step-{epoch:06}-{step:09}.keras"


def newest(folder: Path, epoch: int) -> Path | None:
    """The last checkpoint within the epoch that follows so many whole ones; None where there is none."""
    return max(folder.glob(f"step-{epoch:06}-*.keras"), default=None)


def read_position(path: Path) -> Position:
    """What a checkpoint within an epoch holds beside the model.

    Raises:
        ValueError, OSError, KeyError: it is damaged.
    """
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    seconds = float(arrays.pop("seconds"))
    states, metrics = (_numbered(arrays, kind) for kind in (_STATES, _METRICS))
    return Position(int(path.stem.rpartition("-")[2]), states, metrics, arrays, seconds)


def _numbered(arrays: dict[str, np.ndarray], kind: str) -> list[np.ndarray]:
    """Takes the arrays of a kind out, in order."""
    names = sorted((name for name in arrays if name.startswith(f"{kind} ")), key=lambda name: int(name.split()[1]))
    return [arrays.pop(name) for name in names]


def metric_sums(model: keras.Model) -> list[Any]:
    """The variables of all metrics of a model, which are sums over the steps of an epoch."""
    return list(itertools.chain.from_iterable(metric.variables for metric in model.metrics))


class _GoOn(keras.callbacks.Callback):
    """Puts the states of random generators and the sums of metrics back when the rest of an epoch begins."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self._position, self._added = position, False

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for state, value in zip(random_states(self.model), self._position.states, strict=True):
            state.assign(value)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        # Not before the first step, which makes the variables. a + b is b + a to the last bit.
        if not self._added:
            for variable, value in zip(metric_sums(self.model), self._position.metrics, strict=True):
                variable.assign_add(value)
            self._added = True


class _Shifted(keras.callbacks.Callback):
    """Tells a callback the steps of the whole epoch, of which only the rest is trained."""

    def __init__(self, callback: keras.callbacks.Callback, first: int, steps: int) -> None:
        super().__init__()
        self._callback, self._first, self._steps = callback, first, steps
        self.on_train_begin, self.on_train_end = callback.on_train_begin, callback.on_train_end
        self.on_epoch_begin, self.on_epoch_end = callback.on_epoch_begin, callback.on_epoch_end

    def set_params(self, params: dict[str, Any]) -> None:
        self._callback.set_params({**params, "steps": self._steps})

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._callback.set_model(model)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._callback.on_train_batch_begin(batch + self._first, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._callback.on_train_batch_end(batch + self._first, logs)


def going_on(callbacks: Sequence[keras.callbacks.Callback], position: Position, steps: int) -> list[keras.callbacks.Callback]:
    """The callbacks of the rest of an epoch, of so many steps in all, the one that restores the position after the first.

    The first of them draws what is random in an epoch (`Draws`).
    """
    first, *others = [_Shifted(callback, position.step, steps) for callback in callbacks]
    return [first, _GoOn(position), *others]
