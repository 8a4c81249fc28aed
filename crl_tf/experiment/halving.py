"""Successive halving within a budget of time, as arithmetic: how many methods start, and how long each rung trains."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

FINALISTS = 2
"""Challengers of the last rung, beside the reference."""

LONGEST = 4
"""The last rung trains at most so many times `train.epochs`."""

FEWEST = 4
"""At least so many challengers start, unless even the shortest trainings of so many do not fit."""

RESERVE = 0.1
"""The share of a budget that is not planned, because trainings take longer than their forecast."""

_UNITS = {"s": 1, "m": 60, "h": 3600}


class Rung(NamedTuple):
    """One rung: the reference and so many challengers, each trained anew for so many epochs."""

    challengers: int
    epochs: int


class Speed(NamedTuple):
    """How long a training of the reference takes, in seconds.

    start: without its epochs: building, tracing, measuring on validation images. epoch: one epoch.
    """

    start: float
    epoch: float

    def of(self, epochs: int) -> float:
        """The seconds of a training of so many epochs.

        >>> Speed(7.0, 4.0).of(3)
        19.0
        """
        return self.start + epochs * self.epoch


def budget_seconds(text: str) -> float:
    """The seconds of a duration such as 90s, 30m, 1.5h or 1h30m.

    Raises:
        ValueError: another text, or no time at all.

    >>> budget_seconds("1h30m")
    5400.0
    """
    plain = text.strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", plain)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != plain or not 0 < seconds < math.inf:
        raise ValueError(f"budget must be a duration above 0 such as 90s, 30m or 2h, received {text!r}")
    return seconds


def duration_text(seconds: float) -> str:
    """A duration for people, in the form that `budget_seconds` reads.

    >>> duration_text(59), duration_text(250), duration_text(5400)
    ('59s', '4m10s', '1h30m')
    """
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 600:
        return f"{whole // 60}m{whole % 60}s" if whole % 60 else f"{whole // 60}m"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m" if hours and minutes else f"{hours}h" if hours else f"{minutes}m"


def better_half(challengers: int) -> int:
    """How many of so many challengers go on: half of them, rounded up, and not fewer than the last rung takes.

    >>> better_half(13), better_half(3), better_half(1)
    (7, 2, 1)
    """
    return min(challengers, max(FINALISTS, math.ceil(challengers / 2)))


def rungs_to(last: int, challengers: int, *, above: int = 0) -> list[Rung]:
    """The rungs from so many challengers to the last rung, whose trainings take `last` epochs.

    Each rung has the better half of the one before, and trains twice as long. Lengths are rounded up. A rung as short as the
    one before is left out, and what it would have halved is halved by the next one as well.

    Args:
        above: the epochs of the rung before these; all are longer.

    >>> rungs_to(12, 9)
    [Rung(challengers=9, epochs=2), Rung(challengers=5, epochs=3), Rung(challengers=3, epochs=6), Rung(challengers=2, epochs=12)]
    >>> rungs_to(2, 9)
    [Rung(challengers=9, epochs=1), Rung(challengers=2, epochs=2)]
    """
    sizes = [challengers]
    while sizes[-1] > FINALISTS:
        sizes.append(better_half(sizes[-1]))
    lengths = sorted({math.ceil(last / 2**halvings) for halvings in range(len(sizes))})
    lengths = [epochs for epochs in lengths if epochs > above]
    first = len(sizes) - len(lengths) + 1
    return [Rung(*rung) for rung in zip([challengers, *sizes[first:]], lengths, strict=True)] if lengths else []


def seconds_of(rungs: Sequence[Rung], speed: Speed, factor: float = 1.0) -> float:
    """How long rungs take, if a challenger takes `factor` times as long as the reference.

    >>> seconds_of([Rung(2, 3)], Speed(7.0, 4.0))  # three trainings of 7 + 3 * 4 s
    57.0
    """
    return sum(speed.of(rung.epochs) * (1 + rung.challengers * factor) for rung in rungs)


def longest_rungs(factors: Sequence[float], seconds: float, speed: Speed, *, longest: int, above: int = 0) -> list[Rung]:
    """The rungs with the longest last one that fit into so many seconds; none if even the shortest do not fit.

    Args:
        factors: of each challenger, its seconds as a multiple of the reference's. Who goes on is not known yet, so rungs are
            forecast by their mean.
        longest: epochs of the last rung, at most.
        above: as for `rungs_to`.
    """
    factor = sum(factors) / len(factors) if factors else 1.0
    for last in range(longest, above, -1):
        rungs = rungs_to(last, len(factors), above=above)
        if seconds_of(rungs, speed, factor) <= seconds:
            return rungs
    return []


def first_rungs(factors: Sequence[float], seconds: float, speed: Speed, *, epochs: int) -> list[Rung]:
    """What fits into a budget: how many challengers start, and the rungs; none if not even one challenger fits.

    As many as leave the last rung half of the recipe's epochs. Where not even `FEWEST` challengers do, a quarter of them, and
    so on. Methods that are compared long before they have learned anything say little.

    Args:
        factors: as for `longest_rungs`, of all challengers, the most promising first.
        epochs: the recipe's.
    """
    options = [longest_rungs(factors[:some], seconds, speed, longest=LONGEST * epochs) for some in range(len(factors) + 1)]
    target = epochs
    while target > 1:
        target = math.ceil(target / 2)
        enough = [rungs for rungs in options[FEWEST:] or options[-1:] if rungs and rungs[-1].epochs >= target]
        if enough:
            return enough[-1]
    fitting = [rungs for rungs in options[1:] or options if rungs]
    return fitting[-1] if fitting else []


def next_rungs(factors: Sequence[float], seconds: float, speed: Speed, *, longest: int, above: int) -> list[Rung]:
    """What fits into the rest of a budget; none if the last rung must be the one before.

    Args:
        factors, longest, above: as for `longest_rungs`, of the challengers that go on, the best first.
    """
    options = (longest_rungs(some, seconds, speed, longest=longest, above=above) for some in (factors, factors[:FINALISTS]))
    return next((rungs for rungs in options if rungs), [])
