"""What to use on one's own data: successive halving of methods within a budget, by validation images only; then one test."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from ml_collections import ConfigDict

from crl_tf.callbacks import Diverged
from crl_tf.datasets.resampling import MeaninglessForData
from crl_tf.experiment.assemble import Parts, assemble
from crl_tf.experiment.candidates import NAME, REFERENCE, candidates, checked_names, images_factor, with_rule
from crl_tf.experiment.compare import plan
from crl_tf.experiment.config import at_length, long_enough, override
from crl_tf.experiment.data import Data
from crl_tf.experiment.halving import (
    FINALISTS,
    LONGEST,
    RESERVE,
    Rung,
    Speed,
    better_half,
    duration_text,
    first_rungs,
    next_rungs,
    seconds_of,
)
from crl_tf.experiment.precision import settled
from crl_tf.experiment.report import write_auto_report
from crl_tf.experiment.report.grid import field_text, percent
from crl_tf.experiment.run import run_parts
from crl_tf.experiment.same_data import check_same_data, described
from crl_tf.experiment.scoring import compared, difference_on_validation, ranked, train_and_score
from crl_tf.experiment.workdir import (
    AUTO,
    FINAL,
    FREE_ON_RESUME,
    MODEL,
    clean_folder,
    config_in,
    differences,
    held,
    read_search,
    refuse_file,
)
from crl_tf.files import write_json
from crl_tf.progress import SILENT, Item, Progress

_log = logging.getLogger(__name__)

DEFAULT_BUDGET = 1800.0

TIMING_EPOCHS = 2
"""The second epoch tells how long an epoch takes; the rest of the training, how long it takes to start one."""

EXPORT_SECONDS = 15.0
"""What the report and an export are forecast to take."""


def auto(
    config: ConfigDict,
    workdir: Path,
    *,
    budget: float | None = None,
    named: Sequence[str] | None = None,
    resume: bool = False,
    export: bool = True,
    progress: Progress = SILENT,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Finds the best method for the data within a budget of time, and exports its model.

    Every rung trains cross-entropy and the methods that are left, each from the start and to the end of its schedule, scores
    them on the validation images under their best decision rule, and keeps the better half for the next rung, which trains
    twice as long. The test images are measured once, after all rungs, on cross-entropy and the two best methods.

    A training of the first rung is in <workdir>/rung1/<method>, a finalist in <workdir>/final/<method>, with its decision rule
    in the name. auto.json is written after every training.

    Args:
        config: a configuration; each method sets its own part of it.
        workdir: a new or empty folder; with `resume`, also one with an unfinished or finished search of the same configuration.
        budget: seconds for all of it, from loading the data to the export, over all sittings; None: as it was started with, or
            `DEFAULT_BUDGET`.
        named: further methods, also such as would be left out; None: as it was started with, or none.
        export: write the winner's SavedModel.
        progress: receives the progress.
        clock: gives the time in seconds.
    Returns:
        the content of auto.json.
    Raises:
        ValueError: a setting, a name or the folder is not what it should be, or the budget is too small for these data.
        Diverged: cross-entropy itself diverged.
    """
    started, workdir = clock(), Path(workdir)
    config = settled(config, workdir if resume else None)
    with held(workdir):
        content = _opened(config, workdir, budget, named, resume)
        if content["finished"]:
            return content
        named = checked_names(content["named"])
        plan(config, [REFERENCE, *named])  # refuses what is wrong before anything is read
        reference = assemble(override(config, {"method": REFERENCE}))
        reference.check_weights()
        data = reference.load(progress=progress)
        check_same_data(content, data.dataset, data.digests, where=f"resume {workdir}", changed_rows=None)
        content |= described(data.dataset, data.digests)
        config = long_enough(config, len(data.dataset.splits["train"]))
        search = _Search(config, workdir, data, content, progress, clock, started - content["seconds"])
        if not content["rungs"]:
            search.begin(*candidates(config, named, data))
        while True:
            search.train_rung(content["rungs"][-1])
            if not search.add_rung():
                break
        search.measure_finalists(export=export)
        return content


