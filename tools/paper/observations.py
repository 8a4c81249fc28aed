"""The numbers of the paper's figures, from the config.json, result.json and history.csv of finished runs.

Accuracies are in percent and gains in points, as `paper.figures` and `paper.sweeps` draw them. What the trained models make of
single images is in `paper.outputs`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crl_tf.datasets.sources.cifar100 import LARGEST, NUM_CLASSES, SMALLEST
from crl_tf.experiment.config import flattened
from crl_tf.experiment.report.aggregate import aggregates, class_counts, first_labels, imbalance_by_label
from crl_tf.experiment.trainers.gradient import HISTORY
from crl_tf.experiment.workdir import CONFIG, RESULT, config_in
from crl_tf.files import read_json
from crl_tf.imbalance import power_law_counts
from paper.style import Series


class Run(NamedTuple):
    """A finished run. result: the content of result.json. settings: its recipe, by dotted key ("crl.eta")."""

    folder: Path
    result: Mapping[str, Any]
    settings: Mapping[str, Any]


Pick = Callable[[Mapping[str, Any]], float | None]
"""From a result to one of its numbers, a share in [0, 1]; None where it has none."""


def balanced_accuracy(result: Mapping[str, Any]) -> float | None:
    """The class-balanced accuracy of a run, under its own decision rule."""
    return result["balanced_accuracy"]


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Reads finished runs.

    Raises:
        ValueError: a folder without a result or a configuration.
    """
    runs = []
    for folder in map(Path, folders):
        missing = [name for name in (CONFIG, RESULT) if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"read_runs: folders must hold finished runs; {folder} lacks {', '.join(missing)}")
        runs.append(Run(folder, read_json(folder / RESULT), flattened(config_in(folder, CONFIG).to_dict())))
    return runs


def class_sizes(runs: Sequence[Run]) -> dict[str, dict[str, list[int]]]:
    """The training images per class of each label, by dataset, of the first run of each dataset (Fig. 1)."""
    sizes: dict[str, dict[str, list[int]]] = {}
    for run in runs:
        labels = {name: class_counts(label).tolist() for name, label in run.result["labels"].items()}
        sizes.setdefault(run.result["dataset"], labels)
    return sizes


def power_law_sizes(
    gammas: Sequence[float], num_classes: int = 100, largest: int = 500, smallest: int = 25
) -> dict[float, np.ndarray]:
    """The class sizes of CIFAR-100-imb(gamma) as Sec. 4.3 gives them, by gamma (Fig. 10a).

    The datasets of this program have at most the 490 images that the validation split leaves.
    """
    return {gamma: power_law_counts(NUM_CLASSES, gamma, LARGEST, SMALLEST) for gamma in gammas}


class Gains(NamedTuple):
    """Gains of methods on a baseline at each label, in the order of `names`.

    ratios: largest class over smallest, None where it is not known. levels: of a label of two classes the distance of its share
    of positives in training from 50 %, in points; NaN of others. points: of each method for each label the gain of each seed that
    both have, in points of class-balanced accuracy. relative: the same in percent of what the baseline reaches with that seed.
    """

    names: list[str]
    ratios: list[float | None]
    levels: list[float]
    points: dict[str, list[list[float]]]
    relative: dict[str, list[list[float]]]


def gains_over(runs: Sequence[Run], baseline: str) -> Gains:
    """What each method gains on a baseline at each label, paired by seed (Figs. 6 and 8, and the slides' plot).

    Raises:
        ValueError: the baseline is not among the runs, or a method has a seed twice.
    """
    results = [run.result for run in runs]
    ratios = imbalance_by_label(results)
    gains = Gains(list(ratios), list(ratios.values()), [], {}, {})
    for name in gains.names:
        counts = class_counts(first_labels(results)[name])
        binary = counts.size == 2 and counts.any()
        gains.levels.append(100 * abs(counts[1] / counts.sum() - 0.5) if binary else np.nan)
    for method in aggregates(results, baseline, "gains_over"):
        if method.method == method.baseline:
            continue
        pairs = [method.pairs("labels", name, "balanced_accuracy") for name in gains.names]
        gains.points[method.name] = [(100 * (of[:, 0] - of[:, 1])).tolist() for of in pairs]
        gains.relative[method.name] = [(100 * (of[:, 0] - of[:, 1]) / of[:, 1]).tolist() for of in pairs]
    return gains


def over_setting(
    runs: Sequence[Run], setting: str, pick: Pick = balanced_accuracy, names: Mapping[str, str] | None = None
) -> list[Series]:
    """One number of the runs over the values of a setting, a line per method (Figs. 10b and 12, Table 13).

    Args:
        setting: such as "crl.kappa" or "data.gamma". Its values must be numbers.
        pick: the number, a share, which is shown in percent.
        names: what a method is called in the legend.
    """
    lines: dict[str, dict[float, list[float | None]]] = {}
    for run in runs:
        place = _place(run, setting)
        lines.setdefault(run.result["method"], {}).setdefault(place, []).append(_percent(pick(run.result)))
    return [
        Series((names or {}).get(method, method), sorted(line), [line[place] for place in sorted(line)])
        for method, line in lines.items()
    ]


def level(runs: Sequence[Run], name: str, pick: Pick = balanced_accuracy) -> Series:
    """One number of runs that differ in the seed alone, as a level beside a sweep."""
    return Series(name, None, [[_percent(pick(run.result)) for run in runs]])


def labels_over_setting(runs: Sequence[Run], setting: str) -> tuple[list[float], dict[str, list[list[float | None]]]]:
    """The values of a setting, and for each label and value the class-balanced accuracy of each run (Fig. 11).

    Args:
        runs: all of one method, with the same labels.
    """
    places = sorted({_place(run, setting) for run in runs})
    at = {place: [run.result["labels"] for run in runs if _place(run, setting) == place] for place in places}
    return places, {
        name: [[_percent(labels[name]["balanced_accuracy"]) for labels in at[place]] for place in places]
        for name in first_labels([run.result for run in runs])
    }


def over_epochs(runs: Sequence[Run], name: str, column: str = "val_balanced_accuracy") -> Series:
    """A column of history.csv over the epochs, a number per run that reached the epoch (Fig. 12: how training converges).

    Args:
        runs: which differ in the seed alone.
        name: of the line.
        column: a share, which is shown in percent.
    Raises:
        ValueError: a history without the column.
    """
    epochs: dict[int, list[float | None]] = {}
    for run in runs:
        with open(run.folder / HISTORY, newline="") as file:
            # Of an epoch that ran twice, because of a resume, the last counts.
            rows = {int(row["epoch"]): row for row in csv.DictReader(file)}
        for epoch, row in rows.items():
            if column not in row:
                raise ValueError(f"over_epochs: column must be one of {list(row)}, received {column!r}")
            epochs.setdefault(epoch + 1, []).append(_percent(float(row[column])) if row[column] else None)
    return Series(name, sorted(epochs), [epochs[epoch] for epoch in sorted(epochs)])


def _place(run: Run, setting: str) -> float:
    value = run.settings.get(setting)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"setting {setting!r} must be a number in every run, received {value!r} in {run.folder}")
    return float(value)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
