"""A publisher's files: whether they are there, what to do if not, and fetching them through tensorflow-datasets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crl_tf.datasets.source import SPLITS, Split, file_paths
from crl_tf.text import shortened


def prepared_builder(source: str, builder_name: str, data_dir: str | None, by_hand: str) -> Any:
    """A tensorflow-datasets builder with its records, downloaded unless they were prepared before.

    Args:
        source: the dataset's name, with which errors begin.
        builder_name: of a builder of tensorflow-datasets.
        data_dir: its folder; None is tensorflow-datasets' default, ~/tensorflow_datasets.
        by_hand: what to pass as data_dir if the download fails.
    Raises:
        OSError: if the download fails, with the reason and `by_hand`.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(builder_name, data_dir=data_dir)
        builder.download_and_prepare()
    # DownloadError, NonMatchingChecksumError, ExtractError, those of requests and of the file system share no base.
    except Exception as error:
        reason = shortened(f"{type(error).__name__}: {error}", 400)
        raise OSError(
            f"{source}: the download through tensorflow-datasets failed ({reason}). Try again later (Google Drive refuses a file"
            f" that many ask for), or fetch the files by hand from the publisher and pass as --data_dir, without --download,"
            f" a folder with {by_hand}"
        ) from error
    return builder


def check_source_given(source: str, data_dir: str | None, layout: str) -> str:
    """Returns the folder; raises ValueError that explains folder and download if neither is given."""
    if data_dir is None:
        raise ValueError(
            f"{source}: needs --data_dir, a folder with {layout}; or --download, which fetches through tensorflow-datasets"
            " (into --data_dir where both are given)"
        )
    return data_dir


def check_present(source: str, folder: Path, needed: Sequence[str], layout: str) -> None:
    """Raises FileNotFoundError with the files that a folder lacks and the layout that it must have."""
    absent = [name for name in needed if not (folder / name).exists()]
    if absent:
        raise FileNotFoundError(f"{source}: data_dir must hold {layout}; {folder} lacks {', '.join(absent)}")


def check_images_present(source: str, root: Path, names: Sequence[str]) -> None:
    """Checks that every listed image (names with / between folders) is a file below root; else raises FileNotFoundError."""
    # One listing per folder, because asking for each of 200,000 files takes minutes on network storage.
    files: dict[str, set[str]] = {}
    missing = []
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder not in files:
            path = root / folder
            files[folder] = {entry.name for entry in os.scandir(path) if entry.is_file()} if path.is_dir() else set()
        if file not in files[folder]:
            missing.append(name)
    if missing:
        raise FileNotFoundError(
            f"{source}: {len(missing)} of {len(names)} listed images are missing in {root}, the first: {missing[0]};"
            " --skip_unreadable leaves them out, where they are no more than 1 %"
        )


def splits_of_files(
    source: str,
    root: Path,
    names: Sequence[str],
    labels: np.ndarray,
    parts: np.ndarray,
    extras: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Split]:
    """The splits of a publisher's lists.

    Args:
        source: the dataset's name, with which errors begin.
        root: the folder of the images.
        names: n images, below root.
        labels: [n, L].
        parts: [n], the split of each image, as its place in `SPLITS`.
        extras: [n, ...] by name.
    Raises:
        ValueError: a name that leads out of the folder.
    """
    outside = next((name for name in names if name.startswith("/") or ".." in name.split("/")), None)
    if outside is not None:
        raise ValueError(f"{source}: a list must name images below {root}, received {shortened(outside)!r}")
    prefix, splits = f"{root}/", {}
    for number, split in enumerate(SPLITS):
        rows = np.flatnonzero(parts == number)
        paths = file_paths(prefix + names[row] for row in rows.tolist())
        splits[split] = Split(paths, labels[rows], {name: values[rows] for name, values in (extras or {}).items()})
    return splits
