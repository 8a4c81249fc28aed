"""Turns a configuration into the parts of a run, each bound to its values. No function after this receives the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from ml_collections import ConfigDict

from crl_tf.datasets.resampling import Resampled, resample
from crl_tf.experiment.config import base_config, checked, flattened, long_enough, loss_sections, override
from crl_tf.experiment.data import Data, load_data
from crl_tf.experiment.devices import strategy_of
from crl_tf.experiment.precision import settled
from crl_tf.experiment.settings import XLA
from crl_tf.experiment.trainers import TRAINERS
from crl_tf.experiment.trainers.base import Trainer
from crl_tf.experiment.trainers.optimizer import make_optimizer
from crl_tf.losses.base import Loss
from crl_tf.losses.table import make_loss
from crl_tf.models import build_network, find_network
from crl_tf.thresholds import Goal


@dataclass(frozen=True)
class Parts:
    """What a configuration stands for.

    names: what result.json says of it: dataset, model, method, loss, seed, epochs.
    recipe: all of its settings, for config.json.
    network: what is said of the network in one line: name, pretrained, backbone_rate.
    trainer: a row of `crl_tf.experiment.trainers.TRAINERS`. rule: the name of the decision rule.
    training: the other parts of the method: loss, trainer, resampling, order.
    load: (use_cache=, progress=) to the data.
    resample: (labels, schema) to the samples of an epoch; None where nothing is resampled.
    pairs: whether images of a class come in pairs.
    build_network: (image_size=, num_classes=, regions=) to the network. precision: the dtype policy of the model.
    takes_regions: whether the network looks at parts of an image. cosine_scale: the factor of its logits, if they are cosines.
    goal: of the thresholds, None for none. calibrate: whether logits are divided by temperatures.
    strategy: () to the devices that share each batch.
    make_loss: (problem=) to the loss. make_optimizer: (steps_per_epoch=, backbone=) to the optimizer.
    keep, patience, checkpoint_every, linear_svm, compile_options, embedding: as in `crl_tf.experiment.trainers.base.Task`.
    """

    names: Mapping[str, Any]
    recipe: Mapping[str, Any]
    network: Mapping[str, Any]
    trainer: Trainer
    rule: str
    goal: Goal | None
    calibrate: bool
    training: tuple[str, ...]
    load: Callable[..., Data]
    resample: Callable[..., Resampled] | None
    pairs: bool
    build_network: Callable[..., keras.Model]
    precision: str
    takes_regions: bool
    cosine_scale: float | None
    strategy: Callable[[], tf.distribute.Strategy]
    make_loss: Callable[..., Loss]
    make_optimizer: Callable[..., keras.optimizers.Optimizer]
    keep: str
    patience: int | None
    checkpoint_every: int | None
    linear_svm: bool
    compile_options: Mapping[str, Any]
    embedding: Mapping[str, Any]

    def trains_as(self, other: Parts, *, free: Iterable[str] = ()) -> bool:
        """Whether another run differs in nothing but its method's name and decision rule, and in settings that are free."""
        free = {"method", *free}
        own, others = ({k: v for k, v in flattened(parts.recipe).items() if k not in free} for parts in (self, other))
        return self.training == other.training and own == others

    def for_images(self, images: int) -> Parts:
        """These parts, trained for as many epochs as so many training images need (`config.long_enough`)."""
        config = override(base_config(), flattened(self.recipe))
        longer = long_enough(config, images)
        return self if longer is config else replace(assemble(longer), recipe=self.recipe)

    def check_weights(self) -> None:
        """Refuses pretrained weights that cannot be had or do not fit, before hours of reading images."""
        # Where a network looks at parts of an image, the data say which.
        if self.network["pretrained"] and not self.takes_regions:
            self.build_network(image_size=tuple(self.recipe["data"]["image_size"]), num_classes=[2], regions=None)

    @property
    def data_settings(self) -> dict[str, Any]:
        """The settings that decide which data `load` loads."""
        batch_size = self.recipe["train"]["batch_size"]
        return {**self.recipe["data"], **{name: self.names[name] for name in ("dataset", "seed")}, "batch_size": batch_size}


def assemble(config: ConfigDict) -> Parts:
    """Checks a configuration and returns its parts; reads no data and builds nothing.

    Raises:
        ValueError: a setting is not what it should be.
        MeaninglessForData: image size or network give the method no meaning.
    """
    config, method = checked(settled(config))
    network, settings, train = find_network(config.model), config.network, config.train
    return Parts(
        names={
            "dataset": config.dataset,
            "model": config.model,
            "method": config.method,
            "loss": method.loss if method.trainer == "gradient" else method.trainer,
            "seed": config.seed,
            "epochs": train.epochs,
        },
        recipe=config.to_dict(),
        network={"name": config.model, "pretrained": settings.pretrained, "backbone_rate": settings.backbone_rate},
        trainer=TRAINERS[method.trainer],
        rule=method.rule,
        goal=None if config.decision.threshold is None else Goal.parse(config.decision.threshold),
        calibrate=config.decision.calibrate,
        training=(method.loss, method.trainer, method.resampling, method.order),
        load=partial(load_data, config.dataset, config.data, seed=config.seed, batch_size=train.batch_size),
        resample=None if method.resampling == "none" else partial(resample, method.resampling, seed=config.seed),
        pairs=method.order == "pairs",
        build_network=partial(
            build_network,
            config.model,
            width=settings.width,
            pretrained=settings.pretrained,
            freeze=0 if settings.freeze == "none" else settings.freeze,
            cosine_scale=settings.cosine_scale,
            precision=train.precision,
            synchronized=settings.synchronized,
        ),
        precision=train.precision,
        takes_regions=network.parts,
        cosine_scale=settings.cosine_scale,
        strategy=partial(strategy_of, train.distribute),
        make_loss=partial(make_loss, method.loss, loss_sections(config), mining=train.mining),
        make_optimizer=partial(make_optimizer, train, backbone_rate=settings.backbone_rate),
        keep=train.keep,
        patience=train.patience,
        checkpoint_every=train.checkpoint_every,
        linear_svm=network.linear_svm,
        compile_options={"steps_per_execution": train.steps_per_execution, "jit_compile": XLA[train.xla]},
        embedding=config.embedding,
    )
