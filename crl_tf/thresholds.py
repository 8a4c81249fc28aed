"""Chooses a threshold for every class, on validation images: for a wanted recall or precision, for costs, or for balance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crl_tf.layout import Layout

DRAWS = 200
"""Bootstrap draws of an interval."""

LEVEL = 0.95
"""Of the intervals."""

NEVER = 1.0
"""The threshold of a class that is not detected."""

IN_MEMORY = 2**22
"""Weights of samples that are held at a time."""


@dataclass(frozen=True)
class Goal:
    """What thresholds are chosen for.

    name: a key of `GOALS`. values: its numbers: the wanted recall or precision, or the costs of a miss and of a false alarm.
    """

    name: str
    values: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Goal:
        """Reads balanced, recall:0.9, precision:0.5 or costs:10:1.

        Raises:
            ValueError: another text.

        >>> Goal.parse("recall:0.9")
        Goal(name='recall', values=(0.9,))
        """
        name, *numbers = str(text).strip().split(":")
        try:
            values = tuple(float(number) for number in numbers)
        except ValueError:
            values = (float("nan"),)
        in_range = all(0 < value <= 1 if name in ("recall", "precision") else 0 < value < float("inf") for value in values)
        if name not in GOALS or len(values) != GOALS[name].numbers or not in_range:
            raise ValueError(f"threshold must be {WORDS}, received {text!r}")
        return cls(name, values)

    def __str__(self) -> str:
        return ":".join([self.name, *(f"{value:g}" for value in self.values)])


def is_goal(text: str) -> bool:
    """Whether `Goal.parse` reads a text."""
    try:
        Goal.parse(text)
    except ValueError:
        return False
    return True


class Chosen(NamedTuple):
    """The threshold of one class.

    threshold: a score that reaches it is a detection. low, high: its 95 % bootstrap interval over validation images, NaN where
    a single image is of the class or not of it.
    recall, precision: on the validation images, in [0, 1]; precision is NaN where nothing is detected. positives: validation
    images of the class. reached: whether the goal is; where a wanted precision is not, the best one is taken.
    """

    threshold: float
    low: float
    high: float
    recall: float
    precision: float
    positives: int
    reached: bool


class _Row(NamedTuple):
    """A goal: how many numbers it takes, and what it makes of counts.

    best: from true positives, false positives (both [..., n], where the k-th detects the k + 1 highest scores), positives and
    negatives ([..., 1]), and the goal's numbers to what the place with the largest value is chosen of, [..., n].
    """

    numbers: int
    best: Callable[..., np.ndarray]


def _balanced(hits: np.ndarray, alarms: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    return hits / np.maximum(positives, 1) - alarms / np.maximum(negatives, 1)


def _recall(hits: np.ndarray, alarms: np.ndarray, positives: np.ndarray, negatives: np.ndarray, wanted: float) -> np.ndarray:
    # The fewest detections that reach the recall. A little less, because shares are rounded.
    reached = hits >= wanted * positives - 1e-9
    return np.where(reached, -(hits + alarms), -np.inf)


def _precision(hits: np.ndarray, alarms: np.ndarray, positives: np.ndarray, negatives: np.ndarray, wanted: float) -> np.ndarray:
    # The most hits with that precision; where no number of detections has it, the highest precision.
    precision = hits / np.maximum(hits + alarms, 1)
    return np.where(precision >= wanted - 1e-9, 1 + hits, precision)


def _costs(
    hits: np.ndarray, alarms: np.ndarray, positives: np.ndarray, negatives: np.ndarray, miss: float, alarm: float
) -> np.ndarray:
    return -(miss * (positives - hits) + alarm * alarms)


GOALS = {
    "balanced": _Row(0, _balanced),
    "recall": _Row(1, _recall),
    "precision": _Row(1, _precision),
    "costs": _Row(2, _costs),
}

WORDS = (
    "balanced (the largest mean of sensitivity and specificity), recall:R or precision:P with a number in (0, 1],"
    " or costs:MISS:ALARM with two numbers > 0"
)


def choose_threshold(scores: np.ndarray, positive: np.ndarray, goal: Goal, *, seed: int = 0) -> Chosen:
    """Chooses the threshold of one class.

    The threshold lies half-way between two scores of validation images. At equal quality the higher one is taken.

    Args:
        scores: of the class, float [n], finite.
        positive: which samples are of the class, bool [n].
        seed: of the bootstrap.
    Raises:
        ValueError: no positive sample or no negative one.

    >>> scores, positive = np.array([0.9, 0.6, 0.4, 0.1]), np.array([True, False, True, False])
    >>> choose_threshold(scores, positive, Goal.parse("recall:1")).threshold
    0.25
    """
    if not positive.any() or positive.all():
        raise ValueError(f"positive must hold both kinds of samples, received {int(positive.sum())} of {len(positive)}")
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order].astype(np.float64), positive[order]
    # Samples of equal scores are detected together: only the last place of each is a choice.
    places = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    lower = np.append(scores[places[1:]], scores[-1])
    between = np.where(places == len(scores) - 1, scores[places], (scores[places] + lower) / 2)
    # A server compares in float32, in which the middle of two neighbours may be the lower one.
    between = np.where(between.astype(np.float32) > lower, between, scores[places])
    best, hits, alarms = _best(np.ones((1, len(scores))), positive, places, goal)
    low = high = float("nan")
    # Draws of a single image are all alike, which says nothing of others.
    if 1 < positive.sum() < len(positive) - 1:
        drawn = between[_best_of_draws(positive, places, goal, seed)]
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    hit, alarm = float(hits[0, best[0]]), float(alarms[0, best[0]])
    recall, precision = hit / positive.sum(), hit / (hit + alarm)
    reached = goal.name != "precision" or precision >= goal.values[0] - 1e-9
    return Chosen(float(between[best[0]]), float(low), float(high), float(recall), precision, int(positive.sum()), bool(reached))


def _best_of_draws(positive: np.ndarray, places: np.ndarray, goal: Goal, seed: int) -> np.ndarray:
    """The best of the places for each bootstrap draw of the samples; a draw that lacks one of the kinds has none."""
    rng, count = np.random.default_rng(seed), len(positive)
    at_a_time = max(1, IN_MEMORY // count)
    best: list[np.ndarray] = [np.zeros(0, np.int64)]
    for start in range(0, DRAWS, at_a_time):
        draws = rng.multinomial(count, np.full(count, 1 / count), size=min(at_a_time, DRAWS - start))
        draws = draws[(draws[:, positive].sum(axis=1) > 0) & (draws[:, ~positive].sum(axis=1) > 0)]
        best.append(_best(draws, positive, places, goal)[0])
    return np.concatenate(best)


def _best(weights: np.ndarray, positive: np.ndarray, places: np.ndarray, goal: Goal) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best of the places for each row of weights [d, n], and the weighted hits and alarms of all places, [d, places]."""
    hits = np.cumsum(weights * positive, axis=1)
    alarms = np.cumsum(weights * ~positive, axis=1)
    positives, negatives = hits[:, -1:], alarms[:, -1:]
    hits, alarms = hits[:, places], alarms[:, places]
    return np.argmax(GOALS[goal.name].best(hits, alarms, positives, negatives, *goal.values), axis=1), hits, alarms


