"""How imbalanced a label is: counts, ratio, Omega (eq. 8), and the power law of Sec. 4.3. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def class_counts(labels: np.ndarray, num_classes: Sequence[int]) -> list[np.ndarray]:
    """Samples per class of every label, not-annotated (-1) left out.

    Args:
        labels: integers [n, L], -1 = not annotated.
        num_classes: L class numbers.
    Returns:
        L integer arrays, the j-th of shape [num_classes[j]].

    >>> class_counts(np.array([[0, 1], [0, -1], [1, 2]]), [2, 3])
    [array([2, 1]), array([0, 1, 1])]
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.shape[1] != len(num_classes):
        raise ValueError(f"class_counts: labels must have shape [n, {len(num_classes)}], received {list(labels.shape)}")
    return [np.bincount(column[column >= 0], minlength=size) for column, size in zip(labels.T, num_classes, strict=True)]


def class_priors(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """The share of every class in the training data, a class without a sample counting as one with one. [C] to float64 [C].

    So that every logarithm is finite, and a class that cannot be learned is not the likeliest one.

    >>> class_priors([8, 1, 0]).tolist()
    [0.8, 0.1, 0.1]
    """
    counts = np.maximum(np.asarray(counts, np.float64), 1.0)
    return counts / counts.sum()


def imbalance_measure(counts: Sequence[int] | np.ndarray) -> float:
    """Omega: the share of a balanced set that is missing, sum_k (h_max - h_k) / (|Z| h_max).

    The imbalance measure that scales the rectification in eq. 8 of Dong, Gong & Zhu: 0 for a balanced label, towards 1
    for an extreme one. Over the counts of the *training set*.

    Args:
        counts: samples per class, [|Z|], non-negative, at least one positive.

    >>> imbalance_measure([100, 100])
    0.0
    >>> imbalance_measure([90, 10])  # (0 + 80) / (2 * 90)
    0.4444444444444444
    """
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 1 or counts.size < 2 or not np.isfinite(counts).all() or (counts < 0).any() or counts.max() == 0:
        raise ValueError(
            "imbalance_measure: counts must be one non-negative number per class, 2 classes or more, not all 0;"
            f" received {counts.tolist()}"
        )
    return float((counts.max() - counts).sum() / (counts.size * counts.max()))


def imbalance_ratio(counts: Sequence[int] | np.ndarray) -> float:
    """Largest class over smallest class that occurs: 43.0 stands for 1:43 (Table 1).

    >>> imbalance_ratio([500, 25, 0])
    20.0
    """
    counts = np.asarray(counts)
    occurring = counts[counts > 0]
    if occurring.size == 0:
        raise ValueError(f"imbalance_ratio: counts must hold at least one positive number, received {counts.tolist()}")
    return float(occurring.max() / occurring.min())


def power_law_counts(num_classes: int, gamma: float, largest: int, smallest: int) -> np.ndarray:
    """Class sizes f(i) = a / (i^gamma + b), i = 1..num_classes, with f(1) = largest and f(num_classes) = smallest.

    The CIFAR-100-imb(gamma) distribution of Sec. 4.3; a and b follow from the two ends, sizes are rounded.

    >>> sizes = power_law_counts(100, 1.0, 500, 25)
    >>> int(sizes[0]), int(sizes[1]), int(sizes[-1])  # b = 2000/475, a = 500 (1 + b)
    (500, 419, 25)
    """
    if num_classes < 2 or gamma <= 0 or not 0 < smallest <= largest:
        raise ValueError(
            "power_law_counts: needs num_classes >= 2, gamma > 0 and 0 < smallest <= largest, received"
            f" num_classes={num_classes}, gamma={gamma}, largest={largest}, smallest={smallest}"
        )
    if smallest == largest:
        return np.full(num_classes, largest, np.int64)
    powers = np.arange(1, num_classes + 1, dtype=np.float64) ** gamma
    b = (smallest * powers[-1] - largest) / (largest - smallest)
    if b <= -1:
        raise ValueError(
            f"power_law_counts: gamma={gamma} is too small for a fall from {largest} to {smallest} over {num_classes} classes"
        )
    a = largest * (1 + b)
    return np.rint(a / (powers + b)).astype(np.int64)
