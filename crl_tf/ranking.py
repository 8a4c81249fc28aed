"""How well the scores of a label rank its classes: AUROC and average precision of every class, one against the rest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import csr_matrix

FEW = 16
"""Below so many columns, NumPy's own cumulative sum is the faster one."""


def one_against_rest_scores(logits: np.ndarray) -> np.ndarray:
    """The log-odds of every class under the label's softmax (eq. 1): log(p / (1 - p)), float32 [n, C].

    They rank the samples as the probability p does, and they do not round to 1 where a network is sure, as p does.

    Args:
        logits: of one label, float [n, C], C >= 2.

    >>> one_against_rest_scores(np.array([[0.0, 40.0], [0.0, 50.0]]))[:, 1].tolist()  # both p round to 1 in float32
    [40.0, 50.0]
    """
    logits = np.asarray(logits, np.float64)
    # An infinite logit less itself is NaN, which `class_rankings` counts as wrong.
    with np.errstate(invalid="ignore", divide="ignore"):
        if logits.shape[1] == 2:
            margin = (logits[:, 1] - logits[:, 0]).astype(np.float32)
            return np.stack([-margin, margin], axis=1)
        # log(1 - p) = log-sum-exp over the other classes, from the largest of them.
        largest = np.argmax(logits, axis=1)
        rows = np.arange(len(logits))
        top = logits[rows, largest]
        others = logits.copy()
        others[rows, largest] = -np.inf
        second = others.max(axis=1)
        terms = np.exp(logits - top[:, None])
        total = terms.sum(axis=1, keepdims=True)
        rest = top[:, None] + np.log(total - terms)
        # For the largest class, total - terms would lose all digits.
        rest[rows, largest] = second + np.log(np.exp(others - second[:, None]).sum(axis=1))
        # To the precision of the logits, so that what is equal but for rounding is a tie.
        return (logits - rest).astype(np.float32)


def class_rankings(
    labels: np.ndarray, logits: np.ndarray, weights: Sequence[np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision of every class of a label, one against the rest of the label's annotated samples.

    AUROC is the chance that a sample of the class has a higher score than one of another class; ties count half. Average
    precision is the sum over scores of (rise of recall) * precision, without interpolation. Both are scikit-learn's. A class
    without a sample, or without a sample of another class, has NaN. A NaN score counts as wrong: of a sample of the class it
    is below all others, of another sample above.

    Args:
        labels: int [n]; -1 is not annotated.
        logits: float [n, C] of this label.
        weights: what each sample counts for, blocks of float [n, R] (a bootstrap's counts). None: 1.
    Returns:
        two float64 arrays [C], or [C, all R together] with weights.

    >>> auroc, precision = class_rankings(np.array([0, 0, 1, 1]), np.array([[0, 0.1], [0, 0.4], [0, 0.35], [0, 0.8]]))
    >>> auroc.tolist(), precision.round(4).tolist()
    ([0.75, 0.75], [0.8333, 0.8333])
    """
    labels = np.asarray(labels)
    scores = one_against_rest_scores(logits)
    blocks = [np.ones((len(labels), 1))] if weights is None else weights
    of_classes = []
    for index in range(scores.shape[1]):
        ranked = _Ranked(labels, index, scores[:, index])
        of_classes.append(np.concatenate([ranked.measure(block) for block in blocks], axis=1))
    auroc, precision = np.stack(of_classes, axis=1)
    return (auroc[:, 0], precision[:, 0]) if weights is None else (auroc, precision)


class _Ranked:
    """The annotated samples of a label, sorted once by their score for one class, from high to low.

    They are parted by the K distinct scores of the class's samples: row 2k holds the other samples below score k - 1 and down
    to score k, row 2k + 1 the samples of the class with score k. `_tied` holds, in row k, the others with exactly score k. Sums
    of weights over these rows are all that AUROC and average precision need.
    """

    def __init__(self, labels: np.ndarray, index: int, scores: np.ndarray) -> None:
        known = np.flatnonzero(labels >= 0)
        positive = labels[known] == index
        scores = scores[known]
        scores = np.where(np.isnan(scores), np.where(positive, -np.inf, np.inf), scores)
        distinct = np.unique(scores[positive])
        # How many distinct scores of the class are higher.
        place = len(distinct) - np.searchsorted(distinct, scores, side="right")
        row = 2 * place + positive
        self._rows = _sums_by(row, known, (2 * len(distinct) + 1, len(labels)))
        tied = ~positive & np.isin(scores, distinct)
        self._tied = _sums_by(place[tied], known[tied], (len(distinct), len(labels))) if tied.any() else None

    def measure(self, weights: np.ndarray) -> np.ndarray:
        """AUROC and average precision, float64 [2, R], with samples weighing float [n, R]."""
        sums = self._rows @ weights
        positives, others = sums[1::2], sums[::2]
        found = _accumulate(positives.copy())
        others = _accumulate(others)
        above, negatives = others[:-1], others[-1]
        of_class = found[-1] if len(found) else np.zeros_like(negatives)
        losses = np.einsum("kr,kr->r", positives, above)
        if self._tied is not None:
            losses -= np.einsum("kr,kr->r", positives, self._tied @ weights) / 2
        # Where nothing has come yet, the weight of the class is 0 as well.
        seen = np.maximum(found + above, 1e-30)
        precision = np.einsum("kr,kr->r", positives, np.divide(found, seen, out=seen))
        with np.errstate(divide="ignore", invalid="ignore"):
            both = np.stack([1 - losses / negatives / of_class, precision / of_class]).astype(np.float64)
        both[:, (of_class == 0) | (negatives == 0)] = np.nan
        return both


def _sums_by(row: np.ndarray, samples: np.ndarray, shape: tuple[int, int]) -> csr_matrix:
    """A matrix that sums what is known of samples by their row."""
    ends = np.cumsum(np.bincount(row, minlength=shape[0]))
    members = samples[np.argsort(row, kind="stable")]
    return csr_matrix((np.ones(members.size, np.float32), members, np.concatenate([[0], ends])), shape=shape)


def _accumulate(rows: np.ndarray) -> np.ndarray:
    """Cumulative sums along axis 0, in place. Row by row: for a hundred columns ten times as fast as np.cumsum."""
    if rows.shape[1] < FEW:
        return np.cumsum(rows, axis=0, out=rows)
    for above, row in itertools.pairwise(rows):
        np.add(row, above, out=row)
    return rows


def label_columns(num_classes: Sequence[int]) -> Iterator[slice]:
    """The columns of each label in the concatenated logits.

    >>> list(label_columns([2, 3]))
    [slice(0, 2, None), slice(2, 5, None)]
    """
    ends = np.cumsum(num_classes).tolist()
    yield from (slice(end - size, end) for end, size in zip(ends, num_classes, strict=True))
