"""What cells hold beside one value: lists as Python or JSON writes them, and several spellings of one class."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Collection

import numpy as np
import pyarrow as pa

from crl_tf.datasets.spelling import spelling_of
from crl_tf.datasets.tables.table import Column, Table
from crl_tf.text import shortened

LONGEST = 100_000
"""Characters of a cell that holds a list."""

_ITEM = r"""(?:'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|[+-]?[0-9]++(?:\.[0-9]++)?|[Tt]rue|[Ff]alse)"""
# Possessive, so that no text takes longer than its length.
_LIST = re.compile(rf"\[\s*+(?:{_ITEM}\s*+(?:,\s*+{_ITEM}\s*+)*+(?:,\s*+)?)?\]", re.DOTALL)
_ITEMS = re.compile(_ITEM, re.DOTALL)
_BEGUN = re.compile(r"""\[\s*['"\]]""")
"""Matches what can only be meant as a list, even if it is malformed."""


def items_of(cell: str) -> list[str] | None:
    """The items of a list of texts, numbers and truth values, as they are written, without quotes; None: it is no list.

    Nothing is evaluated but the escapes in a text. Python's own reading would make ab of NumPy's ['a' 'b'].

    >>> items_of("['rust', \\"it's\\", 3]"), items_of("[]"), items_of("['rust' 'scab']"), items_of("[['a']]"), items_of("[new]")
    (['rust', "it's", '3'], [], None, None, None)
    """
    if len(cell) > LONGEST or not _LIST.fullmatch(cell):
        return None
    return [_text(item) for item in _ITEMS.findall(cell)]


def lists_in(table: Table, name: str, column: Column, missing: Collection[str]) -> pa.ListArray | None:
    """The lists in the cells of a column, by distinct cell; a cell that means not annotated is empty. None: there are none.

    Raises:
        ValueError: naming the row, where only some cells are lists, or one is malformed.
    """
    begun = [value for value in column.values if value.startswith("[") and value not in missing]
    lists = {value: items_of(value) for value in begun}
    if all(items is None and not _BEGUN.match(value) for value, items in lists.items()):
        return None
    others = [value for value in column.values if value and value not in missing and lists.get(value) is None]
    if others:
        row = min(column.first(value) for value in others)
        received = shortened(column.values[column.codes[row]])
        raise table.error(
            f"label {name!r} holds lists, so that each cell must be one, such as ['a', 'b'], or be missing; received"
            f" {received!r}",
            row,
        )
    return pa.array([lists.get(value) or [] for value in column.values], pa.list_(pa.string()))


def _text(item: str) -> str:
    if item[0] not in "'\"":
        return item
    if "\\" not in item:
        return item[1:-1]
    try:
        return json.loads(item)
    except ValueError:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # an escape that Python does not know stays as it is
            try:
                return ast.literal_eval(item)
            except (ValueError, SyntaxError):
                return item[1:-1]


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
