"""Text of other people's files and long lists of names, short enough for one line of an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def shortened(text: str, most: int = 60) -> str:
    """The text on one line of at most so many characters.

    >>> shortened("a  long\\nline", 8)
    'a long …'
    """
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def repeated(items: Iterable[str]) -> list[str]:
    """The items that occur more than once, sorted.

    >>> repeated(["b", "a", "b"])
    ['b']
    """
    return sorted(item for item, times in Counter(items).items() if times > 1)


def counted(number: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "image"), counted(2000, "image")
    ('1 image', '2,000 images')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def csv_text(value: object) -> object:
    """A value for a CSV file: a text that a spreadsheet would take for a formula begins with an apostrophe.

    >>> csv_text("=1+1"), csv_text("@a"), csv_text("plain"), csv_text(-0.5)
    ("'=1+1", "'@a", 'plain', -0.5)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def listed(items: Iterable[object], most: int = 3) -> str:
    """The first items as text, and dots if there are more.

    >>> listed(["a", "b", "c"], 2)
    'a, b, ...'
    """
    names = [str(item) for item in items]
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
