"""The table of datasets, and loading one by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from crl_tf.datasets.source import Dataset
from crl_tf.datasets.sources.attribute_csv import load_attribute_csv
from crl_tf.datasets.sources.celeba import OFFICIAL, load_celeba
from crl_tf.datasets.sources.cifar100 import load_cifar100, load_cifar100_bln, load_cifar100_imb
from crl_tf.datasets.sources.deepfashion import load_deepfashion
from crl_tf.datasets.sources.handwriting import load_handwriting
from crl_tf.datasets.sources.image_folder import load_image_folder
from crl_tf.datasets.sources.recognise import advice
from crl_tf.datasets.sources.records import load_records
from crl_tf.datasets.sources.xdomain import load_xdomain
from crl_tf.progress import SILENT, Progress
from crl_tf.schema import AttributeSchema


class Row(NamedTuple):
    """One dataset: the function that loads it, from `data_dir`, and the options of `load_dataset` that this function takes.

    may_be_shown: whether a page may show its images to whoever opens it.
    """

    load: Callable[..., Dataset]
    uses: tuple[str, ...] = ()
    may_be_shown: bool = True


DATASETS: dict[str, Row] = {
    "handwriting": Row(load_handwriting, ("seed",)),
    "celeba": Row(load_celeba, ("seed", "celeba_validation", "download", "check_images", "progress"), may_be_shown=False),
    "deepfashion": Row(load_deepfashion, ("check_images",)),
    "xdomain": Row(load_xdomain, ("seed", "check_images", "allow_outside_root")),
    "cifar100": Row(load_cifar100, ("seed", "download")),
    "cifar100_imb": Row(load_cifar100_imb, ("seed", "gamma", "download")),
    "cifar100_bln": Row(load_cifar100_bln, ("seed", "gamma", "download")),
    "attribute_csv": Row(load_attribute_csv, ("seed", "schema", "check_images", "allow_outside_root", "known")),
    "image_folder": Row(load_image_folder, ("seed", "known")),
    "records": Row(load_records),
}


def load_dataset(
    name: str,
    *,
    data_dir: str | None = None,
    seed: int = 0,
    gamma: float = 1.0,
    celeba_validation: str = OFFICIAL,
    download: bool = False,
    schema: str | None = None,
    check_images: bool = True,
    allow_outside_root: bool = False,
    known: AttributeSchema | None = None,
    progress: Progress = SILENT,
) -> Dataset:
    """Loads a dataset by name. An option that the dataset does not use (see `DATASETS`) has no effect.

    Args:
        name: a key of `DATASETS`.
        data_dir: the folder with the publisher's files. `handwriting` is embedded and takes none; the others need one, or
            `download`.
        seed: of everything random: handwriting, CIFAR-100's validation images and long tails, splits that no list gives,
            CelebA's validation images where they are carved.
        gamma: exponent of the power law of Sec. 4.3, for cifar100_imb and cifar100_bln.
        celeba_validation: "official" or "carved", out of the training part; for celeba.
        download: fetch through tensorflow-datasets (celeba, cifar100 and its two relatives), into `data_dir` if given.
        schema: a YAML file that says what the columns of `attribute_csv` mean.
        check_images: whether a missing image file is an error; without it, a list is enough.
        allow_outside_root: read images of a table that lie outside of its folder.
        known: labels and classes of a trained model that is to be measured on the data, of `attribute_csv` and `image_folder`:
            what else is a label is left out, and a class need not occur.
        progress: receives the progress of long steps.
    Raises:
        ValueError: for an unknown name or malformed files.
        FileNotFoundError: for missing files.
    """
    if name not in DATASETS:
        raise ValueError(f"load_dataset: name must be one of {sorted(DATASETS)}, received {name!r}")
    options = {
        "seed": seed,
        "gamma": gamma,
        "celeba_validation": celeba_validation,
        "download": download,
        "schema": schema,
        "check_images": check_images,
        "allow_outside_root": allow_outside_root,
        "known": known,
        "progress": progress,
    }
    row = DATASETS[name]
    try:
        return row.load(data_dir, **{option: options[option] for option in row.uses})
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}{advice(data_dir, but=name)}") from error
