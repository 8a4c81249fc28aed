"""Says what a folder or file holds when another dataset was looked for in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from crl_tf.datasets.source import IMAGE_SUFFIXES
from crl_tf.datasets.sources.celeba_files import find
from crl_tf.datasets.sources.records import METADATA


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda folder: any((folder / name).is_file() for name in names)


def _class_folders(folder: Path) -> bool:
    """Whether two folders or more hold images, directly or below train/ and the like."""
    tops = _folders(folder)
    return sum(_holds_image(top) or any(map(_holds_image, _folders(top)[:5])) for top in tops) > 1


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")][:50]


def _holds_image(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(IMAGE_SUFFIXES) for entry, _ in zip(entries, range(100), strict=False))


FORMS: Mapping[str, tuple[str, Callable[[Path], bool]]] = {
    "attribute_csv": ("a table of images and labels", _has("attributes.csv", "attributes.parquet")),
    "celeba": ("CelebA", lambda folder: find(folder).attributes is not None),
    "deepfashion": ("DeepFashion", _has("Anno/list_attr_img.txt", "Anno_coarse/list_attr_img.txt")),
    "cifar100": ("CIFAR-100", _has("meta", "cifar-100-python/meta")),
    "xdomain": ("X-Domain", _has("manifest.csv", "manifest.parquet")),
    "records": ("prepared records", _has(METADATA)),
    "image_folder": ("a folder of images for each class", _class_folders),
}
"""By dataset: what it is in words, and whether a folder holds it. The first that fits is named."""


def advice(data_dir: str | os.PathLike[str] | None, but: str) -> str:
    """What `data_dir` seems to hold, with the flag that reads it; empty if nothing is recognised, or what was looked for is."""
    folder = Path(data_dir) if data_dir is not None else None
    if folder is None or not folder.is_dir():
        return ""
    try:
        name = next((name for name, (_, holds) in FORMS.items() if holds(folder)), None)
    except OSError:
        return ""
    alike = {"cifar100", "cifar100_imb", "cifar100_bln"}
    if name is None or name == but or {name, but} <= alike:
        return ""
    return f"; it seems to hold {FORMS[name][0]}, which --dataset={name} reads"
