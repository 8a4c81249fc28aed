"""Finds CelebA's files: as its publisher lays them out, as its shared drive does, or as Kaggle does, whose lists are CSV."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from crl_tf.datasets.source import SPLITS
from crl_tf.datasets.sources.lists import Listed, read_numbers, read_words, same_order
from crl_tf.text import shortened

IMAGES = "img_align_celeba"
ATTRIBUTES, PARTITION, LANDMARKS, IDENTITY = (
    "list_attr_celeba",
    "list_eval_partition",
    "list_landmarks_align_celeba",
    "identity_CelebA",
)
LISTS = ("", "Anno", "Eval")
"""The folders in which a list may be."""

SIGNS = {1: 1, -1: 0}
"""The class of each value of the publisher's list of attributes."""

LAYOUT = (
    f"{IMAGES}/ (000001.jpg, 000002.jpg, ... from img_align_celeba.zip), {ATTRIBUTES}.txt and {PARTITION}.txt"
    f" (and, used where present, {IDENTITY}.txt and {LANDMARKS}.txt), also with the lists in Anno/ and Eval/ and the images in"
    " Img/, or as Kaggle has them, with lists that end in .csv"
)


class Found(NamedTuple):
    """The files of a folder. images: the folder of the images. Each list: its file; None: it is missing."""

    images: Path | None
    attributes: Path | None
    partition: Path | None
    landmarks: Path | None
    identity: Path | None


def find(folder: Path) -> Found:
    """Looks for every file where it may be."""
    tops = [folder / IMAGES, folder / "Img" / IMAGES]
    # Kaggle's archive has the folder twice, one in the other.
    images = next((place for top in tops for place in (top / IMAGES, top) if place.is_dir()), None)

    def list_of(stem: str) -> Path | None:
        paths = (folder / place / f"{stem}.{suffix}" for suffix in ("txt", "csv") for place in LISTS)
        return next((path for path in paths if path.is_file()), None)

    return Found(images, *(list_of(stem) for stem in (ATTRIBUTES, PARTITION, LANDMARKS, IDENTITY)))


def read_attributes(path: Path) -> Listed:
    """The attributes of every image, int8 [n, L]: 1 present, 0 absent. A CSV holds 1 and -1, or 1 and 0."""
    if path.suffix == ".txt":
        return read_numbers("celeba", path, head=True, meaning=SIGNS)
    listed = read_csv(path, np.int8)
    found = set(np.unique(listed.values).tolist())
    if not (found <= {-1, 1} or found <= {0, 1}):
        raise ValueError(f"celeba: {path}: attributes must be 1 and -1, or 1 and 0, received {sorted(found)[:5]}")
    return listed._replace(values=(listed.values > 0).astype(np.int8))


def read_partition(path: Path) -> Listed:
    """The part of every image, int8 [n]: its place in `SPLITS`."""
    if path.suffix == ".txt":
        return read_words("celeba", path, {str(number): number for number in range(len(SPLITS))}, head=False)
    listed = read_csv(path, np.int8)
    wrong = listed.values[(listed.values < 0) | (listed.values > 2)]
    if listed.values.shape[1] != 1 or wrong.size:
        received = f"{listed.values.shape[1]} columns" if listed.values.shape[1] != 1 else wrong[0]
        raise ValueError(f"celeba: {path}: every image must have one part, 0, 1 or 2, received {received}")
    return listed._replace(values=listed.values[:, 0])


def read_extra(
    found: Found, names: list[str], path: Path, *, head: bool, width: int, dtype: type[np.signedinteger]
) -> np.ndarray:
    """The numbers of another list, [n, width], in the order of the list of attributes."""
    if path.suffix == ".txt":
        listed = read_numbers("celeba", path, head=head, width=width, dtype=dtype)
    else:
        listed = read_csv(path, dtype)
        if listed.values.shape[1] != width:
            raise ValueError(f"celeba: {path}: {width} columns of numbers expected, received {listed.values.shape[1]}")
    return same_order("celeba", found.attributes, names, path, listed)


def read_csv(path: Path, dtype: type[np.signedinteger]) -> Listed:
    """A CSV whose first column names images, and whose others hold whole numbers of the type."""
    try:
        table = pyarrow.csv.read_csv(path)
        names = table.column(0).cast(pa.string()).to_pylist()
        columns = [column.cast(pa.from_numpy_dtype(dtype)).to_numpy() for column in table.columns[1:]]
    except (pa.ArrowException, IndexError) as error:
        raise ValueError(
            f"celeba: {path} must be a CSV of image names and whole numbers: {shortened(str(error), 200)}"
        ) from error
    if not columns or None in names or len(set(names)) != len(names) or any(column.dtype.kind != "i" for column in columns):
        what = (
            "no column of numbers"
            if not columns
            else "an empty cell"
            if len(set(names)) == len(names)
            else "an image listed twice"
        )
        raise ValueError(f"celeba: {path} must be a CSV of image names and whole numbers, received {what}")
    return Listed(table.column_names[1:], names, np.stack(columns, axis=1).astype(dtype))
