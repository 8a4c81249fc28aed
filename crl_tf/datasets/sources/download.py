"""Fetching through tensorflow-datasets, and what to say where that fails."""

from __future__ import annotations

import textwrap
from typing import Any


def prepared_builder(source: str, builder_name: str, data_dir: str | None, by_hand: str) -> Any:
    """A tensorflow-datasets builder whose records are there: prepared before (then nothing is fetched) or downloaded now.

    Args:
        source: the dataset's name, with which errors begin.
        builder_name: of a builder of tensorflow-datasets.
        data_dir: its folder; None is tensorflow-datasets' own choice, ~/tensorflow_datasets.
        by_hand: what to make by hand and to pass as data_dir where the download fails.
    Raises:
        OSError: if the download fails, with the reason and `by_hand`.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(builder_name, data_dir=data_dir)
        builder.download_and_prepare()
    # DownloadError, NonMatchingChecksumError, ExtractError, those of requests, of the file system: they share no base.
    except Exception as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 400, placeholder=" ...")
        raise OSError(
            f"{source}: the download through tensorflow-datasets failed ({reason}). Try again later (Google Drive refuses a file"
            f" that many ask for), or fetch the files by hand from the publisher and pass as --data_dir, without --download,"
            f" a folder with {by_hand}"
        ) from error
    return builder


def check_source_given(source: str, data_dir: str | None, layout: str) -> str:
    """The folder; an error that explains both ways where neither it nor a download was asked for."""
    if data_dir is None:
        raise ValueError(
            f"{source}: needs --data_dir, a folder with {layout}; or --download, which fetches through tensorflow-datasets"
            " (into --data_dir where both are given)"
        )
    return data_dir
