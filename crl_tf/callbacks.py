"""Keras callbacks: ramp alpha up, tell a loss how much of the training is over, stop at a loss that is NaN."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class Diverged(ValueError):
    """The loss, or what was learned with it, is not finite."""


class StopAtNaN(keras.callbacks.Callback):
    """Ends training with `Diverged` after an epoch whose loss is not finite. List it before the callbacks that record an epoch.

    >>> StopAtNaN().on_epoch_end(0, {"loss": float("nan")})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    crl_tf.callbacks.Diverged: the loss became nan in epoch 1: lower learning_rate, or raise alpha_warmup_epochs; ...
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not tf.math.is_finite(loss):
            raise Diverged(
                f"the loss became {loss} in epoch {epoch + 1}: lower learning_rate, or raise alpha_warmup_epochs; the checkpoint"
                " of the epoch before is kept"
            )


class AlphaWarmup(keras.callbacks.Callback):
    """Scales alpha linearly from 0 at the first step to its full value after `epochs` epochs, step by step.

    While Keras does not know how many steps an epoch has, alpha moves once per epoch. While all probabilities are still alike,
    rectification pulls harder than cross-entropy, and a network without normalisation can stay at chance.

    Args:
        loss: the `CRL` that is trained with.
        epochs: length of the ramp, >= 0; 0 for none.
    Raises:
        ValueError: a loss without alpha, or epochs below 0.

    >>> from crl_tf import CRL
    >>> loss = CRL(3, alpha=0.5)
    >>> callback = AlphaWarmup(loss, epochs=2)  # model.fit(..., callbacks=[callback])
    >>> callback.set_params({"steps": 10})
    >>> callback.on_epoch_begin(0)
    >>> callback.on_train_batch_begin(5)
    >>> float(loss.alpha_scale)
    0.25
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
    """Sets the `progress` of a loss at the start of every epoch to the share of the epochs that are over.

    A resumed training continues at the right place.

    Args:
        loss: one with a `progress` variable, such as `LDAMLoss`.
        epochs: of the whole training, >= 1.
    Raises:
        ValueError: a loss without `progress`, or epochs below 1.

    >>> from crl_tf import LDAMLoss
    >>> loss = LDAMLoss(2, [30, 10])
    >>> TrainingProgress(loss, epochs=10).on_epoch_begin(8)
    >>> round(float(loss.progress), 2)
    0.8
    """

    def __init__(self, loss: Any, epochs: int) -> None:
        super().__init__()
        if not hasattr(loss, "progress"):
            raise ValueError(f"loss must be one with a progress variable, received {type(loss).__name__}")
        if epochs < 1:
            raise ValueError(f"epochs must be >= 1, received {epochs!r}")
        self._loss, self._epochs = loss, epochs

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._loss.progress.assign(epoch / self._epochs)
