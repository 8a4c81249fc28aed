"""Several methods on the same data and seeds: a plan says what will run, and is then executed; a report says what came out."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from crl_tf.callbacks import Diverged
from crl_tf.datasets.resampling import MeaninglessForData, resample
from crl_tf.experiment.config import check, override, resolved
from crl_tf.experiment.data import Data, load_data
from crl_tf.experiment.methods import METHODS, PARTS, canonical, combined
from crl_tf.experiment.report import write_report
from crl_tf.experiment.run import run, save_figures
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
    methods_and_seeds,
    open_run,
)
from crl_tf.files import read_json, write_json
from crl_tf.progress import SILENT, Progress

_log = logging.getLogger(__name__)

ALL = "all"
"""In place of a list of methods: every row of `METHODS` that has a meaning for the data."""


class PlannedRun(NamedTuple):
    """One training of a comparison: its method and seed, its configuration, and its folder."""

    method: str
    seed: int
    config: ConfigDict
    folder: Path


@dataclass(frozen=True)
class Plan:
    """What a comparison will run.

    config: the configuration of all runs but for method and seed. runs: seed by seed, in the order of the methods.
    methods, seeds: of this and of earlier sittings; seeds None: the configuration's. left_out: methods, each with the reason.
    failed: runs of earlier sittings without a result, each with the reason.
    """

    config: ConfigDict
    workdir: Path
    runs: tuple[PlannedRun, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...] | None
    left_out: Mapping[str, str]
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def folders(self) -> list[Path]:
        """The folders of all runs, those of earlier sittings included, seed by seed, in the order of the methods."""
        return [folder_of(self.workdir, method, seed) for seed in self.seeds or [None] for method in self.methods]


def compare(
    config: ConfigDict,
    methods: Sequence[str] | str,
    workdir: Path,
    *,
    seeds: Sequence[int] | None = None,
    resume: bool = False,
    export: bool = True,
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
        progress: receives the progress.
    Returns:
        the results of all finished runs, of earlier sittings too, seed by seed, in the order of the methods.
    Raises:
        ValueError: a setting, a name or the folder is not what it should be, before anything is read.
        MeaninglessForData: the data give a method that was asked for by name no meaning, before anything is trained.
    """
    workdir = Path(workdir)
    planned = plan(config, methods, workdir, seeds)
    previous = _previous(config, workdir, seeds, resume)
    data = load_data(planned.runs[0].config, progress=progress)
    planned = plan(config, methods, workdir, seeds, data=data, previous=previous)
    for method, reason in planned.left_out.items():
        _log.info("%s is %s", method, reason)
    return execute(planned, data, resume=resume, export=export, progress=progress)


def plan(
    config: ConfigDict,
    methods: Sequence[str] | str,
    workdir: Path,
    seeds: Sequence[int] | None = None,
    *,
    data: Data | None = None,
    previous: Mapping[str, Any] | None = None,
) -> Plan:
    """Says what a comparison will run, and what it leaves out and why. Reads and writes nothing.

    Args:
        config, methods, workdir, seeds: as for `compare`.
        data: of the first seed; with them, methods that they give no meaning to are left out or refused.
        previous: "methods", "seeds" and "failed" of earlier sittings.
    """
    names = list(METHODS) if methods == ALL else [canonical(name) for name in methods]
    if len(set(names)) != len(names):
        raise ValueError(f"compare must name each method once, received {list(methods)}")
    if not names:
        raise ValueError("compare must name a method or more, received none")
    if seeds is not None and (not seeds or len(set(seeds)) != len(seeds)):
        raise ValueError(f"seeds must name each seed once, and one or more, received {list(seeds)}")
    numbers = [config.seed] if seeds is None else list(seeds)
    for number in numbers:
        check_setting("seed", number)
    first = override(config, {"seed": numbers[0]})
    chosen: dict[str, ConfigDict] = {}
    left_out: dict[str, str] = {}
    for name in names:
        try:
            of_method = resolved(override(first, {"method": name}))
            check(of_method)
            _check_meaning(name, of_method, chosen, data)
            chosen[name] = of_method
        except MeaninglessForData as error:
            if methods != ALL:
                raise
            left_out[name] = f"left out: {error}"
    previous = previous or {}
    all_methods = tuple(dict.fromkeys([*previous.get("methods", []), *chosen]))
    all_seeds = None if seeds is None else tuple(dict.fromkeys([*previous.get("seeds", []), *numbers]))

    def folder(name: str, seed: int) -> Path:
        return folder_of(workdir, name, None if seeds is None else seed)

    runs = tuple(
        PlannedRun(
            name, number, override(of_method, {"seed": number}), folder_of(workdir, name, None if seeds is None else number)
        )
        for number in numbers
        for name, of_method in chosen.items()
    )
    return Plan(config, workdir, runs, all_methods, all_seeds, left_out, previous.get("failed", {}))


def _check_meaning(name: str, config: ConfigDict, others: Mapping[str, ConfigDict], data: Data | None) -> None:
    """Refuses a method that these data give no meaning to, or that comes to the same as another one."""
    same = next((other for other, of_other in others.items() if not differences(of_other, config, free=["method"])), None)
    if same is not None and _parts(same) == _parts(name):
        raise MeaninglessForData(f"{name}: with this configuration it is the same as {same}")
    resampling = combined(name).resampling
    if data is not None and resampling != "none":
        try:
            resample(resampling, data.dataset.splits["train"].labels, data.dataset.schema, config.seed)
        except MeaninglessForData as error:
            raise MeaninglessForData(f"{name}: {error}") from error


