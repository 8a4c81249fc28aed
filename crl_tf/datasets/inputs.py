"""Which images a user means by files, folders, patterns and tables."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from crl_tf.datasets.source import IMAGE_SUFFIXES
from crl_tf.datasets.tables.table import column_names, read_table

OWNER = "input"
TABLES = (".csv", ".parquet")
COLUMN = "path"
"""The column of a table that holds the paths."""


def find_images(inputs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The paths of all images that are meant, in the order of the inputs; one that is meant twice comes once.

    Args:
        inputs: each a file; a folder, of which all images below are taken, sorted; a pattern with *, ? or [], whose matches are
            taken, sorted (** for folders of any depth); or a table (.csv, .parquet) with a column `path`, relative to the table's
            folder. A path that exists is no pattern. A file need not end as an image does, and in a table it need not exist:
            whoever reads it finds out.
    Raises:
        FileNotFoundError: an input that is not there. ValueError: no image at all, or a table without the column.
    """
    paths = list(dict.fromkeys(path for name in inputs for path in _meant_by(os.fspath(name))))
    if not paths:
        raise ValueError(
            f"input must hold images ({', '.join(IMAGE_SUFFIXES)}), received {', '.join(map(str, inputs)) or 'nothing'}"
        )
    return paths


def _meant_by(name: str) -> Iterator[str]:
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        yield from _below(path)
    elif os.path.exists(path):
        yield from _of_table(Path(path)) if path.lower().endswith(TABLES) else [path]
    elif glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True))
        if not matches:
            raise FileNotFoundError(f"input must match files, received the pattern {name!r}, which matches none")
        # A pattern as a shell has it: folders that match are not gone into.
        yield from (match for match in matches if not os.path.isdir(match))
    else:
        raise FileNotFoundError(f"input must be a file, a folder, a pattern or a table, received {name!r}, which is not there")


def _below(folder: str) -> Iterator[str]:
    """The images below a folder, sorted by path. What begins with a dot is passed over; links to folders are not followed."""
    found: list[str] = []
    for inside, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = (name for name in files if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."))
        found += [os.path.join(inside, name) for name in names]
    return iter(sorted(found))


def _of_table(path: Path) -> Iterable[str]:
    names = column_names(OWNER, path)
    if COLUMN not in names:
        raise ValueError(f"{OWNER}: {path}: missing column {COLUMN!r}, received {names}")
    texts = read_table(OWNER, path, [COLUMN], texts=[COLUMN]).texts(COLUMN).to_pylist()
    empty = next((row for row, text in enumerate(texts) if not text), None)
    if empty is not None:
        raise ValueError(f"{OWNER}: {path}: {COLUMN} must not be empty, received nothing in row {empty + 1}")
    return [os.path.join(path.parent, text) for text in texts]
