"""How the command shows what it does: one line per epoch, bars that disappear, log lines and warnings that fit the window."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from crl_tf.progress import Item, Progress


class ConsoleProgress(Progress):
    """Shows bars that disappear when they are full, and one line for every epoch."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        if not self._console.is_terminal:
            # A file would get an empty line for every bar.
            yield from items
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        with Bars(*columns, console=self._console, transient=True) as bars:
            yield from bars.track(items, total=total, description=what)

    def callbacks(self) -> list[keras.callbacks.Callback]:
        return [EpochLines(self._console)]


class _Rate(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s" if task.speed >= 10 else f"{task.speed:.1f}/s")


class EpochLines(keras.callbacks.Callback):
    """Shows a bar of the steps while an epoch trains, in a terminal, and then the epoch in one line of at most 80 columns."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console, self._bars, self._steps = console, None, None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._began = time.monotonic()
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bars = Bars(*columns, console=self._console, transient=True)
            self._steps = self._bars.add_task(f"epoch {epoch + 1}/{self.params['epochs']}", total=self.params.get("steps"))
            self._bars.start()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if self._bars is not None:
            # The last execution of an epoch may hold fewer steps than the others.
            steps = self.params.get("steps")
            self._bars.update(self._steps, completed=batch + 1 if steps is None else min(batch + 1, steps))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._end_bar()
        line = epoch_line(epoch + 1, self.params["epochs"], {"seconds": time.monotonic() - self._began, **(logs or {})})
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self._end_bar()

    def _end_bar(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def epoch_line(epoch: int, epochs: int, logs: dict[str, float]) -> str:
    """An epoch in one line: loss and class-balanced accuracy of training and validation, as far as the logs have them.

    >>> logs = {"loss": 1.25, "balanced_accuracy": 0.531, "val_loss": 1.5, "val_balanced_accuracy": 0.5, "seconds": 12.3}
    >>> epoch_line(3, 20, logs)
    'epoch  3/20: loss 1.25, balanced 53.1 %; validation: 1.5, 50.0 %; 12 s'
    """

    def numbers(prefix: str, loss: str, balanced: str) -> str:
        shown = [f"{loss}{logs[f'{prefix}loss']:.4g}"] if f"{prefix}loss" in logs else []
        shown += [f"{balanced}{logs[name]:.1%}".replace("%", " %")] if (name := f"{prefix}balanced_accuracy") in logs else []
        return ", ".join(shown)

    parts = [numbers("", "loss ", "balanced "), numbers("val_", "validation: ", ""), f"{logs['seconds']:.0f} s"]
    return f"epoch {epoch:>{len(str(epochs))}}/{epochs}: {'; '.join(filter(None, parts))}"


class _LogLines(logging.Handler):
    """Prints log lines on the console, above a bar that is shown; in a terminal broken between words."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record)
        show_line(self._console, f"crl_tf: {message}" if record.levelno >= logging.WARNING else message)


def show_line(console: Console, text: str) -> None:
    """Prints a text as it is: in a terminal broken between words, into a file or pipe in one line."""
    console.print(text, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def show_logs_and_warnings(console: Console) -> None:
    """Lets the console show what the package logs, and on the standard error, without the line of code, what it warns of."""
    logger = logging.getLogger("crl_tf")
    logger.handlers, logger.propagate = [_LogLines(console)], False
    logger.setLevel(logging.INFO)
    errors = Console(stderr=True)

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        # Above a bar that is shown on the other console, which then draws itself anew.
        with contextlib.suppress(BrokenPipeError):
            show_line(console if console.is_terminal and sys.stderr.isatty() else errors, f"crl_tf: {message}")

    warnings.showwarning = show
