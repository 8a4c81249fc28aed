"""CIFAR-100 (Krizhevsky 2009) and the long-tailed and balanced selections of Sec. 4.3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from crl_tf.datasets.source import Dataset, Split
from crl_tf.datasets.sources.files import check_source_given, prepared_builder
from crl_tf.datasets.sources.pickles import read_pickle
from crl_tf.imbalance import class_counts, power_law_counts
from crl_tf.schema import Attribute, AttributeSchema

NUM_CLASSES = 100
VALIDATION_PER_CLASS = 10
LARGEST, SMALLEST = 500, 25
"""f(1) and f(100) of Sec. 4.3."""

FILES = ("train", "test", "meta")
LAYOUT = "the Python pickles train, test and meta (from cifar-100-python.tar.gz), itself or in cifar-100-python/"


def load_cifar100(data_dir: str | None = None, *, seed: int = 0, download: bool = False) -> Dataset:
    """CIFAR-100 with 490 / 10 / 100 images per class for training, validation and test (Table 2).

    The 10 validation images of a class are chosen from its official training images by the seed. Label "object" with the
    100 fine classes; images uint8 [n, 32, 32, 3].

    Args:
        data_dir: folder with the official Python pickles `train`, `test` and `meta`, or the parent of
            `cifar-100-python`. With `download`, the folder of tensorflow-datasets (None: its default).
        seed: of the choice of the validation images.
        download: fetch through tensorflow-datasets, unless its records are there.
    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if neither data_dir nor download is given, or a file is not an official pickle.
        OSError: if the download fails, with what to do by hand.
    """
    if download:
        names, train, test = _from_tfds(data_dir)
    else:
        names, train, test = _from_pickles(Path(check_source_given("cifar100", data_dir, LAYOUT)))
    labels = train.labels[:, 0]
    held_out = choose_per_class(labels, np.full(NUM_CLASSES, VALIDATION_PER_CLASS), seed)
    training = np.setdiff1d(np.arange(len(train)), held_out)
    schema = AttributeSchema((Attribute("object", names),))
    return Dataset("cifar100", schema, {"train": train.take(training), "validation": train.take(held_out), "test": test})


def load_cifar100_imb(data_dir: str | None = None, *, seed: int = 0, gamma: float = 1.0, download: bool = False) -> Dataset:
    """CIFAR-100-imb(gamma): class i keeps f(i) = a / (i^gamma + b) training images, f(1) = 500, f(100) = 25 (Sec. 4.3).

    i counts the classes from 1 in the official order. Sizes above the 490 that the validation split leaves are clipped.
    Validation and test are CIFAR-100's own.
    """
    return _shrink_training("cifar100_imb", load_cifar100(data_dir, seed=seed, download=download), imbalanced_sizes, seed, gamma)


def load_cifar100_bln(data_dir: str | None = None, *, seed: int = 0, gamma: float = 1.0, download: bool = False) -> Dataset:
    """CIFAR-100-bln(gamma): as many training images as imb(gamma), equally many in every class (Sec. 4.3)."""
    return _shrink_training("cifar100_bln", load_cifar100(data_dir, seed=seed, download=download), balanced_sizes, seed, gamma)


def _shrink_training(
    name: str, full: Dataset, sizes: Callable[[np.ndarray, float], np.ndarray], seed: int, gamma: float
) -> Dataset:
    train = full.splits["train"]
    available = class_counts(train.labels, full.schema.num_classes)[0]
    indices = choose_per_class(train.labels[:, 0], sizes(available, gamma), seed)
    return Dataset(name, full.schema, {**full.splits, "train": train.take(indices)})


def imbalanced_sizes(available: np.ndarray, gamma: float) -> np.ndarray:
    """Class sizes f(i) = a / (i^gamma + b), f(1) = 500, f(K) = 25, clipped at the available samples.

    The 10 validation images per class leave 490 of the 500 that f(1) asks for.

    Args:
        available: samples that each class has, [K].
    """
    return np.minimum(power_law_counts(len(available), gamma, LARGEST, SMALLEST), available)


def balanced_sizes(available: np.ndarray, gamma: float) -> np.ndarray:
    """Equal class sizes with the same total as `imbalanced_sizes`, up to the rounding of the mean."""
    mean = round(float(imbalanced_sizes(available, gamma).mean()))
    return np.full(len(available), mean, np.int64)


def choose_per_class(labels: np.ndarray, sizes: np.ndarray, seed: int) -> np.ndarray:
    """Indices (ascending) of `sizes[k]` samples of every class k, chosen at random from the seed.

    The first `sizes[k]` of each class's random order are taken: with the same seed a larger choice includes a smaller one.

    Args:
        labels: class of every sample, integers [n].
        sizes: samples to choose per class, [K], none above what the class has.
        seed: of the ranking.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for k, size in enumerate(sizes):
        members = rng.permutation(np.flatnonzero(labels == k))
        if not 0 <= size <= len(members):
            raise ValueError(f"choose_per_class: sizes[{k}] must lie in [0, {len(members)}], received {int(size)}")
        chosen.append(members[:size])
    return np.sort(np.concatenate(chosen))