def _parts(name: str) -> list[str | None]:
    return [getattr(combined(name), part) for part in PARTS]


def execute(
    planned: Plan, data: Data, *, resume: bool = False, export: bool = True, progress: Progress = SILENT
) -> list[dict[str, Any]]:
    """Runs what a plan says and is not finished yet; returns the results of all finished runs of the comparison.

    Args:
        data: of the first seed of the plan.
        resume, export, progress: as for `compare`.
    """
    # Refusals of a folder come before hours of other runs.
    missing = [one for one in planned.runs if open_run(one.config, one.folder, resume) is None]
    failed = {**planned.failed, **planned.left_out}
    _write_plan(planned, failed)
    seed_of_data, clock = planned.runs[0].seed, _Clock(len(missing))
    for one in missing:
        _log.info("\n%s", clock.next_line(f"{one.method} · seed {one.seed}"))
        if one.seed != seed_of_data:
            # One dataset at a time: its cache may be in memory.
            data = None
            data, seed_of_data = load_data(one.config, progress=progress), one.seed
        key = f"{one.method} · seed {one.seed}"
        try:
            trained = _same_but_for_the_rule(planned, one)
            run(one.config, one.folder, resume=resume, export=export, data=data, trained=trained, progress=progress)
            failed.pop(key, None)
        except (Diverged, MeaninglessForData) as error:
            failed[key] = str(error)
            _log.warning("%s: %s", one.method, error)
        _write_report(planned, failed)
    results = _results(planned)
    if not results:
        raise ValueError(f"compare: no run came to an end: {'; '.join(f'{name}: {why}' for name, why in failed.items())}")
    _write_report(planned, failed)
    save_figures([result for result in results if result["seed"] == results[0]["seed"]], planned.workdir)
    return results


class _Clock:
    """Which run of a comparison this is, and how long the rest will take, by those that are done."""

    def __init__(self, total: int) -> None:
        self._total, self._started, self._number = total, time.monotonic(), 0

    def next_line(self, name: str) -> str:
        done, self._number = self._number, self._number + 1
        line = f"[{self._number}/{self._total}] {name}"
        if not done:
            return line
        minutes = round((time.monotonic() - self._started) / done * (self._total - done) / 60)
        left = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"
        return f"{line} · about {left} left for all"


def _results(planned: Plan) -> list[dict[str, Any]]:
    return [read_json(folder / RESULT) for folder in planned.folders if (folder / RESULT).is_file()]


def _write_plan(planned: Plan, failed: Mapping[str, str]) -> None:
    content = {
        "methods": list(planned.methods),
        "seeds": None if planned.seeds is None else list(planned.seeds),
        "recipe": planned.config.to_dict(),
        "results": _results(planned),
        "failed": dict(failed),
    }
    write_json(planned.workdir / COMPARISON, content)


def _write_report(planned: Plan, failed: Mapping[str, str]) -> None:
    results = _results(planned)
    if results:
        write_report(results, planned.workdir, failed=failed)
    _write_plan(planned, failed)


def _same_but_for_the_rule(planned: Plan, one: PlannedRun) -> Path | None:
    """The folder of a finished run of another method that differs from this one in its decision rule alone."""
    method = combined(one.method)
    for other in planned.methods:
        folder = folder_of(planned.workdir, other, None if planned.seeds is None else one.seed)
        if other == one.method or not (folder / RESULT).is_file():
            continue
        theirs = combined(other)
        if (theirs.loss, theirs.trainer, theirs.resampling) != (method.loss, method.trainer, method.resampling):
            continue
        finished = config_in(folder, CONFIG)
        if not differences(finished, one.config, free=["method", *FREE_ON_RESUME]) and (
            finished.train.epochs == one.config.train.epochs
        ):
            return folder
    return None


def _previous(config: ConfigDict, workdir: Path, seeds: Sequence[int] | None, resume: bool) -> dict[str, Any]:
    """Methods, seeds and failures of the comparison in a folder; only one by the same configuration may be continued."""
    if not clean_folder(workdir, resume):
        return {}
    if not (workdir / COMPARISON).is_file():
        raise ValueError(f"resume: {workdir} holds no comparison: pass another --workdir")
    # Settings that methods set are theirs.
    set_by_methods = {key for row in METHODS.values() for key in row.settings}
    free = (*FREE_ON_RESUME, *set_by_methods, "method", *(("seed",) if seeds is not None else ()))
    different = differences(config_in(workdir, COMPARISON), config, free=free)
    if different:
        raise ValueError(f"resume: {workdir} was started with another recipe ({'; '.join(different)}): pass another --workdir")
    content = methods_and_seeds(workdir)
    if (content["seeds"] is None) != (seeds is None):
        how = "without" if content["seeds"] is None else "with"
        raise ValueError(f"resume: {workdir} was started {how} --seeds: do the same")
    return {**content, "seeds": content["seeds"] or [], "failed": read_json(workdir / COMPARISON).get("failed", {})}
