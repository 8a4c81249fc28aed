"""How far training has come, for losses that change with it."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def progress_variable() -> tf.Variable:
    """What a loss that changes with training reads, and `TrainingProgress` moves: 0 at the start, towards 1 at the end.

    A variable, so that a traced training step sees it move; it is not saved.
    """
    return tf.Variable(0.0, trainable=False, name="progress", dtype=tf.float32)


class TrainingProgress(keras.callbacks.Callback):
    """Tells a loss at the start of every epoch which share of the epochs is over, so that a resumed run goes on where it was.

    Args:
        loss: one with a `progress` variable.
        epochs: of the whole training.

    >>> from types import SimpleNamespace
    >>> loss = SimpleNamespace(progress=progress_variable())
    >>> TrainingProgress(loss, epochs=10).on_epoch_begin(8)
    >>> round(float(loss.progress), 2)
    0.8
    """

    def __init__(self, loss: Any, epochs: int) -> None:
        super().__init__()
        if not hasattr(loss, "progress"):
            raise ValueError(f"loss must be one that changes with training, received {type(loss).__name__}")
        if epochs < 1:
            raise ValueError(f"epochs must be >= 1, received {epochs!r}")
        self._loss, self._epochs = loss, epochs

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._loss.progress.assign(epoch / self._epochs)
