"""A tree of folders, one per class, with or without train, val and test above: the layout of ImageFolder and of Keras."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from crl_tf.datasets.source import IMAGE_SUFFIXES, SPLITS, Dataset, Split, file_paths
from crl_tf.datasets.sources.class_warnings import warn_of_classes
from crl_tf.datasets.splitting import stratified_split
from crl_tf.datasets.tables.schema import SHARES
from crl_tf.imbalance import class_counts
from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.text import listed

OWNER = "image_folder"
LABEL = "class"
SPLIT_FOLDERS = {
    **{"train": "train", "training": "train"},
    **{"val": "validation", "valid": "validation", "validation": "validation"},
    **{"test": "test", "testing": "test"},
}
"""What the folder of a split can be called, in any case."""

OTHER_FORMS = (".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".dng")
"""Suffixes of images that are not read."""

CARVED = 0.1
"""The share of the training images that stands in for a split without a folder."""

LAYOUT = "a folder for each class with its images, or such folders below train/, val/ and test/"


def load_image_folder(data_dir: str | os.PathLike[str] | None, *, seed: int = 0, known: AttributeSchema | None = None) -> Dataset:
    """Reads a tree of images whose folders name their classes; one label, "class", with the folders' names in sorted order.

    Below a class, folders are gone into, and links followed. Hidden files and files that are no images by their name are
    passed over. If `data_dir` holds train/ and val/ or test/, these are the splits (also training, valid, validation,
    testing, in any case); one of val/ and test/ that is missing is carved out of train/, a tenth of every class. Otherwise its
    folders are the classes, and the split is drawn from the seed: 80, 10 and 10 %.

    Args:
        data_dir: the folder.
        seed: of what is drawn.
        known: the label of a trained model that is to be measured on the images: a class need not occur, and images that are too
            few for a split are all in `test`.
    Returns:
        images as file paths; labels int32 [n, 1].
    Raises:
        FileNotFoundError: if there is no such folder, or no image in it.
        ValueError: for fewer than two classes; for images in another folder beside those of the splits; for a folder that links
            put into two classes or splits; without data_dir.
    Warns:
        UserWarning: for a split that is carved, folders without an image, images outside of the classes or of another form,
            classes that are not in training, and classes of nearly the same name.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number in range(30):
    ...         image = Path(folder) / ("cat" if number % 3 else "dog") / f"{number}.jpg"
    ...         image.parent.mkdir(exist_ok=True)
    ...         image.touch()
    ...     dataset = load_image_folder(folder)
    >>> dataset.schema.attributes[0].classes, {name: len(split) for name, split in dataset.splits.items()}
    (('cat', 'dog'), {'train': 24, 'validation': 3, 'test': 3})
    """
    if data_dir is None:
        raise ValueError(f"{OWNER}: data_dir must be {LAYOUT}, received None")
    root = Path(data_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"{OWNER}: data_dir must be {LAYOUT}; {root} is no folder")
    tops = _folders(root)
    given = {SPLIT_FOLDERS.get(folder.name.lower()) for folder in tops}
    by_split = "train" in given and len(given - {None}) > 1
    places = _Places(root)
    parts = _parts(root, tops, places) if by_split else {"": _images(root, places)}
    occurring = {name for images in parts.values() for name in images}
    of_model = () if known is None else known.attributes[0].classes
    classes = [*of_model, *sorted(occurring.difference(of_model))]
    if not occurring:
        raise FileNotFoundError(
            f"{OWNER}: data_dir must be {LAYOUT}; {root} has no image ({', '.join(IMAGE_SUFFIXES)}) in a folder"
        )
    if len(classes) < 2:
        raise ValueError(f"{OWNER}: {root} must hold 2 classes or more, received {classes}; it must be {LAYOUT}")
    whole = {name: _split(images, classes) for name, images in parts.items()}
    schema = AttributeSchema((Attribute(LABEL, tuple(classes)),))
    if by_split:
        splits = _with_missing(whole, seed)
    else:
        try:
            splits = _drawn(whole[""], SHARES, seed)
        except ValueError:
            if known is None:
                raise
            splits = {name: whole[""] if name == "test" else whole[""].take(np.arange(0)) for name in SPLITS}
    if known is None:
        warn_of_classes(OWNER, schema, {name: class_counts(split.labels, [len(classes)]) for name, split in splits.items()})
    return Dataset(OWNER, schema, splits, not by_split, SPLITS if known is None else ("test",))


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


class _Places:
    """Finds images below folders, and refuses a folder that links put into two places: its images would count twice."""

    def __init__(self, root: Path) -> None:
        self._place_of = {_identity(root): root}
        self.of_other_forms: list[str] = []

    def images_below(self, top: Path) -> Iterator[str]:
        """The images in a folder and below it. A link that leads back to a folder on the way is passed over."""
        todo = [(top, frozenset({_identity(top.parent), _identity(top.parent.parent)}))]
        while todo:
            folder, above = todo.pop()
            identity = _identity(folder)
            if identity in above:
                continue
            other = self._place_of.setdefault(identity, folder)
            if other != folder:
                raise ValueError(f"{OWNER}: {folder} and {other} must be two folders, received links to the same one")
            for entry in os.scandir(folder):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    todo.append((Path(entry.path), above | {identity}))
                elif _is_image(entry):
                    yield entry.path
                elif entry.name.lower().endswith(OTHER_FORMS):
                    self.of_other_forms.append(entry.path)


def _identity(folder: Path) -> tuple[int, int]:
    itself = os.stat(folder)
    return itself.st_dev, itself.st_ino


def _parts(root: Path, tops: list[Path], places: _Places) -> dict[str, dict[str, list[str]]]:
    parts: dict[str, dict[str, list[str]]] = {}
    for folder in tops:
        split = SPLIT_FOLDERS.get(folder.name.lower())
        if split is None:
            if next(places.images_below(folder), None):
                raise ValueError(
                    f"{OWNER}: {root} must hold either the folders of splits or those of classes, received {folder.name!r} beside"
                    " train: move it elsewhere, or begin its name with a dot"
                )
            continue
        if split in parts:
            raise ValueError(f"{OWNER}: {root} must hold one folder for {split}, received two, the second {folder.name!r}")
        parts[split] = _images(folder, places)
    return parts


def _images(root: Path, places: _Places) -> dict[str, list[str]]:
    """The images below each folder of a folder, sorted; warns of folders without one, and of images that are in no folder."""
    found = {folder.name: sorted(places.images_below(folder)) for folder in _folders(root)}
    empty = [name for name, images in found.items() if not images]
    if empty:
        warnings.warn(f"{OWNER}: {root}: no image in {listed(empty, 8)}, which is left out", stacklevel=4)
    if places.of_other_forms:
        warnings.warn(
            f"{OWNER}: {root}: {len(places.of_other_forms)} images are of other forms than {', '.join(IMAGE_SUFFIXES)} and left"
            f" out, the first: {places.of_other_forms[0]}",
            stacklevel=4,
        )
        places.of_other_forms.clear()
    outside = sum(_is_image(entry) for entry in os.scandir(root))
    if outside:
        warnings.warn(f"{OWNER}: {root}: {outside} images are in no folder of a class, and left out", stacklevel=4)
    return {name: images for name, images in found.items() if images}


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith(".") and entry.is_file()


def _split(images: Mapping[str, list[str]], classes: list[str]) -> Split:
    place = {name: number for number, name in enumerate(classes)}
    labels = np.repeat([place[name] for name in images], [len(of_class) for of_class in images.values()])
    return Split(file_paths(path for of_class in images.values() for path in of_class), labels.astype(np.int32)[:, np.newaxis])


def _drawn(images: Split, shares: Mapping[str, float], seed: int) -> dict[str, Split]:
    try:
        return {name: images.take(rows) for name, rows in stratified_split(images.labels, shares, seed).items()}
    except ValueError as error:
        raise ValueError(f"{OWNER}: {error}; give more images, or a folder for every split") from error


def _with_missing(given: Mapping[str, Split], seed: int) -> dict[str, Split]:
    splits = dict(given)
    for name in [split for split in SPLITS if split not in splits]:
        warnings.warn(f"{OWNER}: no folder for {name}: a tenth of every class of train stands in, by the seed", stacklevel=3)
        splits |= _drawn(splits["train"], {"train": 1 - CARVED, name: CARVED}, seed)
    return {name: splits[name] for name in SPLITS}
