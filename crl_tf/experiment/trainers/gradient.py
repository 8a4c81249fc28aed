"""Fitting a model, with checkpoints to resume from and logs to look at."""

from __future__ import annotations

import contextlib
import csv
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import tensorflow as tf
from ml_collections import ConfigDict

from crl_tf.callbacks import StopAtNaN
from crl_tf.files import write_whole

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
XLA = {"auto": "auto", "on": True, "off": False}
"""What `train.xla` can be, and what Keras calls it. Keras's "auto" is off on a CPU, where XLA was measured to cost time."""


def check_execution(settings: ConfigDict) -> None:
    """Refuses what the `train` section cannot mean by `steps_per_execution`, `xla` and `precision`."""
    if settings.steps_per_execution < 1:
        raise ValueError(f"steps_per_execution must be an int >= 1, received {settings.steps_per_execution!r}")
    for name, value, known in (("xla", settings.xla, tuple(XLA)), ("precision", settings.precision, PRECISIONS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {known}, received {value!r}")


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Models built inside compute in this precision, and keep it; the process has its own policy back afterwards.

    >>> with precision("mixed_bfloat16"):
    ...     layer = keras.layers.Dense(3)
    >>> layer.compute_dtype, layer.variable_dtype, keras.config.dtype_policy().name
    ('bfloat16', 'float32', 'float32')
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def fit(
    model: keras.Model,
    train: tf.data.Dataset,
    validation: tf.data.Dataset,
    *,
    epochs: int,
    workdir: Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> keras.callbacks.History:
    """Trains to `epochs`, from the checkpoint in `workdir` if there is one, and leaves one after every epoch.

    Writes `checkpoint/`, `logs/` (TensorBoard) and `history.csv`. A loss that is no number any more ends the training with
    `Diverged`; the last whole checkpoint stays.
    """
    # Here and not by the first step, which would then be traced twice: once to find that it makes variables.
    _build_optimizer(model)
    recorders = [
        _Checkpoints(workdir / "checkpoint"),
        keras.callbacks.TensorBoard(workdir / "logs", write_graph=False),
        keras.callbacks.CSVLogger(workdir / "history.csv", append=True),
    ]
    return model.fit(
        train,
        validation_data=validation,
        initial_epoch=restore(model, workdir / "checkpoint"),
        epochs=epochs,
        shuffle=False,  # the pipeline has shuffled
        callbacks=[StopAtNaN(), *callbacks, _EpochSeconds(), *recorders, _Progress()],
        verbose=1 if sys.stdout.isatty() else 2,
    )


def seconds_trained(workdir: Path) -> float:
    """Seconds of all epochs in `history.csv`, those before a resume included; of an epoch run twice, the last time."""
    with open(workdir / "history.csv", newline="") as file:
        return sum({row["epoch"]: float(row["seconds"]) for row in csv.DictReader(file)}.values())


def restore(model: keras.Model, folder: Path) -> int:
    """Loads the newest checkpoint that can be read, weights and optimizer, and returns how many epochs it has behind it."""
    for path in sorted(folder.glob("epoch-*.keras"), reverse=True):
        try:
            _build_optimizer(model)
            model.load_weights(path)
            return int(path.name.removeprefix("epoch-").removesuffix(".keras"))
        except (OSError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
            print(f"{path} cannot be read ({error}); trying the one before", flush=True)
    return 0


def _build_optimizer(model: keras.Model) -> None:
    # Once: a LossScaleOptimizer that is built again has its variables twice, and Keras then skips those of a checkpoint.
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


class _Checkpoints(keras.callbacks.Callback):
    """Weights and optimizer after each epoch, whole or not at all, the last two kept.

    In place of Keras's BackupAndRestore, which writes over its file: a run killed or out of disk while it did so could not be
    resumed. As .keras, which is put together in memory: HDF5 that meets a full disk takes the process down as it exits.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        write_whole(self._folder / f"epoch-{epoch + 1:06}.keras", self.model.save)
        for old in sorted(self._folder.glob("epoch-*.keras"))[:-2]:
            old.unlink()


class _Progress(keras.callbacks.ProgbarLogger):
    """Keras's, which would show step 4 of 3 where the last execution of an epoch holds fewer steps than the others."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        super().on_train_batch_end(batch if self.target is None else min(batch, self.target - 1), logs)


class _EpochSeconds(keras.callbacks.Callback):
    """Adds `seconds`, training and validation, to the logs that the recorders behind it write."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs["seconds"] = time.monotonic() - self._started
