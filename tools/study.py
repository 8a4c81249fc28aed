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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from study_recipe import REFERENCES, SEEDS, STUDIES

from crl_tf.decision import best_rule
from crl_tf.experiment.config import load_recipe, override
from crl_tf.experiment.intervals import paired_difference
from crl_tf.experiment.predictions import PREDICTIONS, Predictions, load_predictions
from crl_tf.experiment.workdir import CONFIG, RESULT
from crl_tf.files import read_json, write_json

RESULTS = Path(__file__).with_name("study_results.json")
RANKINGS = ("auroc", "average_precision", "rarest_third_auroc", "rarest_third_average_precision")
SHARES = ("balanced_accuracy", "rarest_third", "most_frequent_third")


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


def facts_of(run: Run, result: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a finished run: its settings, versions and numbers, on validation and test images."""
    validation = result["validation"]
    rule = best_rule(validation["rules"])

    def numbers(of_split: Mapping[str, Any]) -> dict[str, Any]:
        of_rules = {name: {share: of_split["rules"][name][share] for share in SHARES} for name in of_split["rules"]}
        return {**of_rules, "best": of_rules[rule], "ranking": {name: of_split[name] for name in RANKINGS}}

    return {
        **run._asdict(),
        "rule": rule,
        "seconds": result["seconds"],
        "validation": numbers(validation),
        "test": numbers(result),
        "intervals": result["intervals"],
        "L_crl_over_constant": {
            label: facts["L_crl_over_constant"] for label, facts in result.get("rectification", {"labels": {}})["labels"].items()
        },
        "versions": config["versions"],
    }


def differences(finished: Mapping[Run, Mapping[str, Any]], runs: Path) -> list[dict[str, Any]]:
    """Every method against every reference on the same seeds, each run under its best rule: paired bootstrap over test images."""
    rows = []
    for study, facts in STUDIES.items():
        for method in facts.methods:
            for against in REFERENCES:
                pairs = [
                    (run, other)
                    for run in finished
                    if (run.study, run.method) == (study, method)
                    and (other := Run(facts.compared_with or study, against, run.seed)) in finished
                ]
                if method == against or not pairs:
                    continue
                sides = [[_under_best_rule(run, finished[run], runs) for run in side] for side in zip(*pairs, strict=True)]
                by_share = {share: paired_difference(*sides, share)._asdict() for share in SHARES}
                seeds = [run.seed for run, _ in pairs]
                rows.append({"study": study, "method": method, "against": against, "seeds": seeds, **by_share})
    return rows


def _under_best_rule(run: Run, result: Mapping[str, Any], runs: Path) -> Predictions:
    return replace(load_predictions(run.folder(runs) / PREDICTIONS), rule=best_rule(result["validation"]["rules"]))


def merged(kept: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[Any]:
    """Rows of earlier sittings, whose folders may be gone, and new ones; of equal keys that of more seeds, or the new one."""
    rows = {tuple(row[key] for key in keys): row for row in kept}
    for row in new:
        place = tuple(row[key] for key in keys)
        if len(row.get("seeds", ())) >= len(rows.get(place, {}).get("seeds", ())):
            rows[place] = row
    return list(rows.values())


def collect(runs: Path) -> int:
    """Adds the numbers of all finished runs to `study_results.json`; returns how many runs it then holds."""
    everything = planned(list(STUDIES), SEEDS, None)
    finished = {run: read_json(run.folder(runs) / RESULT) for run in everything if (run.folder(runs) / RESULT).is_file()}
    studies = {}
    for name, study in STUDIES.items():
        settings = {key: list(value) if isinstance(value, tuple) else value for key, value in study.settings.items()}
        studies[name] = {"title": study.title, "base": study.base, "settings": settings, "form": study.form}
    of_runs = [facts_of(run, result, read_json(run.folder(runs) / CONFIG)) for run, result in finished.items()]
    before = read_json(RESULTS) if RESULTS.is_file() else {"runs": [], "differences": []}
    all_runs = merged(before["runs"], of_runs, ("study", "method", "seed"))
    all_differences = merged(before["differences"], differences(finished, runs), ("study", "method", "against"))
    write_json(RESULTS, {"studies": studies, "runs": all_runs, "differences": all_differences})
    return len(all_runs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="the folder of all data")
    parser.add_argument("--runs", type=Path, default=Path("runs/study"), help="the folder of the runs")
    parser.add_argument("--only", default=",".join(STUDIES), help="data sets, separated by commas")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--methods", help="methods, separated by commas; default: all of the recipe")
    parser.add_argument("--collect", action="store_true", help="write study_results.json, run nothing")
    flags = parser.parse_args(arguments)
    if flags.collect:
        print(f"{collect(flags.runs)} runs in {RESULTS.name}")
        return
    if flags.data is None:
        parser.error("--data must name the folder of all data")
    methods = flags.methods.split(",") if flags.methods else None
    todo = list(planned(flags.only.split(","), [int(seed) for seed in flags.seeds.split(",")], methods))
    failed = run_all(todo, flags.data, flags.runs)
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
