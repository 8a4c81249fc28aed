"""How the weights move: SGD or AdamW, how their learning rate goes through the training, and a lower one for the backbone."""

from __future__ import annotations

import itertools
import math
import re
import warnings
from typing import Any

import keras
import tensorflow as tf
from ml_collections import ConfigDict

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "cosine", "step")


@keras.saving.register_keras_serializable(package="crl_tf")
class RateWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that is led up to: of the steps t = 0, 1, …, the t-th takes rate(t) * min(1, (t + 1) / steps).

    It lies over the first steps of the rate that it is given, and moves nothing behind them.

    Args:
        rate: a number, or a schedule of Keras.
        steps: the number of the first step that takes the whole rate, from 1 on.

    >>> [round(float(RateWarmup(0.4, 4)(step)), 3) for step in range(6)]
    [0.1, 0.2, 0.3, 0.4, 0.4, 0.4]
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


def check_optimization(settings: ConfigDict, backbone_rate: float = 1.0) -> None:
    """Refuses what the `train` section cannot mean by its optimizer and its schedule, and `network.backbone_rate`."""
    for name, value, known in (("optimizer", settings.optimizer, OPTIMIZERS), ("schedule", settings.schedule, SCHEDULES)):
        if value not in known:
            renamed = "; it is called adamw now" if value == "adam" else ""
            raise ValueError(f"train.{name} must be one of {known}, received {value!r}{renamed}")
    rate, momentum, decay, warmup = (settings[name] for name in ("learning_rate", "momentum", "weight_decay", "warmup_epochs"))
    for name, value, holds, rule in (
        ("learning_rate", rate, 0 < rate < math.inf, "> 0"),
        ("momentum", momentum, 0 <= momentum < 1, "in [0, 1)"),
        ("weight_decay", decay, 0 <= decay < math.inf, ">= 0"),
        ("step_factor", settings.step_factor, 0 < settings.step_factor < math.inf, "> 0"),
        (
            "warmup_epochs",
            warmup,
            0 <= warmup < settings.epochs,
            f">= 0 and less than the {settings.epochs} of train.epochs (--config.train.warmup_epochs=0 for none)",
        ),
    ):
        if not holds:
            raise ValueError(f"train.{name} must be {rule}, received {value!r}")
    _check_steps(settings.schedule, tuple(settings.step_epochs), settings.epochs)
    if not 0 < backbone_rate < math.inf:
        advice = ": to leave the backbone as it is, freeze it" if backbone_rate == 0 else ""
        raise ValueError(f"network.backbone_rate must be > 0, received {backbone_rate!r}{advice}")


def _check_steps(schedule: str, epochs: tuple[int, ...], length: int) -> None:
    whole = all(isinstance(epoch, int) and epoch > 0 for epoch in epochs)
    if not whole or any(after <= before for before, after in itertools.pairwise(epochs)):
        raise ValueError(f"train.step_epochs must be increasing ints > 0, received {epochs!r}")
    if schedule == "step" and not epochs:
        raise ValueError("train.step_epochs must name an epoch or more for train.schedule='step', received none")
    if epochs and epochs[0] >= length:
        warnings.warn(f"train.step_epochs {epochs}: the learning rate falls in none of the {length} epochs", stacklevel=2)
    if schedule != "step" and epochs:
        raise ValueError(f"train.step_epochs must be empty for train.schedule={schedule!r}, received {epochs!r}")


def make_optimizer(
    settings: ConfigDict, *, steps_per_epoch: int, backbone: keras.Model | None = None, backbone_rate: float = 1.0
) -> keras.optimizers.Optimizer:
    """The optimizer of the `train` section of a recipe.

    Weight decay is decoupled from the loss, for SGD too: a step takes learning rate * weight_decay of a weight away from it,
    whatever its gradient and its momentum are. It shrinks all that is trained, biases and normalisation included. A framework
    that adds the decay to the gradient instead, as those of the paper's time, lets momentum m carry it on: it decays
    1 / (1 - m) times as strongly, so that 0.0005 with momentum 0.9 there is 0.005 here.

    Args:
        settings: the `train` section.
        steps_per_epoch: steps of an epoch, the last and smaller batch included; schedules go by steps.
        backbone: the part of the network that learns at a rate of its own, built.
        backbone_rate: that rate (and so its decay in a step), as a multiple of the learning rate of everything else.
    Raises:
        ValueError: a setting cannot be (`check_optimization`).
    """
    check_optimization(settings, backbone_rate)
    slow = backbone.trainable_variables if backbone is not None and backbone_rate != 1 else []
    if not slow:
        return _at_rate(settings, settings.learning_rate, steps_per_epoch)
    # A variable keeps its path from a recipe to its model.keras and back; a function of the variable would not be saved. One
    # pattern for all paths: saved with a key each, the optimizer would be one per key when it is loaded.
    pattern = "|".join(re.escape(variable.path) for variable in slow)
    of_backbone = _at_rate(settings, settings.learning_rate * backbone_rate, steps_per_epoch, name="backbone")
    of_head = _at_rate(settings, settings.learning_rate, steps_per_epoch, name="head")
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(of_head, {pattern: of_backbone}))


def _at_rate(settings: ConfigDict, rate: float, steps_per_epoch: int, name: str | None = None) -> keras.optimizers.Optimizer:
    schedule = make_schedule(settings, rate, steps_per_epoch)
    if settings.optimizer == "adamw":
        return keras.optimizers.AdamW(schedule, weight_decay=float(settings.weight_decay), name=name)
    decay = float(settings.weight_decay) or None
    return keras.optimizers.SGD(schedule, momentum=float(settings.momentum), weight_decay=decay, name=name)


def make_schedule(
    settings: ConfigDict, rate: float, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """`rate` on the course that the `train` section gives it; a plain number where it stays what it is.

    Constant; cosine, from the whole rate in the first step down to where 0 would follow the last; or step, times `step_factor`
    from the first step behind each of `step_epochs` on. Each led up to over `warmup_epochs` (`RateWarmup`).
    """
    schedule = float(rate)
    if settings.schedule == "cosine":
        schedule = keras.optimizers.schedules.CosineDecay(schedule, settings.epochs * steps_per_epoch)
    elif settings.schedule == "step":
        # Keras takes a value up to its boundary, that step included, and counts steps from 0.
        boundaries = [epoch * steps_per_epoch - 1 for epoch in settings.step_epochs]
        rates = [rate * settings.step_factor**number for number in range(len(boundaries) + 1)]
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates)
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    return RateWarmup(schedule, warmup) if warmup else schedule
