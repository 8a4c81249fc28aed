"""A loss that became no number: what it is called, and how training stops at it."""

from __future__ import annotations

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