def _unpickle(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        content = read_pickle(path)
    except ValueError as error:
        raise ValueError(f"cifar100: {path} is not an official pickle of CIFAR-100: {error}") from error
    # Pickles that Python 3 wrote hold bytes where Python 2 had strings.
    content = {k.decode() if isinstance(k, bytes) else k: v for k, v in content.items()} if isinstance(content, dict) else {}
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(f"cifar100: {path} must hold {list(keys)}, missing: {missing}")
    return content


def _from_pickles(data_dir: Path) -> tuple[tuple[str, ...], Split, Split]:
    folders = (data_dir, data_dir / "cifar-100-python")
    folder = next((f for f in folders if all((f / name).is_file() for name in FILES)), None)
    if folder is None:
        raise FileNotFoundError(
            f"cifar100: data_dir must hold the official files {list(FILES)}, itself or in cifar-100-python/; received {data_dir}"
        )
    names = _unpickle(folder / "meta", ("fine_label_names",))["fine_label_names"]
    names = tuple(n.decode() if isinstance(n, bytes) else n for n in names) if isinstance(names, list) else ()
    if len(names) != NUM_CLASSES or not all(isinstance(n, str) for n in names):
        raise ValueError(f"cifar100: {folder / 'meta'} must hold {NUM_CLASSES} fine_label_names, received {len(names)}")
    return names, _read_part(folder / "train"), _read_part(folder / "test")


def _read_part(path: Path) -> Split:
    content = _unpickle(path, ("data", "fine_labels"))
    rows, labels = content["data"], content["fine_labels"]
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 3 * 32 * 32:
        received = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise ValueError(
            f"cifar100: data in {path} must be uint8 [n, 3072], images of 32 x 32 in 3 colours, received {received}; other images"
            " are read by --dataset=image_folder or attribute_csv"
        )
    known = isinstance(labels, list) and all(type(label) is int and 0 <= label < NUM_CLASSES for label in labels)
    if not known or len(labels) != len(rows):
        received = f"{len(labels)} of which some are none" if isinstance(labels, list) else type(labels).__name__
        raise ValueError(
            f"cifar100: fine_labels in {path} must be {len(rows)} whole numbers in [0, {NUM_CLASSES - 1}], received {received}"
        )
    # A row holds the red plane, then green, then blue.
    images = np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Split(images, np.asarray(labels, np.int32)[:, np.newaxis])


def _from_tfds(tfds_dir: str | None = None) -> tuple[tuple[str, ...], Split, Split]:
    import tensorflow_datasets as tfds

    builder = prepared_builder("cifar100", "cifar100", tfds_dir, LAYOUT)

    def read(part: str) -> Split:
        content = tfds.as_numpy(builder.as_dataset(split=part, batch_size=-1))
        # tensorflow-datasets shuffles the images; their ids count them in the publisher's order.
        order = np.argsort(content["id"])
        return Split(content["image"][order], content["label"][order].astype(np.int32)[:, np.newaxis])

    return tuple(builder.info.features["label"].names), read("train"), read("test")
