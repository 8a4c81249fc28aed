"""How long a comparison takes: by the second epoch of its first training, then by the runs that are done."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from crl_tf.progress import Item, Progress

_log = logging.getLogger(__name__)


class Clock:
    """Which run of a comparison this is, and how long the rest will take.

    Args:
        total: how many runs there are.
    """

    def __init__(self, total: int) -> None:
        self._total, self._started, self._number = total, time.monotonic(), 0

    def next_line(self, name: str) -> str:
        """Begins a run; what to say of it, with the time that the runs so far let expect."""
        done, self._number = self._number, self._number + 1
        line = f"[{self._number}/{self._total}] {name}"
        if not done:
            return line
        return f"{line} · about {time_text((time.monotonic() - self._started) / done * (self._total - done))} left for all"

    def watched(self, progress: Progress) -> Progress:
        """The progress of the run that has begun; that of the first of several says how long all of them will take."""
        return _Forecast(progress, self._total) if self._number == 1 < self._total else progress


class _Forecast(Progress):
    """A progress that says after the second epoch of a training how long so many of its length will take."""

    def __init__(self, progress: Progress, runs: int) -> None:
        self._progress, self._runs = progress, runs

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        return self._progress.track(items, what, total)

    def callbacks(self) -> list[Any]:
        return [*self._progress.callbacks(), _SecondEpoch(self._runs)]


class _SecondEpoch(keras.callbacks.Callback):
    """Logs a forecast after the second epoch: the first one traces the step, which takes longer."""

    def __init__(self, runs: int) -> None:
        super().__init__()
        self._runs, self._ends = runs, []

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._ends = [time.monotonic()]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._ends.append(time.monotonic())
        if len(self._ends) == 3:
            begin, first, second = self._ends
            seconds = (first - begin) + (self.params["epochs"] - 1) * (second - first)
            _log.info("about %s for all %d runs, if each takes as long as this one", time_text(self._runs * seconds), self._runs)


def time_text(seconds: float) -> str:
    """A forecast in minutes.

    >>> time_text(20), time_text(150), time_text(3700)
    ('1 min', '2 min', '1 h 2 min')
    """
    minutes = max(1, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
