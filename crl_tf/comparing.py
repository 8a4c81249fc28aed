"""Several methods on the same data and seeds: what is missing is run, what is there is taken, and a report says what came out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from crl_tf import report
from crl_tf.datasets.source import Dataset
from crl_tf.experiment import check_data, check_settings, run, save_figures
from crl_tf.files import read_json, write_json
from crl_tf.methods import METHODS, settings_of
from crl_tf.recipe import flattened, override
from crl_tf.recipe_data import load, with_cache
from crl_tf.training import Diverged
from crl_tf.workdir import COMPARISON, RESULT, folder_of, occupied_by_run, recipe_in

ALL = "all"
"""In the place of a list: every row of `METHODS` that has a meaning for the data."""


@dataclasses.dataclass
class _Progress:
    """One line for the whole: which run this is, and how long the rest will take by those that are done."""

    total: int
    done: int = 0
    ran: int = 0
    started: float = dataclasses.field(default_factory=time.monotonic)

    def line(self, method: str, seed: int) -> str:
        said = f"[{self.done + 1}/{self.total}] {method} · seed {seed}"
        if not self.ran:
            return said
        left = (time.monotonic() - self.started) / self.ran * (self.total - self.done)
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
    (`crl_tf.report.write_report`) and comparison.json are written anew after every run, so that a stop leaves both whole. A
    method that differs from an earlier one in its decision rule alone takes that one's model. One that diverges is told in the
    report, and the others go on.

    Args:
        config: a recipe; each method sets its own part of it.
        methods: rows of `crl_tf.methods.METHODS`, or several of them joined by +; or "all", without those that the data give no
            meaning to.
        workdir: a new or empty folder; with `resume`, also one with a comparison by the same recipe, whose finished runs are
            taken and whose unfinished ones go on; methods and seeds may be others than before.
        seeds: of the runs, each of which draws its own weights, order and seeded splits; none: the recipe's.
    Returns:
        the results of all runs, seed by seed, in the order of the methods.
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
    for of_method in configs.values():
        check_settings(of_method)
    _check_folder(config, workdir, resume)

    numbers = [config.seed] if seeds is None else list(seeds)
    datasets = {numbers[0]: load(override(config, {"seed": numbers[0]}))}
    left_out = _without_meaning(configs, datasets[numbers[0]], refuse=given != ALL)
    methods = [method for method in methods if method not in left_out]
    datasets[numbers[0]] = with_cache(config, datasets[numbers[0]])
    plan = {"methods": methods, "seeds": None if seeds is None else numbers, "recipe": config.to_dict()}
    write_json(workdir / COMPARISON, plan)

    results: list[dict[str, Any]] = []
    failed = dict(left_out)
    progress = _Progress(len(numbers) * len(methods))
    for number in numbers:
        seeded = {method: override(configs[method], {"seed": number}) for method in methods}
        folders = {method: folder_of(workdir, method, None if seeds is None else number) for method in methods}
        # One dataset at a time: its cache may be in memory.
        dataset = datasets.pop(number, None) or with_cache(config, load(override(config, {"seed": number})))
        for method in methods:
            there = (folders[method] / RESULT).is_file()
            print(f"\n{progress.line(method, number)}", flush=True)
            try:
                trained = None if there else _same_but_for_the_rule(method, seeded, folders)
                result = run(seeded[method], folders[method], resume=resume, export=export, dataset=dataset, trained=trained)
                results.append({**result, "method": method})
            except Diverged as error:
                failed[method] = f"seed {number}: {error}"
                print(f"crl_tf: {method}: {error}", flush=True)
            progress.done += 1
            progress.ran += not there
            if results:
                report.write_report(results, workdir, failed=failed)
                write_json(workdir / COMPARISON, {**plan, "results": results, "failed": failed})
    if not results:
        raise ValueError(f"compare: no method came to an end: {'; '.join(f'{name}: {why}' for name, why in failed.items())}")
    save_figures([result for result in results if result["seed"] == numbers[0]] or results, workdir)
    return results


def _check_folder(config: ConfigDict, workdir: Path, resume: bool) -> None:
    """Only a comparison by the same recipe may be gone on with."""
    if not occupied_by_run(workdir, resume):
        return
    if not (workdir / COMPARISON).is_file():
        raise ValueError(f"resume: {workdir} holds no comparison: pass another --workdir")
    before, now = (flattened(c.to_dict()) for c in (recipe_in(workdir, COMPARISON), config))
    # What the methods set is theirs; the rest is checked again, run by run.
    different = [key for key in ("dataset", "model", "data.dir") if before[key] != now[key]]
    if different:
        said = "; ".join(f"{key}: {before[key]!r} there, {now[key]!r} now" for key in different)
        raise ValueError(f"resume: {workdir} was started with another recipe ({said}): pass another --workdir")


def _without_meaning(configs: Mapping[str, ConfigDict], dataset: Dataset, *, refuse: bool) -> dict[str, str]:
    """The methods that these data give no meaning to, and why; refused where they were asked for by name."""
    found = {}
    for method, config in configs.items():
        try:
            check_data(config, dataset)
        except ValueError as error:
            if refuse:
                raise ValueError(f"{method}: {error}") from error
            found[method] = f"left out: {error}"
            print(f"{method} is left out: {error}", flush=True)
    return found


def _same_but_for_the_rule(method: str, configs: Mapping[str, ConfigDict], folders: Mapping[str, Path]) -> Path | None:
    """A finished run of another method with the same recipe but for the decision rule."""
    mine = {**flattened(configs[method].to_dict()), "rule": None}
    for other, config in configs.items():
        same = other != method and {**flattened(config.to_dict()), "rule": None} == mine
        if same and (folders[other] / RESULT).is_file():
            if read_json(folders[other] / RESULT)["epochs"] == config.train.epochs:
                return folders[other]
    return None
