"""Several methods on the same data and seeds: a plan says what will run, and is then executed; a report says what came out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from crl_tf.callbacks import Diverged
from crl_tf.datasets.resampling import MeaninglessForData
from crl_tf.experiment.assemble import Parts, assemble
from crl_tf.experiment.config import override
from crl_tf.experiment.data import Data
from crl_tf.experiment.forecast import Clock
from crl_tf.experiment.methods import METHODS, canonical, stands_alone
from crl_tf.experiment.precision import settled
from crl_tf.experiment.report import write_report
from crl_tf.experiment.run import run_parts, save_figures
from crl_tf.experiment.settings import check_setting
from crl_tf.experiment.workdir import (
    COMPARISON,
    CONFIG,
    FREE_ON_RESUME,
    RESULT,
    clean_folder,
    config_in,
    differences,
    folder_of,
    held,
    methods_and_seeds,
    open_run,
    read_result,
)
from crl_tf.files import write_json
from crl_tf.progress import SILENT, Progress

_log = logging.getLogger(__name__)

ALL = "all"
"""In place of a list of methods: every row of `METHODS` that is a method by itself and has a meaning for the data."""


class PlannedRun(NamedTuple):
    """One run of a comparison."""

    method: str
    seed: int
    parts: Parts


@dataclass(frozen=True)
class Plan:
    """What a comparison will run.

    runs: seed by seed, in the order of the methods. left_out: methods, each with the reason.
    methods, seeds: of this and of earlier sittings; seeds None: the configuration's.
    """

    runs: tuple[PlannedRun, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...] | None
    left_out: Mapping[str, str]


class Previous(NamedTuple):
    """What earlier sittings of a comparison left: their methods and seeds, and runs without a result, with the reason."""

    methods: Sequence[str] = ()
    seeds: Sequence[int] = ()
    failed: Mapping[str, str] = MappingProxyType({})


FIRST_SITTING = Previous()


def compare(
    config: ConfigDict,
    methods: Sequence[str] | str,
    workdir: Path,
    *,
    seeds: Sequence[int] | None = None,
    resume: bool = False,
    export: bool = True,
    changed_rows: bool = False,
    progress: Progress = SILENT,
) -> list[dict[str, Any]]:
    """Runs methods on the same data and seeds, and writes a report; the baseline is `ce`, or the first method.

    Every run has its folder: <workdir>/<method>, or <workdir>/seed<n>/<method> where seeds are given. The report and
    comparison.json are written anew after every run, so that a stop leaves both whole. A method that differs from an earlier
    one in its decision rule alone takes that one's model. One that diverges is named in the report, and the others continue.

    Args:
        config: a configuration; each method sets its own part of it.
        methods: rows of `crl_tf.experiment.methods.METHODS`, or several of them joined by +; or "all", without those that have
            no meaning for the data.
        workdir: a new or empty folder; with `resume`, also one with a comparison by the same configuration, whose finished runs
            are taken and whose unfinished ones continue. Methods and seeds may be others than before, whose runs stay in the
            report.
        seeds: of the runs. None: the configuration's.
        changed_rows: as for `crl_tf.experiment.run.run_parts`.
        progress: receives the progress.
    Returns:
        the results of all finished runs, of earlier sittings too, seed by seed, in the order of the methods.
    Raises:
        ValueError: a setting, a name or the folder is not what it should be, before anything is read.
        MeaninglessForData: the data give a method that was asked for by name no meaning, before anything is trained.
    """
    workdir = Path(workdir)
    config = settled(config, workdir if resume else None)
    recipe = config.to_dict()
    first = plan(config, methods, seeds).runs[0]  # refuses what is wrong before anything is read
    with held(workdir):
        previous = _previous(recipe, workdir, seeds, resume)
        first.parts.check_weights()
        data = first.parts.load(progress=progress)
        planned = plan(config, methods, seeds, data=data, previous=previous)
        for method, reason in planned.left_out.items():
            _log.info("%s is %s", method, reason)
        record = _Record(workdir, recipe, planned.methods, planned.seeds, {**previous.failed, **planned.left_out})
        return execute(planned, record, data, resume=resume, export=export, changed_rows=changed_rows, progress=progress)


def plan(
    config: ConfigDict,
    methods: Sequence[str] | str,
    seeds: Sequence[int] | None = None,
    *,
    data: Data | None = None,
    previous: Previous = FIRST_SITTING,
    leave_out: bool = False,
) -> Plan:
    """Says what a comparison will run, and what it leaves out and why. Reads and writes nothing.

    Args:
        config, methods, seeds: as for `compare`.
        data: of the first seed; with them, methods that they give no meaning to are left out or refused.
        previous: earlier sittings of the same comparison.
        leave_out: leave out what has no meaning, as "all" does, of methods that are named as well.
    """
    names = [name for name in METHODS if stands_alone(name)] if methods == ALL else [canonical(name) for name in methods]
    if len(set(names)) != len(names):
        raise ValueError(f"compare must name each method once, received {list(methods)}")
    if not names:
        raise ValueError("compare must name a method or more, received none")
    if seeds is not None and (not seeds or len(set(seeds)) != len(seeds)):
        raise ValueError(f"seeds must name each seed once, and one or more, received {list(seeds)}")
    numbers = [config.seed] if seeds is None else list(seeds)
    for number in numbers:
        check_setting("seed", number)
    runs: list[PlannedRun] = []
    left_out: dict[str, str] = {}
    for name in names:
        try:
            of_seeds = [
                PlannedRun(name, number, assemble(override(config, {"method": name, "seed": number}))) for number in numbers
            ]
            _check_meaning(of_seeds[0], runs, data)
            runs += of_seeds
        except MeaninglessForData as error:
            if methods != ALL and not leave_out:
                raise
            left_out[name] = f"left out: {error}"
    chosen = list(dict.fromkeys(one.method for one in runs))
    return Plan(
        runs=tuple(sorted(runs, key=lambda one: numbers.index(one.seed))),
        methods=tuple(dict.fromkeys([*previous.methods, *chosen])),
        seeds=None if seeds is None else tuple(dict.fromkeys([*previous.seeds, *numbers])),
        left_out=left_out,
    )


def _check_meaning(one: PlannedRun, others: Sequence[PlannedRun], data: Data | None) -> None:
    """Refuses a method that these data give no meaning to, or that comes to the same as another one."""
    for other in others:
        if one.parts.rule == other.parts.rule and one.parts.trains_as(other.parts):
            raise MeaninglessForData(f"{one.method}: with this configuration it is the same as {other.method}")
    if data is not None and one.parts.resample is not None:
        try:
            one.parts.resample(data.dataset.splits["train"].labels, data.dataset.schema)
        except MeaninglessForData as error:
            raise MeaninglessForData(f"{one.method}: {error}") from error


def execute(
    planned: Plan,
    record: _Record,
    data: Data,
    *,
    resume: bool = False,
    export: bool = True,
    changed_rows: bool = False,
    progress: Progress = SILENT,
) -> list[dict[str, Any]]:
    """Runs what a plan says and is not finished yet; returns the results of all finished runs of the comparison.

    Args:
        record: the folder of the comparison, and what is known of it.
        data: of the first seed of the plan.
        resume, export, changed_rows, progress: as for `compare`.
    """
    # Refusals of a folder come before hours of other runs.
    missing = [one for one in planned.runs if open_run(one.parts.recipe, record.folder(one.method, one.seed), resume) is None]
    record.write()
    seed_of_data, clock = planned.runs[0].seed, Clock(len(missing))
    for one in missing:
        key = f"{one.method} · seed {one.seed}"
        _log.info("\n%s", clock.next_line(key))
        if one.seed != seed_of_data:
            # One dataset at a time: its cache may be in memory.
            data = None
            data, seed_of_data = one.parts.load(progress=progress), one.seed
        try:
            trained = record.same_but_for_the_rule(one)
            options = {"resume": resume, "export": export, "changed_rows": changed_rows, "data": data, "trained": trained}
            run_parts(one.parts, record.folder(one.method, one.seed), **options, progress=clock.watched(progress))
            record.failed.pop(key, None)
        except (Diverged, MeaninglessForData) as error:
            record.failed[key] = str(error)
            _log.warning("%s: %s", one.method, error)
        record.write(report=True)
    results = record.results()
    if not results:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in record.failed.items())
        raise ValueError(f"compare: no run came to an end: {reasons}")
    record.write(report=True)
    save_figures([result for result in results if result["seed"] == results[0]["seed"]], record.workdir)
    return results


@dataclass
class _Record:
    """The folder of a comparison: comparison.json, the report, and the runs of all sittings."""

    workdir: Path
    recipe: Mapping[str, Any]
    methods: Sequence[str]
    seeds: Sequence[int] | None
    failed: dict[str, str] = field(default_factory=dict)

    def folder(self, method: str, seed: int) -> Path:
        return folder_of(self.workdir, method, None if self.seeds is None else seed)

    def results(self) -> list[dict[str, Any]]:
        """The results of all finished runs, seed by seed, in the order of the methods."""
        folders = [folder_of(self.workdir, method, seed) for seed in self.seeds or [None] for method in self.methods]
        return [read_result(folder) for folder in folders if (folder / RESULT).is_file()]

    def write(self, *, report: bool = False) -> None:
        results = self.results()
        if report and results:
            write_report(results, self.workdir, failed=self.failed)
        content = {"methods": list(self.methods), "seeds": self.seeds and list(self.seeds), "recipe": self.recipe}
        write_json(self.workdir / COMPARISON, {**content, "results": results, "failed": self.failed})

    def same_but_for_the_rule(self, one: PlannedRun) -> Path | None:
        """The folder of a finished run of another method of this seed that differs in its decision rule alone."""
        for other in self.methods:
            folder = self.folder(other, one.seed)
            if other != one.method and (folder / RESULT).is_file():
                finished = assemble(config_in(folder, CONFIG))
                same_length = finished.names["epochs"] == one.parts.names["epochs"]
                if same_length and finished.trains_as(one.parts, free=FREE_ON_RESUME):
                    return folder
        return None


def _previous(recipe: Mapping[str, Any], workdir: Path, seeds: Sequence[int] | None, resume: bool) -> Previous:
    """What earlier sittings left in a folder; only a comparison by the same configuration may be continued."""
    if not clean_folder(workdir, resume):
        return FIRST_SITTING
    if not (workdir / COMPARISON).is_file():
        raise ValueError(f"resume: {workdir} holds no comparison: pass another --workdir")
    free = (*FREE_ON_RESUME, "method", *(("seed",) if seeds is not None else ()))
    different = differences(config_in(workdir, COMPARISON).to_dict(), recipe, free=free)
    if different:
        raise ValueError(f"resume: {workdir} was started with another recipe ({'; '.join(different)}): pass another --workdir")
    content = methods_and_seeds(workdir)
    if (content["seeds"] is None) != (seeds is None):
        how = "without" if content["seeds"] is None else "with"
        raise ValueError(f"resume: {workdir} was started {how} --seeds: do the same")
    return Previous(content["methods"], content["seeds"] or [], content["failed"])
