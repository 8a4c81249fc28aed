"""Trains a model end to end by the gradient of one loss, with checkpoints to resume from and logs to look at."""

from __future__ import annotations

import csv
import logging
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np

from crl_tf.callbacks import StopAtNaN
from crl_tf.crl_model import CRLModel
from crl_tf.experiment.devices import Batches, steps_of
from crl_tf.experiment.trainers.archive import damage_of
from crl_tf.experiment.trainers.base import Task, Trained
from crl_tf.experiment.trainers.best_epoch import BEST, LAST, EndEarly, best, is_over, scores
from crl_tf.experiment.trainers.draws import Draws
from crl_tf.experiment.trainers.linear_svm import refit_last_layer
from crl_tf.experiment.trainers.mid_epoch import Position, StepCheckpoints, going_on, newest, read_position
from crl_tf.files import read_json, write_json, write_whole
from crl_tf.losses.base import Loss
from crl_tf.metrics import ClassBalancedAccuracy
from crl_tf.progress import SILENT, Progress

_log = logging.getLogger(__name__)

HISTORY = "history.csv"
"""One row per epoch, in the folder of a run."""

CHECKPOINTS = "checkpoint"
"""A file per epoch, of the last two and, where it is kept, of the best, in the folder of a run."""

TALLIES = "tallies.json"
"""What the loss has added up over the epochs (`Loss.tallied`)."""


def train(task: Task) -> Trained:
    """Trains the task's network by its loss, from the last checkpoint if there is one; the seconds are those of all epochs."""
    with task.strategy.scope():
        return _train(task)


def _train(task: Task) -> Trained:
    model, loss, batches = compiled(task)
    # Before anything is overwritten: a checkpoint may not fit.
    first = restore(model, task.workdir / CHECKPOINTS)
    task.begin(model)
    trained = fit(
        model,
        batches,
        task.data.batches("validation", strategy=task.strategy),
        epochs=task.epochs,
        workdir=task.workdir,
        first=first,
        keep=task.keep,
        patience=task.patience,
        every=task.checkpoint_every,
        rest=task.training_batches,
        callbacks=[Draws(task.epoch, task.seed), *loss.callbacks(task.epochs, task.data.dataset.schema.names)],
        progress=task.progress,
    )
    kept = keep_best(model, task.workdir, trained) if task.keep == BEST else trained
    if trained < task.epochs:
        _log.info("ended after %d of %d epochs: the validation score had not risen for %d", trained, task.epochs, task.patience)
    classes = {attribute.name: attribute.classes for attribute in task.data.dataset.schema.attributes}
    tallies = _Tallies.of(task.workdir, trained)
    facts = {"epochs_trained": trained, "epochs_kept": kept, **(loss.facts(tallies, classes) if tallies else {})}
    if task.linear_svm:
        _log.info("a linear SVM per label replaces the last layer, which the validation during training used")
        num_classes = task.data.dataset.schema.num_classes
        refit_last_layer(model, task.data.batches("train"), num_classes, progress=task.progress)
    return Trained(model, seconds_trained(task.workdir), facts)


def fit_in_one_sitting(task: Task, model: keras.Model, epochs: int) -> None:
    """Trains a compiled model on all training images, for the trainers that start anew when they are stopped."""
    model.fit(
        task.data.batches("train", training=True, epoch=task.epoch),
        epochs=epochs,
        shuffle=False,  # the pipeline has shuffled
        verbose=0,
        callbacks=[StopAtNaN(), Draws(task.epoch, task.seed), *task.progress.callbacks()],
    )


def compiled(task: Task) -> tuple[CRLModel, Loss, Batches]:
    """The task's network, compiled with its loss and optimizer; the loss; and the training batches of an epoch."""
    batches = task.training_batches()
    loss, model = task.make_loss(), task.make_model()
    optimizer = task.make_optimizer(model, steps_of(batches))
    metrics = [ClassBalancedAccuracy(list(task.data.dataset.schema.num_classes))]
    model.compile(optimizer, loss=loss, metrics=metrics, **task.compile_options)
    return model, loss, batches


