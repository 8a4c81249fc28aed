"""Measures how well probabilities agree with what happens, rare and frequent classes apart, and scales them to agree better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from crl_tf.layout import Layout

BINS = 10
"""Bins of equal width of a reliability diagram."""

TEMPERATURES = (0.05, 20.0)
"""Between which a temperature is sought."""


class Reliability(NamedTuple):
    """A reliability diagram: per bin of scores in [0, 1], the mean score, the share that was of the class, and the number.

    mean_score, share: float [bins], NaN for an empty bin. count: int [bins].
    """

    mean_score: np.ndarray
    share: np.ndarray
    count: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error (Guo et al. 2017, eq. 3): mean of |share - mean score| over samples; NaN without any."""
        total = self.count.sum()
        if not total:
            return float("nan")
        return float(np.nansum(np.abs(self.share - self.mean_score) * self.count) / total)


def reliability(scores: np.ndarray, positive: np.ndarray, bins: int = BINS) -> Reliability:
    """The reliability diagram of scores of one class, or of several whose samples are joined.

    Args:
        scores: float [n] in [0, 1]; NaN takes no part. positive: whether a sample is of the class, bool [n].

    >>> diagram = reliability(np.array([0.1, 0.1, 0.9, 0.9]), np.array([False, False, True, False]))
    >>> round(diagram.error, 3)  # (2 |0 - 0.1| + 2 |0.5 - 0.9|) / 4
    0.25
    """
    known = ~np.isnan(scores)
    scores, positive = np.asarray(scores)[known], np.asarray(positive)[known]
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, scores, minlength=bins) / count
        share = np.bincount(place, positive, minlength=bins) / count
    return Reliability(mean, share, count)


def reliability_of_classes(
    scores: np.ndarray, labels: np.ndarray, num_classes: Sequence[int], columns: np.ndarray
) -> Reliability:
    """The diagram of some classes together, each against the rest of its label.

    Args:
        scores: float [n, sum(num_classes)]. labels: int [n, L], -1 = not annotated.
        columns: which classes, as columns of the scores.
    """
    layout = Layout.of(num_classes)
    of_classes, positive = [np.zeros(0)], [np.zeros(0, bool)]
    for column in columns:
        truth = labels[:, layout.column_label[column]]
        known = truth >= 0
        of_classes.append(np.asarray(scores[known, column], np.float64))
        positive.append(truth[known] == layout.column_class[column])
    return reliability(np.concatenate(of_classes), np.concatenate(positive))


def temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The temperature by which logits are divided so that their softmax fits best (Guo et al. 2017, Sec. 4.2).

    It minimises the mean cross-entropy of validation samples, which does not change which class is the largest.

    Args:
        logits: float [n, C]; a sample with NaN or infinity takes no part. truth: int [n], -1 = not annotated.
    Returns:
        a number in `TEMPERATURES`; 1 without an annotated sample.
    """
    known = (truth >= 0) & np.isfinite(logits).all(axis=1)
    if not known.any():
        return 1.0
    logits, truth = np.asarray(logits[known], np.float64), truth[known]

    def cross_entropy(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(truth)), truth].mean())

    found = minimize_scalar(cross_entropy, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def temperatures(logits: np.ndarray, labels: np.ndarray, num_classes: Sequence[int]) -> np.ndarray:
    """The temperature of each label, float64 [L].

    Args:
        logits: float [n, sum(num_classes)]. labels: int [n, L], -1 = not annotated.
    """
    layout = Layout.of(num_classes)
    starts = zip(layout.offsets, layout.sizes, strict=True)
    return np.array([temperature(logits[:, at : at + size], labels[:, i]) for i, (at, size) in enumerate(starts)])
