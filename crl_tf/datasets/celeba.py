"""CelebA (Liu et al. 2015): 40 binary attributes of faces, in the official partition."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from crl_tf.datasets.source import SPLITS, Dataset, Split, file_paths
from crl_tf.schema import Attribute, AttributeSchema

IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
CLASSES = ("absent", "present")
PARTS = {str(number): split for number, split in enumerate(SPLITS)}
"""0, 1, 2 in the list of the partition."""


def load_celeba(data_dir: str | None = None) -> Dataset:
    """CelebA in the official partition; one label per attribute with the classes ("absent", "present").

    Args:
        data_dir: folder in the publisher's layout: `img_align_celeba/`, `list_attr_celeba.txt` and
            `list_eval_partition.txt`. None downloads through tensorflow-datasets and lays the files out in this way once.
    Returns:
        images as file paths; labels int32 [n, 40], none of them -1.
    Raises:
        FileNotFoundError: if a list, or an image that the lists name, is missing.
        ValueError: if a list is malformed, or the two lists name different images.
    """
    folder = Path(data_dir) if data_dir is not None else _lay_out_from_tfds()
    absent = [name for name in (ATTRIBUTES, PARTITION, IMAGES) if not (folder / name).exists()]
    if absent:
        raise FileNotFoundError(f"celeba: data_dir must hold {[ATTRIBUTES, PARTITION, IMAGES]}; {folder} lacks {absent}")
    names, files, labels = _read_attributes(folder / ATTRIBUTES)
    parts = _read_partition(folder / PARTITION)
    if parts.keys() != set(files):
        differing = sorted(parts.keys() ^ set(files))
        raise ValueError(
            f"celeba: {ATTRIBUTES} and {PARTITION} must name the same images; {len(differing)} are in only one of them,"
            f" the first: {differing[0]}"
        )
    _check_images(folder / IMAGES, files)
    splits = {}
    part_of_row = np.array([parts[file] for file in files])
    for split in SPLITS:
        rows = np.flatnonzero(part_of_row == split)
        paths = [os.path.join(folder, IMAGES, files[row]) for row in rows]
        splits[split] = Split(file_paths(paths), labels[rows])
    return Dataset("celeba", AttributeSchema(tuple(Attribute(name, CLASSES) for name in names)), splits)


def _read_attributes(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Attribute names, file names, labels int32 [n, L]."""
    with path.open(encoding="utf-8") as file:
        count, names = file.readline().strip(), file.readline().split()
        files, rows = [], []
        for number, line in enumerate(file, start=3):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != len(names) + 1 or not {"1", "-1"}.issuperset(fields[1:]):
                raise ValueError(f"celeba: {path}, line {number}: expected a file name and {len(names)} values, each 1 or -1")
            files.append(fields[0])
            rows.append(np.array([field == "1" for field in fields[1:]], np.int32))
    if not count.isdigit() or int(count) != len(files):
        raise ValueError(f"celeba: {path}: the first line must be the number of images ({len(files)}), received {count!r}")
    if len(set(files)) != len(files):
        raise ValueError(f"celeba: {path}: an image is listed more than once")
    return names, files, np.stack(rows) if rows else np.empty((0, len(names)), np.int32)


def _read_partition(path: Path) -> dict[str, str]:
    """Split of every file name."""
    parts = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != 2 or fields[1] not in PARTS:
                raise ValueError(f"celeba: {path}, line {number}: expected a file name and 0, 1 or 2, received {line.strip()!r}")
            parts[fields[0]] = PARTS[fields[1]]
    return parts


def _check_images(folder: Path, files: list[str]) -> None:
    # One listing of the folder; 200,000 questions to the file system take minutes on network storage.
    there = set(os.listdir(folder))
    missing = [file for file in files if file not in there]
    if missing:
        raise FileNotFoundError(
            f"celeba: {len(missing)} of {len(files)} listed images are missing in {folder}, the first: {missing[0]}"
        )


def _lay_out_from_tfds(tfds_dir: str | None = None) -> Path:
    """Writes the images of tensorflow-datasets' `celeb_a`, still encoded, in the publisher's layout; returns the folder.

    Its records no longer hold the publisher's file names: images are called after their part and place in it.
    Everything goes into a temporary folder that is renamed at the end, so that a folder of the final name is whole.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder("celeb_a", data_dir=tfds_dir)
    stored = Path(builder.data_dir)
    target = stored.parents[1] / "crl_tf" / f"celeb_a-{stored.name}"
    if target.exists():
        return target
    builder.download_and_prepare()
    target.parent.mkdir(parents=True, exist_ok=True)
    # A folder left by an interrupted run is never taken up again; tempfile gives every run its own.
    with tempfile.TemporaryDirectory(prefix=f"{target.name}-incomplete-", dir=target.parent) as temporary:
        whole = Path(temporary) / "whole"
        (whole / IMAGES).mkdir(parents=True)
        _write_layout(builder, whole)
        try:
            whole.rename(target)
        except OSError:
            # Another process was faster; its folder is as good as ours.
            if not target.exists():
                raise
    return target


def _write_layout(builder: object, folder: Path) -> None:
    import tensorflow_datasets as tfds

    names = sorted(builder.info.features["attributes"])  # type: ignore[attr-defined]
    rows, parts = [], []
    for number, split in enumerate(SPLITS):
        examples = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})  # type: ignore[attr-defined]
        for index, example in enumerate(tfds.as_numpy(examples)):
            file = f"{split}-{index + 1:06d}.jpg"
            (folder / IMAGES / file).write_bytes(example["image"])
            rows.append(" ".join([file, *("1" if example["attributes"][name] else "-1" for name in names)]))
            parts.append(f"{file} {number}")
    attributes = [str(len(rows)), " ".join(names), *rows]
    (folder / ATTRIBUTES).write_text("\n".join(attributes) + "\n", encoding="utf-8")
    (folder / PARTITION).write_text("\n".join(parts) + "\n", encoding="utf-8")
