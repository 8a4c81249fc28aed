"""Writes any dataset as TFRecord shards, for training without a file per image and for `tfds.load`.

    python tools/prepare_dataset.py --dataset=celeba --data_dir=CELEBA --out=PREPARED
    python tools/prepare_dataset.py --dataset=attribute_csv --data_dir=SHOP --skip_unreadable --out=PREPARED
    python tools/prepare_dataset.py --verify --out=PREPARED                   compare every checksum
    python -m crl_tf.main --dataset=records --data_dir=PREPARED/crl_celeba    train from it

Takes the flags of `crl_tf.main` that describe the dataset, and its recipes. Called again with the same flags, it continues an
interrupted preparation; see `crl_tf.datasets.records.prepare.prepare`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from rich.console import Console

from crl_tf import main
from crl_tf.datasets.images.check import without_unreadable
from crl_tf.datasets.records import prepare as preparing
from crl_tf.datasets.sources import records
from crl_tf.ending import ended_in_one_line
from crl_tf.experiment.data import load_source
from crl_tf.progress import SILENT, Progress
from crl_tf.text import listed

_OUT = flags.DEFINE_string("out", None, "the folder in which crl_<dataset>/<version>/ is written; with --verify, in which it is")
_SHARD_MEGABYTES = flags.DEFINE_integer(
    "shard_megabytes", 128, "approximate size of a shard, in units of 2**20 bytes", lower_bound=1
)
_VERIFY = flags.DEFINE_bool("verify", False, "read every shard in --out and compare its checksum; write nothing")


def run(argv: Sequence[str]) -> None:
    """Prepares or verifies what the flags say, and prints its folder and how to train from it."""
    if len(argv) > 1:
        raise app.UsageError(f"flags only, received {argv[1:]}")
    if not _OUT.value:
        sys.exit("prepare_dataset: give --out, the folder to write to")
    with ended_in_one_line():
        if _VERIFY.value:
            verify(Path(_OUT.value).expanduser())
        else:
            prepare(Path(_OUT.value).expanduser())


def prepare(out: Path) -> None:
    """Writes the dataset of the flags below `out`."""
    config = main.configuration()
    progress = _progress()
    skip = config.data.skip_unreadable
    dataset = load_source(config.dataset, config.data, seed=config.seed, check_images=not skip, progress=progress)
    if skip:
        dataset, unreadable = without_unreadable(dataset, image_size=tuple(config.data.image_size), progress=progress)
        if unreadable:
            print(f"left out unreadable images, {len(unreadable)}: {listed(image.name for image in unreadable)}")
    shard_bytes = _SHARD_MEGABYTES.value * 2**20
    folder = preparing.prepare(dataset, out, seed=config.seed, shard_bytes=shard_bytes, progress=progress)
    _report(folder)
    print(f"train from it: python -m crl_tf.main --dataset=records --data_dir={folder}")
    print(f"read it: tfds.load({folder.parent.name!r}, data_dir={str(folder.parents[1])!r})")


def verify(out: Path) -> None:
    """Compares every checksum of what is prepared in or below `out`."""
    folder = records.find_prepared(out)
    records.load_records(str(folder), verify=True, progress=_progress())
    _report(folder)
    print("every checksum is as it was written")


def _report(folder: Path) -> None:
    splits = records.read_metadata(folder)["splits"]
    size = sum(shard["bytes"] for split in splits.values() for shard in split["shards"])
    number = sum(len(split["shards"]) for split in splits.values())
    counts = ", ".join(f"{name} {split['count']:,}" for name, split in splits.items())
    print(f"{folder}: {counts}; {number} shards, {size / 1e6:,.1f} MB")


def _progress() -> Progress:
    # Bars on the error stream, so that the output can be redirected.
    return main.ConsoleProgress(Console(stderr=True)) if sys.stderr.isatty() else SILENT


if __name__ == "__main__":
    app.run(run)
