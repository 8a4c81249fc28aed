"""What LMLE keeps of a run that may be stopped: where all labels start, and every label that is finished."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crl_tf.files import write_whole

HISTORY = "history.csv"


class Learned(NamedTuple):
    """weights: of the network, as `get_weights` gives them. iterations: they were trained for. seconds: it took.

    centres: float32 [K, D] and classes: int64 [K], of the last clusters; of the start, none.
    """

    weights: list[np.ndarray]
    iterations: int
    seconds: float
    centres: np.ndarray
    classes: np.ndarray


def keep(path: Path, learned: Learned) -> None:
    """Writes one whole `.npz` file."""
    content = {f"weight_{number:04d}": weight for number, weight in enumerate(learned.weights)}
    content |= {"iterations": learned.iterations, "seconds": learned.seconds}
    content |= {"centres": learned.centres, "classes": learned.classes}
    write_whole(path, lambda partial: np.savez(partial, **content))


def kept(path: Path, iterations: int) -> Learned | None:
    """What was kept, if it was trained for so many iterations; a run that is now to train longer starts its labels anew."""
    if not path.is_file():
        return None
    with np.load(path) as content:
        weights = [content[name] for name in sorted(content.files) if name.startswith("weight_")]
        found = Learned(weights, int(content["iterations"]), float(content["seconds"]), content["centres"], content["classes"])
    return found if found.iterations == iterations else None


def write_history(folder: Path, names: Sequence[str], learned: Sequence[Learned]) -> None:
    """`history.csv`: what was learned, for how many iterations and seconds, resumed or not."""

    def write(partial: Path) -> None:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            rows = [[name, found.iterations, round(found.seconds, 3)] for name, found in zip(names, learned, strict=False)]
            csv.writer(file).writerows([["learned", "iterations", "seconds"], *rows])

    write_whole(folder / HISTORY, write)
