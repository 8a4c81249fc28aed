"""Which images a user means by files, folders, patterns and tables."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from crl_tf.datasets.source import IMAGE_SUFFIXES
from crl_tf.datasets.tables.table import column_names, read_table
from crl_tf.text import counted

OWNER = "input"
TABLES = (".csv", ".parquet")
COLUMN = "path"
"""The column of a table that holds the paths."""


class Inputs(NamedTuple):
    """The images that are meant.

    paths: of the files. names: what each is called: its path, or the text of its table. passed_over: files in folders that do not
    end as an image does, by how they end.
    """

    paths: list[str]
    names: list[str]
    passed_over: Counter[str]


def find_images(inputs: Sequence[str | os.PathLike[str]]) -> Inputs:
    """All images that are meant, in the order of the inputs.

    An image that files, folders and patterns mean twice comes once; every row of a table comes, in its order.

    Args:
        inputs: each a file; a folder, of which all images below are taken, sorted; a pattern with *, ? or [], whose matches are
            taken, sorted (** for folders of any depth); or a table (.csv, .parquet) with a column `path`, relative to the table's
            folder. A path that exists is no pattern. A file need not end as an image does, and in a table it need not exist, or
            may be empty: whoever reads it finds out.
    Raises:
        FileNotFoundError: an input that is not there. ValueError: no image at all, or a table without the column.
    """
    found = Inputs([], [], Counter())
    seen: set[str] = set()
    for given in inputs:
        name = os.path.expanduser(os.fspath(given))
        if name.lower().endswith(TABLES) and os.path.isfile(name):
            texts = _of_table(Path(name))
            found.paths.extend(os.path.join(os.path.dirname(name), text) if text else "" for text in texts)
            found.names.extend(texts)
            seen.update(map(os.path.abspath, found.paths))
            continue
        for path in _meant_by(name, found.passed_over):
            if (place := os.path.abspath(path)) not in seen:
                seen.add(place)
                found.paths.append(path)
                found.names.append(path)
    if not found.paths:
        others = f" and {counted(sum(found.passed_over.values()), 'file')} of other kinds" if found.passed_over else ""
        raise ValueError(
            f"input must hold images ({', '.join(IMAGE_SUFFIXES)}), received {', '.join(map(str, inputs)) or 'nothing'}{others}"
        )
    return found


def _meant_by(path: str, passed_over: Counter[str]) -> Iterator[str]:
    if os.path.isdir(path):
        yield from _below(path, passed_over)
    elif os.path.exists(path):
        yield path
    elif glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True))
        if not matches:
            raise FileNotFoundError(f"input must match files, received the pattern {path!r}, which matches none")
        # A pattern as a shell has it: folders that match are not gone into.
        yield from (match for match in matches if not os.path.isdir(match))
    else:
        raise FileNotFoundError(f"input must be a file, a folder, a pattern or a table, received {path!r}, which is not there")


def _below(folder: str, passed_over: Counter[str]) -> Iterator[str]:
    """The images below a folder, sorted by path. What begins with a dot is passed over; links to folders are not followed."""
    found: list[str] = []
    for inside, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith("."):
                continue
            if name.lower().endswith(IMAGE_SUFFIXES):
                found.append(os.path.join(inside, name))
            else:
                passed_over[os.path.splitext(name)[1].lower() or "no ending"] += 1
    return iter(sorted(found))


def _of_table(path: Path) -> list[str]:
    names = column_names(OWNER, path)
    if COLUMN not in names:
        raise ValueError(f"{OWNER}: {path}: missing column {COLUMN!r}, received {names}")
    return read_table(OWNER, path, [COLUMN], texts=[COLUMN]).texts(COLUMN).to_pylist()
