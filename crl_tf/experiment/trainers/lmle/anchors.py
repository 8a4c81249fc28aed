"""Which anchors a batch of LMLE brings, and what each costs: equal re-sampling and class costs."""

from __future__ import annotations

import numpy as np


def draw_anchors(classes: np.ndarray, usable: np.ndarray, *, batches: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of the anchors of each batch, int64 [batches, size], equally many of each class.

    Decision, ours: classes take turns in an order that is shuffled anew each time all have had one, on across batches, so that
    more classes than anchors are no exception; of a class a usable sample is drawn at random, with replacement.

    Args:
        classes: int [n].
        usable: bool [n], what may be drawn, at least one.

    >>> drawn = draw_anchors(np.array([0, 0, 0, 1]), np.ones(4, bool), batches=5, size=4, rng=np.random.default_rng(0))
    >>> (drawn == 3).sum(axis=1).tolist()  # two of four in every batch
    [2, 2, 2, 2, 2]
    """
    members = [np.flatnonzero(usable & (classes == value)) for value in np.unique(classes[usable])]
    if not members:
        raise ValueError("draw_anchors: usable must hold at least one sample, received none")
    wanted = batches * size
    turns = rng.permuted(np.tile(np.arange(len(members)), (-(-wanted // len(members)), 1)), axis=1).ravel()[:wanted]
    drawn = np.empty(wanted, np.int64)
    for number, of_class in enumerate(members):
        places = np.flatnonzero(turns == number)
        drawn[places] = rng.choice(of_class, len(places))
    return drawn.reshape(batches, size)


def class_costs(classes: np.ndarray) -> np.ndarray:
    """The weight of every anchor of a batch, float32 of the shape [batches, size] of their classes.

    Decision, ours: size / (classes in the batch * anchors of this class in it), so that what re-sampling leaves unequal (a batch
    of 51 anchors of two classes) weighs the same; the mean weight of a batch is 1.

    >>> class_costs(np.array([[0, 0, 0, 0, 1]])).tolist()  # 5 / (2 * 4) and 5 / (2 * 1)
    [[0.625, 0.625, 0.625, 0.625, 2.5]]
    """
    costs = np.empty(classes.shape, np.float32)
    for row, of_batch in enumerate(classes):
        _, place, count = np.unique(of_batch, return_inverse=True, return_counts=True)
        costs[row] = len(of_batch) / (len(count) * count[place])
    return costs
