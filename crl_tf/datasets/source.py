"""What every dataset is, wherever it comes from: a schema, and for each split the images with their labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from crl_tf.schema import AttributeSchema

SPLITS = ("train", "validation", "test")
BINARY = ("absent", "present")
"""The classes of a binary label."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")
"""How the names of image files end."""


def file_paths(paths: Iterable[str]) -> np.ndarray:
    """A vector of paths as UTF-8 of varying length; at fixed width a million of them would take four times the memory."""
    names = list(paths)
    try:
        return np.array(names, dtype=np.dtypes.StringDType())
    except UnicodeEncodeError:
        wrong = next(name for name in names if any("\ud800" <= character <= "\udfff" for character in name))
        raise ValueError(f"file names must be UTF-8, received {os.fsencode(wrong)!r}: rename the file") from None


def file_stats(paths: np.ndarray) -> Iterator[tuple[str, os.stat_result]]:
    """Each path with what the file system knows of the file, in order. Asks several files at once, for network storage."""

    def of(some: np.ndarray) -> list[tuple[str, os.stat_result]]:
        return [(path, os.stat(path)) for path in some.tolist()]

    with ThreadPoolExecutor(16) as pool:
        for some in pool.map(of, np.array_split(paths, len(paths) // 1000 + 1)):
            yield from some


@dataclass(frozen=True)
class Records:
    """Encoded images in TFRecord shards, each with its place, so that any of them can be read at any time.

    shards: the files. shard: int32 [n], the file of each image. offset, length: int64 [n], where the bytes of the serialized
    tf.train.Example lie, whose feature "image" is the encoded image.
    """

    shards: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray
    length: np.ndarray

    def __len__(self) -> int:
        return len(self.shard)

    def __getitem__(self, indices: np.ndarray | slice) -> Records:
        return Records(self.shards, self.shard[indices], self.offset[indices], self.length[indices])

    def names(self, indices: np.ndarray) -> list[str]:
        """What errors call these images: the file, and the byte at which each begins."""
        return [f"{self.shards[self.shard[i]]} at byte {self.offset[i]}" for i in indices]

    def read(self, indices: np.ndarray) -> list[bytes]:
        """Reads the serialized examples of these images."""
        files = {number: os.open(self.shards[number], os.O_RDONLY) for number in np.unique(self.shard[indices])}
        try:
            return [os.pread(files[self.shard[i]], int(self.length[i]), int(self.offset[i])) for i in indices]
        finally:
            for file in files.values():
                os.close(file)


@dataclass(frozen=True)
class Split:
    """Images and labels of one split, by index.

    images: uint8 [n, H, W, 3], or n file paths (str, fixed or variable width), or `Records`.
    labels: int8, int16 or int32 [n, L]; -1 = not annotated. Batches of them are int32.
    extras: further values for each image, by name, [n, ...]: "identity", "landmarks". Training does not use them.
    """

    images: np.ndarray | Records
    labels: np.ndarray
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.decoded or self.in_files or isinstance(self.images, Records)):
            raise ValueError(
                "Split: images must be uint8 [n, H, W, 3], a vector of file paths or Records,"
                f" received {self.images.dtype} {list(self.images.shape)}"
            )
        for name, values in {"images": self.images, **self.extras}.items():
            if len(values) != len(self.labels):
                raise ValueError(f"Split: {len(values)} {name} but {len(self.labels)} rows of labels")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def decoded(self) -> bool:
        """Whether the images are pixels."""
        return isinstance(self.images, np.ndarray) and self.images.dtype == np.uint8 and self.images.shape[3:] == (3,)

    @property
    def in_files(self) -> bool:
        """Whether the images are paths of files."""
        return isinstance(self.images, np.ndarray) and self.images.dtype.kind in "UT" and self.images.ndim == 1

    def take(self, indices: np.ndarray) -> Split:
        """The split of these samples, which may repeat."""
        extras = {name: values[indices] for name, values in self.extras.items()}
        return Split(self.images[indices], self.labels[indices], extras)


@dataclass(frozen=True)
class Dataset:
    """A dataset: its name, its schema and the splits train, validation and test.

    drawn: whether the seed has drawn the splits, and not a list, a column or folders.
    needed: the splits that must hold images: all of them, or "test" for data that a trained model is measured on.
    """

    name: str
    schema: AttributeSchema
    splits: Mapping[str, Split]
    drawn: bool = False
    needed: tuple[str, ...] = SPLITS

    def __post_init__(self) -> None:
        if set(self.splits) != set(SPLITS):
            raise ValueError(f"Dataset {self.name!r}: splits must be {SPLITS}, received {tuple(self.splits)}")
        for name, split in self.splits.items():
            if len(split) == 0 and name in self.needed:
                raise ValueError(f"Dataset {self.name!r}: split {name!r} is empty")
            self.schema.check_labels(split.labels, f"Dataset {self.name!r}, split {name!r}")
