"""Splits samples by a seed: stratified over many labels with groups kept whole, or at random in given sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np


def stratified_split(
    labels: np.ndarray, shares: Mapping[str, float], seed: int, groups: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Divides samples into parts so that every class of every label has its share in each part.

    Iterative stratification (Sechidis et al. 2011), class by class from the rarest to the most frequent: the units of a class
    that rarer classes have not assigned go first to parts without the class, then where most of its share is missing. Units are
    the samples, or whole groups, which weigh as much as their samples.

    Guaranteed: parts are disjoint and complete, none is empty, groups are whole, and every class with at least as many units as
    parts is in each part, unless each of its units is the last one of another such class in its part, or the part's only unit.
    That cannot happen with one label and no groups. Classes and parts come close to their shares; coverage comes first. A class
    with fewer units than parts is in the largest part and then in others, unless there are so many such classes that the sizes of
    the parts would suffer.

    Args:
        labels: integers [n, L], -1 = not annotated. Fast if columns are contiguous (`columns.T`).
        shares: of the parts, by name; positive, with sum 1.
        seed: the same gives the same parts.
        groups: integers [n], samples of one number stay together; -1: a sample by itself.
    Returns:
        by part: indices of its samples, ascending.
    Raises:
        ValueError: for wrong shares, or fewer units than parts.

    >>> parts = stratified_split(np.array([[0]] * 90 + [[1]] * 10), {"train": 0.8, "validation": 0.1, "test": 0.1}, seed=0)
    >>> {name: (len(rows), int((rows >= 90).sum())) for name, rows in parts.items()}
    {'train': (80, 8), 'validation': (10, 1), 'test': (10, 1)}
    """
    share = np.array(list(shares.values()), np.float64)
    if not (share > 0).all() or abs(share.sum() - 1) > 1e-6:
        raise ValueError(f"stratified_split: shares must be positive and 1 in all, received {dict(shares)}")
    unit_of, count = _units(len(labels), groups)
    if count < len(share):
        raise ValueError(
            f"stratified_split: {len(share)} parts need at least as many {'samples' if groups is None else 'groups'},"
            f" received {count}"
        )
    classes = sorted(_classes(labels, unit_of, count), key=lambda c: len(c.units))
    rng = np.random.default_rng(seed)
    part = np.full(count, -1, np.int8 if len(share) < 128 else np.int64)
    drift = np.zeros(len(share))
    for members in classes:
        _deal(members, part, share, drift, classes[-1], SLACK * len(labels), rng)
    _cover(classes, part, len(share), rng)
    of_sample = part if unit_of is None else part[unit_of]
    return {name: np.flatnonzero(of_sample == number) for number, name in enumerate(shares)}


