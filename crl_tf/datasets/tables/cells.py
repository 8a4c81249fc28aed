"""What cells hold beside one value: lists as Python or JSON writes them, and several spellings of one class."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa

from crl_tf.datasets.sources.class_warnings import plain
from crl_tf.datasets.tables.table import Column, Table
from crl_tf.text import shortened

LONGEST = 100_000
"""Characters of a cell that holds a list."""

_LIST = re.compile(r"\[.*\]", re.DOTALL)


def lists_in(table: Table, name: str, column: Column, missing: Collection[str]) -> pa.ListArray | None:
    """The lists in the cells of a column, by distinct cell; a cell that means not annotated is empty. None: there are none.

    Raises:
        ValueError: naming the row, where some cells are lists and others are not, or one cannot be read.
    """
    annotated = [value for value in column.values if value not in missing and value != ""]
    some = [value for value in annotated if _LIST.fullmatch(value)]
    if not some:
        return None
    other = next((value for value in annotated if not _LIST.fullmatch(value)), None)
    if other is not None:
        raise table.error(
            f"label {name!r} holds lists, such as {shortened(some[0])}, and {shortened(repr(other))}, which is none",
            column.first(other),
        )
    return pa.array([_parsed(table, name, column, value) if value in set(some) else [] for value in column.values])


def _parsed(table: Table, name: str, column: Column, value: str) -> list[str]:
    items: object = None
    if len(value) <= LONGEST:
        for read in (json.loads, ast.literal_eval):
            try:
                items = read(value)
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    if not isinstance(items, list) or not all(isinstance(item, (str, int, float)) for item in items):
        raise table.error(
            f"label {name!r} holds {shortened(value)}, which is no list of texts or numbers such as ['a', 'b']",
            column.first(value),
        )
    return [str(item) for item in items]


def with_one_spelling(column: Column, classes: Collection[str]) -> Column:
    """The column with one spelling of values that differ only in case, spaces or the spelling of a number.

    Args:
        classes: those that the schema gives, whose spelling counts; else the most frequent one does.

    >>> column = with_one_spelling(Column(("Men", "men", "Women"), np.array([0, 1, 1, 2])), classes=())
    >>> column.values, column.codes.tolist()
    (('men', 'Women'), [0, 0, 0, 1])
    """
    images = np.bincount(column.codes[column.codes >= 0], minlength=len(column.values))
    chosen = spelling_of(column.values, images, classes)
    values = list(dict.fromkeys(chosen[value] for value in column.values))
    places = [values.index(chosen[value]) for value in column.values]
    return Column(tuple(values), np.array([*places, -1], np.int32)[column.codes])


def spelling_of(values: Sequence[str], images: np.ndarray, classes: Collection[str]) -> Mapping[str, str]:
    """By value, the spelling that stands for it and those like it; of equally frequent ones the first in sorted order.

    Args:
        images: of each value, how often it occurs.
        classes: as for `with_one_spelling`.
    """
    chosen = {plain(name): name for name in sorted(classes, reverse=True)}
    for value, _ in sorted(zip(values, images.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0])):
        chosen.setdefault(plain(value), value)
    # A class that is given is itself, also where another one is spelled nearly so.
    return {value: value if value in classes else chosen[plain(value)] for value in values}
