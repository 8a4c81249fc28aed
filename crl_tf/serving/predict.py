"""Predicts the labels of images in files with an export, and writes them as CSV, Parquet or JSON lines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
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
from crl_tf.text import csv_text

BATCH_SIZE = 64


class Summary(NamedTuple):
    """written: rows. unreadable: (path, reason) of each image that was passed over. seconds: of reading, predicting, writing."""

    written: int
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
    scores: bool = False,
    features: bool = False,
    batch_size: int = BATCH_SIZE,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> Summary:
    """Predicts images, in their order, and writes a row for each one that can be read.

    The columns: `path`; of every label, in the order of the model's, LABEL (the name of its top class) and LABEL_score; with
    thresholds LABEL_detected, the names of the classes that reach theirs. Images are decoded as in training. A folder of a
    million images takes no more memory than one of a thousand.

    Args:
        served: the export. paths: of the images, any number of them unreadable.
        output: the file to write, in the form that its name ends in: .csv, .parquet or .jsonl. It appears when it is whole.
        scores: also LABEL=CLASS, the score of every class.
        features: also the features, of several labels one after the other: in CSV `feature_0` and so on, otherwise a list.
        batch_size: images at a time. threads: that decode; None: one per core.
    Raises:
        ValueError: the output exists or ends in something else, or the export has no features.
    """
    check_output(output)
    if features and FEATURES not in served.signatures:
        raise ValueError("features must be false: this model has none")
    if batch_size < 1:
        raise ValueError(f"batch_size must be an int >= 1, received {batch_size}")
    began, unreadable, written = time.perf_counter(), [], 0
    batches = _batches(paths, served.image_size, batch_size, threads or usable_cores())

    def answered(images: np.ndarray) -> dict[str, np.ndarray]:
        answers = served.answer(DEFAULT, images=tf.constant(images, tf.float32))
        if features:
            answers["features"] = served.answer(FEATURES, images=tf.constant(images, tf.float32))["features"]
        return answers

    def passed_over(places: range) -> None:
        for place in places:
            reason = file_fault(str(paths[place]), served.image_size) or "could not be read"
            unreadable.append((str(paths[place]), reason))

    def written_batch_by_batch(writer: _Writer) -> Iterator[int]:
        """Writes the rows; yields the place of every path once it is done with."""
        nonlocal written
        done = 0
        for places, images in batches.as_numpy_iterator():
            writer.write(_table(served, [str(paths[place]) for place in places], answered(images), scores, features))
            written += len(places)
            for place in places.tolist():
                passed_over(range(done, place))
                yield from range(done, place + 1)
                done = place + 1
        passed_over(range(done, len(paths)))
        yield from range(done, len(paths))
        if not written:
            # A file of the columns alone, so that whoever reads it finds them.
            nothing = np.zeros((0, *served.image_size, 3), np.float32)
            writer.write(_table(served, [], answered(nothing), scores, features))

    def write(partial: Path) -> None:
        writer = FORMATS[output.suffix.lower()](partial)
        try:
            for _ in progress.track(written_batch_by_batch(writer), "predicting", len(paths)):
                pass
        finally:
            writer.close()

    write_whole(output, write)
    return Summary(written, unreadable, time.perf_counter() - began)


def check_output(output: Path) -> None:
    """Refuses an output that is there already, or of a form that is not written."""
    if output.suffix.lower() not in FORMATS:
        raise ValueError(f"output must end in {', '.join(FORMATS)}, received {str(output)!r}")
    if os.path.lexists(output):
        raise ValueError(f"output must be a new file, received {str(output)!r}, which exists")


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


def _table(served: Served, names: Sequence[str], answers: dict[str, np.ndarray], scores: bool, features: bool) -> pa.Table:
    columns: dict[str, Any] = {"path": pa.array(names, pa.string())}
    for attribute in served.schema.attributes:
        label = attribute.name
        index, of_classes = answers[label + INDEX], answers[label + SCORES]
        columns[label] = pa.array([name.decode() for name in answers[label + NAME].tolist()], pa.string())
        columns[f"{label}_score"] = pa.array(of_classes[np.arange(len(index)), index], pa.float32())
        if served.scoring.thresholds is not None:
            detected = [[attribute.classes[k] for k in np.flatnonzero(row)] for row in answers[label + DETECTED]]
            columns[f"{label}_detected"] = pa.array(detected, pa.list_(pa.string()))
        if scores:
            for k, name in enumerate(attribute.classes):
                columns[f"{label}={name}"] = pa.array(of_classes[:, k], pa.float32())
    if features:
        flat = answers["features"].reshape(len(names), -1) if names else np.zeros((0, answers["features"].shape[-1]))
        width = pa.list_(pa.float32(), flat.shape[1])
        columns["features"] = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel(), pa.float32()), type=width)
    return pa.table(columns)


class _Csv:
    """A CSV file: lists of names joined by |, a column per feature, and no cell that a spreadsheet takes for a formula."""

    def __init__(self, path: Path) -> None:
        self._file, self._writer = path.open("wb"), None

    def write(self, rows: pa.Table) -> None:
        plain = self._plain(rows)
        self._writer = self._writer or pa.csv.CSVWriter(self._file, plain.schema)
        self._writer.write(plain)

    def _plain(self, rows: pa.Table) -> pa.Table:
        columns: dict[str, Any] = {}
        for name in rows.column_names:
            column = rows[name]
            if name == "features" and pa.types.is_fixed_size_list(column.type):
                flat = column.combine_chunks().flatten().to_numpy().reshape(len(rows), column.type.list_size)
                columns |= {f"feature_{i}": pa.array(flat[:, i]) for i in range(flat.shape[1])}
            elif pa.types.is_list(column.type):
                columns[name] = pa.array([csv_text("|".join(names)) for names in column.to_pylist()], pa.string())
            elif pa.types.is_string(column.type):
                columns[name] = pa.array([csv_text(text) for text in column.to_pylist()], pa.string())
            else:
                columns[name] = column
        return pa.table({str(csv_text(name)): column for name, column in columns.items()})

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
