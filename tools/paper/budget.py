"""Fits runs into a budget of wall time: measures how fast each network trains here, and cuts epochs and images alike."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from crl_tf.experiment.config import override
from crl_tf.experiment.data import load_source
from crl_tf.experiment.methods import METHODS, combined
from crl_tf.files import read_json, write_json
from paper.planning import Cut, Job, Request, Spec, digest, job, jobs
from paper.runs import duration, execute

UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
BATCHES = (2, 6)
"""How many batches the two short runs of a calibration train on."""

LEAST = 0.01
"""The smallest share of epochs and images that a run may be cut to: below, nothing is learned."""

NOT_IN_A_SPEED = ("seed", "train.epochs", "data.train_share", "data.cache", "crl.eta", "crl.rho", "crl.alpha")
"""Settings that do not change how long a step takes."""


def seconds_of(text: str) -> float:
    """Reads a time.

    >>> seconds_of("2h"), seconds_of("90m"), seconds_of("1.5h")
    (7200.0, 5400.0, 5400.0)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)\s*", text)
    if not match or not float(match[1]):
        raise ValueError(f"budget must be a time above 0 such as 2h, 90m or 1d, received {text!r}")
    return float(match[1]) * UNITS[match[2]]


class Speed(NamedTuple):
    """How long a run takes, in seconds: once, per epoch (its validation), and per image of an epoch."""

    once: float
    per_epoch: float
    per_image: float

    def seconds(self, epochs: float, images: float) -> float:
        return self.once + epochs * (self.per_epoch + images * self.per_image)


class Timed(NamedTuple):
    """A run whose time is known: its speed, and the epochs and images that it would have uncut; 0 where nothing is trained."""

    speed: Speed
    epochs: int
    images: int

    def seconds(self, cut: Cut) -> float:
        return self.speed.seconds(cut.epochs_of(self.epochs) if self.epochs else 0, self.images * cut.images)


def fitting_cut(timed: Sequence[Timed], seconds: float, workers: int, *, images_too: bool = True) -> Cut:
    """The largest cut with which all runs end in time: one factor for epochs and images of every run, to three digits.

    Args:
        timed: the runs.
        seconds: of wall time, for all of them.
        workers: how many run at a time.
        images_too: False cuts the epochs alone.
    Raises:
        ValueError: not even a hundredth of the runs fits.
    """

    def cut(share: float) -> Cut:
        return Cut(share, share if images_too else 1.0)

    def too_long(share: float) -> bool:
        return sum(run.seconds(cut(share)) for run in timed) / workers > seconds

    if not too_long(1.0):
        return Cut()
    if too_long(LEAST):
        least = sum(run.seconds(cut(LEAST)) for run in timed) / workers
        raise ValueError(f"budget must be {duration(least)} or more here for {len(timed)} runs, received {duration(seconds)}")
    low, high = LEAST, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if too_long(middle) else (middle, high)
    return cut(max(LEAST, _floor(low)))


def _floor(share: float) -> float:
    if share <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(share)) - 2)
    return round(math.floor(share / step + 1e-9) * step, 12)


def calibration_config(config: ConfigDict) -> ConfigDict:
    """The configuration that stands for the speed of another one: of the same data, network, trainer and resampling."""
    method = combined(config.method)
    own = (
        method.trainer != "gradient" or method.resampling != "none" or "crl.kappa" in METHODS.get(config.method, method).settings
    )
    return override(config, {"method": config.method if own else "class_rel", "seed": 0})


def speeds(
    planned: Sequence[Job],
    sizes: Callable[[ConfigDict], int],
    out: Path,
    groups: Sequence[Sequence[int]],
    show: Callable[[str], None],
) -> dict[Path, Timed]:
    """What each job takes, measured by two short runs of each network, unless it was measured with as many cores before.

    Args:
        planned: uncut.
        sizes: from a configuration to the number of its training images.
        out, groups, show: as for `paper.runs.execute`.
    Raises:
        ValueError: a short run failed; it says why.
    """
    by_key: dict[str, ConfigDict] = {}
    keys = {}
    for one in planned:
        config = calibration_config(one.config)
        keys[one.folder] = key = f"{digest(config, NOT_IN_A_SPEED)}-{len(groups)}x{len(groups[0])}"
        by_key.setdefault(key, config)
    missing = {key: config for key, config in by_key.items() if not (out / "calibration" / f"{key}.json").is_file()}
    short = [part for key, config in missing.items() for part in _short_runs(key, config, sizes(config), out)]
    if short:
        show(f"calibration: {len(short)} short runs say how fast {len(missing)} networks train here")
    failed, seconds = execute(short, out, groups, show=show)
    if failed:
        raise ValueError("; ".join(f"{one.name}: {failed[one.folder]}" for one in short if one.folder in failed))
    for number, key in enumerate(missing):
        small, large = short[2 * number : 2 * number + 2]
        if small.folder not in seconds or large.folder not in seconds:  # stopped after it: measured then, but not how long
            shutil.rmtree(small.folder.parent)
            return speeds(planned, sizes, out, groups, show)
        write_json(out / "calibration" / f"{key}.json", _speed(small, large, seconds)._asdict())
        shutil.rmtree(small.folder.parent)
    known = {key: Speed(**read_json(out / "calibration" / f"{key}.json")) for key in by_key}
    return {
        one.folder: Timed(known[keys[one.folder]], 0 if one.borrows else one.config.train.epochs, sizes(one.config))
        for one in planned
    }


