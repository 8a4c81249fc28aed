"""Any dataset into TFRecord shards, which train without a file per image and which `tfds.load` reads too.

    python tools/prepare_dataset.py --dataset=celeba --data_dir=CELEBA --out=PREPARED
    python tools/prepare_dataset.py --dataset=attribute_csv --data_dir=SHOP --skip_unreadable --out=PREPARED
    python tools/prepare_dataset.py --verify --out=PREPARED                   every checksum of what stands there
    python -m crl_tf.main --dataset=records --data_dir=PREPARED/crl_celeba    train from it

Takes the flags of `crl_tf.main` that say what the dataset is, and its recipes. Stopped and called again with the same flags it
goes on where it was; see `crl_tf.datasets.records.prepare.prepare`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from crl_tf import main
from crl_tf.datasets.records import prepare as preparing
from crl_tf.datasets.sources import records
from crl_tf.experiment import config as recipe
from crl_tf.experiment import run as experiment

_OUT = flags.DEFINE_string("out", None, "where crl_<dataset>/<version>/ comes to stand; with --verify, where it stands")
_SHARD_MEGABYTES = flags.DEFINE_integer(
    "shard_megabytes", 128, "about the size of a shard, in units of 2**20 bytes", lower_bound=1
)
_VERIFY = flags.DEFINE_bool("verify", False, "read every shard in --out and compare its checksum, and write nothing")


def run(argv: Sequence[str]) -> None:
    """Prepares, or verifies, what the flags say, and prints where it is and how to train from it."""
    if len(argv) > 1:
        raise app.UsageError(f"flags only, received {argv[1:]}")
    if not _OUT.value:
        sys.exit("prepare_dataset: give --out, the folder to write to")
    with main.errors_in_one_line():
        if _VERIFY.value:
            verify(Path(_OUT.value).expanduser())
        else:
            prepare(Path(_OUT.value).expanduser())


def prepare(out: Path) -> None:
    """Writes the dataset of the flags below `out`."""
    config = recipe.override(flags.FLAGS.config, main.given_settings())
    dataset = experiment.load(config)
    with _progress() as progress:
        task = progress.add_task(f"preparing {dataset.name}", total=sum(map(len, dataset.splits.values())))
        folder = preparing.prepare(
            dataset,
            out,
            seed=config.seed,
            shard_bytes=_SHARD_MEGABYTES.value * 2**20,
            advance=lambda count: progress.advance(task, count),
        )
    _report(folder)
    print(f"train from it: python -m crl_tf.main --dataset=records --data_dir={folder}")
    print(f"read it: tfds.load({folder.parent.name!r}, data_dir={str(folder.parents[1])!r})")


def verify(out: Path) -> None:
    """Compares every checksum of what is prepared in or below `out`."""
    folder = records.find_prepared(out)
    shards = [shard for split in records.read_metadata(folder)["splits"].values() for shard in split["shards"]]
    with _progress() as progress:
        task = progress.add_task("verifying MB", total=sum(shard["bytes"] for shard in shards) // 10**6)
        records.load_records(str(folder), verify=True, advance=lambda count: progress.advance(task, count / 10**6))
    _report(folder)
    print("every checksum is as it was written")


def _report(folder: Path) -> None:
    splits = records.read_metadata(folder)["splits"]
    size = sum(shard["bytes"] for split in splits.values() for shard in split["shards"])
    number = sum(len(split["shards"]) for split in splits.values())
    counts = ", ".join(f"{name} {split['count']:,}" for name, split in splits.items())
    print(f"{folder}: {counts}; {number} shards, {size / 1e6:,.1f} MB")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


if __name__ == "__main__":
    app.run(run, flags_parser=main.parse)
