"""Columns of a table as images and labels: paths without repeats, classes given or discovered, cells with several classes."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crl_tf.datasets.source import BINARY, IMAGE_SUFFIXES, SPLITS
from crl_tf.datasets.spelling import spelling_of
from crl_tf.datasets.tables.cells import lists_in, with_one_spelling
from crl_tf.datasets.tables.schema import Binary, Label, MultiHot
from crl_tf.datasets.tables.table import Column, Table
from crl_tf.schema import NOT_ANNOTATED, Attribute
from crl_tf.text import shortened

INDIRECT = r"(^|/)\.\.?(/|$)|/{2,}|/$"
"""Matches paths with a detour: ./a, a/../b, a//b."""
SLICE = 1 << 16
MOST_IN_CELLS = 1000
"""Classes that are found in cells with several, above which images must have some of them in common."""
UNSAID = {"na", "n/a", "#n/a", "null", "none", "?", "-", "unknown", "-1"}
"""Values, in small letters, that are probably no class but say that nothing is known."""
SHOWN = 12
"""Classes that an error names of a longer list."""


@dataclass(frozen=True)
class ImagePaths:
    """The images that a table names.

    names: as in the table. paths: to open. keys: equal for two names of the same path.
    """

    names: pa.LargeStringArray
    paths: pa.LargeStringArray
    keys: pa.LargeStringArray

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The paths of these rows, for a `Split`."""
        images = np.empty(len(indices), np.dtypes.StringDType())
        # In slices, because each path becomes a Python string on the way.
        for start in range(0, len(indices), SLICE):
            part = slice(start, start + SLICE)
            images[part] = self.paths.take(pa.array(indices[part])).to_pylist()
        return images


def image_paths(table: Table, column: str, root: str | os.PathLike[str], suffix: str = "") -> ImagePaths:
    """The paths in a column, with `suffix` appended; relative ones start at `root`.

    Raises:
        ValueError: naming the row, for an empty cell.
    """
    names = table.texts(column)
    empty = np.flatnonzero(pc.equal(names, "").to_numpy(zero_copy_only=False))
    if empty.size:
        raise table.error(f"column {column!r} must name an image, received nothing", int(empty[0]))
    if suffix:
        names = pc.binary_join_element_wise(names, pa.scalar(suffix, pa.large_string()), pa.scalar("", pa.large_string()))
    absolute = pc.starts_with(names, "/")
    root = os.fspath(root)
    paths = pc.if_else(absolute, names, _joined(root, names))
    # `paths` keep their detours, which lead elsewhere if a folder is a link.
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
    # normpath keeps two slashes at the beginning, because POSIX allows them another meaning.
    return os.path.normpath(f"/{path.lstrip('/')}" if path.startswith("//") else path)


def _joined(folder: str, names: pa.LargeStringArray) -> pa.LargeStringArray:
    return pc.binary_join_element_wise(pa.scalar(folder.rstrip("/"), pa.large_string()), names, pa.scalar("/", pa.large_string()))


def refuse_duplicates(table: Table, images: ImagePaths, splits: np.ndarray | None) -> None:
    """Raises ValueError, naming both rows, if a path occurs in two of them; `splits`: each row's place in `SPLITS`."""
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
    # An image in both train and test would invalidate every result.
    apart = splits is not None and splits[row] != splits[before]
    placed = f"is in {SPLITS[splits[before]]} and in {SPLITS[splits[row]]}" if apart else "is listed twice"
    more = f"; so are {len(again) - 1} more rows" if len(again) > 1 else ""
    # Many images in many rows: one row per image and label.
    advice = "keep one of the rows" if len(again) < len(codes) / 2 else "for one row per image and label write long: in the YAML"
    raise table.error(f"image {name!r} {placed}, first on {table.where(before)}{also}{more}; {advice}", row)


class Listing(NamedTuple):
    """What a folder holds. files: paths of its files; empty if there is no such folder, None if it cannot be listed. links: of
    what it holds, the paths that are links."""

    files: list[str] | None
    links: list[str]


def folders_of(images: ImagePaths) -> pa.DictionaryArray:
    """The folder of each image, with its last slash."""
    return pc.replace_substring_regex(images.paths, r"[^/]*$", "").dictionary_encode()


def listed_folders(images: ImagePaths) -> dict[str, Listing]:
    """Lists each folder of the images once, because asking for a million files takes minutes on network storage."""
    return {folder: _listing(folder) for folder in folders_of(images).dictionary.to_pylist()}


