"""From a column of a table to labels: classes given or discovered, binary values, cells with several classes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crl_tf.datasets.tables.schema import Binary, Label, MultiHot
from crl_tf.datasets.tables.table import Column, Table
from crl_tf.schema import NOT_ANNOTATED, Attribute

CLASSES = ("absent", "present")
SHOWN = 12
"""Names that an error lists of a longer list."""


@dataclass(frozen=True)
class LabelColumn:
    """One or, of a multi-hot column, several labels.

    attributes: of k labels. codes: integers [k, n], as narrow as their number of classes allows; -1 = not annotated.
    """

    attributes: tuple[Attribute, ...]
    codes: np.ndarray


def label_column(table: Table, name: str, label: Label, missing: Collection[str]) -> LabelColumn:
    """The labels that a column holds.

    Args:
        table: the rows.
        name: of the column.
        label: what it holds.
        missing: values that mean that nothing is annotated; so does a null.
    Raises:
        ValueError: naming the label, the row and the value, for one that is no class, or an undecided "nan"; and for a label
            with fewer than 2 classes.
    """
    column = table.categories(name)
    both = next((value for value in _given(label) if value in missing), None)
    if both is not None:
        raise table.error(
            f"label {name!r} has the class {both!r}, which stands under missing as well; take it out of one of them"
        )
    _refuse_nan(table, name, column, {*missing, *_given(label)})
    if isinstance(label, MultiHot):
        return _multi_hot(table, name, label, column, missing)
    if isinstance(label, Binary):
        attribute, values = Attribute(name, CLASSES), (label.absent, label.present)
    else:
        values = label.classes or _discovered(table, name, column, missing)
        attribute = Attribute(name, values)
    code = {value: index for index, value in enumerate(values)}
    for value in column.values:
        if value not in code and value not in missing:
            raise _no_class(table, name, value, values, column)
    # The place behind the last is where the code -1 of a null leads.
    lookup = [NOT_ANNOTATED if value in missing else code[value] for value in column.values]
    return LabelColumn((attribute,), np.array([*lookup, NOT_ANNOTATED], _narrow(len(values)))[column.codes][np.newaxis])


def in_order(values: Collection[str]) -> tuple[str, ...]:
    """Discovered classes, sorted; as numbers if all are integers.

    >>> in_order({"10", "9", "100"}), in_order({"10", "9", "a"})
    (('9', '10', '100'), ('10', '9', 'a'))
    """
    numbers = all(re.fullmatch(r"[+-]?[0-9]+", value) for value in values)
    # The text settles ties: 1 and 01 are two classes, in a fixed order.
    return tuple(sorted(values, key=(lambda v: (int(v), v)) if numbers else None))


def _given(label: Label) -> tuple[str, ...]:
    return (label.absent, label.present) if isinstance(label, Binary) else label.classes or ()


def _refuse_nan(table: Table, name: str, column: Column, known: Collection[str]) -> None:
    # What a program writes for a missing number would otherwise become a class to be learnt.
    found = next((value for value in column.values if value.lower() == "nan" and value not in known), None)
    if found is not None:
        raise table.error(
            f"label {name!r} holds {found!r}; leave the cell empty where nothing is annotated, or list {found!r} under missing",
            column.first(found),
        )


def _discovered(table: Table, name: str, column: Column, missing: Collection[str]) -> tuple[str, ...]:
    classes = in_order(set(column.values) - set(missing) - {""})
    if len(classes) < 2:
        raise table.error(f"column {name!r} must hold at least 2 classes, received {list(classes)}")
    if len(classes) > 100 and len(classes) > len(table) / 2:
        warnings.warn(
            f"{table.owner}: column {name!r} has {len(classes):,} classes in {len(table):,} rows; if it is no label, ignore it",
            stacklevel=4,
        )
    return classes


def _no_class(table: Table, name: str, value: str, classes: Collection[str], column: Column) -> ValueError:
    shown = [*list(classes)[:SHOWN], *(["..."] if len(classes) > SHOWN else [])]
    advice = "" if value else "; to leave it unannotated, list '' under missing"
    return table.error(
        f"label {name!r} must be one of {shown}, received {value!r}{advice}; classes are those of the YAML, where it gives them",
        column.first(value),
    )


def _multi_hot(table: Table, name: str, label: MultiHot, column: Column, missing: Collection[str]) -> LabelColumn:
    # Only distinct cells are taken apart, and all of them in one go.
    pieces = pc.split_pattern(pa.array(column.values, pa.string()), label.separator)
    cells = pc.list_parent_indices(pieces).to_numpy()
    encoded = pc.utf8_trim_whitespace(pc.list_flatten(pieces)).dictionary_encode()
    values, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    annotated = np.array([value not in missing for value in column.values], bool)
    occurring = {values[code] for code in np.unique(codes[annotated[cells]])} - {""}
    classes = label.classes or in_order(occurring)
    if not classes:
        raise table.error(f"column {name!r} must hold at least 1 class between its separators {label.separator!r}, received none")
    unknown = next(iter(in_order(occurring - set(classes))), None)
    if unknown is not None:
        cell = column.values[cells[(codes == values.index(unknown)) & annotated[cells]][0]]
        shown = [*classes[:SHOWN], *(["..."] if len(classes) > SHOWN else [])]
        raise table.error(f"label {name!r} must be some of {shown}, received {unknown!r} in {cell!r}", column.first(cell))
    places = np.array([classes.index(value) if value in classes else -1 for value in values], np.int64)[codes]
    hot = np.zeros((len(classes), len(column.values) + 1), np.int16)
    hot[places[places >= 0], cells[places >= 0]] = 1
    hot[:, ~np.append(annotated, False)] = NOT_ANNOTATED
    return LabelColumn(tuple(Attribute(f"{name}={c}", CLASSES) for c in classes), hot[:, column.codes])


def _narrow(classes: int) -> type[np.signedinteger]:
    return np.int16 if classes < 2**15 else np.int32
