"""What an exhibit is built of: the results of its finished runs, their folders, and the labels of its data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from crl_tf.datasets import Dataset
from crl_tf.experiment.config import load_recipe, override
from crl_tf.experiment.data import load_source
from crl_tf.experiment.workdir import RESULT
from crl_tf.files import read_json
from crl_tf.imbalance import class_counts, imbalance_ratio
from paper.content import Table, measured, number
from paper.planning import CELEBA, Cut, Job, Request, Spec

LISTS = "celeba_lists"
"""Where CelebA's complete lists are, if its images are not all there."""


@dataclass(frozen=True)
class Material:
    """What the runs of an exhibit left, cut by a budget.

    specs: the exhibit's runs by their names. jobs: their jobs, one per seed; none where it is left out.
    """

    request: Request
    cut: Cut
    specs: Mapping[str, Spec]
    jobs: Mapping[str, Sequence[Job]]

    @cached_property
    def results(self) -> dict[str, list[dict[str, Any]]]:
        """By name, the content of result.json of every finished run, seed by seed."""
        return {name: [read_json(one.folder / RESULT) for one in jobs if one.finished] for name, jobs in self.jobs.items()}

    def folders(self, name: str) -> list[Path]:
        """The folders of the finished runs of a name, seed by seed."""
        return [one.folder for one in self.jobs.get(name, ()) if one.finished]

    def accuracies(self, name: str, label: str | Sequence[str] | None = None) -> dict[int, float]:
        """Class-balanced accuracy in percent by seed: of all labels, of one, or the mean of several."""
        found = {}
        for result in self.results.get(name, []):
            names = [label] if isinstance(label, str) else label
            shares = [result] if names is None else [result["labels"][one] for one in names if one in result["labels"]]
            values = [share["balanced_accuracy"] for share in shares if share["balanced_accuracy"] is not None]
            if values:
                found[result["seed"]] = 100 * float(np.mean(values))
        return found

    def gains(self, name: str, baseline: str, label: str | Sequence[str] | None = None) -> list[float]:
        """The differences of class-balanced accuracy to another run over the common seeds, in points."""
        ours, theirs = self.accuracies(name, label), self.accuracies(baseline, label)
        return [ours[seed] - theirs[seed] for seed in ours if seed in theirs]

    def seconds(self, name: str) -> list[float]:
        """The seconds of training by seed."""
        return [result["seconds"] for result in self.results.get(name, [])]

    def labels(self, *names: str) -> list[str]:
        """The labels that the runs of these names, or of all, predict."""
        results = [result for name in names or self.results for result in self.results.get(name, [])]
        return list(results[0]["labels"]) if results else []

    def ratios(self, spec: Spec) -> dict[str, float]:
        """By label, largest class over smallest among all training images at hand, of the classes that have any."""
        counts = training_counts(self.request, spec)
        return {label: imbalance_ratio(np.array(list(of_label.values()))) for label, of_label in counts.items()}


def training_counts(request: Request, spec: Spec, *, complete: bool = True) -> dict[str, dict[str, int]]:
    """By label and class, the training images that the lists at hand have.

    Args:
        complete: of CelebA, take its complete lists where there are such.
    """
    dataset = listed(request, spec, complete=complete)
    schema = dataset.schema
    counts = class_counts(dataset.splits["train"].labels, schema.num_classes)
    return {
        attribute.name: dict(zip(attribute.classes, map(int, of_label), strict=True))
        for attribute, of_label in zip(schema.attributes, counts, strict=True)
    }


def listed(request: Request, spec: Spec, *, complete: bool = True) -> Dataset:
    """The dataset of a run as its lists have it; no image is looked at. Seed 0 draws what is random."""
    lists = complete and spec.data == CELEBA and LISTS in request.folders
    folder = request.folders[LISTS if lists else spec.data]
    of_data = [(key, value) for key, value in spec.settings if key == "dataset" or key.startswith("data.")]
    return _listed(spec.recipe, (*of_data, ("data.dir", str(folder))))


@cache
def _listed(recipe: str, settings: tuple[tuple[str, Any], ...]) -> Dataset:
    config = override(load_recipe(recipe), dict(settings))
    return load_source(config.dataset, config.data, seed=0, check_images=False)


def hours(seconds: Sequence[float]) -> str:
    """A time of training in a cell.

    >>> hours([30.0, 34.0]), hours([7200.0]), hours([])
    ('32 s', '2.0 h', '–')
    """
    if not seconds:
        return number(None)
    mean = float(np.mean(seconds))
    for limit, unit, size in ((90, "s", 1), (90 * 60, "min", 60)):
        if mean < limit:
            return f"{mean / size:.0f} {unit}"
    return f"{mean / 3600:.1f} h"


@dataclass(frozen=True)
class Row:
    """A row of a table of runs.

    name: of its runs. printed: the paper's number. baseline: the run that gains are told over; printed_gain: the paper's gain.
    hours: the paper's time of training.
    """

    words: str
    name: str
    printed: float | None = None
    baseline: str | None = None
    printed_gain: float | None = None
    hours: float | None = None


def run_table(material: Material, rows: Sequence[Row], *, digits: int = 1, title: str = "", first: str = "method") -> Table:
    """A row per run: our class-balanced accuracy beside the paper's, the gains, the time of training and the seeds."""
    with_gain, with_hours = any(row.baseline for row in rows), any(row.hours for row in rows)
    columns = [first, "ours, %", "paper, %"]
    columns += ["our gain", "paper's gain"] if with_gain else []
    columns += ["training", *(["paper's training"] if with_hours else []), "seeds"]
    lines = []
    for row in rows:
        ours = list(material.accuracies(row.name).values())
        line = [row.words, measured(ours), number(row.printed, digits)]
        if with_gain:
            gains = material.gains(row.name, row.baseline) if row.baseline else []
            line += [measured(gains, signed=True), number(row.printed_gain, digits, signed=True)]
        seconds = material.seconds(row.name)
        lines.append([*line, hours(seconds), *([f"{row.hours:g} h" if row.hours else number(None)] * with_hours), str(len(ours))])
    return Table(columns, lines, title)


def ratio_words(value: float | None) -> str:
    """An imbalance ratio in a cell, rounded as the paper's.

    >>> ratio_words(42.6), ratio_words(None)
    ('43', '–')
    """
    return number(None) if value is None or not math.isfinite(value) else f"{value:,.0f}"
