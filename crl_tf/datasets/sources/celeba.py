"""CelebA (Liu et al. 2015): 40 binary attributes of faces, in the official partition."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crl_tf.datasets.source import SPLITS, Dataset, Split, file_paths
from crl_tf.datasets.sources.celeba_download import (
    ATTRIBUTES,
    COORDINATES,
    IDENTITY,
    IMAGES,
    LANDMARKS,
    LAYOUT,
    PARTITION,
    lay_out_from_tfds,
)
from crl_tf.datasets.sources.download import check_source_given
from crl_tf.datasets.sources.lists import check_files, check_present, read_numbers, read_words, same_order
from crl_tf.schema import Attribute, AttributeSchema

ALIGNED_SIZE = (218, 178)
"""(height, width) of the images of img_align_celeba, in whose pixels the landmarks are."""

CLASSES = ("absent", "present")
SIGNS = {1: 1, -1: 0}
"""What the values of the list of attributes are as classes."""


def load_celeba(data_dir: str | None = None, *, download: bool = False, check_images: bool = True) -> Dataset:
    """CelebA in the official partition; one label per attribute with the classes ("absent", "present").

    Args:
        data_dir: folder in the publisher's layout: `img_align_celeba/`, `list_attr_celeba.txt`, `list_eval_partition.txt`;
            `identity_CelebA.txt` and `list_landmarks_align_celeba.txt` where present. With `download`, the folder of
            tensorflow-datasets (None: its own choice).
        download: fetch through tensorflow-datasets, unless its records are there already, and lay the files out in this way.
        check_images: whether an image file that is missing is an error; without it no image folder is needed.
    Returns:
        images as file paths; labels int8 [n, 40], none of them -1. extras, where their lists are there: "identity", int32
        [n], a number for each person; "landmarks", int16 [n, 10], x and y of the eyes, nose and corners of the mouth.
    Raises:
        FileNotFoundError: if a list, or an image that the lists name, is missing.
        ValueError: if neither data_dir nor download is given, a list is malformed, or two lists name different images.
        OSError: if the download fails, with what to make by hand instead.
    """
    folder = lay_out_from_tfds(data_dir) if download else Path(check_source_given("celeba", data_dir, LAYOUT))
    check_present("celeba", folder, [ATTRIBUTES, PARTITION, *([IMAGES] if check_images else [])], LAYOUT)
    attributes = read_numbers("celeba", folder / ATTRIBUTES, head=True, meaning=SIGNS)
    partition = read_words("celeba", folder / PARTITION, {str(number): number for number in range(len(SPLITS))}, head=False)
    parts = same_order("celeba", folder / ATTRIBUTES, attributes.names, folder / PARTITION, partition)
    extras = {}
    if (folder / IDENTITY).exists():
        extras["identity"] = _extra(folder, attributes.names, IDENTITY, head=False, width=1, dtype=np.int32)[:, 0]
    if (folder / LANDMARKS).exists():
        extras["landmarks"] = _extra(folder, attributes.names, LANDMARKS, head=True, width=len(COORDINATES), dtype=np.int16)
    if check_images:
        check_files("celeba", folder / IMAGES, attributes.names)
    splits = {}
    prefix = f"{folder / IMAGES}/"
    for number, split in enumerate(SPLITS):
        rows = np.flatnonzero(parts == number)
        paths = [prefix + attributes.names[row] for row in rows.tolist()]
        of_split = {name: values[rows] for name, values in extras.items()}
        splits[split] = Split(file_paths(paths), attributes.values[rows], of_split)
    return Dataset("celeba", AttributeSchema(tuple(Attribute(name, CLASSES) for name in attributes.header)), splits)


def _extra(folder: Path, names: list[str], file: str, *, head: bool, width: int, dtype: type[np.signedinteger]) -> np.ndarray:
    listed = read_numbers("celeba", folder / file, head=head, width=width, dtype=dtype)
    return same_order("celeba", folder / ATTRIBUTES, names, folder / file, listed)
