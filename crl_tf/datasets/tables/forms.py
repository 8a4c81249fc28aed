"""Other forms of tables, turned into one row per image: one row per image and label (long form), and COCO's JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from crl_tf.datasets.tables.schema import Label, MultiHot, OneOf
from crl_tf.datasets.tables.table import Table
from crl_tf.files import read_json
from crl_tf.text import repeated, shortened

BETWEEN = "\ue000"
"""Separates the labels of an image: a character for private use, and no blank."""

COCO = "category"
"""What the labels of COCO's categories begin with: "category=cat"."""


def wide(table: Table, path: str, long: Mapping[str, str], kept: Sequence[str]) -> tuple[Table, dict[str, Label]]:
    """One row per image, in the order of their first rows, of a table with one row per image and label; and what its labels are.

    Args:
        path: the column of the images.
        long: "label": the column with the names of labels; "value": that with the class of each. Without "value" an image has
            the labels that it has rows of, and is annotated for all; a row without a label adds none.
        kept: further columns, which are the same in all rows of an image.
    Raises:
        ValueError: naming the row, where two rows of an image differ in what must be the same.
    """
    images = table.texts(path).dictionary_encode()
    image = images.indices.to_numpy()
    _, first = np.unique(image, return_index=True)
    columns: dict[str, pa.ChunkedArray] = {path: pa.chunked_array([images.dictionary])}
    names = images.dictionary.to_pylist()
    for name in kept:
        codes = table.categories(name).codes
        _refuse_two(table, codes != codes[first][image], f"image {{}} has two values of {name!r}", names, image)
        columns[name] = table.columns[name].take(pa.array(first))
    label = table.categories(long["label"])
    value = long.get("value")
    if value is None:
        columns[long["label"]] = _joined(len(names), image, [label.values[code] if code >= 0 else "" for code in label.codes])
        return replace(table, columns=columns, rows=first), {long["label"]: MultiHot(BETWEEN)}
    of_value = table.categories(value)
    for code, name in enumerate(label.values):
        rows = np.flatnonzero(label.codes == code)
        if name == "" or name in columns:
            raise table.error(f"column {long['label']!r} must name a label, received {name!r}", int(rows[0]))
        classes = np.full(len(names), -1, np.int64)
        classes[image[rows[::-1]]] = of_value.codes[rows[::-1]]  # of several rows the first
        differing = np.zeros(len(image), bool)
        differing[rows] = of_value.codes[rows] != classes[image[rows]]
        _refuse_two(table, differing, f"image {{}} has two classes of {name!r}", names, image)
        columns[name] = pa.chunked_array([pa.array([of_value.values[c] if c >= 0 else None for c in classes], pa.string())])
    return replace(table, columns=columns, rows=first), {name: OneOf() for name in label.values}


def read_coco(owner: str, path: Path, column: str) -> tuple[Table, dict[str, Label]]:
    """The images of COCO's JSON as a table, their file names in `column`, with the categories that are annotated in each.

    Raises:
        ValueError: the file is not of this form, or an annotation names an image or a category that is not in it.
    """
    content = read_json(path)
    parts = {key: content.get(key) if isinstance(content, dict) else None for key in ("images", "annotations", "categories")}
    wrong = [key for key, items in parts.items() if not isinstance(items, list) or not all(isinstance(i, dict) for i in items)]
    if wrong:
        raise ValueError(
            f"{owner}: {path} must be COCO's JSON, with lists of images, annotations and categories; {wrong[0]} is none"
        )
    images = _by_id(owner, path, parts["images"], "images", "file_name")
    # Cells are stripped when they are taken apart.
    stripped = [
        item | {"name": name.strip()} if isinstance(name := item.get("name"), str) else item for item in parts["categories"]
    ]
    categories = _by_id(owner, path, stripped, "categories", "name")
    if not images:
        raise ValueError(f"{owner}: {path} holds no image")
    place = {identity: number for number, identity in enumerate(images)}
    of_image, labels = [], []
    for number, annotation in enumerate(parts["annotations"], 1):
        for key, known in (("image_id", place), ("category_id", categories)):
            identity = annotation.get(key)
            if not isinstance(identity, (int, str)) or identity not in known:
                received = shortened(repr(identity))
                raise ValueError(f"{owner}: {path}: annotation {number} has the {key} {received}, which is none")
        of_image.append(place[annotation["image_id"]])
        labels.append(categories[annotation["category_id"]])
    cells = _joined(len(images), np.array(of_image, np.int64), labels)
    table = Table(owner, path, {column: pa.chunked_array([pa.array(images.values(), pa.string())]), COCO: cells})
    return table, {COCO: MultiHot(BETWEEN, tuple(categories.values()))}


def _joined(count: int, image: np.ndarray, labels: Sequence[str]) -> pa.ChunkedArray:
    """By image, its labels, separated; a separator alone where it has none, which is no empty cell."""
    of_image: list[dict[str, None]] = [{} for _ in range(count)]
    for number, label in zip(image.tolist(), labels, strict=True):
        of_image[number][label] = None
    return pa.chunked_array([pa.array([BETWEEN + BETWEEN.join(some) for some in of_image], pa.string())])


def _by_id(owner: str, path: Path, items: Sequence[Mapping[str, Any]], key: str, name: str) -> dict[Any, str]:
    found: dict[Any, str] = {}
    for number, item in enumerate(items, 1):
        identity, text = item.get("id"), item.get(name)
        if not isinstance(identity, (int, str)) or identity in found or not _is_text(text):
            raise ValueError(
                f"{owner}: {path}: {key} must have an id of their own and a {name}, received {shortened(str(dict(item)))} as"
                f" number {number}"
            )
        found[identity] = text
    if twice := repeated(found.values()):
        raise ValueError(f"{owner}: {path}: each {name} must stand once in {key}, repeated: {twice[0]!r}")
    return found


def _is_text(value: Any) -> bool:
    """Whether it is a text of one character or more, all of which UTF-8 can write: JSON can hold half a character."""
    return isinstance(value, str) and value != "" and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _refuse_two(table: Table, differing: np.ndarray, words: str, names: Sequence[str], image: np.ndarray) -> None:
    if differing.any():
        row = int(np.flatnonzero(differing)[0])
        raise table.error(words.format(repr(names[image[row]])), row)
