"""Datasets by name. Each loader knows only the arguments it has a use for; the table says which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crl_tf.datasets.source import SPLITS, Dataset, Records, Split
from crl_tf.datasets.sources.attribute_csv import load_attribute_csv
from crl_tf.datasets.sources.celeba import load_celeba
from crl_tf.datasets.sources.cifar100 import load_cifar100, load_cifar100_bln, load_cifar100_imb
from crl_tf.datasets.sources.deepfashion import load_deepfashion
from crl_tf.datasets.sources.handwriting import load_handwriting
from crl_tf.datasets.sources.records import load_records
from crl_tf.datasets.sources.xdomain import load_xdomain

__all__ = ["DATASETS", "SPLITS", "Dataset", "Records", "Split", "load_dataset"]


@dataclass(frozen=True)
class Wishes:
    """What a user can ask of a dataset; each loader has a use for some of it."""

    data_dir: str | None = None
    seed: int = 0
    gamma: float = 1.0
    download: bool = False
    schema: str | None = None
    check_images: bool = True


DATASETS: dict[str, Callable[[Wishes], Dataset]] = {
    "handwriting": lambda w: load_handwriting(w.data_dir, seed=w.seed),
    "celeba": lambda w: load_celeba(w.data_dir, download=w.download, check_images=w.check_images),
    "deepfashion": lambda w: load_deepfashion(w.data_dir, check_images=w.check_images),
    "xdomain": lambda w: load_xdomain(w.data_dir, seed=w.seed, check_images=w.check_images),
    "cifar100": lambda w: load_cifar100(w.data_dir, seed=w.seed, download=w.download),
    "cifar100_imb": lambda w: load_cifar100_imb(w.data_dir, seed=w.seed, gamma=w.gamma, download=w.download),
    "cifar100_bln": lambda w: load_cifar100_bln(w.data_dir, seed=w.seed, gamma=w.gamma, download=w.download),
    "attribute_csv": lambda w: load_attribute_csv(w.data_dir, seed=w.seed, schema=w.schema, check_images=w.check_images),
    "records": lambda w: load_records(w.data_dir),
}


def load_dataset(
    name: str,
    *,
    data_dir: str | None = None,
    seed: int = 0,
    gamma: float = 1.0,
    download: bool = False,
    schema: str | None = None,
    check_images: bool = True,
) -> Dataset:
    """Loads a dataset by name.

    Args:
        name: a key of `DATASETS`.
        data_dir: the folder with the publisher's files. `handwriting` is embedded and takes none; the others need one, or
            `download`.
        seed: of what is chosen or composed at random (handwriting; CIFAR-100's validation images and long tails; splits that
            no list gives).
        gamma: exponent of the power law of Sec. 4.3; only cifar100_imb and cifar100_bln have a use for it.
        download: fetch through tensorflow-datasets (celeba, cifar100 and its two relatives), into `data_dir` where given.
        schema: a YAML file that says what the columns of `attribute_csv` mean.
        check_images: whether an image file that is missing is an error; without it, a list is enough.
    Raises:
        ValueError: for an unknown name, or files that are not what they should be.
        FileNotFoundError: for files that are not there.
    """
    if name not in DATASETS:
        raise ValueError(f"load_dataset: name must be one of {sorted(DATASETS)}, received {name!r}")
    return DATASETS[name](Wishes(data_dir, seed, gamma, download, schema, check_images))