def fit(
    model: keras.Model,
    train: Batches,
    validation: Batches,
    *,
    epochs: int,
    workdir: Path,
    first: int | None = None,
    keep: str = LAST,
    patience: int | None = None,
    every: int | None = None,
    rest: Callable[[int], Batches] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    progress: Progress = SILENT,
) -> int:
    """Trains to `epochs`, from the checkpoint in `workdir` if there is one, and saves one after every epoch.

    Writes `checkpoint/`, `logs/` (TensorBoard) and `history.csv`.

    Args:
        first: how many epochs are over, where the checkpoint is restored already.
        keep: "best" keeps the checkpoint of the best epoch too, for `keep_best`.
        patience: ends after so many epochs without a better validation score; None: never.
        every: also saves a checkpoint after every so many steps of an epoch; None: none.
        rest: the training batches of an epoch without the first so many, to go on within an epoch; None: it begins anew.
        callbacks: the first one draws what is random in an epoch, where there are some.
    Returns:
        how many epochs are over.
    Raises:
        Diverged: the loss is not finite after an epoch. The checkpoint of the epoch before is kept.
    """
    # Here, not in the first step: that would be traced twice, once to find that it creates variables.
    _build_optimizer(model)
    if first is None:
        first = restore(model, workdir / CHECKPOINTS)
    workdir.mkdir(parents=True, exist_ok=True)
    keep_epochs(workdir / HISTORY, first)
    if first >= epochs or is_over(scores(workdir / HISTORY), first, patience):
        return first
    position = _restore_within(model, workdir / CHECKPOINTS, first) if rest is not None else None
    if first and position is None:
        _log.info("on from epoch %d", first + 1)
    if isinstance(model, CRLModel):
        # On from the same sums: added up later, they would be rounded otherwise.
        model.continue_tallies(_Tallies.of(workdir, first) if position is None else position.tallies)

    def run(batches: Batches, first: int, last: int, position: Position | None = None) -> int:
        before = 0.0 if position is None else position.seconds
        together = [
            # The recorders come after the check for NaN, so that a diverged epoch is not recorded.
            *(*callbacks, StopAtNaN(), _EpochSeconds(before)),
            # Before the checkpoint: of an epoch that has one, tallies and history are known.
            *(_Tallies(workdir, first), keras.callbacks.CSVLogger(workdir / HISTORY, append=True), _Checkpoints(workdir, keep)),
            # After it: what it deletes is then no longer needed.
            StepCheckpoints(workdir / CHECKPOINTS, every, before),
            keras.callbacks.TensorBoard(workdir / "logs", write_graph=False),
            *(EndEarly(workdir / HISTORY, patience), *progress.callbacks()),
        ]
        if position is not None:
            together = going_on(together, position, position.step + steps_of(batches))
        # The pipeline has shuffled.
        options = {"initial_epoch": first, "epochs": last, "shuffle": False, "callbacks": together, "verbose": 0}
        return model.fit(batches, validation_data=validation, **options).epoch[-1] + 1

    if position is not None:
        _log.info("on from step %d of epoch %d", position.step, first + 1)
        first = run(rest(position.step), first, first + 1, position)
        if first >= epochs or is_over(scores(workdir / HISTORY), first, patience):
            return first
    return run(train, first, epochs)


def keep_best(model: keras.Model, workdir: Path, trained: int) -> int:
    """Gives the model the weights of its best epoch by the validation score; returns the number of the epoch.

    Args:
        trained: how many epochs are over, whose weights the model has.
    """
    folder = workdir / CHECKPOINTS
    epochs = best(scores(workdir / HISTORY), among=_epochs_in(folder))
    if epochs in (None, trained):
        return trained
    path = _checkpoint(folder, epochs)
    if damage := damage_of(path):
        _log.warning("%s, of the best epoch, is damaged (%s); the last epoch is kept", path, damage)
        return trained
    model.load_weights(path)
    return epochs


def seconds_trained(workdir: Path) -> float:
    """The seconds of all epochs in `history.csv`, those before a resume included; of an epoch run twice, the last time."""
    return sum(_epoch_seconds(workdir).values())


def usual_epoch_seconds(workdir: Path) -> float | None:
    """The mean seconds of the epochs in `history.csv`, without the first, which traces the step, if there are others.

    None where there is no such file, as other trainers write none.
    """
    if not (workdir / HISTORY).is_file():
        return None
    seconds = list(_epoch_seconds(workdir).values())
    return sum(seconds[1:]) / len(seconds[1:]) if len(seconds) > 1 else sum(seconds)


def _epoch_seconds(workdir: Path) -> dict[str, float]:
    with open(workdir / HISTORY, newline="") as file:
        return {row["epoch"]: float(row["seconds"]) for row in csv.DictReader(file)}


