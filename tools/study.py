"""Runs the study "when does rectification help?", and keeps its numbers.

    python tools/study.py --data=DATA --runs=runs/study                     everything that is missing
    python tools/study.py --data=DATA --runs=runs/study --only=celeba --seeds=0 --methods=ce,class_rel
    python tools/study.py --collect --runs=runs/study                       numbers of finished runs to study_results.json

DATA is a folder with cifar-100-python/, celeba/ and fashion_product/ below it. A stopped study is started again with the same
command: finished runs are kept, and an unfinished one continues from its last epoch. What is run: `study_recipe.py`. Nothing here
looks at the results to decide what to run next.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from study_recipe import SEEDS, STUDIES

from crl_tf.experiment.config import load_recipe, override
from crl_tf.experiment.workdir import RESULT
from crl_tf.files import write_json


class Run(NamedTuple):
    """One training of the study. study: a row of `STUDIES`."""

    study: str
    method: str
    seed: int

    def folder(self, runs: Path) -> Path:
        return runs / self.study / f"seed{self.seed}" / self.method


def planned(only: Sequence[str], seeds: Sequence[int], methods: Sequence[str] | None) -> Iterator[Run]:
    """The runs in their order: methods of the first seed before those of the second, so that what is there is comparable."""
    for seed in seeds:
        for name in only:
            yield from (Run(name, method, seed) for method in STUDIES[name].methods if methods is None or method in methods)


def command(run: Run, data: Path, runs: Path) -> list[str]:
    """The command of one run. Writes its configuration beside its folder."""
    study, folder = STUDIES[run.study], run.folder(runs)
    settings = {**study.settings, "method": run.method, "seed": run.seed, "data.dir": str((data / study.folder).absolute())}
    config = folder.with_name(f"{run.method}.json")
    write_json(config, {"recipe": override(load_recipe(study.base), settings).to_dict()})
    started = ["--resume"] if folder.is_dir() else [f"--config={config}"]
    return [sys.executable, "-m", "crl_tf.main", *started, f"--workdir={folder}", "--noexport"]


def run_all(todo: Sequence[Run], data: Path, runs: Path) -> list[str]:
    """Runs what is missing, one after the other; returns what went wrong."""
    missing, failed = [run for run in todo if not (run.folder(runs) / RESULT).is_file()], []
    print(f"{len(todo) - len(missing)} of {len(todo)} runs are finished")
    for number, run in enumerate(missing, 1):
        began = time.monotonic()
        log = run.folder(runs).with_name(f"{run.method}.log")
        arguments = command(run, data, runs)
        with open(log, "a", encoding="utf-8") as file:
            code = subprocess.run(arguments, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        what = f"[{number}/{len(missing)}] {run.study} · {run.method} · seed {run.seed}"
        print(f"{what}: {time.monotonic() - began:.0f} s" + (f", FAILED with code {code}, see {log}" if code else ""), flush=True)
        failed += [f"{what}: code {code}"] if code else []
    return failed


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="the folder of all data")
    parser.add_argument("--runs", type=Path, default=Path("runs/study"), help="the folder of the runs")
    parser.add_argument("--only", default=",".join(STUDIES), help="data sets, separated by commas")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--methods", help="methods, separated by commas; default: all of the recipe")
    flags = parser.parse_args(arguments)
    methods = flags.methods.split(",") if flags.methods else None
    todo = list(planned(flags.only.split(","), [int(seed) for seed in flags.seeds.split(",")], methods))
    failed = run_all(todo, flags.data, flags.runs)
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