def require_files(table: Table, images: ImagePaths, listings: Mapping[str, Listing]) -> None:
    """Raises FileNotFoundError, naming the first, if images are missing.

    Args:
        listings: of all folders of the images (`listed_folders`).
    """
    folders = folders_of(images)
    listed = [listings[folder].files for folder in folders.dictionary.to_pylist()]
    known = pa.concat_arrays([pa.array(texts(files or []), pa.large_string()) for files in listed])
    unlisted = np.flatnonzero(~pc.is_in(images.paths, value_set=known).to_numpy(zero_copy_only=False))
    folder_of = folders.indices.to_numpy()
    # A name may be listed in another spelling (case, accents), and a folder may forbid listing only.
    missing = [row for row in unlisted.tolist() if listed[folder_of[row]] == [] or not os.path.isfile(images.paths[row].as_py())]
    if missing:
        row = missing[0]
        path = images.paths[row].as_py()
        slashes = "; write / between folders" if "\\" in images.names[row].as_py() else ""
        suffix = next(
            (ending for ending in (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES)) if os.path.isfile(path + ending)), None
        )
        advice = (
            f"{path}{suffix} is there: write suffix: {suffix} in the YAML"
            if suffix
            else "--skip_unreadable leaves out what is missing"
        )
        raise FileNotFoundError(
            f"{table.owner}: {table.path}: {len(missing)} of {len(table)} images are missing,"
            f" the first: {images.names[row].as_py()!r} ({table.where(row)}), looked for at {path}"
            f"{slashes}; {advice}"
        )


def texts(paths: Sequence[str]) -> list[str]:
    """Those of the paths that are texts. A table cannot name the others, whose bytes are no UTF-8."""
    return [path for path in paths if path.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in path)]


def _listing(folder: str) -> Listing:
    try:
        with os.scandir(folder or ".") as entries:
            some = list(entries)
        return Listing([folder + e.name for e in some if e.is_file()], [folder + e.name for e in some if e.is_symlink()])
    except (FileNotFoundError, NotADirectoryError):
        return Listing([], [])
    except OSError:
        return Listing(None, [])


@dataclass(frozen=True)
class LabelColumn:
    """One label or, for a multi-hot column, several.

    attributes: of k labels. codes: integers [k, n], of a type as narrow as the classes allow; -1 = not annotated.
    """

    attributes: tuple[Attribute, ...]
    codes: np.ndarray


def label_column(table: Table, name: str, label: Label, missing: Collection[str], *, normalize: bool = False) -> LabelColumn:
    """The labels that a column holds.

    Args:
        table: the rows.
        name: of the column.
        label: what the column holds.
        missing: values that mean not annotated, as a null does.
        normalize: values that differ only in case, spaces or the spelling of a number are one class.
    Raises:
        ValueError: naming label, row and value, for a value that is no class, or a "nan" that is neither class nor missing; and
            for a label with fewer than 2 classes.
    """
    column = table.categories(name)
    both = next((value for value in _classes_of(label) if value in missing), None)
    if both is not None:
        raise table.error(
            f"label {name!r} has the class {both!r}, which stands under missing as well; take it out of one of them"
        )
    _refuse_nan(table, name, column, {*missing, *_classes_of(label)})
    lists = None if _classes_of(label) and not isinstance(label, MultiHot) else lists_in(table, name, column, missing)
    if lists is not None or isinstance(label, MultiHot):
        label = label if isinstance(label, MultiHot) else MultiHot(None)
        return _multi_hot(table, name, label, column, missing, lists, normalize)
    if normalize:
        column = with_one_spelling(column, {*missing, *_classes_of(label)})
    if isinstance(label, Binary):
        attribute, values = Attribute(name, BINARY), (label.absent, label.present)
    else:
        values = label.classes or _discovered(table, name, column, missing)
        attribute = Attribute(name, values)
    code = {value: index for index, value in enumerate(values)}
    for value in column.values:
        if value not in code and value not in missing:
            raise _no_class(table, name, value, values, column)
    # The code -1 of a null selects the last entry.
    lookup = [NOT_ANNOTATED if value in missing else code[value] for value in column.values]
    return LabelColumn((attribute,), np.array([*lookup, NOT_ANNOTATED], _narrow(len(values)))[column.codes][np.newaxis])


def in_order(values: Collection[str]) -> tuple[str, ...]:
    """Discovered classes, sorted; as numbers if all are integers.

    >>> in_order({"10", "9", "100"}), in_order({"10", "9", "a"})
    (('9', '10', '100'), ('10', '9', 'a'))
    """
    numbers = all(re.fullmatch(r"[+-]?[0-9]+", value) for value in values)
    # The text breaks ties: 1 and 01 are two classes.
    return tuple(sorted(values, key=(lambda v: (int(v), v)) if numbers else None))


def _classes_of(label: Label) -> tuple[str, ...]:
    return (label.absent, label.present) if isinstance(label, Binary) else label.classes or ()


