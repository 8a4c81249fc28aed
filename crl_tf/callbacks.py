"""Keras callbacks: ramp alpha up, tell a loss how much of the training is over, stop at a loss that is NaN."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.checks import real


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
        loss: the `CRL` that the model is compiled with: the same object.
        epochs: length of the ramp, >= 0; 0 for none.
    Raises:
        ValueError: a loss without alpha, or epochs below 0; at the start of the training, a loss that the model is not compiled
            with.

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
        if not 0 <= real(epochs) < float("inf"):
            raise ValueError(f"epochs must be a number >= 0, received {epochs!r}")
        self._loss = loss
        self._epochs = epochs
        self._epoch = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        compiled = keras.tree.flatten(getattr(self.model, "loss", None))
        # A base loss belongs to the loss that it is in. Without a compiled loss the training step has one of its own.
        known = [loss for of in compiled for loss in (of, getattr(of, "base", None)) if loss is not None]
        if known and not any(loss is self._loss for loss in known):
            raise ValueError(
                "AlphaWarmup: loss must be the one that the model is compiled with, the same object, received another"
                f" {type(self._loss).__name__}: its alpha would have no effect"
            )

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


class CollapseWarning(keras.callbacks.Callback):
    """Warns, once per label, while rectification pulls the scores of a label together.

    Equal scores of a class give a relative or absolute L_crl of a known value (the margin; half its square). A mean above it in
    two epochs in a row says that mined negatives outscore mined positives, so that the gradient leads to equal scores.
    It reads the tallies of a `CRLModel`, and does nothing in another model.

    Args:
        label_names: what the warning calls the labels; None for their numbers.
    """

    MOST_NAMED = 5

    def __init__(self, label_names: Sequence[str] | None = None) -> None:
        super().__init__()
        self._names = label_names
        self._before: Mapping[str, np.ndarray] = {}
        self._above: set[int] = set()
        self._warned: set[int] = set()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        # What an earlier training with the same model has added up is not of this one's first epoch.
        self._before = self.model.tallies() if hasattr(self.model, "tallies") else {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not hasattr(self.model, "tallies"):
            return
        now = self.model.tallies()
        compared, relative = (now[name] - self._before.get(name, 0.0) for name in ("compared", "relative"))
        above = set(np.flatnonzero((compared > 0) & (relative > compared)).tolist())
        new = sorted((above & self._above) - self._warned)
        self._before, self._above = now, above
        if not new:
            return
        self._warned |= set(new)
        names = [repr(self._names[j]) if self._names else f"label {j}" for j in new[: self.MOST_NAMED]]
        more = f" and {len(new) - len(names)} more" if len(new) > len(names) else ""
        warnings.warn(
            f"L_crl of {', '.join(names)}{more} stays above its value for equal scores (epoch {epoch + 1}): the classes are not"
            " apart yet, and rectification pulls their scores together. Use gate=True (crl.gate), a smaller eta or alpha, or a"
            " longer alpha_warmup_epochs",
            stacklevel=2,
        )


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
