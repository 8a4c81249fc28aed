"""Datasets by name. Each loader knows only the arguments it has a use for; the table says which."""

from __future__ import annotations

from collections.abc import Callable

from crl_tf.datasets.attribute_csv import load_attribute_csv
from crl_tf.datasets.celeba import load_celeba
from crl_tf.datasets.cifar100 import load_cifar100, load_cifar100_bln, load_cifar100_imb
from crl_tf.datasets.handwriting import load_handwriting
from crl_tf.datasets.source import SPLITS, Dataset, Split

__all__ = ["DATASETS", "SPLITS", "Dataset", "Split", "load_dataset"]

DATASETS: dict[str, Callable[[str | None, int, float], Dataset]] = {
    "handwriting": lambda data_dir, seed, gamma: load_handwriting(data_dir, seed=seed),
    "celeba": lambda data_dir, seed, gamma: load_celeba(data_dir),
    "cifar100": lambda data_dir, seed, gamma: load_cifar100(data_dir, seed=seed),
    "cifar100_imb": lambda data_dir, seed, gamma: load_cifar100_imb(data_dir, seed=seed, gamma=gamma),
    "cifar100_bln": lambda data_dir, seed, gamma: load_cifar100_bln(data_dir, seed=seed, gamma=gamma),
    "attribute_csv": lambda data_dir, seed, gamma: load_attribute_csv(data_dir),
}


def load_dataset(name: str, *, data_dir: str | None = None, seed: int = 0, gamma: float = 1.0) -> Dataset:
    """Loads a dataset by name.

    Args:
        name: a key of `DATASETS`.
        data_dir: the folder with the publisher's files; None downloads through tensorflow-datasets where that is possible
            (celeba, cifar100 and its two relatives). `handwriting` is embedded and takes none; `attribute_csv` needs one.
        seed: of what is chosen or composed at random (handwriting; CIFAR-100's validation images and long tails).
        gamma: exponent of the power law of Sec. 4.3; only cifar100_imb and cifar100_bln have a use for it.
    Raises:
        ValueError: for an unknown name, or files that are not what they should be.
        FileNotFoundError: for files that are not there.
    """
    if name not in DATASETS:
        raise ValueError(f"load_dataset: name must be one of {sorted(DATASETS)}, received {name!r}")
    return DATASETS[name](data_dir, seed, gamma)
