"""Writes any dataset as TFRecord shards: a tensorflow-datasets directory, and in it the index that `load_records` opens."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from crl_tf.datasets.cache import check_free_space
from crl_tf.datasets.records.examples import Examples, image_sizes
from crl_tf.datasets.source import SPLITS, Dataset, Records, file_stats
from crl_tf.datasets.sources.records import BEGUN, FORMAT, METADATA, checksum, load_records, pack_index, read_metadata
from crl_tf.files import read_json, write_json, write_whole
from crl_tf.progress import SILENT, Progress

VERSION = "1.0.0"
SHARD_BYTES = 128 * 2**20
HEADER, FRAME = 12, 16
"""Bytes before an example in a TFRecord file (its length and a checksum), and before and after it together."""


def tfds_name(dataset: Dataset) -> str:
    """The dataset's name for tensorflow-datasets: with a prefix, because it has a cifar100 with code of its own."""
    return "crl_" + re.sub(r"\W", "_", dataset.name, flags=re.ASCII)


def prepare(
    dataset: Dataset, folder: str | Path, *, seed: int = 0, shard_bytes: int = SHARD_BYTES, progress: Progress = SILENT
) -> Path:
    """Writes a dataset as TFRecord shards that both `load_records` and `tfds.load("crl_<name>", data_dir=folder)` read.

    Continues an interrupted run: each shard is written atomically, and the metadata that make the folder readable come last.
    JPEG and PNG keep their bytes. Forms that tensorflow-datasets does not read as one image (GIF, WebP, BMP) become PNG of the
    same pixels, and so do images that are pixels. Each image is decoded once, so that a broken one is found now. A JPEG that EXIF
    turns is stored as it is: this package turns it when reading, tensorflow-datasets does not.

    Args:
        dataset: images as files, as pixels or as `Records`.
        folder: where `crl_<name>/1.0.0/` is written.
        seed: of the order in the shards, which is random so that a reader from start to end meets every class early. Each example
            keeps its place in the dataset as "index", and `load_records` restores the order.
        shard_bytes: approximate size of a shard, which holds at least one image.
        progress: receives the progress, shard by shard.
    Returns:
        the folder `crl_<name>/1.0.0/`.
    Raises:
        ValueError: if an image cannot be decoded (it is named), the folder holds another dataset, complete or begun, or another
            process is writing to it.
        OSError: if an image is missing, or the folder cannot be written to or is too small; complete shards stay.
    """
    if not isinstance(shard_bytes, (int, np.integer)) or shard_bytes < 1:
        raise ValueError(f"prepare: shard_bytes must be a positive integer, received {shard_bytes!r}")
    target = Path(folder).expanduser().absolute() / tfds_name(dataset) / VERSION
    sizes = {split: image_sizes(dataset.splits[split]) for split in SPLITS}
    orders = {split: np.random.default_rng([seed, number]).permutation(len(sizes[split])) for number, split in enumerate(SPLITS)}
    examples = Examples(dataset)
    digest = _digest(dataset, examples, sizes, orders, int(shard_bytes))
    if (target / METADATA).exists():
        _check_same(read_metadata(target), digest, target)
        load_records(str(target))
        shutil.rmtree(target / BEGUN, ignore_errors=True)
        return target
    needed = sum(int(size.sum()) for size in sizes.values())
    try:
        with _locked(target):
            _begin(target, digest, needed)
            shards = [
                (split, target / f"{tfds_name(dataset)}-{split}.tfrecord-{number:05d}-of-{len(pieces):05d}", rows)
                for split in SPLITS
                for pieces in [np.array_split(orders[split], _num_shards(sizes[split], shard_bytes))]
                for number, rows in enumerate(pieces)
            ]
            for split, path, rows in progress.track(shards, "writing shards", total=len(shards)):
                _write_shard(path, examples, split, rows)
            _finish(target, dataset, examples, shards, digest)
            shutil.rmtree(target / BEGUN)
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
        raise OSError(
            f"prepare: folder {target} must be writable and have room for {needed / 1e9:.3g} GB: {reason}; what is complete stays"
        ) from error
    return target


