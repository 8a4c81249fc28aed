"""Anyone's images with class labels in one CSV file: how to bring data of your own (or X-Domain, DeepFashion)."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import numpy as np

from crl_tf.datasets.source import SPLITS, Dataset, Split, file_paths
from crl_tf.schema import NOT_ANNOTATED, Attribute, AttributeSchema

FILE_NAME = "attributes.csv"
SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


def load_attribute_csv(data_dir: str | None) -> Dataset:
    """Reads a CSV with the columns `path`, `split` and one column per label.

    `path` is relative to the CSV's folder, `split` is train, val (or validation) or test. Every further column is a label;
    its classes are the distinct values over all splits, sorted (as numbers if all are integers). An empty cell is a label
    that nobody annotated (-1). Space around values is dropped.

    Args:
        data_dir: the CSV, or the folder that holds it as `attributes.csv`.
    Returns:
        images as file paths; labels int32 [n, L].
    Raises:
        FileNotFoundError: if the CSV, or an image that it names, is missing.
        ValueError: if the CSV is malformed (with the line), a label has fewer than 2 classes, a split has no row, or one
            image stands in two splits.
    """
    if data_dir is None:
        raise ValueError(f"attribute_csv: data_dir must be a CSV file or a folder with {FILE_NAME}, received None")
    path = Path(data_dir) / FILE_NAME if os.path.isdir(data_dir) else Path(data_dir)
    if not path.is_file():
        raise FileNotFoundError(f"attribute_csv: no file {path}")
    header, rows, lines = _read_rows(path)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    splits = _read_splits(path, columns.pop("split"), lines)
    files = columns.pop("path")
    _check_images(path, files, splits, lines)

    encoded = [_encode(path, name, values) for name, values in columns.items()]
    schema = AttributeSchema(tuple(attribute for attribute, _ in encoded))
    labels = np.stack([codes for _, codes in encoded], axis=1)
    images = file_paths(os.path.join(path.parent, file) for file in files)
    where = {split: np.flatnonzero(splits == split) for split in SPLITS}
    return Dataset("attribute_csv", schema, {s: Split(images[index], labels[index]) for s, index in where.items()})


def _read_rows(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows, and the line number on which each row ends."""
    rows, lines = [], []
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise ValueError(
                        f"attribute_csv: {path}, line {reader.line_num}: {len(header)} values expected, received {len(row)}"
                    )
                rows.append([value.strip() for value in row])
                lines.append(reader.line_num)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"attribute_csv: {path}, after line {lines[-1] if lines else 1}: {error}") from error
    _check_header(path, header)
    if not rows:
        raise ValueError(f"attribute_csv: {path} holds no row below its header")
    return header, rows, lines


def _check_header(path: Path, header: list[str]) -> None:
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ValueError(f"attribute_csv: {path}, line 1: column names must be distinct, repeated: {repeated}")
    missing = [name for name in ("path", "split") if name not in header]
    if missing:
        raise ValueError(f"attribute_csv: {path}, line 1: missing column(s) {missing}, received {header}")
    if len(header) == 2:
        raise ValueError(f"attribute_csv: {path}, line 1: at least one column beside path and split must be a label")
    if "" in header:
        raise ValueError(f"attribute_csv: {path}, line 1: column {header.index('') + 1} has no name")


def _read_splits(path: Path, values: tuple[str, ...], lines: list[int]) -> np.ndarray:
    for value, line in zip(values, lines, strict=True):
        if value not in SPLIT_NAMES:
            raise ValueError(
                f"attribute_csv: {path}, line {line}: split must be one of {sorted(SPLIT_NAMES)}, received {value!r}"
            )
    splits = np.array([SPLIT_NAMES[value] for value in values])
    absent = [split for split in SPLITS if not (splits == split).any()]
    if absent:
        raise ValueError(f"attribute_csv: {path}: every split needs at least one row, none for {absent}")
    return splits


def _check_images(path: Path, files: tuple[str, ...], splits: np.ndarray, lines: list[int]) -> None:
    missing = [i for i, file in enumerate(files) if not os.path.isfile(os.path.join(path.parent, file))]
    if missing:
        raise FileNotFoundError(
            f"attribute_csv: {path}: {len(missing)} of {len(files)} images are missing,"
            f" the first: {files[missing[0]]!r} (line {lines[missing[0]]})"
        )
    seen: dict[str, str] = {}
    for file, split, line in zip(files, splits, lines, strict=True):
        # An image to train on and to test on would make every figure of the test worthless.
        if seen.setdefault(file, split) != split:
            raise ValueError(f"attribute_csv: {path}, line {line}: image {file!r} is in {seen[file]} and in {split}")


def _encode(path: Path, name: str, values: tuple[str, ...]) -> tuple[Attribute, np.ndarray]:
    present = set(values) - {""}
    if len(present) < 2:
        raise ValueError(f"attribute_csv: {path}: column {name!r} must hold at least 2 classes, received {sorted(present)}")
    numbers = all(re.fullmatch(r"[+-]?[0-9]+", value) for value in present)
    # The text settles ties: 1 and 01 are two classes, in a fixed order.
    classes = sorted(present, key=(lambda v: (int(v), v)) if numbers else None)
    code = {value: index for index, value in enumerate(classes)} | {"": NOT_ANNOTATED}
    return Attribute(name, tuple(classes)), np.array([code[value] for value in values], np.int32)
