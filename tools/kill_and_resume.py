"""Kills trainings at random moments, resumes them, and compares them with trainings that were never stopped, bit for bit.

    python tools/kill_and_resume.py --kills=50 --runs=runs/kills
    python tools/kill_and_resume.py --methods=ce,ldam --kills=6 --runs=runs/kills

Every method is trained once undisturbed, which takes T seconds from the start of the process to its end. A second training is
killed (SIGKILL) after a time drawn evenly from 0 to T, resumed with --resume, killed again, and so on, until its share of the
kills is used up; then it comes to its end. Compared are the weights of model.keras and of its optimizer, history.csv and
result.json without seconds, the decisions in predictions.npz, and report.csv of a comparison without seconds.

A name with commas in brackets is a comparison: --methods='ce,[ce,class_rel]'. It exits with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

METHODS = (
    "ce",
    "class_rel+pairs",
    "instance_abs",
    "class_dis+logit_adjusted_base",
    "ldam",
    "curriculum",
    "focal+over_sampling",
    "lmle",
    "triplet_knn",
    "[ce,class_rel,logit_adjustment]",
)
SETTINGS = (
    "--model=cifarnet",  # it has dropout
    "--width=0.2",
    "--epochs=4",
    "--checkpoint_every=20",
    "--batch_size=128",
    "--learning_rate=0.01",
    "--alpha=0.3",
    "--alpha_warmup_epochs=2",
    "--config.data.augment=flip,crop",
    "--config.train.schedule=cosine",
    "--config.embedding.pretraining_epochs=1",
    "--config.embedding.cluster_every=10",
)
TIMES = ("seconds", "clustering_seconds", "ratio")


def names_of(text: str) -> list[str]:
    """The methods and comparisons of a list.

    >>> names_of("ce,[ce,class_rel],ldam")
    ['ce', '[ce,class_rel]', 'ldam']
    """
    return re.findall(r"\[[^\]]*\]|[^,]+", text)


def command(name: str, workdir: Path) -> list[str]:
    """The command that trains a method, or goes on with it where the folder holds something to go on with."""
    started = any(not path.name.startswith(".") for path in workdir.glob("*.json"))
    if not started:
        shutil.rmtree(workdir, ignore_errors=True)
    method = f"--compare={name[1:-1]}" if name.startswith("[") else f"--method={name}"
    what = ["--resume"] if started else [method, *SETTINGS]
    return [sys.executable, "-m", "crl_tf.main", *what, f"--workdir={workdir}"]


def train(name: str, workdir: Path, kill_after: float | None = None) -> tuple[float, bool]:
    """Trains until the end, or until it is killed; returns the seconds, and whether it came to its end."""
    began = time.monotonic()
    with open(workdir.with_name(f"{workdir.name}.log"), "a", encoding="utf-8") as log:
        process = subprocess.Popen(command(name, workdir), stdout=log, stderr=subprocess.STDOUT)
        try:
            code = process.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return time.monotonic() - began, False
    if code:
        raise SystemExit(f"{name}: ended with code {code}, see {log.name}")
    return time.monotonic() - began, True


def without_times(content: Any) -> Any:
    """JSON without the entries that are times.

    >>> without_times({"seconds": 1.5, "labels": [{"accuracy": 0.5, "seconds": 2}]})
    {'labels': [{'accuracy': 0.5}]}
    """
    if isinstance(content, dict):
        return {key: without_times(value) for key, value in content.items() if not any(time in key for time in TIMES)}
    return [without_times(value) for value in content] if isinstance(content, list) else content


def arrays_of(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every array of a .keras file, with its place."""
    found: list[tuple[str, np.ndarray]] = []
    with zipfile.ZipFile(path) as content, h5py.File(io.BytesIO(content.read("model.weights.h5"))) as weights:
        weights.visititems(lambda key, item: found.append((key, item[()])) if isinstance(item, h5py.Dataset) else None)
    yield from found


def differences(whole: Path, stopped: Path) -> list[str]:
    """What differs between two folders of the same training or comparison."""
    found = []
    for path in sorted(whole.rglob("*")):
        other = stopped / path.relative_to(whole)
        if path.name in ("result.json", "history.csv", "report.csv", "model.keras", "predictions.npz") and not _same(path, other):
            found.append(str(path.relative_to(whole)))
    return found


def _same(path: Path, other: Path) -> bool:
    if not other.is_file():
        return False
    if path.suffix == ".json":
        return without_times(json.loads(path.read_text())) == without_times(json.loads(other.read_text()))
    if path.suffix == ".csv":
        texts = (io.StringIO(file.read_text(encoding="utf-8"), newline="") for file in (path, other))
        ours, theirs = ([without_times(row) for row in csv.DictReader(text)] for text in texts)
        return ours == theirs
    if path.suffix == ".npz":
        with np.load(path) as one, np.load(other) as two:
            return set(one) == set(two) and all(np.array_equal(one[key], two[key]) for key in one)
    ours, theirs = dict(arrays_of(path)), dict(arrays_of(other))
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, trains, kills, resumes and compares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--kills", type=int, default=50, help="of all methods together")
    parser.add_argument("--runs", type=Path, default=Path("runs/kills"), help="the folder of the trainings")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    flags = parser.parse_args(arguments)
    flags.runs.mkdir(parents=True, exist_ok=True)
    moments, names, wrong = random.Random(flags.seed), names_of(flags.methods), []
    for place, name in enumerate(names):
        kills = flags.kills // len(names) + (place < flags.kills % len(names))
        whole, stopped = flags.runs / f"{place:02}-whole", flags.runs / f"{place:02}-stopped"
        for folder in (whole, stopped):
            shutil.rmtree(folder, ignore_errors=True)
        seconds, _ = train(name, whole)
        at = []
        while len(at) < kills:
            lasted, ended = train(name, stopped, moments.uniform(0, seconds))
            if ended:
                # What is left was shorter than the moment: a new training for the kills that are left.
                wrong += [f"{name}: {path}" for path in differences(whole, stopped)]
                shutil.rmtree(stopped)
                continue
            at.append(lasted)
        train(name, stopped)
        different = differences(whole, stopped)
        wrong += [f"{name}: {path}" for path in different]
        moments_text = ", ".join(f"{moment:.1f}" for moment in at)
        print(f"{name}: {seconds:.1f} s, killed after {moments_text} s: {', '.join(different) or 'identical'}", flush=True)
    if wrong:
        sys.exit("differs: " + "; ".join(dict.fromkeys(wrong)))
    print(f"{flags.kills} kills, {len(names)} trainings: all identical")


if __name__ == "__main__":
    main()
