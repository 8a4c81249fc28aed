"""Predicts the labels of images in files with an export, and writes them as CSV, Parquet or JSON lines."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import tensorflow as tf

from crl_tf.datasets.images.decode import decode, file_fault, resized
from crl_tf.datasets.images.read import read_encoded
from crl_tf.files import write_whole
from crl_tf.machine import usable_cores
from crl_tf.progress import SILENT, Progress
from crl_tf.serving.export import DEFAULT, FEATURES
from crl_tf.serving.scoring import DETECTED, INDEX, NAME, SCORES
from crl_tf.serving.served import Served
from crl_tf.text import csv_text, repeated

BATCH_SIZE = 64
ERROR = "error"
"""The column that says why an image cannot be read."""


class Summary(NamedTuple):
    """predicted: images. unreadable: (name, reason) of each of the others. seconds: of reading, predicting, writing."""

    predicted: int
    unreadable: list[tuple[str, str]]
    seconds: float


class _Writer(Protocol):
    def write(self, rows: pa.Table) -> None: ...
    def close(self) -> None: ...


def predict_files(
    served: Served,
    paths: Sequence[str],
    output: Path,
    *,
    names: Sequence[str] | None = None,
    scores: bool = False,
    features: bool = False,
    overwrite: bool = False,
    batch_size: int = BATCH_SIZE,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> Summary:
    """Predicts images and writes a row for each, in their order.

    The columns: `path`; of every label, in the order of the model's, LABEL (the name of its top class) and LABEL_score; with
    thresholds LABEL_detected, the names of the classes that reach theirs; `error`, why an image cannot be read, whose other
    columns are empty. Images are decoded as in training. A folder of a million images takes no more memory than one of a
    thousand.

    Args:
        served: the export. paths: of the images, any number of them unreadable.
        output: the file to write, in the form that its name ends in: .csv, .parquet or .jsonl. It appears when it is whole.
        names: what `path` says of each; None: the paths.
        scores: also LABEL=CLASS, the score of every class.
        features: also the features, of several labels one after the other: in CSV `feature_0` and so on, otherwise a list.
        overwrite: replace an output that exists.
        batch_size: images at a time. threads: that decode; None: one per core.
    Raises:
        ValueError: the output exists, ends in something else or would have two columns of a name, or the export has no features.
    """
    check_output(output, overwrite=overwrite)
    if features and FEATURES not in served.signatures:
        raise ValueError("features must be false: this model has none")
    if batch_size < 1:
        raise ValueError(f"batch_size must be an int >= 1, received {batch_size}")
    began, unreadable = time.perf_counter(), []
    # A file's name need not be text; the columns of all forms must be.
    names = [os.fsencode(name).decode(errors="backslashreplace") for name in (paths if names is None else names)]
    batches = _batches(paths, served.image_size, batch_size, threads or usable_cores())

    def answered(images: np.ndarray) -> dict[str, np.ndarray]:
        answers = served.answer(DEFAULT, images=tf.constant(images, tf.float32))
        if features:
            answers["features"] = served.answer(FEATURES, images=tf.constant(images, tf.float32))["features"]
        return answers

    def rows_of(places: range, readable: np.ndarray, images: np.ndarray) -> pa.Table:
        """The rows of places, of which those that are readable have images."""
        row = {place: row for row, place in enumerate(readable.tolist())}
        errors = [
            None if place in row else file_fault(paths[place], served.image_size) or "could not be read" for place in places
        ]
        unreadable.extend((names[place], error) for place, error in zip(places, errors, strict=True) if error)
        predicted = _table(served, answered(images), scores, features)
        # No row, a null, makes a row of nulls.
        rows = predicted.take(pa.array([row.get(place) for place in places], pa.int64()))
        rows = rows.add_column(0, "path", pa.array([names[place] for place in places], pa.string()))
        return rows.append_column(ERROR, pa.array(errors, pa.string()))

    def written_batch_by_batch(writer: _Writer) -> Iterator[int]:
        """Writes the rows; yields the place of every path once it is done with."""
        done = 0
        for readable, images in batches.as_numpy_iterator():
            places = range(done, int(readable[-1]) + 1)
            writer.write(rows_of(places, readable, images))
            yield from places
            done = places.stop
        # What follows the last readable image; and if there is no row at all, the columns.
        places = range(done, len(paths))
        if places or not paths:
            writer.write(rows_of(places, np.zeros(0, np.int64), np.zeros((0, *served.image_size, 3), np.float32)))
        yield from places

    def write(partial: Path) -> None:
        writer = FORMATS[output.suffix.lower()](partial)
        try:
            for _ in progress.track(written_batch_by_batch(writer), "predicting", len(paths)):
                pass
        finally:
            writer.close()

    write_whole(output, write)
    return Summary(len(paths) - len(unreadable), unreadable, time.perf_counter() - began)


def check_output(output: Path, *, overwrite: bool = False) -> None:
    """Refuses an output that is there already, unless it is to be replaced, or of a form that is not written."""
    if output.suffix.lower() not in FORMATS:
        raise ValueError(f"output must end in {', '.join(FORMATS)}, received {str(output)!r}")
    if os.path.isdir(output) or (os.path.lexists(output) and not overwrite):
        raise ValueError(f"output must be a new file, or --overwrite given, received {str(output)!r}, which exists")
    folder = next(parent for parent in output.absolute().parents if os.path.lexists(parent))
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise ValueError(f"output must lie in a folder that can be written to, received {str(output)!r}")


def _batches(paths: Sequence[str], image_size: tuple[int, int], batch_size: int, threads: int) -> tf.data.Dataset:
    """Batches of the places and pixels of the images that can be decoded, in their order."""

    def content_of(place: np.ndarray) -> bytes:
        return read_encoded(str(paths[int(place)]))[0] or b""

    def image(place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        content = tf.ensure_shape(tf.numpy_function(content_of, [place], tf.string, stateful=False), [])
        return place, tf.cast(resized(decode(content, image_size), image_size), tf.uint8)

    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    images = tf.data.Dataset.range(len(paths)).map(image, num_parallel_calls=threads).ignore_errors()
    return images.batch(batch_size).prefetch(2).with_options(options)


def _table(served: Served, answers: dict[str, np.ndarray], scores: bool, features: bool) -> pa.Table:
    columns: list[tuple[str, Any]] = []
    for attribute in served.schema.attributes:
        label = attribute.name
        index, of_classes = answers[label + INDEX], answers[label + SCORES]
        columns.append((label, pa.array([name.decode() for name in answers[label + NAME].tolist()], pa.string())))
        columns.append((f"{label}_score", pa.array(of_classes[np.arange(len(index)), index], pa.float32())))
        if served.scoring.thresholds is not None:
            detected = [[attribute.classes[k] for k in np.flatnonzero(row)] for row in answers[label + DETECTED]]
            columns.append((f"{label}_detected", pa.array(detected, pa.list_(pa.string()))))
        if scores:
            columns += [(f"{label}={name}", pa.array(of_classes[:, k], pa.float32())) for k, name in enumerate(attribute.classes)]
    if features:
        flat = answers["features"].reshape(len(answers["features"]), math.prod(answers["features"].shape[1:]))
        width = pa.list_(pa.float32(), flat.shape[1])
        columns.append(("features", pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel(), pa.float32()), type=width)))
    return _of_columns(columns, besides=("path", ERROR))


def _of_columns(columns: Sequence[tuple[str, Any]], besides: Sequence[str] = ()) -> pa.Table:
    """The table of named columns; ValueError where one of them has the name of another, or of those besides."""
    names = [name for name, _ in columns]
    if twice := repeated([*names, *besides]):
        raise ValueError(f"output must have columns of different names, but a label of the model makes a second {twice[0]!r}")
    return pa.table([column for _, column in columns], names=names)


class _Csv:
    """A CSV file: lists of names joined by |, a column per feature, and no cell that a spreadsheet takes for a formula."""

    def __init__(self, path: Path) -> None:
        self._file, self._writer = path.open("wb"), None

    def write(self, rows: pa.Table) -> None:
        plain = self._plain(rows)
        self._writer = self._writer or pa.csv.CSVWriter(self._file, plain.schema)
        self._writer.write(plain)

    def _plain(self, rows: pa.Table) -> pa.Table:
        columns: list[tuple[str, Any]] = []
        for name in rows.column_names:
            column = rows[name]
            if name == "features" and pa.types.is_fixed_size_list(column.type):
                columns += [(f"feature_{i}", pc.list_element(column, i)) for i in range(column.type.list_size)]
            elif pa.types.is_list(column.type):
                joined = [names if names is None else csv_text("|".join(names)) for names in column.to_pylist()]
                columns.append((name, pa.array(joined, pa.string())))
            elif pa.types.is_string(column.type):
                texts = [text if text is None else csv_text(text) for text in column.to_pylist()]
                columns.append((name, pa.array(texts, pa.string())))
            else:
                columns.append((name, column))
        return _of_columns([(str(csv_text(name)), column) for name, column in columns])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._file.close()


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._path, self._writer = path, None

    def write(self, rows: pa.Table) -> None:
        self._writer = self._writer or pq.ParquetWriter(self._path, rows.schema)
        self._writer.write_table(rows)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _JsonLines:
    """A JSON object per line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, rows: pa.Table) -> None:
        for row in rows.to_pylist():
            self._file.write(json.dumps({name: _rounded(value) for name, value in row.items()}, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


def _rounded(value: Any) -> Any:
    """A float32 with the digits that it has; NaN, which JSON does not know, as null."""
    if isinstance(value, float):
        return float(np.format_float_positional(np.float32(value), unique=True)) if np.isfinite(value) else None
    return [_rounded(item) for item in value] if isinstance(value, list) else value


FORMATS: dict[str, Callable[[Path], _Writer]] = {
    ".csv": _Csv,
    ".parquet": _Parquet,
    ".jsonl": _JsonLines,
}
"""What is written, by how the name of the output ends."""
