"""Any dataset into TFRecord shards: a tensorflow-datasets directory, and beside it the index that `records` opens."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from crl_tf.datasets.records.examples import Examples, image_sizes
from crl_tf.datasets.source import SPLITS, Dataset, Records
from crl_tf.datasets.sources.records import BEGUN, FORMAT, METADATA, checksum, load_records, pack_index, read_metadata
from crl_tf.files import read_json, write_json, write_whole

VERSION = "1.0.0"
SHARD_BYTES = 128 * 2**20
HEADER, FRAME = 12, 16
"""Bytes before an example in a TFRecord file (its length and a checksum), and in all (with the checksum behind it)."""


def tfds_name(dataset: Dataset) -> str:
    """What tensorflow-datasets calls it: prefixed, because a name of its own (cifar100) would bring its own code."""
    return "crl_" + re.sub(r"\W", "_", dataset.name, flags=re.ASCII)


def prepare(
    dataset: Dataset,
    folder: str | Path,
    *,
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
    advance: Callable[[int], None] | None = None,
) -> Path:
    """Writes a dataset as TFRecord shards that both `load_records` and `tfds.load("crl_<name>", data_dir=folder)` read.

    Goes on where it was stopped: a shard gets its name when it is whole, and what makes the folder readable is written last.
    JPEG and PNG keep their bytes; what tensorflow-datasets does not read as one image (GIF, WebP, some BMP) becomes PNG of the
    same pixels, and so do images that are pixels already. Each image is decoded once, so that a broken one is found now. A JPEG
    that EXIF says is turned stays so: this package turns it upright as it reads it, tensorflow-datasets does not.

    Args:
        dataset: images as files, as pixels or as `Records`.
        folder: where `crl_<name>/1.0.0/` comes to stand.
        seed: of the order in the shards, so that whoever reads them from start to end meets every class early. Each example
            keeps its place in the dataset as "index", and `load_records` restores it.
        shard_bytes: about the size of a shard; at least one image.
        advance: is told of the number of images done, those of an earlier run included.
    Returns:
        the folder `crl_<name>/1.0.0/`.
    Raises:
        ValueError: if an image cannot be decoded (it is named), the folder holds or has begun another dataset, or another
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
    advance = advance or (lambda count: None)
    if (target / METADATA).exists():
        _check_same(read_metadata(target), digest, target)
        load_records(str(target))
        shutil.rmtree(target / BEGUN, ignore_errors=True)
        advance(sum(map(len, orders.values())))
        return target
    needed = sum(int(size.sum()) for size in sizes.values())
    try:
        with _alone_in(target):
            _begin(target, digest, needed)
            parts = {}
            for split in SPLITS:
                number = max(1, min(len(orders[split]), -(-int(sizes[split].sum()) // shard_bytes)))
                parts[split] = _write_split(target, dataset, examples, split, np.array_split(orders[split], number), advance)
            _finish(target, dataset, examples, parts, digest)
            shutil.rmtree(target / BEGUN)
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
        raise OSError(
            f"prepare: folder {target} must be writable and have room for {needed / 1e9:.3g} GB: {reason}; what is complete stays"
        ) from error
    return target


def _digest(
    dataset: Dataset, examples: Examples, sizes: dict[str, np.ndarray], orders: dict[str, np.ndarray], shard_bytes: int
) -> str:
    """Of all that decides what the shards hold: two runs with the same write the same bytes."""
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
            # An image may be edited without a change in size. Moving the files, or copying them with their times, is no change.
            times = np.array([os.stat(path).st_mtime_ns for path in split.images.tolist()], np.int64)
            digest.update(times.data)
    return digest.hexdigest()


def _check_same(found: Any, digest: str, target: Path) -> None:
    if not isinstance(found, dict) or found.get("digest") != digest:
        raise ValueError(
            f"prepare: {target} holds another dataset, or this one with other labels, files, seed or shard size:"
            " give another folder, or delete that one"
        )


@contextlib.contextmanager
def _alone_in(target: Path) -> Iterator[None]:
    (target / BEGUN).mkdir(parents=True, exist_ok=True)
    with (target / BEGUN / "lock").open("w") as file:
        try:
            # The system lets go of it even if this process is killed.
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
    there = sum(path.stat().st_size for path in target.iterdir() if path.is_file())
    free = shutil.disk_usage(target).free
    if needed - there > free:
        # Sooner than after an hour.
        raise OSError(f"only {free / 1e9:.3g} GB are free")


def _write_split(
    target: Path, dataset: Dataset, examples: Examples, split: str, pieces: list[np.ndarray], advance: Callable[[int], None]
) -> dict[str, Any]:
    """Writes what is missing of the shards of a split, and its index; returns what `crl_tf.json` says of both."""
    count, shards = sum(map(len, pieces)), []
    shard, offset, length = np.empty(count, np.int32), np.empty(count, np.int64), np.empty(count, np.int64)
    for number, rows in enumerate(pieces):
        path = target / f"{tfds_name(dataset)}-{split}.tfrecord-{number:05d}-of-{len(pieces):05d}"
        known = target / BEGUN / f"{path.name}.json"
        if known.exists() and path.is_file() and path.stat().st_size == read_json(known)["bytes"]:
            advance(len(rows))
        else:
            lengths = _write_shard(path, examples.serialized(split, rows), advance)
            write_json(known, {"bytes": path.stat().st_size, "blake2b": checksum(path), "lengths": lengths})
        facts = read_json(known)
        lengths = np.array(facts.pop("lengths"), np.int64)
        shard[rows], length[rows] = number, lengths
        offset[rows] = np.cumsum(lengths + FRAME) - lengths - FRAME + HEADER
        shards.append({"file": path.name, "count": len(rows), **facts})
    where = Records(tuple(entry["file"] for entry in shards), shard, offset, length)
    index = target / f"{split}.npz"
    arrays = pack_index(dataset.splits[split], where)
    write_whole(index, lambda partial: np.savez_compressed(partial, **arrays))
    return {
        "count": count,
        "index": {"file": index.name, "bytes": index.stat().st_size, "blake2b": checksum(index)},
        "shards": shards,
    }


def _write_shard(path: Path, examples: Iterable[list[bytes]], advance: Callable[[int], None]) -> list[int]:
    lengths = []

    def write(partial: Path) -> None:
        with tf.io.TFRecordWriter(str(partial)) as writer:
            for chunk in examples:
                for example in chunk:
                    writer.write(example)
                    lengths.append(len(example))
                advance(len(chunk))
        if partial.stat().st_size != sum(lengths) + FRAME * len(lengths):
            raise OSError("a shard is shorter than what was written to it")
        # Before it gets its name: after a power failure the name could otherwise be there, and the content not.
        with partial.open("rb") as file:
            os.fsync(file.fileno())

    write_whole(path, write)
    return lengths


def _finish(target: Path, dataset: Dataset, examples: Examples, parts: dict[str, Any], digest: str) -> None:
    import tensorflow_datasets as tfds

    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard["count"] for shard in parts[split]["shards"]],
            num_bytes=sum(shard["bytes"] for shard in parts[split]["shards"]),
        )
        for split in SPLITS
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
