"""Converts the samples of any dataset to examples of tensorflow-datasets."""

from __future__ import annotations

import functools
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from crl_tf.datasets.images.decode import decode, decode_images, form_of
from crl_tf.datasets.source import SPLITS, Dataset, Records, Split, file_stats
from crl_tf.machine import usable_cores

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

CHUNK = 64
"""Images that are read, checked and serialized at a time by each thread."""

MANY = 100
"""More labels than this with the same classes become one vector: a feature each would outweigh the image."""

KEPT = ("JPEG", "PNG")
"""Forms that are stored as they are. tensorflow-datasets reads others as a video (GIF, WebP) or in wrong colours (some BMP)."""


class Examples:
    """The samples of a dataset as tensorflow-datasets has them.

    Each is {"image": encoded, "index": place in its split, "file_name": below the folder that all images share, "attributes":
    one label per attribute by name, -1 = not annotated, "extras": the split's extras}. More than `MANY` labels that all have the
    same classes are a vector in the schema's order instead.

    Attributes:
        keys: the key of each attribute in "attributes", by its name. tensorflow-datasets makes file names of keys, so that names
            are changed where they would not do.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        attributes = dataset.schema.attributes
        self._as_vector = len(attributes) > MANY and len({a.classes for a in attributes}) == 1
        # Names that differ in case only would share a file on some systems.
        plain = _distinct(re.sub(r"[^\w .,+&()=-]", "_", a.name).strip()[:80] for a in attributes)
        self.keys = dict(zip(dataset.schema.names, plain, strict=True))
        self._shared = _shared_folder(dataset)
        _check_extras(dataset)

    @functools.cached_property
    def features(self) -> tfds.features.FeaturesDict:
        """The features of an example."""
        import tensorflow_datasets as tfds

        def label(classes: Sequence[str]) -> tfds.features.ClassLabel:
            # tensorflow-datasets writes one class per line, without the space around it.
            return tfds.features.ClassLabel(names=_distinct(" ".join(name.split()) or "(empty)" for name in classes))

        attributes = self._dataset.schema.attributes
        if self._as_vector:
            labels: Any = tfds.features.Sequence(label(attributes[0].classes), length=len(attributes))
        else:
            labels = tfds.features.FeaturesDict({self.keys[a.name]: label(a.classes) for a in attributes})
        features = {"image": tfds.features.Image(), "index": np.int64, "file_name": tfds.features.Text(), "attributes": labels}
        extras = self._dataset.splits[SPLITS[0]].extras
        if extras:
            features["extras"] = tfds.features.FeaturesDict({name: self._extra(name) for name in extras})
        return tfds.features.FeaturesDict(features)

    def _extra(self, name: str) -> tfds.features.FeatureConnector:
        import tensorflow_datasets as tfds

        values = self._dataset.splits[SPLITS[0]].extras[name]
        kind = _kind(values)
        return tfds.features.Text() if kind is str else tfds.features.Tensor(shape=values.shape[1:], dtype=kind)

    def count(self, split: str) -> int:
        return len(self._dataset.splits[split])

    def file_names(self, split: str, rows: np.ndarray) -> list[str]:
        """Names of these samples that do not depend on where the dataset's folder is."""
        images = self._dataset.splits[split].images
        if isinstance(images, Records):
            return [f"{Path(images.shards[images.shard[i]]).name} at byte {images.offset[i]}" for i in rows]
        if images.dtype.kind in "UT":
            return [path[len(self._shared) :] for path in images[rows].tolist()]
        return [f"{split}/{i}.png" for i in rows]

    def of(self, split: str, rows: np.ndarray) -> list[dict[str, Any]]:
        """The examples of these samples. Decodes each image once, to find broken ones.

        Raises:
            ValueError: with its name, for an image that cannot be read or decoded.
        """
        part, names = self._dataset.splits[split], self.file_names(split, rows)
        if isinstance(part.images, Records):
            stored = [tf.train.Example.FromString(record).features.feature for record in part.images.read(rows)]
            images = [feature["image"].bytes_list.value[0] for feature in stored]
            names = [
                feature["file_name"].bytes_list.value[0].decode() if "file_name" in feature else name
                for feature, name in zip(stored, names, strict=True)
            ]
            images = _storable(images, part.images.names(rows))
        elif part.in_files:
            paths = part.images[rows].tolist()
            images = _storable([_read(path) for path in paths], paths)
        else:
            images = [tf.io.encode_png(image).numpy() for image in part.images[rows]]
        labels = part.labels[rows].tolist()
        attributes = labels if self._as_vector else [dict(zip(self.keys.values(), row, strict=True)) for row in labels]
        examples = [
            {"image": image, "index": int(index), "file_name": name, "attributes": attribute}
            for image, index, name, attribute in zip(images, rows, names, attributes, strict=True)
        ]
        for name, values in part.extras.items():
            kind = _kind(values)
            for example, value in zip(examples, values[rows], strict=True):
                example.setdefault("extras", {})[name] = str(value) if kind is str else np.asarray(value, kind)
        return examples

    def serialized(self, split: str, rows: np.ndarray) -> Iterator[list[bytes]]:
        """The examples of these samples, serialized as by tensorflow-datasets, up to `CHUNK` at a time, in this order."""
        from tensorflow_datasets.core.example_serializer import ExampleSerializer

        features = self.features
        serializer = ExampleSerializer(features.get_serialized_info())

        def work(some: np.ndarray) -> list[bytes]:
            encoded = map(features.encode_example, self.of(split, some))
            # Deterministic, so that a shard that is written again has the same bytes.
            return [serializer.get_tf_example(example).SerializeToString(deterministic=True) for example in encoded]

        return _in_order(work, (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)))