def _short_runs(key: str, config: ConfigDict, images: int, out: Path) -> list[Job]:
    runs = []
    for batches in BATCHES:
        share = config.data.train_share * min(1.0, batches * config.train.batch_size / images)
        settings = {"train.epochs": 2, "data.train_share": share, "embedding.pretraining_epochs": 1}
        folder = out / "calibration" / key / str(batches)
        shutil.rmtree(folder, ignore_errors=True)
        name = f"calibration of {config.model} by {config.method} on {config.dataset}, {batches} batches"
        runs.append(Job(name, override(config, settings), folder))
    return runs


def _speed(small: Job, large: Job, seconds: Mapping[Path, float]) -> Speed:
    """The speed that two runs of two epochs give; by their second epochs, which trace nothing, where a trainer keeps them."""
    images = [read_json(one.folder / "config.json")["images"]["train"] for one in (small, large)]
    epochs = [_epoch_seconds(one.folder) for one in (small, large)]
    if all(len(of_run) == 2 for of_run in epochs):
        (_, first), (_, second) = epochs
        per_image = max(1e-7, (second - first) / max(1, images[1] - images[0]))
        per_epoch = max(0.0, first - per_image * images[0])
    else:
        trained = [read_json(one.folder / "result.json")["seconds"] for one in (small, large)]
        per_image, per_epoch = max(1e-7, (trained[1] - trained[0]) / 2 / max(1, images[1] - images[0])), 0.0
    once = max(0.0, seconds[small.folder] - 2 * (per_epoch + per_image * images[0]))
    return Speed(once, per_epoch, per_image)


def _epoch_seconds(folder: Path) -> list[float]:
    path = folder / "history.csv"
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [float(row["seconds"]) for row in csv.DictReader(file)]


class Sizes:
    """Counts the training images of a configuration; reads each list once."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, config: ConfigDict) -> int:
        key = repr((config.dataset, config.data.dir, config.data.gamma))
        if key not in self._known:
            dataset = load_source(config.dataset, config.data, seed=0, check_images=False)
            self._known[key] = len(dataset.splits["train"])
        return max(1, round(self._known[key] * config.data.train_share))


def planned_cut(
    request: Request,
    specs: Sequence[Spec],
    name: str,
    budget: str,
    groups: Sequence[Sequence[int]],
    *,
    images_too: bool = True,
    run: bool = True,
    show: Callable[[str], None] = lambda line: None,
) -> tuple[Cut, dict[Path, float]]:
    """The cut that a budget means for what is asked for, and by folder the seconds that the runs will take.

    The same request has the same cut again, also after a stop, and on another machine: it is kept in out/plans/.

    Args:
        name: of the exhibits that are asked for.
        groups: the cores of each run at a time.
        run: False measures no speed: the cut must have been planned before, and no seconds are known.
    Raises:
        ValueError: the budget is too small, or there is no plan and nothing may be run.
    """
    ends = time.monotonic() + seconds_of(budget)
    uncut = jobs(request, specs, Cut())
    asked = {"exhibits": name, "budget": budget, "images_too": images_too, "runs": sorted(str(one.folder) for one in uncut)}
    plan = request.out / "plans" / f"{budget.strip()}-{_short_digest(asked)}.json"
    if not run:
        if not plan.is_file():
            raise ValueError(f"budget {budget} was not planned for {name} in {request.out}: leave out --show to run it")
        return Cut(**read_json(plan)["cut"]), {}
    timed = speeds(uncut, Sizes(), request.out, groups, show)
    if plan.is_file():
        cut = Cut(**read_json(plan)["cut"])
    else:
        cut = fitting_cut(list(timed.values()), ends - time.monotonic(), len(groups), images_too=images_too)
        write_json(plan, {**asked, "cut": cut._asdict()})
    costs = {}
    for spec in dict.fromkeys(specs):
        if request.leaves_out(spec) is None:
            for seed in request.seeds:
                full, short = job(request, spec, seed, Cut()), job(request, spec, seed, cut)
                costs[short.folder] = timed[full.folder].seconds(cut)
    return cut, costs


def _short_digest(asked: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
