"""Writes the small files of which the tests' datasets are made."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from crl_tf.progress import Item, Progress

CSV_ROWS = [
    ["path", "split", "colour", "size"],
    ["images/a.png", "train", "red", "10"],
    ["images/b.jpg", "train", "blue", "9"],
    ["images/c.jpg", "train", "", "9"],
    ["images/d.jpg", "val", "red", ""],
    ["images/e.jpg", "test", "green", "100"],
]


def write_csv(folder: Path, rows: list[list[str]]) -> Path:
    with (folder / "attributes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "attributes.csv"


def write_image(path: Path, pixels: np.ndarray) -> None:
    encode = tf.io.encode_png if path.suffix == ".png" else tf.io.encode_jpeg
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(tf.constant(pixels, tf.uint8)).numpy())


class RecordedProgress(Progress):
    """Counts the items of each job that are done, and calls `after_each` behind each of them."""

    def __init__(self, after_each: Callable[[], None] = lambda: None) -> None:
        self.done: dict[str, int] = {}
        self.totals: dict[str, int | None] = {}
        self._after_each = after_each

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        self.done[what], self.totals[what] = 0, total
        for item in items:
            yield item
            self.done[what] += 1
            self._after_each()
