"""Optimizers of a configuration: SGD or AdamW, the schedule of the learning rate, and another rate for the backbone."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Mapping
from typing import Any

import keras
from ml_collections import ConfigDict

from crl_tf.optimizers import SGD, AdamW
from crl_tf.schedules import RateWarmup

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "cosine", "step")


def check_schedule(settings: Mapping[str, Any]) -> None:
    """Checks the rules between several settings of the section "train".

    Raises:
        ValueError: a warm-up as long as the training; step_epochs that do not increase, are missing for the schedule "step", or
            given for another.
    """
    epochs, schedule, steps = settings["epochs"], settings["schedule"], tuple(settings["step_epochs"])
    if settings["warmup_epochs"] >= epochs:
        raise ValueError(
            f"train.warmup_epochs must be less than the {epochs} of train.epochs (--config.train.warmup_epochs=0 for none),"
            f" received {settings['warmup_epochs']!r}"
        )
    if any(after <= before for before, after in itertools.pairwise(steps)):
        raise ValueError(f"train.step_epochs must increase, received {steps!r}")
    if schedule == "step" and not steps:
        raise ValueError("train.step_epochs must name an epoch or more for train.schedule='step', received none")
    if schedule != "step" and steps:
        raise ValueError(f"train.step_epochs must be empty for train.schedule={schedule!r}, received {steps!r}")
    if steps and steps[0] >= epochs:
        warnings.warn(f"train.step_epochs {steps}: the learning rate falls in none of the {epochs} epochs", stacklevel=2)


def make_optimizer(
    settings: ConfigDict, *, steps_per_epoch: int, backbone: keras.Model | None = None, backbone_rate: float = 1.0
) -> keras.optimizers.Optimizer:
    """The optimizer that the section "train" describes.

    Weight decay is decoupled from the loss, for SGD too: a step subtracts learning rate * weight_decay of a weight, whatever its
    gradient and momentum. It applies to all that is trained, biases and normalisation included. A framework that adds the decay
    to the gradient, as those of the paper's time, lets momentum m accumulate it: its decay is 1 / (1 - m) times as strong, so
    that 0.0005 with momentum 0.9 there is 0.005 here.

    `clip_norm` bounds the norm of the gradients of all weights together; of backbone and head each, where they have different
    rates.

    Args:
        settings: the section "train".
        steps_per_epoch: steps of an epoch, the last and smaller batch included.
        backbone: the part of the network with a learning rate of its own, built.
        backbone_rate: that rate (and so its decay in a step), as a multiple of the learning rate of everything else.
    """
    slow = backbone.trainable_variables if backbone is not None and backbone_rate != 1 else []
    if not slow:
        return _at_rate(settings, settings.learning_rate, steps_per_epoch)
    # By path, because a function of the variable would not be saved, and a variable keeps its path in a file. One pattern for
    # all paths: with a key each, a loaded optimizer would be one per key.
    pattern = "|".join(re.escape(variable.path) for variable in slow)
    of_backbone = _at_rate(settings, settings.learning_rate * backbone_rate, steps_per_epoch, name="backbone")
    of_head = _at_rate(settings, settings.learning_rate, steps_per_epoch, name="head")
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(of_head, {pattern: of_backbone}))


def _at_rate(settings: ConfigDict, rate: float, steps_per_epoch: int, name: str | None = None) -> keras.optimizers.Optimizer:
    schedule = make_schedule(settings, rate, steps_per_epoch)
    clip = None if settings.clip_norm is None else float(settings.clip_norm)
    if settings.optimizer == "adamw":
        return AdamW(schedule, weight_decay=float(settings.weight_decay), global_clipnorm=clip, name=name)
    decay = float(settings.weight_decay) or None
    momentum = float(settings.momentum)
    return SGD(schedule, momentum=momentum, weight_decay=decay, global_clipnorm=clip, name=name)


def make_schedule(
    settings: ConfigDict, rate: float, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The schedule of a rate that the section "train" describes; a number where it is constant.

    Cosine falls from the whole rate in the first step to 0 after the last. Step multiplies by `step_factor` from the first step
    after each of `step_epochs`. All start with a warm-up over `warmup_epochs` (`RateWarmup`).
    """
    schedule: float | keras.optimizers.schedules.LearningRateSchedule = float(rate)
    if settings.schedule == "cosine":
        schedule = keras.optimizers.schedules.CosineDecay(schedule, settings.epochs * steps_per_epoch)
    elif settings.schedule == "step":
        # Keras counts steps from 0 and includes the boundary in the value before it.
        boundaries = [epoch * steps_per_epoch - 1 for epoch in settings.step_epochs]
        rates = [rate * settings.step_factor**number for number in range(len(boundaries) + 1)]
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates)
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    return RateWarmup(schedule, warmup) if warmup else schedule
