"""Samples of any dataset as examples of tensorflow-datasets: what their features are, and what is in them."""

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

from crl_tf.datasets.images.decode import decode, decode_images
from crl_tf.datasets.pipeline import usable_cores
from crl_tf.datasets.source import SPLITS, Dataset, Records, Split

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

CHUNK = 64
"""Images that are read, checked and serialized at a time by each thread."""

MANY = 100
"""Above so many labels of the same classes they are one vector: a feature each would outweigh the image."""

KEPT = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
"""How a JPEG and a PNG begin. Of others tensorflow-datasets makes a film (GIF, WebP) or wrong colours (BMP with a palette)."""


class Examples:
    """The samples of a dataset as tensorflow-datasets has them.

    Each is {"image": encoded, "index": place in its split, "file_name": below the folder that all images share, "attributes":
    a label each by name, -1 where nobody annotated it, "extras": whatever else is known}. More than `MANY` labels that all have
    the same classes are a vector in the schema's order instead.

    Attributes:
        keys: the key of each attribute in "attributes", by its name: where tensorflow-datasets could not keep the name (it makes
            file names of them), it is changed.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        attributes = dataset.schema.attributes
        self._as_vector = len(attributes) > MANY and len({a.classes for a in attributes}) == 1
        # Labels of one name apart from case would share a file on some systems.
        plain = _distinct(re.sub(r"[^\w .,+&()=-]", "_", a.name).strip()[:80] for a in attributes)
        self.keys = dict(zip(dataset.schema.names, plain, strict=True))
        self._shared = _shared_folder(dataset)
        _check_extras(dataset)

    @functools.cached_property
    def features(self) -> tfds.features.FeaturesDict:
        """The features of an example."""
        import tensorflow_datasets as tfds

        def label(classes: Sequence[str]) -> tfds.features.ClassLabel:
            # They go into a file of a line each, and space around them is lost.
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
        """What to call these samples, the same wherever the dataset's folder is."""
        images = self._dataset.splits[split].images
        if isinstance(images, Records):
            return [f"{Path(images.shards[images.shard[i]]).name} at byte {images.offset[i]}" for i in rows]
        if images.dtype.kind in "UT":
            return [path[len(self._shared) :] for path in images[rows].tolist()]
        return [f"{split}/{i}.png" for i in rows]

    def of(self, split: str, rows: np.ndarray) -> list[dict[str, Any]]:
        """The examples of these samples, each image read and decoded once to see that it can be.

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
        found = [
            {"image": image, "index": int(index), "file_name": name, "attributes": attribute}
            for image, index, name, attribute in zip(images, rows, names, attributes, strict=True)
        ]
        for name, values in part.extras.items():
            kind = _kind(values)
            for example, value in zip(found, values[rows], strict=True):
                example.setdefault("extras", {})[name] = str(value) if kind is str else np.asarray(value, kind)
        return found

    def serialized(self, split: str, rows: np.ndarray) -> Iterator[list[bytes]]:
        """The examples of these samples as tensorflow-datasets writes them, up to `CHUNK` at a time, in this order."""
        from tensorflow_datasets.core.example_serializer import ExampleSerializer

        features = self.features
        serializer = ExampleSerializer(features.get_serialized_info())

        def work(some: np.ndarray) -> list[bytes]:
            encoded = map(features.encode_example, self.of(split, some))
            # Deterministic, so that a shard written again is the same file.
            return [serializer.get_tf_example(example).SerializeToString(deterministic=True) for example in encoded]

        return _in_order(work, (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)))


def image_sizes(split: Split) -> np.ndarray:
    """Bytes of each image as it is stored now, int64 [n].

    Raises:
        FileNotFoundError: for an image file that is missing.
    """
    if isinstance(split.images, Records):
        return split.images.length.astype(np.int64)
    if not split.in_files:
        return np.full(len(split), split.images[0].size, np.int64)

    def sizes(some: np.ndarray) -> list[int]:
        try:
            return [os.stat(path).st_size for path in some.tolist()]
        except FileNotFoundError as error:
            raise FileNotFoundError(f"prepare: image {error.filename} is missing") from error

    # Several questions under way at once: on network storage each takes a millisecond, and there may be a million.
    with ThreadPoolExecutor(16) as pool:
        pieces = np.array_split(split.images, -(-len(split) // 1000))
        return np.array([size for piece in pool.map(sizes, pieces) for size in piece], np.int64)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        # Not an OSError: that would be taken for one of the folder that is written to.
        raise ValueError(f"prepare: image {path} cannot be read: {error.strerror}") from error


def _storable(contents: list[bytes], names: list[str]) -> list[bytes]:
    try:
        _decoded(tf.constant(contents, tf.string), tf.constant(names, tf.string))
    except tf.errors.OpError as error:
        # What an assertion in the graph says stands between TensorFlow's own words.
        said = re.search(r"assertion failed: \[(.+)\]", error.message)
        raise ValueError(f"prepare: {said[1] if said else error.message.splitlines()[0]}") from error
    return [content if content.startswith(KEPT) else _as_png(tf.constant(content)).numpy() for content in contents]


# Of the module, because tracing it takes half a second.
@tf.function(input_signature=[tf.TensorSpec([None], tf.string)] * 2)
def _decoded(contents: tf.Tensor, names: tf.Tensor) -> tf.Tensor:
    # To one pixel: a damaged file is noticed at any scale, and this is the cheapest.
    return decode_images(contents, names, (1, 1))


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _as_png(content: tf.Tensor) -> tf.Tensor:
    # Wanted so large that nothing is decoded at a reduced scale.
    return tf.io.encode_png(decode(content, (2**20, 2**20)))


def _shared_folder(dataset: Dataset) -> str:
    ends = []
    for split in dataset.splits.values():
        if split.in_files:
            paths = split.images.tolist()
            ends += [min(paths), max(paths)]
    # All paths lie between the first and the last in order, and so share what these two share.
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
        # No more under way than keeps the threads busy: a shard can be larger than memory.
        waiting: deque = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
