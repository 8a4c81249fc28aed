"""Trains in float32 and in mixed_bfloat16 on three data sets and three seeds: does the precision move what is measured?

    nice -n 5 python tools/compare_precisions.py --data=DATA --runs=runs/precisions        20 minutes of one core
    python tools/compare_precisions.py --runs=runs/precisions --show                       the table of what is finished

DATA is a folder with cifar-100-python/ and fashion_product/ below it. Trainings are short, on a share of the images; each has the
same seed in both precisions: the same weights at the start, order, augmentation and images. Prints a table in Markdown for
docs/performance.md. The same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from crl_tf.decision import best_rule
from crl_tf.experiment.config import load_recipe, override
from crl_tf.experiment.run import run
from crl_tf.experiment.workdir import CONFIG, RESULT
from crl_tf.files import read_json

PRECISIONS = ("float32", "mixed_bfloat16")
COMMON: Mapping[str, Any] = {"train.optimizer": "adamw", "train.learning_rate": 0.001, "data.cache": "memory"}
DATASETS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "digits, DeepID2, 5 epochs": ("handwriting", "", {"train.epochs": 5}),
    "CIFAR-100-imb(1), 25 % of the images, CifarNet, 8 epochs": (
        "cifar100_imb",
        ".",
        {**COMMON, "data.train_share": 0.25, "train.epochs": 8, "train.batch_size": 64, "crl.alpha_warmup_epochs": 0},
    ),
    "fashion products, 15 % of the images, DeepID2 at 48 x 36, 8 epochs": (
        "attribute_csv",
        "fashion_product/attributes.csv",
        {
            **COMMON,
            **{"model": "deepid2", "data.image_size": (48, 36), "data.train_share": 0.15, "train.epochs": 8},
            **{"train.least_steps": 0, "train.keep": "last", "train.patience": None, "train.weight_decay": 0.0005},
        },
    ),
}
"""What is trained, in words: a recipe, its data below DATA, and what differs from the recipe."""

NUMBERS = ("balanced, largest score", "balanced, best rule", "rarest third, best rule", "AUROC, rarest third")


def jobs(runs: Path, seeds: Sequence[int]) -> Iterator[tuple[str, str, int, Path]]:
    """Every training with its folder; a seed of all data sets before the next one."""
    for seed in seeds:
        for name, (recipe, _, _) in DATASETS.items():
            for precision in PRECISIONS:
                yield name, precision, seed, runs / recipe / f"seed{seed}" / precision


def train(name: str, precision: str, seed: int, folder: Path, data: Path) -> None:
    """Trains and measures one of them."""
    recipe, below, settings = DATASETS[name]
    settings = {**settings, "train.precision": precision, "seed": seed}
    if below:
        settings["data.dir"] = str((data / below).resolve())
    run(override(load_recipe(recipe), settings), folder, resume=(folder / CONFIG).is_file(), export=False)


def numbers(result: Mapping[str, Any]) -> list[float]:
    """What is compared, in percent. The best rule is the one of the validation images."""
    rules, validation = result["rules"], result["validation"]["rules"]
    best = best_rule(validation)
    values = [rules["argmax"]["balanced_accuracy"], rules[best]["balanced_accuracy"], rules[best]["rarest_third"]]
    return [100 * value for value in (*values, result["rarest_third_auroc"])]


def table(runs: Path, seeds: Sequence[int]) -> list[str]:
    """The lines of the table, of the seeds that are finished in both precisions."""
    found: dict[tuple[str, str, int], list[float]] = {}
    for name, precision, seed, folder in jobs(runs, seeds):
        if (folder / RESULT).is_file():
            found[name, precision, seed] = numbers(read_json(folder / RESULT))
    lines = ["| %, mean ± standard deviation over seeds | | " + " | ".join(NUMBERS) + " |", "|---" * (2 + len(NUMBERS)) + "|"]
    for name in DATASETS:
        both = [seed for seed in seeds if all((name, precision, seed) in found for precision in PRECISIONS)]
        if len(both) < 2:
            continue
        single, half = (np.array([found[name, precision, seed] for seed in both]) for precision in PRECISIONS)
        rows = {PRECISIONS[0]: single, PRECISIONS[1]: half, "difference, seed by seed": half - single}
        for what, values in rows.items():
            sign = "+" if what.startswith("difference") else ""
            cells = [
                f"{mean:{sign}.1f} ± {spread:.1f}" for mean, spread in zip(values.mean(0), values.std(0, ddof=1), strict=True)
            ]
            first = f"{name} ({len(both)} seeds)" if what == PRECISIONS[0] else ""
            lines.append(f"| {first} | {what} | " + " | ".join(cells) + " |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, trains what is missing, and prints the table."""
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    flags.add_argument("--data", type=Path, help="the folder of the data")
    flags.add_argument("--runs", type=Path, default=Path("runs/precisions"), help="where the runs are; default: runs/precisions")
    flags.add_argument("--seeds", default="0,1,2", help="separated by commas; default: 0,1,2")
    flags.add_argument("--show", action="store_true", help="train nothing")
    given = flags.parse_args(arguments)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    if not given.show:
        if given.data is None:
            sys.exit("compare_precisions: data must be given: the folder of the data")
        for name, precision, seed, folder in jobs(given.runs, seeds):
            if not (folder / RESULT).is_file():
                train(name, precision, seed, folder, given.data)
                print(f"{name}: {precision}, seed {seed}", file=sys.stderr, flush=True)
    print("\n".join(table(given.runs, seeds)))


if __name__ == "__main__":
    main()