def keep_epochs(history: Path, count: int) -> None:
    """Rewrites `history.csv` with the rows of the first `count` epochs, each once.

    A stopped training may have left rows of epochs without a checkpoint, which are trained again, and half a row. Of an epoch
    that earlier versions wrote twice, the last row stays.
    """
    if not history.is_file():
        return
    with open(history, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or []
        rows = list(reader)
        # Of a training that was stopped at once, the file is empty, or ends in its heading.
        if rows and (absent := {"epoch", "seconds"} - set(names)):
            raise ValueError(f"{history} must have the column {min(absent)!r}, received {names}: delete it to go on without it")
        # A row that was cut has too few fields, which are None; two that ran together have too many, under the name None.
        whole = (row for row in rows if None not in row.values() and None not in row)
        by_epoch = {int(row["epoch"]): row for row in whole if row["epoch"].isdecimal() and _is_number(row["seconds"])}
    kept = [row for epoch, row in sorted(by_epoch.items()) if epoch < count]

    def write(partial: Path) -> None:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(kept)

    if kept:
        write_whole(history, write)
    else:
        history.unlink()


def _is_number(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False


def restore(model: keras.Model, folder: Path) -> int:
    """Loads the newest readable checkpoint, weights and optimizer, and returns the number of its epoch; 0 without one.

    A damaged one is renamed to damaged-*.keras, so that it does not count among the last two.

    Raises:
        ValueError: a whole checkpoint that does not fit the model.
    """
    for path in sorted(folder.glob("epoch-*.keras"), reverse=True):
        if damage := damage_of(path):
            path.rename(path.with_name(f"damaged-{path.name}"))
            _log.warning("%s is damaged (%s) and set aside; trying the one before", path, damage)
            continue
        _build_optimizer(model)
        try:
            model.load_weights(path)
        except (ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()
            raise ValueError(
                f"resume: the checkpoint {path} is whole and does not fit the network or its optimizer, as of another version or"
                f" other data: {reason[0] if reason else error!r}"
            ) from error
        return _epoch_of(path)
    return 0


def _checkpoint(folder: Path, epochs: int) -> Path:
    return folder / f"epoch-{epochs:06}.keras"


def _epoch_of(path: Path) -> int:
    return int(path.name.removeprefix("epoch-").removesuffix(".keras"))


def _epochs_in(folder: Path) -> list[int]:
    return sorted(map(_epoch_of, folder.glob("epoch-*.keras")))


def _restore_within(model: keras.Model, folder: Path, epoch: int) -> Position | None:
    """Loads the last checkpoint within the epoch after so many whole ones; None where there is none that is whole."""
    path = newest(folder, epoch)
    if path is None:
        return None
    try:
        if damage := damage_of(path):
            raise ValueError(damage)
        position = read_position(path)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        path.rename(path.with_name(f"damaged-{path.name}"))
        _log.warning("%s is damaged (%s) and set aside; the epoch begins anew", path, error)
        return None
    model.load_weights(path)
    return position


def _build_optimizer(model: keras.Model) -> None:
    # Once: a LossScaleOptimizer that is built again has its variables twice, and Keras then skips those of a checkpoint.
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


class _Checkpoints(keras.callbacks.Callback):
    """Saves weights and optimizer after each epoch by an atomic write, and keeps the last two; where asked, the best one too.

    Keras's BackupAndRestore writes over its file: a run killed or out of disk meanwhile could not be resumed. The form is
    .keras, which is put together in memory: HDF5 that meets a full disk ends the process.
    """

    def __init__(self, workdir: Path, keep: str) -> None:
        super().__init__()
        self._folder, self._history, self._keep = workdir / CHECKPOINTS, workdir / HISTORY, keep

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        write_whole(_checkpoint(self._folder, epoch + 1), self.model.save)
        present = _epochs_in(self._folder)
        best_one = best(scores(self._history), among=present)
        for old in present[:-2]:
            if old != best_one or self._keep != BEST:
                _checkpoint(self._folder, old).unlink()


class _Tallies(keras.callbacks.Callback):
    """Keeps what the loss adds up over all epochs, those before a resume included, in tallies.json; of the last two epochs.

    Keeps nothing where the tallies before a resume are not known: a part of the epochs would read as all of them.

    Args:
        workdir: the folder of the run.
        first: how many epochs are over.
    """

    def __init__(self, workdir: Path, first: int) -> None:
        super().__init__()
        self._path = workdir / TALLIES
        before = self.of(workdir, first)
        self._known = first == 0 or bool(before)
        self._epochs = {first: before}

    @staticmethod
    def of(workdir: Path, epoch: int) -> dict[str, np.ndarray]:
        """The tallies of the first `epoch` epochs; empty where they are not known."""
        kept = read_json(workdir / TALLIES) if (workdir / TALLIES).is_file() else {}
        return {name: np.array(values) for name, values in kept.get(str(epoch), {}).items()}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if not isinstance(self.model, CRLModel) or not self._known:
            return
        if total := self.model.tallies():
            self._epochs = {key: kept for key, kept in self._epochs.items() if key == epoch} | {epoch + 1: total}
            write_json(self._path, {key: {name: v.tolist() for name, v in kept.items()} for key, kept in self._epochs.items()})


class _EpochSeconds(keras.callbacks.Callback):
    """Adds `seconds`, training and validation, to the logs that the recorders after it write.

    Args:
        before: what the first epoch had taken before.
    """

    def __init__(self, before: float) -> None:
        super().__init__()
        self._before = before

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs["seconds"] = self._before + time.monotonic() - self._started
        self._before = 0.0
