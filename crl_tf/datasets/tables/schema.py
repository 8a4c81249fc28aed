"""Reads the YAML that says what the columns of a table mean. Every key is optional."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from crl_tf.datasets.source import SPLITS
from crl_tf.text import repeated, shortened

SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


@dataclass(frozen=True)
class OneOf:
    """A label with one class per row. classes: in the order of their integers; None: those that occur."""

    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Binary:
    """A label of two values, whose classes are called absent and present."""

    absent: str
    present: str


@dataclass(frozen=True)
class MultiHot:
    """A column with any number of classes per row: one binary label each. separator: between them; None: cells are lists."""

    separator: str | None
    classes: tuple[str, ...] | None = None


Label = OneOf | Binary | MultiHot


@dataclass(frozen=True)
class TableSchema:
    """What the columns mean.

    path: the column of the image paths. root: the folder of relative paths, itself relative to the table's folder. suffix: what
    is appended to the paths, such as ".jpg" where the column holds numbers.
    split: the column of the splits, or shares of a seeded split; None: the column `split` if there is one, else `SHARES`.
    group: a column whose equal values stay in one split; None: the column `group` if there is one.
    missing: values that mean not annotated. labels: by column; None: every column that has no other meaning.
    ignore: columns that are not labels. normalize: values that differ only in case, spaces or the spelling of a number are one.
    long: one row per image and label; "label" is the column of the label, "value" that of its class, if there is one.
    """

    path: str = "path"
    root: str = ""
    suffix: str = ""
    split: str | Mapping[str, float] | None = None
    group: str | None = None
    missing: tuple[str, ...] = ("",)
    labels: Mapping[str, Label] | None = None
    ignore: tuple[str, ...] = field(default=())
    normalize: bool = False
    long: Mapping[str, str] | None = None


KEYS = ("path", "root", "suffix", "split", "group", "missing", "labels", "ignore", "normalize", "long")


LARGEST = 10_000_000
"""Bytes of a YAML file: a million classes."""

DEEPEST = 20
"""How many lists and mappings may lie in one another."""


class _TextLoader(yaml.BaseLoader):
    """Loads all values as text: YAML would make a number of 01 and a truth value of No, but the table has text.

    Refuses aliases, which make gigabytes of a few bytes, and what lies too deep.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) must be written out", mark)
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"more than {DEEPEST} levels", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if twice := repeated(str(key.value) for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(owner: str, path: Path) -> dict[str, Any]:
    """A YAML file whose content is a mapping, all values as text.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is not YAML (with the line), or not a mapping.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{owner}: no file {path}")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{owner}: {path}: must have at most {LARGEST:,} bytes, received {path.stat().st_size:,}")
    try:
        # BaseLoader builds only texts, lists and mappings.
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_TextLoader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise ValueError(f"{owner}: {path}{line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{owner}: {path}: not YAML: {str(error).splitlines()[0]}") from error
    if content in (None, ""):
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{owner}: {path}: must be a mapping of keys to values, received {_shown(content)}")
    return content


def read_table_schema(owner: str, path: Path) -> TableSchema:
    """Reads the YAML of a table.

        path: file_name          # column of image paths (default: path)
        root: images             # where relative paths start (default: the table's folder)
        suffix: .jpg             # appended to every path (default: nothing)
        split: part              # a column of train, val or validation, test; or shares {train: 0.8, validation: 0.1, test: 0.1}
        group: person_id         # rows of one group stay on one side of a seeded split
        missing: ["", "NA"]      # values that mean not annotated (default: empty)
        labels:                  # default: every other column, classes discovered
          season: [Spring, Summer, Fall, Winter]             # in the order of the classes
          usage:                                             # classes discovered
          smiling: {absent: "0", present: "1"}               # exactly these two values
          tags: {separator: "|", classes: [striped, dotted]} # one binary label "tags=striped" per class; classes can be left out
        ignore: [notes]          # columns that are not labels
        normalize: true          # Men and men, 1 and 1.0 are one class (default: false, with a warning)
        long: {label: tag, value: class}   # one row per image and label; without value, a label is present where it has a row

    Values are texts as in the table, whether quoted or not: No stays No, 01 stays 01.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: for an unknown key or a value of a wrong kind.
    """
    content = read_yaml(owner, path)
    where = f"{owner}: {path}"
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(KEYS)}")
    # A key without a value counts as absent.
    content = {key: value for key, value in content.items() if value != ""}
    for key in ("path", "root", "suffix", "group"):
        if not isinstance(content.get(key, ""), str):
            raise ValueError(f"{where}: {key} must be a text, received {_shown(content[key])}")
    for key in ("missing", "ignore"):
        if key in content:
            content[key] = _texts(where, key, content[key])
    if "normalize" in content:
        content["normalize"] = _truth(where, "normalize", content["normalize"])
    long = content.get("long")
    if long is not None and not (isinstance(long, dict) and {"label"} <= set(long) <= {"label", "value"} and all(long.values())):
        raise ValueError(f"{where}: long must be {{label: COLUMN}} or {{label: COLUMN, value: COLUMN}}, received {_shown(long)}")
    split = content.get("split")
    if split is not None and not isinstance(split, str):
        content["split"] = _shares(where, split)
    if "labels" in content:
        content["labels"] = parse_labels(owner, path, content["labels"], "labels")
    return TableSchema(**content)


def parse_labels(owner: str, path: Path, content: Any, key: str) -> dict[str, Label]:
    """The labels that the YAML describes, by column; `key` is the name of the mapping in errors."""
    where = f"{owner}: {path}: {key}"
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{where} must be a mapping of columns to their classes, received {_shown(content)}")
    return {name: _label(where, name, value) for name, value in content.items()}


def _label(where: str, name: str, value: Any) -> Label:
    if value == "":
        return OneOf()
    if isinstance(value, list):
        classes = _texts(where, name, value)
        if len(classes) < 2:
            raise ValueError(f"{where}: {name} needs at least 2 classes, received {list(classes)}")
        return OneOf(classes)
    if isinstance(value, dict) and set(value) == {"absent", "present"}:
        if not all(isinstance(v, str) for v in value.values()) or value["absent"].strip() == value["present"].strip():
            raise ValueError(f"{where}: {name}: absent and present must be two different texts, received {_shown(value)}")
        return Binary(value["absent"].strip(), value["present"].strip())
    if isinstance(value, dict) and "separator" in value and set(value) <= {"separator", "classes"}:
        if not isinstance(value["separator"], str) or not value["separator"]:
            raise ValueError(f"{where}: {name}: separator must be a text, received {_shown(value['separator'])}")
        classes = value.get("classes", "")
        return MultiHot(value["separator"], _texts(where, f"{name}: classes", classes) if classes != "" else None)
    raise ValueError(
        f"{where}: {name} must be nothing (classes discovered), a list of classes, {{absent, present}} or"
        f" {{separator, classes}}, received {_shown(value)}"
    )


def _truth(where: str, key: str, value: Any) -> bool:
    truth = {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else None
    if truth is None:
        raise ValueError(f"{where}: {key} must be true or false, received {_shown(value)}")
    return truth


def _texts(where: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{where}: {key} must be a list of texts, received {_shown(value)}")
    items = tuple(item.strip() for item in value)
    if twice := repeated(items):
        raise ValueError(f"{where}: {key} must be distinct, repeated: {twice}")
    return items


def _shares(where: str, value: Any) -> dict[str, float]:
    rule = f"{where}: split must be a column, or the shares of train, validation and test, positive and 1 in all"
    try:
        shares = {SPLIT_NAMES[name]: float(share) for name, share in value.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"{rule}; received {_shown(value)}") from None
    if set(shares) != set(SPLITS) or not all(share > 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"{rule}; received {_shown(value)}")
    return {split: shares[split] for split in SPLITS}


def _shown(value: Any) -> str:
    return shortened(repr(value), 100)
