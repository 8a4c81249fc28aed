"""Every image read once before hours are spent: which cannot be decoded, which stand there twice, of what sizes and forms."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.progress import Progress

from crl_tf.datasets.images.decode import MISSING, REMEDY, decode, encoded_image, fault, file_fault
from crl_tf.datasets.images.headers import read_header
from crl_tf.datasets.pipeline import usable_cores
from crl_tf.datasets.source import Dataset, Records, Split

CHUNK = 64
"""Images that a thread reads and decodes at a time."""

NAMED = 3
"""Unreadable images that an error names."""


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be decoded: its place in the split, its name (path, or shard and byte) and why, in one line."""

    index: int
    name: str
    reason: str
    split: str = ""


@dataclass(frozen=True)
class Checked:
    """What reading every image found, in the order of the indices that were asked for.

    indices: int64 [m], places in the split. digests: uint64 [m], blake2b of each file's bytes, 0 where it could not be read.
    sizes: int32 [m, 2], height and width as seen, that is after EXIF; 0 where nothing tells. forms: how many images are "JPEG",
    "PNG", "GIF", "BMP", "WebP", and how many of all are "greyscale", "alpha", "CMYK", "palette", "16 bits", "progressive",
    "turned by EXIF". unreadable: those that cannot be decoded, by index.
    """

    indices: np.ndarray
    digests: np.ndarray
    sizes: np.ndarray
    forms: dict[str, int]
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True)
class Duplicates:
    """Images of equal bytes.

    groups: for each content that occurs more than once, where: (split, place in its digests), in the order of the splits.
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
    advance: Callable[[int], None] | None = None,
) -> Checked:
    """Reads and decodes images of a split once, by the pipeline's own decoder, on all cores.

    Args:
        split: images as files or records; pixels of an array have nothing to check, and give digests and sizes alone.
        image_size: what training resizes to: a JPEG is decoded at a scale that follows from it, and is refused as too large,
            or not, by what that leaves.
        indices: which images, [m], integers. None: all.
        advance: called with the number of images that are done, from this thread.
    Returns:
        what was found. A file that is missing is among the unreadable.

    >>> check_images(Split(np.zeros((2, 8, 6, 3), np.uint8), np.zeros((2, 1), np.int32))).sizes.tolist()
    [[8, 6], [8, 6]]
    """
    indices = np.arange(len(split)) if indices is None else np.asarray(indices, np.int64)
    image_size = (int(image_size[0]), int(image_size[1]))
    decodable = _decodable(image_size)
    chunks = [indices[at : at + CHUNK] for at in range(0, len(indices), CHUNK)]
    digests, sizes = np.zeros(len(indices), np.uint64), np.zeros((len(indices), 2), np.int32)
    forms: Counter[str] = Counter()
    unreadable: list[Unreadable] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        done = 0
        for facts in pool.map(lambda chunk: _check(split, chunk, image_size, decodable), chunks):
            for digest, size, words, problem in facts:
                digests[done], sizes[done] = digest, size
                forms.update(words)
                unreadable += [problem] if problem else []
                done += 1
            if advance:
                advance(len(facts))
    return Checked(indices, digests, sizes, dict(forms), tuple(unreadable))


def check_splits(dataset: Dataset, splits: Sequence[str], *, image_size: tuple[int, int]) -> dict[str, Checked]:
    """`check_images` of each of these splits, with a bar on a terminal."""
    checked = {}
    with Progress(transient=True, disable=not sys.stdout.isatty()) as progress:
        for name in splits:
            task = progress.add_task(f"reading {name}", total=len(dataset.splits[name]))
            advance = functools.partial(progress.advance, task)
            checked[name] = check_images(dataset.splits[name], image_size=image_size, advance=advance)
    return checked


def without_unreadable(
    dataset: Dataset,
    *,
    image_size: tuple[int, int] = (224, 224),
    limit: float = 0.01,
) -> tuple[Dataset, list[Unreadable]]:
    """The dataset without the images that cannot be decoded, missing ones included, and what these are.

    Args:
        dataset: its splits of pixels are taken as they are.
        image_size: as of `check_images`.
        limit: the largest share of all images, in [0, 1], that may be left out.
    Raises:
        ValueError: if more than `limit` of all images cannot be read, or none of a split can.
    """
    if not 0 <= limit <= 1:
        raise ValueError(f"without_unreadable: limit must be a share in [0, 1], received {limit}")
    encoded = [name for name, split in dataset.splits.items() if not split.decoded]
    found = _unreadable(check_splits(dataset, encoded, image_size=image_size))
    _check_share(found, sum(map(len, dataset.splits.values())), limit)
    if not found:
        return dataset, []
    splits = {}
    for name, split in dataset.splits.items():
        broken = [problem.index for problem in found if problem.split == name]
        if len(broken) == len(split):
            raise ValueError(f"unreadable images: none of the {len(split)} of {name} can be read, such as {_named(found, name)}")
        splits[name] = split.take(np.setdiff1d(np.arange(len(split)), broken)) if broken else split
    return dataclasses.replace(dataset, splits=splits), found


def require_readable(dataset: Dataset, splits: Sequence[str], *, image_size: tuple[int, int]) -> None:
    """Raises ValueError, with the first few and why, unless every image of these splits can be decoded."""
    encoded = [name for name in splits if not dataset.splits[name].decoded]
    found = _unreadable(check_splits(dataset, encoded, image_size=image_size))
    if found:
        more = ", ..." if len(found) > NAMED else ""
        raise ValueError(f"unreadable images: {len(found)} in {' and '.join(splits)}: {_named(found)}{more}; {REMEDY}")


def duplicates(digests: Mapping[str, np.ndarray]) -> Duplicates:
    """Groups equal digests, within and across splits; 0, of an image that could not be read, equals nothing.

    Args:
        digests: by split, uint64 [n], as of `Checked`.

    >>> found = duplicates({"train": np.array([5, 6, 5], np.uint64), "test": np.array([7, 6], np.uint64)})
    >>> found.groups
    ((('train', 0), ('train', 2)), (('train', 1), ('test', 1)))
    >>> found.within, found.across
    ({'train': 1, 'test': 0}, {('train', 'test'): 1})
    """
    names = list(digests)
    known = {name: values[values != 0] for name, values in digests.items()}
    distinct = {name: np.unique(values) for name, values in known.items()}
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    every = np.concatenate([np.asarray(digests[name], np.uint64) for name in names])
    owner = np.repeat(np.arange(len(names)), [len(digests[name]) for name in names])
    place = np.concatenate([np.arange(len(digests[name])) for name in names])
    _, inverse, counts = np.unique(every, return_inverse=True, return_counts=True)
    groups: dict[int, list[tuple[str, int]]] = {}
    for at in np.flatnonzero((counts[inverse] > 1) & (every != 0)).tolist():
        groups.setdefault(int(inverse[at]), []).append((names[owner[at]], int(place[at])))
    return Duplicates(
        tuple(map(tuple, groups.values())),
        {name: len(known[name]) - len(distinct[name]) for name in names},
        {(a, b): len(np.intersect1d(distinct[a], distinct[b], assume_unique=True)) for a, b in pairs},
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

        def tried(place: tf.Tensor, content: tf.Tensor) -> tf.Tensor:
            # The pixels are made and forgotten: only a place comes out.
            with tf.control_dependencies([decode(content, image_size)]):
                return tf.identity(place)

        count = tf.size(contents, tf.int64)
        tries = tf.data.Dataset.from_tensor_slices((tf.range(count), contents)).map(tried).ignore_errors()
        none = tf.data.Dataset.from_tensors(tf.zeros([0], tf.int64))
        options = tf.data.Options()
        options.autotune.enabled = False  # as in the pipeline
        return tries.batch(count).concatenate(none).take(1).with_options(options).get_single_element()

    return positions


def _check(
    split: Split, indices: np.ndarray, image_size: tuple[int, int], decodable: Callable[[tf.Tensor], tf.Tensor]
) -> list[_Facts]:
    names = image_names(split, indices)
    if split.decoded:
        return [(_digest(np.ascontiguousarray(split.images[i]).data), split.images.shape[1:3], [], None) for i in indices]
    read = list(_records(split.images, indices)) if isinstance(split.images, Records) else [_file(name) for name in names]
    with tf.device("/cpu:0"):
        good = set(decodable(tf.constant([content or b"" for content, _ in read], tf.string)).numpy().tolist())
    facts: list[_Facts] = []
    for place, (index, name, (content, reason)) in enumerate(zip(indices.tolist(), names, read, strict=True)):
        if reason is None and place not in good:
            # Tried again for its reason; on a disk that errs at times, nothing may be wrong any more.
            reason = (file_fault(name, image_size) if split.in_files else fault(content, image_size)) or "could not be decoded"
        size, words = _described(content)
        facts.append((_digest(content), size, words, Unreadable(index, name, reason) if reason else None))
    return facts


def _file(path: str) -> tuple[bytes | None, str | None]:
    try:
        return tf.io.read_file(path).numpy() if "://" in path else Path(path).read_bytes(), None
    except FileNotFoundError:
        return None, MISSING
    except IsADirectoryError:
        return None, "a folder, not an image file"
    except OSError as error:
        return None, f"cannot be opened ({error.strerror})"
    except tf.errors.OpError as error:
        return None, MISSING if isinstance(error, tf.errors.NotFoundError) else "cannot be opened"


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


def _named(found: list[Unreadable], split: str | None = None) -> str:
    some = [problem for problem in found if split in (None, problem.split)][:NAMED]
    return ", ".join(f"{problem.name} ({problem.reason})" for problem in some)


def _unreadable(checked: Mapping[str, Checked]) -> list[Unreadable]:
    return [dataclasses.replace(image, split=name) for name, facts in checked.items() for image in facts.unreadable]


def _check_share(found: list[Unreadable], images: int, limit: float) -> None:
    if len(found) / images > limit:
        raise ValueError(
            f"unreadable images: {len(found)} of {images} ({len(found) / images:.3g} of all) cannot be read, more than the"
            f" {limit:g} that may be left out: {_named(found)}{', ...' if len(found) > NAMED else ''}; repair them, or take them"
            " out of the list"
        )
