"""Callbacks that training needs: ramping alpha up, telling a loss how far training is, stopping at a loss that is NaN."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class Diverged(ValueError):
    """The loss, or what was learned by it, is no number any more."""


class StopAtNaN(keras.callbacks.Callback):
    """Ends training with `Diverged` after an epoch whose loss is not finite; to stand before whatever records the epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not tf.math.is_finite(loss):
            raise Diverged(
                f"the loss became {loss} in epoch {epoch + 1}: lower learning_rate, or raise alpha_warmup_epochs; the checkpoint"
                " of the epoch before is kept"
            )


class AlphaWarmup(keras.callbacks.Callback):
    """Scales alpha linearly from 0 at the first step to its full value after `epochs` epochs, step by step (epoch by epoch
    while Keras does not know how many steps an epoch has).

    A DeepID2 without normalisation was seen to stay at chance with alpha near 0.25 from the first step on: while all
    probabilities are alike, rectification pulls harder than cross-entropy, and towards nothing.

    Args:
        loss: the `CRL` that is trained with.
        epochs: length of the ramp, 0 for none.

    >>> loss = CRL(3, alpha=0.5)
    >>> callback = AlphaWarmup(loss, epochs=2)  # model.fit(..., callbacks=[callback])
    """

    def __init__(self, loss: Any, epochs: int) -> None:
        super().__init__()
        if not hasattr(loss, "alpha_scale"):
            raise ValueError(f"loss must be a crl_tf.CRL, received {type(loss).__name__}")
        if epochs < 0:
            raise ValueError(f"epochs must be >= 0, received {epochs!r}")
        self._loss = loss
        self._epochs = epochs
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._set(0.0)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        steps = self.params.get("steps")
        self._set(batch / steps if steps else 0.0)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._loss.alpha_scale.assign(1.0)

    def _set(self, share_of_epoch: float) -> None:
        if self._epochs:
            self._loss.alpha_scale.assign(min(1.0, (self._epoch + share_of_epoch) / self._epochs))


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
