"""Names of classes that differ only in case, in spaces, in the form of an accent, or in how a number is written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def spellings(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups, each of two names or more, that differ only in case, spaces, the form of an accent, or how a number is written.

    >>> spellings(["Men", "men", "T  shirt", "T shirt", "1", "1.0", "other"])
    [('1', '1.0'), ('Men', 'men'), ('T  shirt', 'T shirt')]
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(plain(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def plain(name: str) -> str:
    """A name without case, doubled spaces and what is not seen, with accents in one form, and a number without its spelling.

    >>> plain(" T  Shirt"), plain("01.0"), plain("TRUE"), plain("e\u0301") == plain("\u00e9")
    ('t shirt', '1.0', 'true', True)
    """
    # Cf: what is not seen, such as a space without width.
    seen = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf")
    text = " ".join(seen.split()).casefold()
    # Beyond these digits two numbers could become one.
    return str(float(text) + 0.0) if len(text) <= 15 and _NUMBER.fullmatch(text) else text


def spelling_of(values: Sequence[str], images: np.ndarray, classes: Collection[str]) -> Mapping[str, str]:
    """By value, the spelling that stands for it and those like it; of equally frequent ones the first in sorted order.

    Args:
        images: of each value, how often it occurs.
        classes: those that are given, whose spelling counts; else the most frequent one does.
    """
    chosen = {plain(name): name for name in sorted(classes, reverse=True)}
    for value, _ in sorted(zip(values, images.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0])):
        chosen.setdefault(plain(value), value)
    # A class that is given is itself, also where another one is spelled nearly so.
    return {value: value if value in classes else chosen[plain(value)] for value in values}
