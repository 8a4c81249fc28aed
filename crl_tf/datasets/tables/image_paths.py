"""The image files that a table names: one path each, none twice, and whether they are there."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crl_tf.datasets.source import SPLITS
from crl_tf.datasets.tables.table import Table

INDIRECT = r"(^|/)\.\.?(/|$)|/{2,}|/$"
"""Where a path takes a detour: ./a, a/../b, a//b."""
SLICE = 1 << 16


@dataclass(frozen=True)
class ImagePaths:
    """names: as the table has them. paths: to open. keys: equal where two names lead to the same path."""

    names: pa.LargeStringArray
    paths: pa.LargeStringArray
    keys: pa.LargeStringArray

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The paths of these rows, as a `Split` wants them."""
        images = np.empty(len(indices), np.dtypes.StringDType())
        # By the slice, since each is a Python string on its way.
        for start in range(0, len(indices), SLICE):
            part = slice(start, start + SLICE)
            images[part] = self.paths.take(pa.array(indices[part])).to_pylist()
        return images


def image_paths(table: Table, column: str, root: str | os.PathLike[str]) -> ImagePaths:
    """The paths in a column; relative ones start at `root`.

    Raises:
        ValueError: naming the row, for a cell that is empty.
    """
    names = table.texts(column)
    empty = np.flatnonzero(pc.equal(names, "").to_numpy(zero_copy_only=False))
    if empty.size:
        raise table.error(f"column {column!r} must name an image, received nothing", int(empty[0]))
    absolute = pc.starts_with(names, "/")
    root = os.fspath(root)
    paths = pc.if_else(absolute, names, _joined(root, names))
    # `paths` keep their detours, which lead elsewhere where a folder is a link.
    detours = pc.match_substring_regex(names, INDIRECT)
    straight = names
    if pc.any(detours).as_py():
        replaced = [_straight(name) for name in names.filter(detours).to_pylist()]
        straight = pc.replace_with_mask(names, detours, pa.array(replaced, pa.large_string()))
    keys = straight
    if pc.any(absolute).as_py() or pc.any(pc.starts_with(straight, "..")).as_py():
        keys = pc.if_else(absolute, straight, _joined(os.path.abspath(root), straight))
        upwards = pc.match_substring_regex(keys, INDIRECT)
        replaced = [_straight(key) for key in keys.filter(upwards).to_pylist()]
        keys = pc.replace_with_mask(keys, upwards, pa.array(replaced, pa.large_string()))
    return ImagePaths(names, paths, keys)


def _straight(path: str) -> str:
    # By itself normpath leaves two slashes at the beginning, which POSIX lets mean another root.
    return os.path.normpath(f"/{path.lstrip('/')}" if path.startswith("//") else path)


def _joined(folder: str, names: pa.LargeStringArray) -> pa.LargeStringArray:
    return pc.binary_join_element_wise(pa.scalar(folder.rstrip("/"), pa.large_string()), names, pa.scalar("/", pa.large_string()))


def refuse_duplicates(table: Table, images: ImagePaths, splits: np.ndarray | None) -> None:
    """Raises ValueError, naming both rows, if one path stands in two of them; `splits`: each row's place in `SPLITS`."""
    encoded = images.keys.dictionary_encode()
    if len(encoded.dictionary) == len(encoded):
        return
    codes = encoded.indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    again = np.setdiff1d(np.arange(len(codes)), first)
    row = int(again[0])
    before = int(first[codes[row]])
    name, earlier = images.names[row].as_py(), images.names[before].as_py()
    also = f" as {earlier!r}" if earlier != name else ""
    # An image to train on and to test on would make every figure of the test worthless.
    apart = splits is not None and splits[row] != splits[before]
    placed = f"is in {SPLITS[splits[before]]} and in {SPLITS[splits[row]]}" if apart else "is listed twice"
    more = f"; so are {len(again) - 1} more rows" if len(again) > 1 else ""
    raise table.error(f"image {name!r} {placed}, first on {table.where(before)}{also}{more}; keep one of the rows", row)


def require_files(table: Table, images: ImagePaths) -> None:
    """Raises FileNotFoundError, naming the first, if images are missing.

    Each folder is listed once: a million questions to the file system take minutes on network storage.
    """
    folders = pc.replace_substring_regex(images.paths, r"[^/]*$", "").dictionary_encode()
    listed = [_files_in(folder) for folder in folders.dictionary.to_pylist()]
    known = pa.concat_arrays([pa.array(files or [], pa.large_string()) for files in listed])
    unlisted = np.flatnonzero(~pc.is_in(images.paths, value_set=known).to_numpy(zero_copy_only=False))
    folder_of = folders.indices.to_numpy()
    # A name can be written in another way than it is listed (case, accents), and a folder can be closed to listing only.
    missing = [row for row in unlisted.tolist() if listed[folder_of[row]] == [] or not os.path.isfile(images.paths[row].as_py())]
    if missing:
        row = missing[0]
        slashes = "; write / between folders" if "\\" in images.names[row].as_py() else ""
        raise FileNotFoundError(
            f"{table.owner}: {table.path}: {len(missing)} of {len(table)} images are missing,"
            f" the first: {images.names[row].as_py()!r} ({table.where(row)}), looked for at {images.paths[row].as_py()}"
            f"{slashes}; --skip_unreadable leaves out what is missing"
        )


def _files_in(folder: str) -> list[str] | None:
    """Paths of the files in a folder: empty if there is no such folder, None if it cannot be listed."""
    try:
        with os.scandir(folder or ".") as entries:
            return [folder + entry.name for entry in entries if entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return None