def random_split(count: int, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Divides samples at random into parts of exactly these sizes.

    Args:
        count: samples.
        sizes: of the parts, by name, with sum `count`.
        seed: the same gives the same parts.
    Returns:
        by part: indices of its samples, ascending.
    Raises:
        ValueError: if the sizes do not add up.

    >>> {name: len(rows) for name, rows in random_split(10, {"train": 7, "test": 3}, seed=0).items()}
    {'train': 7, 'test': 3}
    """
    if sum(sizes.values()) != count or min(sizes.values()) < 0:
        raise ValueError(f"random_split: sizes must add up to {count}, received {dict(sizes)}")
    order = np.random.default_rng(seed).permutation(count)
    ends = np.cumsum(list(sizes.values()))[:-1]
    return {name: np.sort(rows) for name, rows in zip(sizes, np.split(order, ends), strict=True)}


SLACK = 0.02
"""By which fraction of its share classes too rare for every part may enlarge a part."""


@dataclass(frozen=True)
class _Class:
    """One class of one label. units: int32, those with a sample of it, ascending. weights: samples per unit; None: one each."""

    units: np.ndarray
    weights: np.ndarray | None

    def weights_of(self, chosen: np.ndarray) -> np.ndarray:
        return np.ones(len(chosen)) if self.weights is None else self.weights[chosen]

    def sizes(self, part: np.ndarray, parts: int) -> np.ndarray:
        """Samples of the class in each part, float64 [parts], without unassigned units."""
        return np.bincount(part[self.units] + 1, self.weights, minlength=parts + 1)[1:].astype(np.float64)

    def units_in(self, part: np.ndarray, parts: int) -> np.ndarray:
        return np.bincount(part[self.units] + 1, minlength=parts + 1)[1:]


def _units(samples: int, groups: np.ndarray | None) -> tuple[np.ndarray | None, int]:
    """The unit of each sample (None: each sample is one), and the number of units."""
    if groups is None:
        return None, samples
    # Samples without a group get numbers of their own.
    alone = groups < 0
    numbers = np.where(alone, 0, groups).astype(np.int64)
    numbers[alone] = np.arange(alone.sum()) + (int(groups.max(initial=0)) + 1)
    distinct, unit_of = np.unique(numbers, return_inverse=True)
    return unit_of.astype(np.int32), len(distinct)


def _classes(labels: np.ndarray, unit_of: np.ndarray | None, count: int) -> Iterator[_Class]:
    """Every class that occurs, and last, as the most frequent, a class of all units."""
    for column in labels.T:
        # Narrow integers are sorted in a few passes.
        column = column.astype(np.int16) if column.max(initial=0) < 2**15 else column
        order = np.argsort(column, kind="stable").astype(np.int32)
        sizes = np.bincount(column.astype(np.int64) + 1)
        ends = np.cumsum(sizes)
        for value in np.flatnonzero(sizes):
            if value:  # 0 is -1: not annotated
                yield _class(order[ends[value] - sizes[value] : ends[value]], unit_of, count)
    yield _class(np.arange(len(labels), dtype=np.int32), unit_of, count)


def _class(samples: np.ndarray, unit_of: np.ndarray | None, count: int) -> _Class:
    if unit_of is None:
        return _Class(samples, None)
    if 16 * len(samples) < count:
        units, weights = np.unique(unit_of[samples], return_counts=True)
    else:
        counted = np.bincount(unit_of[samples], minlength=count)
        units = np.flatnonzero(counted)
        weights = counted[units]
    return _Class(units.astype(np.int32), weights.astype(np.float64))


def _deal(
    members: _Class,
    part: np.ndarray,
    share: np.ndarray,
    drift: np.ndarray,
    everything: _Class,
    slack: float,
    rng: np.random.Generator,
) -> None:
    """Assigns the units of a class that no rarer class has assigned. drift: samples of each part above its share."""
    left = rng.permutation(np.flatnonzero(part[members.units] < 0))
    if not left.size:
        return
    weights = members.weights_of(left)
    have = members.sizes(part, len(share))
    if len(members.units) < len(share):
        left = left[np.argsort(-weights, kind="stable")]
        chosen = _place_few(members.weights_of(left), have, share, drift, slack)
    else:
        left, chosen = _place_many(members, left, have, share, drift, everything)
    units = members.units[left]
    part[units] = chosen
    dealt = everything.weights_of(units)
    drift += np.bincount(chosen, dealt, minlength=len(share)) - share * dealt.sum()


def _place_many(
    members: _Class, left: np.ndarray, have: np.ndarray, share: np.ndarray, drift: np.ndarray, everything: _Class
) -> tuple[np.ndarray, np.ndarray]:
    """The units of a class, reordered, and a part for each: one to each part without the class, the rest by the shares."""
    left, weights = left.copy(), members.weights_of(left)
    need = share * (have.sum() + weights.sum()) - have
    # First one to each part without the class, the heaviest to the part that needs most.
    empty = np.flatnonzero(have == 0)
    empty = empty[np.argsort(-need[empty], kind="stable")][: len(left)]
    first = len(empty)
    left[:first] = left[:first][np.argsort(-weights[:first], kind="stable")]
    weights = members.weights_of(left)
    chosen = np.empty(len(left), np.int64)
    chosen[:first] = empty
    need[empty] -= weights[:first]
    if first < len(left):
        # The rest is cut like a line of samples; a unit goes to the part in which its middle lies.
        need = np.maximum(need, 0)
        rest = np.cumsum(weights[first:])
        ends = np.cumsum(need)[:-1] * (rest[-1] / need.sum())
        # Rounded against the drift, so that the errors of many classes do not add up in the sizes of the parts.
        half = rest[-1] / len(rest) / 2
        of_class = weights.sum() / everything.weights_of(members.units[left]).sum()
        ends = np.maximum.accumulate(ends - np.clip(of_class * np.cumsum(drift)[:-1], -half, half))
        chosen[first:] = np.searchsorted(ends, rest - weights[first:] / 2, side="right")
    return left, chosen


def _place_few(weights: np.ndarray, have: np.ndarray, share: np.ndarray, drift: np.ndarray, slack: float) -> np.ndarray:
    """Parts for the units of a class that cannot be in every part: the largest part first, then one without the class.

    A part that is above its share already is passed over, because thousands of such classes would enlarge it too much.
    """
    have, drift, chosen = have.copy(), drift.copy(), []
    for weight in weights:
        lacking = np.where(have == 0, np.where(share == share.max(), -np.inf, drift), np.inf)
        target = int(np.argmin(lacking)) if (have == 0).any() else int(np.argmin(drift))
        if drift[target] > max(1.0, slack * share[target]):
            target = int(np.argmin(drift))
        have[target] += weight
        drift -= share * weight
        drift[target] += weight
        chosen.append(target)
    return np.array(chosen)


def _cover(classes: list[_Class], part: np.ndarray, parts: int, rng: np.random.Generator) -> None:
    """Moves single units into parts without their class, as long as no other part loses such a class."""
    counts = np.stack([members.units_in(part, parts) for members in classes])
    due = counts.sum(axis=1) >= parts
    moved = True
    while moved:
        moved = False
        # From the end: the class of all units first, so that no part stays empty.
        for number in np.flatnonzero(due & (counts == 0).any(axis=1))[::-1]:
            for target in np.flatnonzero(counts[number] == 0):
                moved |= _move_one(classes, int(number), int(target), counts, due, part, rng)


def _move_one(
    classes: list[_Class],
    number: int,
    target: int,
    counts: np.ndarray,
    due: np.ndarray,
    part: np.ndarray,
    rng: np.random.Generator,
) -> bool:
    candidates = rng.permutation(classes[number].units)
    # What a part loses with a unit: 1, a class too rare for every part; 2, another class; 3, its only unit.
    cost = np.zeros(len(part), np.int8)
    for index, where in np.argwhere(counts == 1):
        units = classes[index].units
        unit = units[part[units] == where]
        cost[unit] = np.maximum(cost[unit], 3 if index == len(classes) - 1 else 2 if due[index] else 1)
    unit = candidates[np.argmin(cost[candidates])]
    # For an empty part, another may lose any class.
    if cost[unit] > (2 if number == len(classes) - 1 else 1):
        return False
    for index, members in enumerate(classes):
        place = np.searchsorted(members.units, unit)
        if place < len(members.units) and members.units[place] == unit:
            counts[index, part[unit]] -= 1
            counts[index, target] += 1
    part[unit] = target
    return True
