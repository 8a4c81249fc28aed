"""X-Domain (Chen et al. 2015): clothes from shops and streets, nine attributes with 178 classes in all (Table 2)."""

from __future__ import annotations

import os
import warnings

import numpy as np

from crl_tf.datasets.source import Dataset
from crl_tf.datasets.sources.attribute_csv import read_labelled_images
from crl_tf.datasets.splitting import random_split
from crl_tf.datasets.tables.schema import SHARES, Label, OneOf, TableSchema, parse_labels, read_yaml
from crl_tf.datasets.tables.table import find_table

OWNER = "xdomain"
ATTRIBUTES = ("Category", "Colour", "Collar", "Button", "Pattern", "Shape", "Length", "Sleeve-Shape", "Sleeve-Length")
CLASSES = 178
SIZES = {"train": 155_467, "validation": 10_000, "test": 80_000}
IMAGES = sum(SIZES.values())
CLASS_FILE = "classes.yaml"


def load_xdomain(
    data_dir: str | os.PathLike[str] | None, *, seed: int = 0, check_images: bool = True, allow_outside_root: bool = False
) -> Dataset:
    """X-Domain from a manifest: nine labels of 6 to 55 classes, 155,467 / 10,000 / 80,000 images at random from the seed.

    The publisher gives the set out on request only (Chen et al., "Deep Domain Adaptation for Describing People Based on
    Fine-Grained Clothing Attributes", CVPR 2015), in no fixed layout. Write a manifest for it: `manifest.csv` (or
    `manifest.parquet`) with the column `path`, relative to the manifest's folder or absolute, and the columns `ATTRIBUTES`, which
    hold the names of the classes:

        path,Category,Colour,Collar,Button,Pattern,Shape,Length,Sleeve-Shape,Sleeve-Length
        images/000001.jpg,T-shirt,White,Round,Pullover,Solid,Slim,Regular,,Short

    An empty cell is not annotated. Further columns are ignored. The classes are those that occur, sorted, unless `classes.yaml`
    beside the manifest lists them (for any of the nine):

        Category: [T-shirt, Shirt, Suit]
        Length: [Short, Regular, Long]

    A manifest of another number of rows than the 245,467 of the paper is divided in the same shares, with a warning.

    Args:
        data_dir: the manifest, or its folder.
        seed: of the split.
        check_images: whether a missing image file is an error.
        allow_outside_root: as for `load_attribute_csv`.
    Returns:
        images as file paths; labels int32 [n, 9], -1 = not annotated.
    Raises:
        FileNotFoundError: if the manifest, or an image that it names, is missing.
        ValueError: as `load_attribute_csv`; for a column that is missing, or a name in `classes.yaml` that is none of the nine.
    Warns:
        UserWarning: if the number of rows, or with all of them that of the classes, is not the paper's.
    """
    path = find_table(OWNER, data_dir, "manifest")
    labels: dict[str, Label] = {name: OneOf() for name in ATTRIBUTES}
    classes = path.parent / CLASS_FILE
    if classes.is_file():
        listed = parse_labels(OWNER, classes, read_yaml(OWNER, classes), "attributes")
        unknown = [name for name in listed if name not in labels]
        if unknown:
            raise ValueError(f"{OWNER}: {classes}: attributes must be some of {list(ATTRIBUTES)}, received {unknown}")
        wrong = [name for name, label in listed.items() if not isinstance(label, OneOf)]
        if wrong:
            raise ValueError(f"{OWNER}: {classes}: {wrong[0]} must be a list of classes, or nothing")
        labels |= listed
    # Shares, so that no column is used as the split, which is drawn below in exact sizes.
    images = read_labelled_images(
        OWNER, path, TableSchema(split=SHARES, labels=labels), check_images=check_images, allow_outside_root=allow_outside_root
    )

    def draw(labels: np.ndarray) -> dict[str, np.ndarray]:
        return random_split(len(labels), _sizes(len(labels)), seed)

    dataset = images.dataset(draw)
    if sum(map(len, dataset.splits.values())) == IMAGES and dataset.schema.width != CLASSES:
        warnings.warn(f"{OWNER}: the paper has {CLASSES} classes, {path} has {dataset.schema.width}", stacklevel=2)
    return dataset


def _sizes(count: int) -> dict[str, int]:
    if count == IMAGES:
        return SIZES
    if count < len(SIZES):
        raise ValueError(f"{OWNER}: at least {len(SIZES)} rows are needed, one for each split, received {count}")
    held_out = {split: max(1, round(count * SIZES[split] / IMAGES)) for split in ("validation", "test")}
    sizes = {"train": count - sum(held_out.values()), **held_out}
    warnings.warn(
        f"{OWNER}: the paper has {IMAGES:,} images, the manifest {count:,} rows; divided in the same shares: "
        + " / ".join(f"{size:,}" for size in sizes.values()),
        stacklevel=4,
    )
    return sizes
