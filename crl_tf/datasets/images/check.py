"""Reads every image once before training: which cannot be decoded, which occur twice, and their sizes and forms."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from crl_tf.datasets.images.decode import REMEDY, decode, encoded_image, fault, file_fault, read_header
from crl_tf.datasets.images.read import MISSING, read_encoded
from crl_tf.datasets.source import Dataset, Records, Split
from crl_tf.machine import usable_cores
from crl_tf.progress import SILENT, Progress
from crl_tf.text import listed

CHUNK = 64
"""Images that a thread reads and decodes at a time."""


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be decoded: its place in the split, its name (path, or shard and byte) and the reason, in one line."""

    index: int
    name: str
    reason: str
    split: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


@dataclass(frozen=True)
class Checked:
    """Facts of every image, in the order of the indices that were asked for.

    indices: int64 [m], places in the split. digests: uint64 [m], blake2b of each file's bytes, 0 for a file that cannot be read.
    sizes: int32 [m, 2], height and width after turning by EXIF; 0 if unknown. forms: how many images are "JPEG", "PNG", "GIF",
    "BMP", "WebP", and how many have each of `decode.Header`'s traits. unreadable: images that cannot be decoded, by index.
    """

    indices: np.ndarray
    digests: np.ndarray
    sizes: np.ndarray
    forms: dict[str, int]
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True)
class Duplicates:
    """Images of equal bytes.

    groups: for each content that occurs more than once, its (split, place in the split's digests), in the order of the splits.
    within: per split, how many images repeat an earlier one of it. across: per pair of splits, how many contents are in both.
    """

    groups: tuple[tuple[tuple[str, int], ...], ...]
    within: dict[str, int]
    across: dict[tuple[str, str], int]


def check_images(
    split: Split,
    *,
    image_size: tuple[int, int] = (224, 224),
    indices: np.ndarray | None = None,
    progress: Progress = SILENT,
    what: str = "reading images",
) -> Checked:
    """Reads and decodes images of a split once, by the pipeline's own decoder, on all cores.

    Args:
        split: images as files or records. Arrays of pixels have nothing to check and yield digests and sizes alone.
        image_size: what training resizes to. It decides the scale at which a JPEG is decoded, and so whether it is too large.
        indices: which images, [m], integers. None: all.
        progress: receives the progress, image by image, as `what`.
    Returns:
        the facts; a missing file is among the unreadable.

    >>> check_images(Split(np.zeros((2, 8, 6, 3), np.uint8), np.zeros((2, 1), np.int32))).sizes.tolist()
    [[8, 6], [8, 6]]
    """
    indices = np.arange(len(split)) if indices is None else np.asarray(indices, np.int64)
    image_size = (int(image_size[0]), int(image_size[1]))
    decodable = _decodable(image_size)
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    digests, sizes = np.zeros(len(indices), np.uint64), np.zeros((len(indices), 2), np.int32)
    forms: Counter[str] = Counter()
    unreadable: list[Unreadable] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        facts = itertools.chain.from_iterable(pool.map(lambda chunk: _check(split, chunk, image_size, decodable), chunks))
        for place, (digest, size, words, problem) in enumerate(progress.track(facts, what, total=len(indices))):
            digests[place], sizes[place] = digest, size
            forms.update(words)
            unreadable += [problem] if problem else []
    return Checked(indices, digests, sizes, dict(forms), tuple(unreadable))


def check_splits(
    dataset: Dataset, splits: Sequence[str], *, image_size: tuple[int, int], progress: Progress = SILENT
) -> dict[str, Checked]:
    """`check_images` of each of these splits."""
    return {
        name: check_images(dataset.splits[name], image_size=image_size, progress=progress, what=f"reading {name}")
        for name in splits
    }


def without_unreadable(
    dataset: Dataset, *, image_size: tuple[int, int] = (224, 224), limit: float = 0.01, progress: Progress = SILENT
) -> tuple[Dataset, list[Unreadable]]:
    """The dataset without the images that cannot be decoded or are missing, and a list of these.

    Args:
        dataset: splits that hold pixels are kept as they are.
        image_size: as of `check_images`.
        limit: the largest share of all images, in [0, 1], that may be left out.
        progress: receives the progress.
    Raises:
        ValueError: if more than `limit` of all images, or all of one split, cannot be read.
    """
    if not 0 <= limit <= 1:
        raise ValueError(f"without_unreadable: limit must be a share in [0, 1], received {limit}")
    unreadable = _unreadable(dataset, tuple(dataset.splits), image_size, progress)
    images = sum(map(len, dataset.splits.values()))
    if len(unreadable) / images > limit:
        raise ValueError(
            f"unreadable images: {len(unreadable)} of {images} ({len(unreadable) / images:.3g} of all) cannot be read, more than"
            f" the {limit:g} that may be left out: {listed(unreadable)}; repair them, or take them out of the list"
        )
    places = {}
    for name, split in dataset.splits.items():
        broken = [image for image in unreadable if image.split == name]
        if len(broken) == len(split):
            names = listed(broken)
            raise ValueError(f"unreadable images: none of the {len(split)} of {name} can be read, such as {names}")
        places[name] = [image.index for image in broken]
    return (without_images(dataset, places) if unreadable else dataset), unreadable


def without_images(dataset: Dataset, places: Mapping[str, Sequence[int]]) -> Dataset:
    """The dataset without some images.

    Args:
        places: by split, the places of these images in it.
    """
    splits = {
        name: split.take(np.setdiff1d(np.arange(len(split)), places[name])) if places.get(name) else split
        for name, split in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=splits)


