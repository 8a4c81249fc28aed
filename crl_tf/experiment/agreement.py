"""Holds the machines of a training to the same settings and the same images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from crl_tf.experiment.config import flattened
from crl_tf.experiment.data import Data
from crl_tf.replicas import of_all
from crl_tf.text import shortened
from crl_tf.version import __version__

OF_A_MACHINE = ("data.dir", "data.cache", "data.schema", "network.pretrained")
"""Settings that name files, which may be elsewhere on each machine."""


def agree_on_settings(strategy: tf.distribute.Strategy, recipe: Mapping[str, Any], history: Path) -> None:
    """Refuses a training whose machines were started with different settings, or go on with different runs; see `agree`.

    Args:
        recipe: all settings of the run; paths may differ. history: the run's file of epochs, which a new run does not have.
    """
    settings = {name: value for name, value in flattened(recipe).items() if name not in OF_A_MACHINE}
    epochs = history.read_text(encoding="utf-8") if history.is_file() else ""
    # By itself: other versions have other settings.
    agree(strategy, {"version of crl_tf": __version__})
    agree(strategy, {**settings, f"digest of {history.name} in workdir": _hash(epochs).hex()})


def agree_on_data(strategy: tf.distribute.Strategy, data: Data) -> None:
    """Refuses a training whose machines read different rows, labels or classes; see `agree`."""
    own = {f"digest of the rows of {name}": digest for name, digest in data.digests.items()}
    agree(strategy, {"labels and classes": data.dataset.schema.to_config(), **own})


def agree(strategy: tf.distribute.Strategy, own: Mapping[str, Any]) -> None:
    """Raises on every machine of a training where one of them has another value. On one machine there is nothing to compare.

    Args:
        strategy: of the training. own: what this machine has, by names that all of them know.
    Raises:
        ValueError: names what differs, and what this machine has.
        tf.errors.OpError: another machine does not answer.
    """
    if getattr(strategy, "cluster_resolver", None) is None:
        return
    hashed = np.frombuffer(b"".join(_hash(f"{name}={value!r}") for name, value in own.items()), np.int32)

    @tf.function
    def exchange() -> tf.Tensor:
        return strategy.run(lambda: of_all(tf.constant(hashed)[tf.newaxis]))

    of_every_machine = strategy.experimental_local_results(exchange())[0].numpy()
    differs = (of_every_machine != hashed).any(axis=0)
    wrong = [f"{name}={shortened(repr(value))}" for (name, value), other in zip(own.items(), differs, strict=True) if other]
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)} must be the same on all machines of a training, and another one has something else; start all of"
            " them again with the same flags and the same data"
        )


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=4).digest()