def _opened(config: ConfigDict, workdir: Path, budget: float | None, named: Sequence[str] | None, resume: bool) -> dict[str, Any]:
    """The content of auto.json; of a new one if the folder is new."""
    refuse_file(workdir)
    if not clean_folder(workdir, resume):
        start = {"budget": budget or DEFAULT_BUDGET, "named": list(named or ()), "seconds": 0.0, "finished": False}
        return {**start, "recipe": config.to_dict(), "not_tried": {}, "rungs": []}
    if not (workdir / AUTO).is_file():
        raise ValueError(f"resume: {workdir} holds no search of --compare={NAME}: pass another --workdir")
    free = set(FREE_ON_RESUME) - {"train.epochs"} | {"method"}
    different = differences(config_in(workdir, AUTO).to_dict(), config.to_dict(), free=free)
    content = read_search(workdir)
    if budget is not None and content["budget"] != budget:
        different.append(f"budget: {duration_text(content['budget'])} there, {duration_text(budget)} now")
    if named is not None and content["named"] != list(named):
        different.append(f"compare: {content['named']} there, {list(named)} now")
    if different:
        raise ValueError(f"resume: {workdir} was started with other settings ({'; '.join(different)}): pass another --workdir")
    return content


@dataclass
class _Search:
    """A search under way: its folder, its data, and auto.json.

    content: of auto.json. started: the time at which it would have started in one sitting.
    """

    config: ConfigDict
    workdir: Path
    data: Data
    content: dict[str, Any]
    progress: Progress
    clock: Callable[[], float]
    started: float

    @property
    def seconds(self) -> float:
        return self.clock() - self.started

    @property
    def seconds_left(self) -> float:
        """What is left of the budget for trainings."""
        return (1 - RESERVE) * self.content["budget"] - self.seconds - self.content["timing"]["final"]

    @property
    def speed(self) -> Speed:
        return Speed(self.content["timing"]["start"], self.content["timing"]["epoch"])

    def write(self) -> None:
        self.content["seconds"] = round(self.seconds, 1)
        write_json(self.workdir / AUTO, self.content)

    def begin(self, challengers: Mapping[str, Parts], left_out: Mapping[str, str]) -> None:
        """Times cross-entropy, chooses who starts, and writes the first rung."""
        content = self.content
        self.write()
        _log.info("\n%d methods have a meaning for these data; cross-entropy is timed first", len(challengers))
        content["timing"] = self._time()
        content["factors"] = {REFERENCE: 1.0} | {
            name: max(1.0, images_factor(parts, self.data)) for name, parts in challengers.items()
        }
        names = list(challengers)
        factors = [content["factors"][name] for name in names]
        rungs = first_rungs(factors, self.seconds_left, self.speed, epochs=self.config.train.epochs)
        if not rungs:
            shortest = self.seconds + seconds_of([Rung(min(1, len(names)), 1)], self.speed) + content["timing"]["final"]
            raise ValueError(self._too_small(f"about {duration_text(shortest / (1 - RESERVE))} or more"))
        started, others = names[: rungs[0].challengers], names[rungs[0].challengers :]
        content["not_tried"] = dict(left_out) | dict.fromkeys(others, "the budget is too small")
        self._add(rungs, started)

    def _too_small(self, what: str) -> str:
        budget = duration_text(self.content["budget"])
        return f"budget must be {what} for these data and this network, received {budget}"

    def _time(self) -> dict[str, float]:
        """Trains cross-entropy for two epochs; the seconds of a start, of an epoch, and of the final measurement."""
        folder, began = self.workdir / "timing", self.clock()
        shutil.rmtree(folder, ignore_errors=True)  # a timing that was stopped
        limit = self.content["budget"] / 2
        progress = _StopAfter(self.progress, limit - self.seconds, self.clock, self._too_small("longer"))
        score = train_and_score(self.config, REFERENCE, TIMING_EPOCHS, folder, self.data, progress, self.clock)
        total, epoch = self.clock() - began, score["epoch"]
        shutil.rmtree(folder, ignore_errors=True)
        splits = self.data.dataset.splits
        finals = (1 + FINALISTS) * score["measuring"] * (1 + len(splits["test"]) / len(splits["validation"]))
        start = max(0.0, total - TIMING_EPOCHS * epoch)
        return {"start": start, "epoch": epoch, "final": finals + EXPORT_SECONDS}

    def folder(self, rung: int, method: str) -> Path:
        """The folder of a training; rung: counted from 1."""
        return self.workdir / f"rung{rung}" / method

    def train_rung(self, rung: dict[str, Any]) -> None:
        """Trains and scores the methods of a rung that have not been yet; the last ones only if there is time."""
        number, scores, dropped = len(self.content["rungs"]), rung["scores"], rung["dropped"]
        for place, name in enumerate(rung["methods"], 1):
            if name in scores or name in dropped:
                continue
            # The reserve is for this: a rung that takes longer than it was forecast.
            if len(scores) > 1 and self._forecast(rung, name) > self.seconds_left + RESERVE * self.content["budget"]:
                dropped[name] = "no time was left for it"
                continue
            left = duration_text(max(1.0, self.content["budget"] - self.seconds))
            step, length = f"{place} of {len(rung['methods'])}", field_text("epochs", rung["epochs"])
            _log.info("\n[rung %d · %s] %s · %s · %s left", number, step, name, length, left)
            folder = self.folder(number, name)
            try:
                score = train_and_score(self.config, name, rung["epochs"], folder, self.data, self.progress, self.clock)
                scores[name] = score
            except (Diverged, MeaninglessForData) as error:
                if name == REFERENCE:
                    raise
                dropped[name] = str(error)
                _log.warning("%s: %s", name, error)
            self.write()
        names = [
            f"{with_rule(name, scores[name]['rule'])} {percent(scores[name]['balanced_accuracy'])}" for name in ranked(scores)
        ]
        _log.info("\nrung %d, class-balanced accuracy %% on validation images: %s", number, ", ".join(names))
        self._learn_speed(rung)
        for name in scores:
            # The better half is trained anew: only the last rung's models are needed.
            (self.folder(number - 1, name) / MODEL).unlink(missing_ok=True)

    def _forecast(self, rung: Mapping[str, Any], name: str) -> float:
        """The seconds of the next training of a rung, by those that this rung has had so far."""
        factors, forecast = self.content["factors"], self.speed.of(rung["epochs"])
        pace = sum(score["total"] for score in rung["scores"].values()) / sum(forecast * factors[done] for done in rung["scores"])
        return pace * factors[name] * forecast

    def _learn_speed(self, rung: Mapping[str, Any]) -> None:
        """Takes the speed of cross-entropy, and of the others as multiples of it, from a rung."""
        reference = rung["scores"][REFERENCE]
        if rung["epochs"] > 1:  # the first epoch includes tracing
            start = max(0.0, reference["total"] - rung["epochs"] * reference["epoch"])
            self.content["timing"] |= {"start": start, "epoch": reference["epoch"]}
        for name, score in rung["scores"].items():
            self.content["factors"][name] = score["total"] / reference["total"]

    def add_rung(self) -> bool:
        """Writes the next rung, of the better half of the last one; returns whether there is one."""
        content, rung = self.content, self.content["rungs"][-1]
        if "finalists" in content or len(rung["methods"]) - 1 <= FINALISTS:
            return False
        order = [name for name in ranked(rung["scores"]) if name != REFERENCE]
        better = order[: better_half(len(rung["methods"]) - 1)]
        rungs = next_rungs(
            [content["factors"][name] for name in better],
            self.seconds_left,
            self.speed,
            longest=LONGEST * self.config.train.epochs,
            above=rung["epochs"],
        )
        if rungs:
            kept, out = order[: rungs[0].challengers], order[rungs[0].challengers :]
            if kept and out:
                number = len(content["rungs"])
                cut = difference_on_validation(self.folder(number, kept[-1]), self.folder(number, out[0]))
                rung["cut"] = {"kept": kept[-1], "dropped": out[0], "difference": cut}
            self._add(rungs, kept)
        return bool(rungs)

    def _add(self, rungs: Sequence[Rung], challengers: Sequence[str]) -> None:
        """Adds the first of the planned rungs, and says the plan."""
        content = self.content
        content["rungs"].append({"epochs": rungs[0].epochs, "methods": [REFERENCE, *challengers], "scores": {}, "dropped": {}})
        first = len(content["rungs"])
        if first == 1 and content["not_tried"]:
            _log.info("not tried: %s", _reasons_text(content["not_tried"]))
        _log.info("rung %d: %s", first, ", ".join(content["rungs"][-1]["methods"]))
        steps = [
            f"rung {number}: {rung.challengers + 1} x {field_text('epochs', rung.epochs)}"
            for number, rung in enumerate(rungs, first)
        ]
        used, budget = duration_text(self.seconds), duration_text(content["budget"])
        _log.info("plan: %s; then the test images, once (%s of %s used)", "; ".join(steps), used, budget)
        self.write()

    def measure_finalists(self, *, export: bool) -> None:
        """Measures cross-entropy and the two best methods on the test images, exports the winner, and writes the report."""
        content, number = self.content, len(self.content["rungs"])
        rung = content["rungs"][-1]
        if "finalists" not in content:
            order = ranked(rung["scores"])
            best = [name for name in order if name != REFERENCE][:FINALISTS]
            finalists = [name for name in order if name in (REFERENCE, *best)]
            if len(finalists) > 1:
                lead = difference_on_validation(self.folder(number, finalists[0]), self.folder(number, finalists[1]))
                content["lead"] = {"second": finalists[1], "difference": lead}
            content["finalists"] = {name: with_rule(name, rung["scores"][name]["rule"]) for name in finalists}
            # Before the test images are looked at: the choice can no longer depend on them.
            self.write()
        results = []
        for method, name in content["finalists"].items():
            parts = assemble(override(at_length(self.config, rung["epochs"]), {"method": name}))
            _log.info("\n[test images] %s", name)
            result = run_parts(
                parts,
                self.workdir / FINAL / name,
                resume=True,
                export=export and not results,
                data=self.data,
                trained=self.folder(number, method),
                progress=self.progress,
            )
            results.append(result)
            self.write()
        folders = [self.workdir / FINAL / name for name in content["finalists"].values()]
        content["final"] = compared(results, folders, list(content["finalists"]).index(REFERENCE))
        content["images"] = {name: len(split) for name, split in self.data.dataset.splits.items()}
        content["finished"] = True
        self.write()
        write_auto_report(content, self.workdir)


class BudgetTooSmall(ValueError):
    """Even the timing takes longer than the budget allows."""


class _StopAfter(Progress):
    """Ends a training with `BudgetTooSmall` that takes longer than some seconds; shows what another progress shows."""

    def __init__(self, shown: Progress, seconds: float, clock: Callable[[], float], complaint: str) -> None:
        self._shown, self._complaint, self._clock, self._end = shown, complaint, clock, clock() + seconds

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        yield from self._shown.track(items, what, total)

    def callbacks(self) -> list[keras.callbacks.Callback]:
        def check(batch: int, logs: Mapping[str, float] | None = None) -> None:
            if self._clock() > self._end:
                raise BudgetTooSmall(self._complaint)

        return [*self._shown.callbacks(), keras.callbacks.LambdaCallback(on_train_batch_end=check)]


def _reasons_text(reasons: Mapping[str, str]) -> str:
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(of_reason)} ({reason})" for reason, of_reason in names.items())
