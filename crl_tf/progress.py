"""How a long job tells what it is doing: to an object that is given. The one here shows nothing; the command shows bars."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")


class Progress:
    """Receives the progress of a job and shows nothing. A subclass shows it.

    >>> list(SILENT.track(range(3), "counting"))
    [0, 1, 2]
    """

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """Hands the items on, one by one.

        Args:
            what: is being done, in a few words.
            total: how many items there are; None takes len(items) where it has one.
        """
        yield from items

    def callbacks(self) -> list[Any]:
        """Keras callbacks that show a training, epoch by epoch."""
        return []


SILENT = Progress()
