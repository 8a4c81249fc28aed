"""Images in TFRecord shards that `records.prepare` wrote: opened by their index in seconds, read at random."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from crl_tf.datasets.source import SPLITS, Dataset, Records, Split
from crl_tf.files import below, read_json
from crl_tf.progress import SILENT, Progress
from crl_tf.schema import AttributeSchema

METADATA = "crl_tf.json"
"""Metadata, written last: a folder that has it is complete."""

BEGUN = ".preparing"
"""The folder of an unfinished preparation, with what is known of each finished shard."""

FORMAT = 1


def load_records(data_dir: str | None, *, verify: bool = False, progress: Progress = SILENT) -> Dataset:
    """Opens what `tools/prepare_dataset.py` (or `records.prepare.prepare`) has written, in the order of the original dataset.

    Only the index is read: labels, and where each image lies. Training from records gives the same batches, byte for byte, as
    training from the image files with the same seed.

    Args:
        data_dir: the folder that holds `crl_tf.json`, or one of the two above it if nothing else is prepared there.
        verify: also read every shard and compare its checksum; otherwise its size only.
        progress: receives the progress of verifying, shard by shard.
    Returns:
        a dataset called "records": images as `Records`, labels int8 or int32 [n, L], the extras of the source.
    Raises:
        FileNotFoundError: if nothing is prepared in the folder, or a shard is missing.
        ValueError: if the preparation was not completed, or a shard or the index is damaged.
    """
    folder = find_prepared(data_dir)
    content = read_metadata(folder)
    try:
        schema = AttributeSchema.from_config(content["schema"])
        parts = {split: content["splits"][split] for split in SPLITS}
        shards = [shard for part in parts.values() for shard in part["shards"]]
        for shard in progress.track(shards, "verifying shards") if verify else shards:
            _check(below(folder, shard["file"], folder / METADATA), shard, verify)
        splits = {split: _open(folder, part) for split, part in parts.items()}
    except (KeyError, TypeError) as error:
        raise ValueError(f"records: {folder / METADATA} is damaged ({error!r}): delete {folder} and prepare it again") from error
    return Dataset("records", schema, splits)


def find_prepared(data_dir: str | Path | None) -> Path:
    """The folder in or below `data_dir` that holds prepared records; raises the errors of `load_records`."""
    if data_dir is None:
        raise ValueError("records: data_dir must be a folder that tools/prepare_dataset.py has written, received None")
    folder = Path(data_dir)
    levels = ("", "*/", "*/*/")
    folders = [path.parent for level in levels for path in sorted(folder.glob(level + METADATA))]
    if len(folders) > 1:
        raise ValueError(f"records: data_dir must name one of {[str(path) for path in folders]}, received {folder}")
    if not folders:
        begun = [path.parent for level in levels for path in sorted(folder.glob(level + BEGUN))]
        if begun:
            raise ValueError(
                f"records: {begun[0]} was not prepared to its end: give tools/prepare_dataset.py the same command again"
            )
        raise FileNotFoundError(f"records: no {METADATA} in {folder} or up to two folders below: see tools/prepare_dataset.py")
    return folders[0]


def read_metadata(folder: Path) -> dict[str, Any]:
    """Reads `crl_tf.json` of a prepared folder; ValueError if its format is not that of this version."""
    content = read_json(folder / METADATA)
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise ValueError(f"records: {folder / METADATA} must be of format {FORMAT}, received {version}")
    return content


def checksum(path: Path) -> str:
    """BLAKE2b of a file, 40 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).hexdigest()


def pack_index(split: Split, where: Records) -> dict[str, np.ndarray]:
    """The arrays of a split's index, for `np.savez` without pickling; `_unpacked` is the inverse."""
    # The narrowest type that holds the labels opens fastest.
    width = np.int8 if split.labels.max(initial=0) < 128 else np.int32
    arrays = {"labels": split.labels.astype(width), "shard": where.shard, "offset": where.offset, "length": where.length}
    for name, values in split.extras.items():
        # NumPy saves strings of varying width by pickling only.
        arrays[f"extra {name}"] = np.array(values.tolist(), str) if values.dtype.kind in "TUO" else values
    return arrays


def _unpacked(arrays: dict[str, np.ndarray], shards: tuple[str, ...]) -> Split:
    where = Records(shards, arrays["shard"], arrays["offset"], arrays["length"])
    extras = {name.removeprefix("extra "): values for name, values in arrays.items() if name.startswith("extra ")}
    strings = np.dtypes.StringDType()
    extras = {name: values.astype(strings) if values.dtype.kind == "U" else values for name, values in extras.items()}
    return Split(where, arrays["labels"], extras)


def _open(folder: Path, part: dict[str, Any]) -> Split:
    index = below(folder, part["index"]["file"], folder / METADATA)
    # A damaged index would train on wrong labels without an error, and it is small: always compared.
    _check(index, part["index"], True)
    with np.load(index, allow_pickle=False) as arrays:
        return _unpacked(dict(arrays), tuple(str(folder / shard["file"]) for shard in part["shards"]))


def _check(path: Path, expected: dict[str, Any], verify: bool) -> None:
    again = f"delete {path.parent} and prepare it again"
    if not path.is_file():
        raise FileNotFoundError(f"records: {path} is missing: {again}")
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise ValueError(f"records: {path} is damaged, {expected['bytes']} bytes expected, received {size}: {again}")
    if verify and checksum(path) != expected["blake2b"]:
        raise ValueError(f"records: {path} is damaged, its checksum is another than when it was written: {again}")
