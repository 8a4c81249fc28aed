"""Several methods on the same data and seeds: what is missing is run, what is there is taken, and a report says what came out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from crl_tf.callbacks import Diverged
from crl_tf.experiment import report
from crl_tf.experiment.config import flattened, override
from crl_tf.experiment.data import load, with_cache
from crl_tf.experiment.methods import METHODS, PLAIN, method_name, settings_of
from crl_tf.experiment.run import MeaninglessData, check_data, check_settings, run, save_figures
from crl_tf.experiment.workdir import (
    COMPARISON,
    CONFIG,
    FREE_ON_RESUME,
    RESULT,
    folder_of,
    occupied_by_run,
    open_workdir,
    plan_in,
    recipe_in,
)
from crl_tf.files import read_json, write_json

ALL = "all"
"""In the place of a list: every row of `METHODS` that has a meaning for the data."""


@dataclasses.dataclass
class _Progress:
    """One line for the whole: which run this is, and how long the rest will take by those that are done."""

    total: int
    done: int = 0
    started: float = dataclasses.field(default_factory=time.monotonic)

    def line(self, method: str, seed: int) -> str:
        said = f"[{self.done + 1}/{self.total}] {method} · seed {seed}"
        if not self.done:
            return said
        left = (time.monotonic() - self.started) / self.done * (self.total - self.done)
        return f"{said} · about {_duration(left)} left for all"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"


def compare(
    config: ConfigDict,
    methods: Sequence[str] | str,
    workdir: Path,
    *,
    seeds: Sequence[int] | None = None,
    resume: bool = False,
    export: bool = True,
) -> list[dict[str, Any]]:
    """Runs methods on the same data and seeds and writes a report of them; the first, or `ce`, is the baseline.

    Every run has its folder: <workdir>/<method>, or <workdir>/seed<n>/<method> where seeds are given. The report
    (`crl_tf.experiment.report.write_report`) and comparison.json are written anew after every run, so that a stop leaves both whole. A
    method that differs from an earlier one in its decision rule alone takes that one's model. One that diverges is told in the
    report, and the others go on.

    Args:
        config: a recipe; each method sets its own part of it.
        methods: rows of `crl_tf.methods.METHODS`, or several of them joined by +; or "all", without those that the data give no
            meaning to.
        workdir: a new or empty folder; with `resume`, also one with a comparison by the same recipe, whose finished runs are
            taken and whose unfinished ones go on; methods and seeds may be others than before, whose runs stay in the report.
        seeds: of the runs, each of which draws its own weights, order and seeded splits; none: the recipe's.
    Returns:
        the results of all runs that are finished, of earlier sittings too, seed by seed, in the order of the methods.
    Raises:
        ValueError: for a method that the data give no meaning to, before anything is trained.
    """
    workdir = Path(workdir)
    given = methods
    methods = list(METHODS) if given == ALL else list(methods)
    configs = {method: override(config, settings_of(method)) for method in methods}
    if len(configs) != len(methods):
        raise ValueError(f"compare must name each method once, received {methods}")
    if not methods:
        raise ValueError("compare must name a method or more, received none")
    if seeds is not None and (not seeds or len(set(seeds)) != len(seeds)):
        raise ValueError(f"seeds must name each seed once, and one or more, received {list(seeds)}")
    numbers = [config.seed] if seeds is None else list(seeds)
    for number in numbers:
        check_settings(override(config, {"seed": number}))
    left_out = _without_meaning(configs, check_settings, refuse=given != ALL)
    left_out |= _without_meaning(_twice(configs), _same_as_another, refuse=given != ALL)
    configs = {method: of_method for method, of_method in configs.items() if method not in left_out}
    before = _gone_on_with(config, workdir, seeds, resume)

    dataset = load(override(config, {"seed": numbers[0]}))
    left_out |= _without_meaning(configs, lambda c: check_data(c, dataset), refuse=given != ALL)
    configs = {method: of_method for method, of_method in configs.items() if method not in left_out}
    dataset = with_cache(config, dataset)
    done = _Comparison(config, workdir, before, list(configs), None if seeds is None else numbers, left_out)
    # Before hours of other runs, not after them.
    missing = {
        (number, method): of_method
        for number in numbers
        for method, of_method in ((m, override(c, {"seed": number})) for m, c in configs.items())
        if open_workdir(of_method, done.folder(number, method), resume) is None
    }
    done.write_plan()
    progress = _Progress(len(missing))
    for number in numbers:
        wanted = {method: of_method for (n, method), of_method in missing.items() if n == number}
        if wanted and number != numbers[0]:
            # One dataset at a time: its cache may be in memory.
            dataset = with_cache(config, load(override(config, {"seed": number})))
        for method, of_method in wanted.items():
            print(f"\n{progress.line(method, number)}", flush=True)
            folder = done.folder(number, method)
            try:
                check_data(of_method, dataset)
                trained = done.same_but_for_the_rule(number, method, of_method)
                run(of_method, folder, resume=resume, export=export, dataset=dataset, trained=trained)
                done.failed.pop(f"{method} · seed {number}", None)
            except (Diverged, MeaninglessData) as error:
                done.failed[f"{method} · seed {number}"] = str(error)
                print(f"crl_tf: {method}: {error}", flush=True)
            progress.done += 1
            done.write_report()
    results = done.results()
    if not results:
        raise ValueError(f"compare: no run came to an end: {'; '.join(f'{name}: {why}' for name, why in done.failed.items())}")
    done.write_report()
    save_figures([result for result in results if result["seed"] == results[0]["seed"]], workdir)
    return results


class _Comparison:
    """What is in the folder of a comparison: the plan of all its sittings, finished runs, what failed, the report."""

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        before: Mapping[str, Any],
        methods: list[str],
        seeds: list[int] | None,
        left_out: Mapping[str, str],
    ) -> None:
        self._config, self._workdir = config, workdir
        self._methods = list(dict.fromkeys([*before.get("methods", []), *methods]))
        self._seeds = None if seeds is None else list(dict.fromkeys([*before.get("seeds", []), *seeds]))
        self.failed = {**before.get("failed", {}), **left_out}

    def folder(self, seed: int, method: str) -> Path:
        return folder_of(self._workdir, method, None if self._seeds is None else seed)

    def results(self) -> list[dict[str, Any]]:
        """Of all runs that are finished, seed by seed, in the order of the methods."""
        numbers = [self._config.seed] if self._seeds is None else self._seeds
        folders = [self.folder(number, method) for number in numbers for method in self._methods]
        return [read_json(folder / RESULT) for folder in folders if (folder / RESULT).is_file()]

    def write_plan(self) -> None:
        """The plan, and what there is of it."""
        plan = {"methods": self._methods, "seeds": self._seeds, "recipe": self._config.to_dict()}
        write_json(self._workdir / COMPARISON, {**plan, "results": self.results(), "failed": self.failed})

    def write_report(self) -> None:
        results = self.results()
        if results:
            report.write_report(results, self._workdir, failed=self.failed)
        self.write_plan()

    def same_but_for_the_rule(self, seed: int, method: str, config: ConfigDict) -> Path | None:
        """A finished run of another method of this seed, with the same recipe but for the decision rule."""
        mine = _but_for(config, ("rule", *FREE_ON_RESUME))
        for other in self._methods:
            folder = self.folder(seed, other)
            if other == method or not (folder / RESULT).is_file():
                continue
            theirs = recipe_in(folder, CONFIG)
            if _but_for(theirs, ("rule", *FREE_ON_RESUME)) == mine and theirs.train.epochs == config.train.epochs:
                return folder
        return None


def _but_for(config: ConfigDict, keys: Iterable[str]) -> dict[str, Any]:
    left_out = set(keys)
    return {key: value for key, value in flattened(config.to_dict()).items() if key not in left_out}


def _twice(configs: Mapping[str, ConfigDict]) -> dict[str, ConfigDict]:
    """The methods that come to the same, with this recipe, as one before them (class_rel_unmined where kappa is none)."""
    names = {method: method_name(config) for method, config in configs.items()}
    for method, name in names.items():
        if set(name.split("+")) != set(method.split("+")):
            print(f"{method} is {name} with this recipe", flush=True)
    first: dict[str, str] = {}
    for method, name in names.items():
        first.setdefault(name, method)
    return {method: configs[method] for method, name in names.items() if first[name] != method}


def _same_as_another(config: ConfigDict) -> None:
    raise ValueError(f"with this recipe it is {method_name(config)}, which another method is already")


def _gone_on_with(config: ConfigDict, workdir: Path, seeds: Sequence[int] | None, resume: bool) -> dict[str, Any]:
    """The plan of the comparison in a folder; only one by the same recipe may be gone on with."""
    if not occupied_by_run(workdir, resume):
        return {}
    if not (workdir / COMPARISON).is_file():
        raise ValueError(f"resume: {workdir} holds no comparison: pass another --workdir")
    # What the methods set is theirs.
    set_by_methods = {key for row in METHODS.values() for key in row.settings} | set(PLAIN)
    free = (*FREE_ON_RESUME, *set_by_methods, *(("seed",) if seeds is not None else ()))
    before, now = (_but_for(c, free) for c in (recipe_in(workdir, COMPARISON), config))
    different = [f"{key}: {before[key]!r} there, {now[key]!r} now" for key in now if before[key] != now[key]]
    if different:
        raise ValueError(f"resume: {workdir} was started with another recipe ({'; '.join(different)}): pass another --workdir")
    plan = plan_in(workdir)
    if (plan["seeds"] is None) != (seeds is None):
        raise ValueError(f"resume: {workdir} was started {'without' if plan['seeds'] is None else 'with'} --seeds: do the same")
    return {**plan, "seeds": plan["seeds"] or [], "failed": read_json(workdir / COMPARISON).get("failed", {})}


def _without_meaning(configs: Mapping[str, ConfigDict], check: Callable[[ConfigDict], None], *, refuse: bool) -> dict[str, str]:
    """The methods that a check refuses, and why; an error where they were asked for by name."""
    found = {}
    for method, config in configs.items():
        try:
            check(config)
        except ValueError as error:
            if refuse:
                raise type(error)(f"{method}: {error}") from error
            found[method] = f"left out: {error}"
            print(f"{method} is left out: {error}", flush=True)
    return found
