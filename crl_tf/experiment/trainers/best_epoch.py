"""Which epoch of a training is kept, and when it ends early: by the validation scores in its history."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import keras

SCORE = "val_balanced_accuracy"
"""The column of the history that decides: class-balanced accuracy on the validation images, by the largest score."""

LAST, BEST = KEPT = ("last", "best")
"""Which epoch a run keeps."""


def scores(history: Path) -> dict[int, float]:
    """The validation score after so many epochs, from a `history.csv`; without those that are not numbers."""
    if not history.is_file():
        return {}
    with open(history, newline="", encoding="utf-8") as file:
        rows = {int(row["epoch"]) + 1: float(row.get(SCORE) or "nan") for row in csv.DictReader(file)}
    return {epochs: score for epochs, score in rows.items() if math.isfinite(score)}


def best(of_epochs: Mapping[int, float], among: Iterable[int] | None = None) -> int | None:
    """The number of epochs with the highest score, of equal ones the first; None where there is none.

    >>> best({1: 0.5, 2: 0.7, 3: 0.7}), best({1: 0.5, 2: 0.7}, among=[1]), best({})
    (2, 1, None)
    """
    some = of_epochs if among is None else {epochs: of_epochs[epochs] for epochs in among if epochs in of_epochs}
    return max(sorted(some), key=some.__getitem__, default=None)


def is_over(of_epochs: Mapping[int, float], epochs: int, patience: int | None) -> bool:
    """Whether the last `patience` of so many epochs brought no better score.

    >>> is_over({1: 0.5, 2: 0.7, 3: 0.6, 4: 0.7}, 4, patience=2), is_over({1: 0.5, 2: 0.7, 3: 0.6}, 3, patience=2)
    (True, False)
    """
    best_one = best(of_epochs)
    return patience is not None and best_one is not None and epochs - best_one >= patience


class EndEarly(keras.callbacks.Callback):
    """Ends a training whose validation score has not risen for `patience` epochs; what a resumed training has is in its history.

    Args:
        history: `history.csv` of the epochs that are over.
        patience: epochs without a better score; None: the training never ends early.
    """

    def __init__(self, history: Path, patience: int | None) -> None:
        super().__init__()
        self._scores, self._patience = scores(history), patience

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        score = (logs or {}).get(SCORE, math.nan)
        if math.isfinite(score):
            self._scores[epoch + 1] = score
        if is_over(self._scores, epoch + 1, self._patience):
            self.model.stop_training = True
