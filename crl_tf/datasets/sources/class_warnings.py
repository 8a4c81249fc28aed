"""Warns of classes that nothing can be learned or measured of, and of two spellings that are probably one class."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.text import listed

SHOWN = 8
"""Classes that a warning names."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def warn_of_classes(owner: str, schema: AttributeSchema, counts: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Warns of classes without an image, of classes that are never in training, and of spellings of the same.

    Args:
        owner: the dataset, with which warnings begin.
        counts: by split, images per class, one array per label.
    """
    without, untrained = [], []
    for place, attribute in enumerate(schema.attributes):
        train, others = counts["train"][place], counts["validation"][place] + counts["test"][place]
        without += _named(attribute, (train + others) == 0)
        untrained += _named(attribute, (train == 0) & (others > 0))
    if without:
        warnings.warn(f"{owner}: {_counted(without, 'has', 'have')} no image: {listed(without, SHOWN)}", stacklevel=4)
    if untrained:
        warnings.warn(
            f"{owner}: {_counted(untrained, 'is', 'are')} in validation or test and never in train, so nothing can learn it:"
            f" {listed(untrained, SHOWN)}",
            stacklevel=4,
        )
    _warn_of_spellings(owner, schema, counts)


def _warn_of_spellings(owner: str, schema: AttributeSchema, counts: Mapping[str, Sequence[np.ndarray]]) -> None:
    found = []
    for place, attribute in enumerate(schema.attributes):
        images = sum(of_split[place] for of_split in counts.values())
        number = dict(zip(attribute.classes, images.tolist(), strict=True))
        for same in spellings(attribute.classes):
            found.append(f"{attribute.name}: {', '.join(f'{name!r} ({number[name]:,} images)' for name in same)}")
    if found:
        warnings.warn(
            f"{owner}: classes that differ only in case, spaces or the spelling of a number are learned apart:"
            f" {'; '.join(found[:SHOWN])}{'; ...' if len(found) > SHOWN else ''}. Correct them, or for a table write normalize:"
            " true in the YAML",
            stacklevel=5,
        )


def spellings(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that differ only in case, in spaces, or in how a number is written; each of two names or more, sorted.

    >>> spellings(["Men", "men", "T  shirt", "T shirt", "1", "1.0", "other"])
    [('1', '1.0'), ('Men', 'men'), ('T  shirt', 'T shirt')]
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(plain(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def plain(name: str) -> str:
    """A name without case and doubled spaces, and a number without its spelling.

    >>> plain(" T  Shirt"), plain("01.0"), plain("TRUE")
    ('t shirt', '1.0', 'true')
    """
    text = " ".join(name.split()).casefold()
    # Beyond these digits two numbers could become one.
    return str(float(text) + 0.0) if len(text) <= 15 and _NUMBER.fullmatch(text) else text


def _counted(classes: Sequence[str], one: str, many: str) -> str:
    return f"1 class {one}" if len(classes) == 1 else f"{len(classes)} classes {many}"


def _named(attribute: Attribute, chosen: np.ndarray) -> list[str]:
    return [f"{attribute.name}={attribute.classes[index]}" for index in np.flatnonzero(chosen)]