def _num_shards(sizes: np.ndarray, shard_bytes: int) -> int:
    return max(1, min(len(sizes), -(-int(sizes.sum()) // shard_bytes)))


def _digest(
    dataset: Dataset, examples: Examples, sizes: dict[str, np.ndarray], orders: dict[str, np.ndarray], shard_bytes: int
) -> str:
    """A digest of everything that decides the content of the shards."""
    digest = hashlib.blake2b(digest_size=20)
    digest.update(json.dumps([FORMAT, dataset.name, dataset.schema.to_config(), shard_bytes]).encode())
    for name in SPLITS:
        split = dataset.splits[name]
        for values in (sizes[name], orders[name], split.labels):
            digest.update(np.ascontiguousarray(values, np.int64).data)
        for key, values in split.extras.items():
            text = values.dtype.kind in "TUO"
            content = json.dumps(values.tolist()).encode() if text else np.ascontiguousarray(values).data
            digest.update(f"{key} {values.shape} {values.dtype.kind}".encode())
            digest.update(content)
        if split.decoded:
            for image in split.images:
                digest.update(np.ascontiguousarray(image).data)
        else:
            for start in range(0, len(split), 4096):
                names = examples.file_names(name, np.arange(start, min(start + 4096, len(split))))
                digest.update("\0".join([*names, ""]).encode())
        if split.in_files:
            # An edited image may keep its size. Files may be moved, or copied with their times.
            digest.update(np.array([stat.st_mtime_ns for _, stat in file_stats(split.images)], np.int64).data)
    return digest.hexdigest()


def _check_same(content: Any, digest: str, target: Path) -> None:
    if not isinstance(content, dict) or content.get("digest") != digest:
        raise ValueError(
            f"prepare: {target} holds another dataset, or this one with other labels, files, seed or shard size:"
            " give another folder, or delete that one"
        )


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    (target / BEGUN).mkdir(parents=True, exist_ok=True)
    with (target / BEGUN / "lock").open("w") as file:
        try:
            # The system releases the lock even if this process is killed.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"prepare: another process is writing to {target}") from error
        yield


def _begin(target: Path, digest: str, needed: int) -> None:
    plan = target / BEGUN / "plan.json"
    if plan.exists():
        _check_same(read_json(plan), digest, target)
    elif any(path.name != BEGUN for path in target.iterdir()):
        raise ValueError(f"prepare: {target} must be empty or begun by an earlier run, and holds other files")
    else:
        write_json(plan, {"digest": digest})
    for partial in [*target.glob(".partial-*"), *(target / BEGUN).glob(".partial-*")]:
        partial.unlink()
    written = sum(path.stat().st_size for path in target.iterdir() if path.is_file())
    check_free_space(target, needed - written)


def _facts_of(shard: Path) -> Path:
    """The file that notes the size, checksum and example lengths of a complete shard until all are written."""
    return shard.parent / BEGUN / f"{shard.name}.json"


def _write_shard(path: Path, examples: Examples, split: str, rows: np.ndarray) -> None:
    """Writes a shard and its facts, unless an earlier run has."""
    facts = _facts_of(path)
    if facts.exists() and path.is_file() and path.stat().st_size == read_json(facts)["bytes"]:
        return
    lengths = []

    def write(partial: Path) -> None:
        with tf.io.TFRecordWriter(str(partial)) as writer:
            for chunk in examples.serialized(split, rows):
                for example in chunk:
                    writer.write(example)
                    lengths.append(len(example))
        if partial.stat().st_size != sum(lengths) + FRAME * len(lengths):
            raise OSError("a shard is shorter than what was written to it")
        # Before the rename: after a power failure the shard could otherwise have its name but not its content.
        with partial.open("rb") as file:
            os.fsync(file.fileno())

    write_whole(path, write)
    write_json(facts, {"bytes": path.stat().st_size, "blake2b": checksum(path), "lengths": lengths})


def _write_index(target: Path, dataset: Dataset, split: str, shards: Iterable[tuple[Path, np.ndarray]]) -> dict[str, Any]:
    """Writes the index of a split; returns what `crl_tf.json` says of it and of its shards."""
    part, entries = dataset.splits[split], []
    shard, offset, length = np.empty(len(part), np.int32), np.empty(len(part), np.int64), np.empty(len(part), np.int64)
    for number, (path, rows) in enumerate(shards):
        facts = read_json(_facts_of(path))
        lengths = np.array(facts.pop("lengths"), np.int64)
        shard[rows], length[rows] = number, lengths
        offset[rows] = np.cumsum(lengths + FRAME) - lengths - FRAME + HEADER
        entries.append({"file": path.name, "count": len(rows), **facts})
    index = target / f"{split}.npz"
    arrays = pack_index(part, Records(tuple(entry["file"] for entry in entries), shard, offset, length))
    write_whole(index, lambda partial: np.savez_compressed(partial, **arrays))
    return {
        "count": len(part),
        "index": {"file": index.name, "bytes": index.stat().st_size, "blake2b": checksum(index)},
        "shards": entries,
    }


def _finish(target: Path, dataset: Dataset, examples: Examples, shards: list[tuple[str, Path, np.ndarray]], digest: str) -> None:
    """Writes the indices, the metadata of tensorflow-datasets and, last, `crl_tf.json`."""
    import tensorflow_datasets as tfds

    parts = {name: _write_index(target, dataset, name, [shard[1:] for shard in shards if shard[0] == name]) for name in SPLITS}
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard["count"] for shard in part["shards"]],
            num_bytes=sum(shard["bytes"] for shard in part["shards"]),
        )
        for split, part in parts.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=str(target),
        features=examples.features,
        split_infos=splits,
        version=VERSION,
        description=f"The dataset {dataset.name} as crl_tf reads it; {METADATA} has its labels in their order.",
        check_data=False,
    )
    content = {
        "format": FORMAT,
        "source": dataset.name,
        "digest": digest,
        "schema": dataset.schema.to_config(),
        "features": examples.keys,
        "splits": parts,
    }
    write_json(target / METADATA, content)
