"""CelebA (Liu et al. 2015): 40 binary attributes of faces, in the official partition."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from crl_tf.datasets.source import BINARY, SPLITS, Dataset
from crl_tf.datasets.sources.celeba_files import (
    ATTRIBUTES,
    IDENTITY,
    IMAGES,
    LANDMARKS,
    LAYOUT,
    PARTITION,
    find,
    read_attributes,
    read_extra,
    read_partition,
)
from crl_tf.datasets.sources.files import check_images_present, check_source_given, prepared_builder, splits_of_files
from crl_tf.datasets.sources.lists import same_order
from crl_tf.progress import SILENT, Progress
from crl_tf.schema import Attribute, AttributeSchema

COORDINATES = tuple(f"{part}_{axis}" for part in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy")
"""The columns of the list of landmarks, in pixels of the aligned image."""

ALIGNED_SIZE = (218, 178)
"""(height, width) of the images of img_align_celeba, in whose pixels the landmarks are."""

OFFICIAL, CARVED = VALIDATIONS = ("official", "carved")
"""Where the validation images come from."""

CARVED_IMAGES, TRAINING_IMAGES = 10_000, 162_770
"""Validation images that the paper takes out of so many of the official training part (Dong et al. 2018, Sec. 4)."""


def load_celeba(
    data_dir: str | None = None,
    *,
    seed: int = 0,
    celeba_validation: str = OFFICIAL,
    download: bool = False,
    check_images: bool = True,
    progress: Progress = SILENT,
) -> Dataset:
    """CelebA in the official partition; one label per attribute with the classes ("absent", "present").

    Args:
        data_dir: folder in the publisher's layout: `img_align_celeba/`, `list_attr_celeba.txt`, `list_eval_partition.txt`, and
            optionally `identity_CelebA.txt` and `list_landmarks_align_celeba.txt`; or in that of the publisher's drive (`Anno/`,
            `Eval/`, `Img/`), or in Kaggle's, whose lists are CSV. With `download`, the folder of
            tensorflow-datasets (None: its default).
        seed: of the validation images that are carved.
        celeba_validation: "official", the official validation part; or "carved", 10,000 of the 162,770 images of the official
            training part (of fewer images the same share), see `carved`. The official validation part is then left out.
        download: fetch through tensorflow-datasets, unless its records are there, and write the files in the publisher's layout.
        check_images: whether a missing image file is an error; without it no image folder is needed.
        progress: receives the progress of writing the downloaded images.
    Returns:
        images as file paths; labels int8 [n, 40], none of them -1. extras, if their lists are there: "identity", int32 [n], a
        number for each person; "landmarks", int16 [n, 10], x and y of the eyes, nose and corners of the mouth.
    Raises:
        FileNotFoundError: if a list, or an image that the lists name, is missing.
        ValueError: if neither data_dir nor download is given, a list is malformed, two lists name different images, or
            celeba_validation is another word.
        OSError: if the download fails, with what to do by hand.
    """
    if celeba_validation not in VALIDATIONS:
        raise ValueError(f"celeba: celeba_validation must be one of {list(VALIDATIONS)}, received {celeba_validation!r}")
    folder = lay_out_from_tfds(data_dir, progress) if download else Path(check_source_given("celeba", data_dir, LAYOUT))
    found = find(folder)
    needed = {f"{ATTRIBUTES}.txt": found.attributes, f"{PARTITION}.txt": found.partition}
    needed |= {IMAGES: found.images} if check_images else {}
    if absent := [name for name, path in needed.items() if path is None]:
        raise FileNotFoundError(f"celeba: data_dir must hold {LAYOUT}; {folder} lacks {', '.join(absent)}")
    attributes = read_attributes(found.attributes)
    names = attributes.names
    partition = read_partition(found.partition)
    parts = same_order("celeba", found.attributes, names, found.partition, partition)
    extras = {}
    if found.identity is not None:
        extras["identity"] = read_extra(found, names, found.identity, head=False, width=1, dtype=np.int32)[:, 0]
    if found.landmarks is not None:
        width = len(COORDINATES)
        extras["landmarks"] = read_extra(found, names, found.landmarks, head=True, width=width, dtype=np.int16)
    images = found.images or folder / IMAGES
    if celeba_validation == CARVED:
        parts = carved(parts, extras.get("identity"), seed)
    if check_images:
        check_images_present("celeba", images, names)
    schema = AttributeSchema(tuple(Attribute(name, BINARY) for name in attributes.header))
    return Dataset("celeba", schema, splits_of_files("celeba", images, names, attributes.values, parts, extras))


def carved(parts: np.ndarray, identity: np.ndarray | None, seed: int) -> np.ndarray:
    """Moves 10,000 of 162,770 training images to validation, at random, and leaves the official validation images out.

    Of another number of training images the same share is moved, rounded, at least one. A person is moved with all images or with
    none: in random order, each that still fits; so validation may be a few images short. Without identities, each image counts as
    a person of its own.

    Args:
        parts: int [n], the official split of each image, as its place in `SPLITS`.
        identity: int [n], the person of each image.
        seed: the same gives the same images.
    Returns:
        int [n], the new split of each image; -1: none.

    >>> carved(np.array([0, 0, 0, 0, 1, 2]), np.array([7, 7, 8, 7, 9, 9]), seed=0).tolist()  # one image: that of person 8
    [0, 0, 1, 0, -1, 2]
    """
    train = np.flatnonzero(parts == 0)
    wanted = max(1, round(len(train) * CARVED_IMAGES / TRAINING_IMAGES))
    _, person, sizes = np.unique(
        np.arange(len(train)) if identity is None else identity[train], return_inverse=True, return_counts=True
    )
    chosen = np.zeros(len(sizes), bool)
    for candidate in np.random.default_rng(seed).permutation(len(sizes)):
        if sizes[candidate] <= wanted:
            chosen[candidate] = True
            wanted -= sizes[candidate]
    moved = np.where(parts == 1, -1, parts)
    moved[train[chosen[person]]] = 1
    return moved


def lay_out_from_tfds(tfds_dir: str | None = None, progress: Progress = SILENT) -> Path:
    """Writes the images of tensorflow-datasets' `celeb_a`, still encoded, in the publisher's layout; returns the folder.

    Its records do not hold the publisher's file names: images are named after their part and place in it. Everything is written
    to a temporary folder that is renamed at the end.

    Args:
        tfds_dir: the folder of tensorflow-datasets, None for its default. Records that are prepared there are used without the
            network. The layout is written to `crl_tf/` in it, and a second call returns it as it is.
        progress: receives the progress, image by image.
    Raises:
        OSError: if the download fails, with what to do by hand.
    """
    builder = prepared_builder("celeba", "celeb_a", tfds_dir, LAYOUT)
    stored = Path(builder.data_dir)
    target = stored.parents[1] / "crl_tf" / f"celeb_a-{stored.name}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # The folder of an interrupted run is never continued; every run has its own.
    with tempfile.TemporaryDirectory(prefix=f"{target.name}-incomplete-", dir=target.parent) as temporary:
        complete = Path(temporary) / "complete"
        (complete / IMAGES).mkdir(parents=True)
        _write_layout(builder, complete, progress)
        try:
            complete.rename(target)
        except OSError:
            # Another process was faster; its folder has the same content.
            if not target.exists():
                raise
    return target


def _write_layout(builder: Any, folder: Path, progress: Progress) -> None:
    import tensorflow_datasets as tfds

    names = sorted(builder.info.features["attributes"])
    attributes, parts, identities, landmarks = [], [], [], []
    for number, split in enumerate(SPLITS):
        examples = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        total = builder.info.splits[split].num_examples
        for index, example in enumerate(progress.track(tfds.as_numpy(examples), f"writing {split}", total=total)):
            file = f"{split}-{index + 1:06d}.jpg"
            (folder / IMAGES / file).write_bytes(example["image"])
            attributes.append(" ".join([file, *("1" if example["attributes"][name] else "-1" for name in names)]))
            parts.append(f"{file} {number}")
            identities.append(f"{file} {example['identity']['Identity_No']}")
            landmarks.append(" ".join([file, *(str(example["landmarks"][name]) for name in COORDINATES)]))
    count = str(len(attributes))
    _write_lines(folder / f"{ATTRIBUTES}.txt", [count, " ".join(names), *attributes])
    _write_lines(folder / f"{PARTITION}.txt", parts)
    _write_lines(folder / f"{IDENTITY}.txt", identities)
    _write_lines(folder / f"{LANDMARKS}.txt", [count, " ".join(COORDINATES), *landmarks])


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