def image_sizes(split: Split) -> np.ndarray:
    """Bytes of each image as it is stored now, int64 [n].

    Raises:
        FileNotFoundError: for a missing image file.
    """
    if isinstance(split.images, Records):
        return split.images.length.astype(np.int64)
    if not split.in_files:
        return np.full(len(split), split.images[0].size, np.int64)
    try:
        return np.array([stat.st_size for _, stat in file_stats(split.images)], np.int64)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"prepare: image {error.filename} is missing") from error


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        # Not an OSError, which `prepare` takes for an error of the folder that it writes to.
        raise ValueError(f"prepare: image {path} cannot be read: {error.strerror}") from error


def _storable(contents: list[bytes], names: list[str]) -> list[bytes]:
    try:
        _decoded(tf.constant(contents, tf.string), tf.constant(names, tf.string))
    except tf.errors.OpError as error:
        # TensorFlow puts the message of an assertion between words of its own.
        message = re.search(r"assertion failed: \[(.+)\]", error.message)
        raise ValueError(f"prepare: {message[1] if message else error.message.splitlines()[0]}") from error
    return [content if form_of(content) in KEPT else _as_png(tf.constant(content)).numpy() for content in contents]


# Traced once for the module, because tracing is slow.
@tf.function(input_signature=[tf.TensorSpec([None], tf.string)] * 2)
def _decoded(contents: tf.Tensor, names: tf.Tensor) -> tf.Tensor:
    # One pixel is the cheapest: a damaged file is found at any size.
    return decode_images(contents, names, (1, 1))


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _as_png(content: tf.Tensor) -> tf.Tensor:
    # So large that no JPEG is decoded at a reduced scale.
    return tf.io.encode_png(decode(content, (2**20, 2**20)))


def _shared_folder(dataset: Dataset) -> str:
    ends = []
    for split in dataset.splits.values():
        if split.in_files:
            paths = split.images.tolist()
            ends += [min(paths), max(paths)]
    # All paths lie between the first and the last in order, so they share what these two share.
    shared = os.path.commonprefix(ends)  # noqa: RUF071 (its characters are cut at a slash below)
    return shared[: shared.rfind("/") + 1]


def _distinct(names: Iterable[str]) -> list[str]:
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 1
        while candidate.casefold() in taken:
            number += 1
            candidate = f"{name} ({number})"
        taken.add(candidate.casefold())
        result.append(candidate)
    return result


def _kind(values: np.ndarray) -> type:
    """As what tensorflow-datasets stores an extra; the index of `records` keeps its own type."""
    return {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float32}.get(values.dtype.kind, str)


def _check_extras(dataset: Dataset) -> None:
    first = dataset.splits[SPLITS[0]].extras
    for name, split in dataset.splits.items():
        shapes = {key: values.shape[1:] for key, values in split.extras.items()}
        if shapes != {key: values.shape[1:] for key, values in first.items()}:
            raise ValueError(f"prepare: every split must have the extras of train, {sorted(first)}; {name} has {sorted(shapes)}")
        wrong = [key for key, values in split.extras.items() if _kind(values) is str and values.ndim > 1]
        if wrong or any("/" in key for key in split.extras):
            raise ValueError(
                f"prepare: extras must be numbers, or one text each, and have no slash in their name: {sorted(shapes)}"
            )


def _in_order(work: Callable[[np.ndarray], list[bytes]], items: Iterable[np.ndarray]) -> Iterator[list[bytes]]:
    cores = usable_cores()
    with ThreadPoolExecutor(cores) as pool:
        # Only as many at a time as keep the threads busy: a shard can be larger than memory.
        waiting: deque = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
