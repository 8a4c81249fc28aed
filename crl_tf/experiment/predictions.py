"""What a model says of every image of a split: its logits, and the class that each decision rule decides on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from crl_tf.experiment.devices import Batches, steps_of
from crl_tf.files import write_whole
from crl_tf.layout import PADDING_LOGIT, Layout
from crl_tf.progress import SILENT, Progress
from crl_tf.replicas import of_all

PREDICTIONS = "predictions.npz"
"""Its name in the folder of a run."""

Decide = Callable[[tf.Tensor], tf.Tensor]
"""From the concatenated logits [B, sum(num_classes)] to numbers of that shape, of whose columns the largest decides."""

IN_MEMORY = 2**28
"""Bytes of logits that are kept in memory; more go to a temporary file, which is mapped and deleted with the last use."""

CHUNK = 2**22
"""Logits that are decided at a time."""


class Outputs(NamedTuple):
    """labels: int32 [N, L], -1 = not annotated. logits: float32 [N, sum(num_classes)], an array or a mapped file."""

    labels: np.ndarray
    logits: np.ndarray


def collect_outputs(
    model: keras.Model,
    data: Batches,
    num_classes: Sequence[int],
    *,
    strategy: tf.distribute.Strategy | None = None,
    progress: Progress = SILENT,
    in_memory: int = IN_MEMORY,
) -> Outputs:
    """Labels and logits of all images, in one pass.

    Args:
        model: from images to concatenated logits.
        data: batches of images and labels [B, L].
        num_classes: of each label.
        strategy: of whose replicas each computes its share of a batch; all machines have the outputs of all images.
        in_memory: bytes of logits above which they are kept in a temporary file (in the folder that TMPDIR names).
    """
    width = sum(num_classes)
    strategy = strategy or tf.distribute.get_strategy()

    def of_replica(images: tf.Tensor, of_images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = tf.reshape(tf.cast(model(images, training=False), tf.float32), [-1, width])
        return of_all(logits), of_all(of_images)

    @tf.function(reduce_retracing=True, autograph=False)
    def of_batch(*batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tuple(strategy.experimental_local_results(value)[0] for value in strategy.run(of_replica, args=batch))

    labels: list[np.ndarray] = [np.zeros((0, len(num_classes)), np.int32)]
    batches: list[np.ndarray] = [np.zeros((0, width), np.float32)]
    file, kept = None, 0
    for batch in progress.track(data, "measuring", steps_of(data)):
        logits, of_images = of_batch(*batch)
        labels.append(np.asarray(of_images, np.int32))
        batches.append(logits.numpy())
        kept += batches[-1].nbytes
        if file is None and kept > in_memory:
            file = tempfile.TemporaryFile()  # the map keeps it open
        if file is not None:
            for waiting in batches:
                file.write(waiting.tobytes())
            batches = []
    if file is None:
        return Outputs(np.concatenate(labels), np.concatenate(batches))
    file.flush()
    return Outputs(np.concatenate(labels), np.memmap(file, np.float32, "r", shape=(kept // (4 * width), width)))


def decisions(logits: np.ndarray, num_classes: Sequence[int], decide: Decide = tf.identity) -> np.ndarray:
    """The class that is decided on for every image and label, uint16 [N, L].

    Args:
        logits: float32 [N, sum(num_classes)].

    >>> decisions(np.array([[1, 2, 0, 3, 1]], np.float32), (2, 3)).tolist()
    [[1, 1]]
    """
    layout = Layout.of(num_classes)
    decided = np.empty((len(logits), len(layout)), np.uint16)
    rows = max(1, CHUNK // layout.width)
    for start in range(0, len(logits), rows):
        of_chunk = decide(tf.constant(np.asarray(logits[start : start + rows])))
        decided[start : start + rows] = tf.argmax(layout.pad(of_chunk, PADDING_LOGIT), axis=-1).numpy()
    return decided


def confusions(labels: np.ndarray, decided: np.ndarray, num_classes: Sequence[int]) -> list[np.ndarray]:
    """Counts per label, int64 [C, C] (rows = truth, columns = decided), of int [N, L] and [N, L].

    >>> confusions(np.array([[0], [1], [1], [-1]]), np.array([[0], [0], [1], [1]]), (2,))[0].tolist()
    [[1, 0], [1, 1]]
    """
    matrices = []
    for index, size in enumerate(num_classes):
        known = labels[:, index] >= 0
        cells = labels[known, index].astype(np.int64) * size + decided[known, index]
        matrices.append(np.bincount(cells, minlength=size * size).reshape(size, size))
    return matrices


@dataclass(frozen=True)
class Predictions:
    """What was decided on the images of a test split; the content of `predictions.npz`.

    labels: int16 or int32 [N, L], -1 = not annotated. decided: by decision rule, uint16 [N, L]. rule: that of the run.
    num_classes: of each label. train_counts: of each label, training samples per class, int64 [C].
    """

    labels: np.ndarray
    decided: Mapping[str, np.ndarray]
    rule: str
    num_classes: tuple[int, ...]
    train_counts: tuple[np.ndarray, ...]


def save_predictions(predictions: Predictions, path: Path) -> None:
    """Writes a compressed .npz atomically.

    Its arrays: labels [N, L], decided uint16 [R, N, L], rules (R names), rule, num_classes [L], and train_counts, label after
    label [sum(num_classes)].
    """
    # Only smaller numbers: 2 bytes hold every class that a label can have but those of very long lists.
    kind = np.int16 if max(predictions.num_classes) <= np.iinfo(np.int16).max else np.int32
    arrays = {
        "labels": predictions.labels.astype(kind),
        "decided": np.stack(list(predictions.decided.values())),
        "rules": np.array(list(predictions.decided)),
        "rule": np.array(predictions.rule),
        "num_classes": np.array(predictions.num_classes, np.int64),
        "train_counts": np.concatenate(predictions.train_counts).astype(np.int64),
    }

    def write(partial: Path) -> None:
        with open(partial, "wb") as file:
            np.savez_compressed(file, **arrays)

    write_whole(path, write)


def load_predictions(path: Path) -> Predictions:
    """Reads what `save_predictions` wrote."""
    with np.load(path) as arrays:
        num_classes = tuple(arrays["num_classes"].tolist())
        return Predictions(
            labels=arrays["labels"],
            decided=dict(zip(arrays["rules"].tolist(), arrays["decided"], strict=True)),
            rule=str(arrays["rule"]),
            num_classes=num_classes,
            train_counts=tuple(np.split(arrays["train_counts"], np.cumsum(num_classes)[:-1])),
        )