def choose_thresholds(
    scores: np.ndarray,
    labels: np.ndarray,
    num_classes: Sequence[int],
    priors: Sequence[np.ndarray],
    goal: Goal,
    *,
    seed: int = 0,
) -> list[list[Chosen]]:
    """Chooses the thresholds of all classes of all labels.

    Of a binary label the threshold of the rarer class t is chosen; the other class has 1 - t, so that the two agree. A class
    without a validation image, or whose label has no other, or that reaches the wanted precision nowhere, is not detected: its
    threshold is 1 and `reached` False. Nor is a class that training has never seen, whose scores say nothing of it.

    Args:
        scores: probabilities, float [n, sum(num_classes)]; a sample with NaN takes no part in this label.
        labels: int [n, L], -1 = not annotated, which take no part.
        priors: share of each class in training, one array [C] per label; 0 for a class that it did not have.
    Returns:
        for each label a `Chosen` per class.
    """
    chosen = []
    layout = Layout.of(num_classes)
    for label, size in enumerate(layout.sizes):
        first = int(layout.offsets[label])
        columns = np.asarray(scores[:, first : first + size], np.float64)
        known = (labels[:, label] >= 0) & ~np.isnan(columns).any(axis=1)
        columns, truth = columns[known], labels[known, label]
        rarer = int(np.argmin(priors[label]))
        wanted = [rarer] if size == 2 else range(size)
        of_class = {k: _of_class(columns[:, k], truth == k, goal, seed, trained=priors[label][k] > 0) for k in wanted}
        if size == 2:
            of_class[1 - rarer] = _other(of_class[rarer], truth == 1 - rarer, columns[:, 1 - rarer])
        chosen.append([of_class[k] for k in range(size)])
    return chosen


def _of_class(scores: np.ndarray, positive: np.ndarray, goal: Goal, seed: int, trained: bool) -> Chosen:
    nan = float("nan")
    none = Chosen(NEVER, nan, nan, nan, nan, int(positive.sum()), False)
    if not trained or not positive.any() or positive.all():
        return none
    chosen = choose_threshold(scores, positive, goal, seed=seed)
    # The best there is would detect most images, in the name of precision.
    return chosen if chosen.reached else none


def _other(rarer: Chosen, positive: np.ndarray, scores: np.ndarray) -> Chosen:
    """The other class of a binary label."""
    threshold = 1 - rarer.threshold
    detected = scores > threshold
    recall = float(detected[positive].mean()) if positive.any() else float("nan")
    precision = float(positive[detected].mean()) if detected.any() else float("nan")
    return Chosen(threshold, 1 - rarer.high, 1 - rarer.low, recall, precision, int(positive.sum()), rarer.reached)


def decision_offsets(thresholds: Sequence[np.ndarray]) -> np.ndarray:
    """What is added to the log of the scores before the largest decides, float32 [sum(num_classes)].

    The class decides whose score is the largest multiple of its threshold: of a binary label, whose thresholds are t and 1 - t,
    the class that reaches its own.

    >>> decision_offsets([np.array([0.75, 0.25])]).astype(float).round(3).tolist()
    [0.288, 1.386]
    """
    joined = np.concatenate([np.asarray(of_label, np.float64) for of_label in thresholds])
    return -np.log(np.maximum(joined, 1e-12)).astype(np.float32)