def require_readable(
    dataset: Dataset, splits: Sequence[str], *, image_size: tuple[int, int], progress: Progress = SILENT
) -> None:
    """Raises ValueError, with the first few and their reasons, unless every image of these splits can be decoded."""
    unreadable = _unreadable(dataset, splits, image_size, progress)
    if unreadable:
        names = listed(unreadable)
        raise ValueError(f"unreadable images: {len(unreadable)} in {' and '.join(splits)}: {names}; {REMEDY}")


def duplicates(digests: Mapping[str, np.ndarray]) -> Duplicates:
    """Groups equal digests within and across splits; 0, of an image that could not be read, equals nothing.

    Args:
        digests: by split, uint64 [n], as of `Checked`.

    >>> same = duplicates({"train": np.array([5, 6, 5], np.uint64), "test": np.array([7, 6], np.uint64)})
    >>> same.groups
    ((('train', 0), ('train', 2)), (('train', 1), ('test', 1)))
    >>> same.within, same.across
    ({'train': 1, 'test': 0}, {('train', 'test'): 1})
    """
    names = list(digests)
    known = {name: values[values != 0] for name, values in digests.items()}
    distinct = {name: np.unique(values) for name, values in known.items()}
    every = np.concatenate([np.asarray(digests[name], np.uint64) for name in names])
    places = [(name, place) for name in names for place in range(len(digests[name]))]
    _, inverse, counts = np.unique(every, return_inverse=True, return_counts=True)
    groups: dict[int, list[tuple[str, int]]] = {}
    for row in np.flatnonzero((counts[inverse] > 1) & (every != 0)).tolist():
        groups.setdefault(int(inverse[row]), []).append(places[row])
    return Duplicates(
        tuple(map(tuple, groups.values())),
        {name: len(known[name]) - len(distinct[name]) for name in names},
        {(a, b): len(np.intersect1d(distinct[a], distinct[b], assume_unique=True)) for a, b in itertools.combinations(names, 2)},
    )


def image_names(split: Split, indices: Sequence[int] | np.ndarray) -> list[str]:
    """What to call these images: the path of a file, shard and byte of a record, or the place in an array."""
    if isinstance(split.images, Records):
        return split.images.names(np.asarray(indices))
    return [str(split.images[i]) if split.in_files else f"image {i}" for i in indices]


_Facts = tuple[int, tuple[int, int], list[str], Unreadable | None]


@functools.cache
def _decodable(image_size: tuple[int, int]) -> Callable[[tf.Tensor], tf.Tensor]:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def positions(contents: tf.Tensor) -> tf.Tensor:
        """Which of the contents can be decoded, int64 [at most B]."""

        def position_if_decoded(place: tf.Tensor, content: tf.Tensor) -> tf.Tensor:
            # The pixels are dropped; only the place leaves the map.
            with tf.control_dependencies([decode(content, image_size)]):
                return tf.identity(place)

        count = tf.size(contents, tf.int64)
        contents = tf.data.Dataset.from_tensor_slices((tf.range(count), contents))
        decoded = contents.map(position_if_decoded).ignore_errors().batch(count)
        none = tf.data.Dataset.from_tensors(tf.zeros([0], tf.int64))
        options = tf.data.Options()
        options.autotune.enabled = False  # as in the pipeline
        return decoded.concatenate(none).take(1).with_options(options).get_single_element()

    return positions


def _check(
    split: Split, indices: np.ndarray, image_size: tuple[int, int], decodable: Callable[[tf.Tensor], tf.Tensor]
) -> list[_Facts]:
    names = image_names(split, indices)
    if split.decoded:
        return [(_digest(np.ascontiguousarray(split.images[i]).data), split.images.shape[1:3], [], None) for i in indices]
    read = list(_records(split.images, indices)) if isinstance(split.images, Records) else [read_encoded(name) for name in names]
    with tf.device("/cpu:0"):
        decoded = set(decodable(tf.constant([content or b"" for content, _ in read], tf.string)).numpy().tolist())
    facts: list[_Facts] = []
    for place, (index, name, (content, reason)) in enumerate(zip(indices.tolist(), names, read, strict=True)):
        if reason is None and place not in decoded:
            # Read again for the reason; on a disk with occasional errors it may succeed now.
            reason = (file_fault(name, image_size) if split.in_files else fault(content, image_size)) or "could not be decoded"
        size, words = _described(content)
        facts.append((_digest(content), size, words, Unreadable(index, name, reason) if reason else None))
    return facts


def _records(records: Records, indices: np.ndarray) -> Iterator[tuple[bytes | None, str | None]]:
    for index in indices:
        try:
            image = encoded_image(records.read(np.array([index]))[0])
            yield (image, None) if image else (None, "a damaged record: it holds no image")
        except FileNotFoundError:
            yield None, MISSING
        except OSError as error:
            yield None, f"cannot be opened ({error.strerror})"


def _digest(content: bytes | memoryview | None) -> int:
    return 0 if content is None else int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _described(content: bytes | None) -> tuple[tuple[int, int], list[str]]:
    try:
        header = read_header(content or b"")
    except ValueError:
        header = None
    return ((0, 0), []) if header is None else (header.upright_size, [header.form, *header.traits])


def _unreadable(dataset: Dataset, splits: Sequence[str], image_size: tuple[int, int], progress: Progress) -> list[Unreadable]:
    encoded = [name for name in splits if not dataset.splits[name].decoded]
    checked = check_splits(dataset, encoded, image_size=image_size, progress=progress)
    return [dataclasses.replace(image, split=name) for name, facts in checked.items() for image in facts.unreadable]