def _refuse_nan(table: Table, name: str, column: Column, known: Collection[str]) -> None:
    # Programs write nan for a missing number; it would become a class.
    nan = next((value for value in column.values if value.lower() == "nan" and value not in known), None)
    if nan is not None:
        raise table.error(
            f"label {name!r} holds {nan!r}; leave the cell empty where nothing is annotated, or list {nan!r} under missing",
            column.first(nan),
        )


def _discovered(table: Table, name: str, column: Column, missing: Collection[str]) -> tuple[str, ...]:
    classes = in_order(set(column.values) - set(missing) - {""})
    if len(classes) < 2:
        raise table.error(f"column {name!r} must hold at least 2 classes, received {list(classes)}")
    _warn_of_many(table, name, classes)
    unsaid = [value for value in classes if value.lower() in UNSAID and set(classes) != {"-1", "1"}]
    if unsaid:
        warnings.warn(
            f"{table.owner}: column {name!r} has the class {unsaid[0]!r}; if it says that nothing is known, write missing:"
            f" {['', *unsaid]} in the YAML",
            stacklevel=4,
        )
    return classes


def _warn_of_many(table: Table, name: str, classes: Sequence[str]) -> None:
    if len(classes) > 100 and len(classes) > len(table) / 2:
        warnings.warn(
            f"{table.owner}: column {name!r} has {len(classes):,} classes in {len(table):,} rows; if it is no label, ignore it",
            stacklevel=5,
        )


def _no_class(table: Table, name: str, value: str, classes: Sequence[str], column: Column) -> ValueError:
    advice = "" if value else "; to leave it unannotated, list '' under missing"
    return table.error(
        f"label {name!r} must be one of {_shown(classes)}, received {value!r}{advice}; classes are those of the YAML, where it"
        " gives them",
        column.first(value),
    )


def _shown(classes: Sequence[str]) -> list[str]:
    return [*classes[:SHOWN], *(["..."] if len(classes) > SHOWN else [])]


def _multi_hot(
    table: Table,
    name: str,
    label: MultiHot,
    column: Column,
    missing: Collection[str],
    lists: pa.ListArray | None,
    normalize: bool,
) -> LabelColumn:
    if lists is not None and label.separator is not None:
        raise table.error(
            f"label {name!r} holds lists such as {shortened(next(filter(None, column.values)))}, which need no separator: leave"
            f" it out of labels, or take the brackets out; received separator {label.separator!r}"
        )
    # Only distinct cells are split, all at once.
    pieces = lists if lists is not None else pc.split_pattern(pa.array(column.values, pa.string()), label.separator)
    cells = pc.list_parent_indices(pieces).to_numpy()
    encoded = pc.utf8_trim_whitespace(pc.list_flatten(pieces)).dictionary_encode()
    values, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    annotated = np.array([value not in missing for value in column.values], bool)
    if normalize:
        rows = np.bincount(column.codes[column.codes >= 0], minlength=len(column.values))
        chosen = spelling_of(values, np.bincount(codes, rows[cells], len(values)), label.classes or ())
        values = [chosen[value] for value in values]
    occurring = {values[code] for code in np.unique(codes[annotated[cells]])} - {""}
    classes = label.classes or in_order(occurring)
    if not label.classes:
        _warn_of_many(table, name, classes)
        # Every class is a label, with a number for each row.
        if len(classes) > max(MOST_IN_CELLS, len(table) / 2):
            raise table.error(
                f"column {name!r} must hold classes that several images have, received {len(classes):,} in {len(table):,} rows:"
                " ignore it, or give its classes in the YAML"
            )
    if not classes:
        where = "in its lists" if label.separator is None else f"between its separators {label.separator!r}"
        raise table.error(f"column {name!r} must hold at least 1 class {where}, received none")
    unknown = next(iter(in_order(occurring - set(classes))), None)
    if unknown is not None:
        cell = column.values[cells[(codes == values.index(unknown)) & annotated[cells]][0]]
        raise table.error(
            f"label {name!r} must be some of {_shown(classes)}, received {unknown!r} in {cell!r}", column.first(cell)
        )
    places = np.array([classes.index(value) if value in classes else -1 for value in values], np.int64)[codes]
    hot = np.zeros((len(classes), len(column.values) + 1), np.int16)
    hot[places[places >= 0], cells[places >= 0]] = 1
    hot[:, ~np.append(annotated, False)] = NOT_ANNOTATED
    return LabelColumn(tuple(Attribute(f"{name}={c}", BINARY) for c in classes), hot[:, column.codes])


def _narrow(classes: int) -> type[np.signedinteger]:
    return np.int16 if classes < 2**15 else np.int32
