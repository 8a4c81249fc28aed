"""Ramping alpha of eq. 8 up from 0 over the first epochs."""

from __future__ import annotations

from typing import Any

import keras

from crl_tf.losses.crl import CRL


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

    def __init__(self, loss: CRL, epochs: int) -> None:
        super().__init__()
        if not isinstance(loss, CRL):
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
