"""Learning rate schedules."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from crl_tf.serialization import registered


@registered
class RateWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """A warm-up of a learning rate: step t = 0, 1, … takes rate(t) * min(1, (t + 1) / steps).

    Args:
        rate: a number, or a schedule of Keras.
        steps: the length of the warm-up, >= 1.

    >>> print(*(round(float(RateWarmup(0.4, 4)(step)), 3) for step in range(6)))
    0.1 0.2 0.3 0.4 0.4 0.4
    """

    def __init__(self, rate: float | keras.optimizers.schedules.LearningRateSchedule, steps: int) -> None:
        self.rate, self.steps = rate, steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        rate = tf.cast(self.rate(step) if callable(self.rate) else self.rate, tf.float32)
        return rate * tf.minimum(1.0, (tf.cast(step, tf.float32) + 1.0) / self.steps)

    def get_config(self) -> dict[str, Any]:
        return {"rate": keras.saving.serialize_keras_object(self.rate), "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RateWarmup:
        return cls(keras.saving.deserialize_keras_object(config["rate"]), config["steps"])
