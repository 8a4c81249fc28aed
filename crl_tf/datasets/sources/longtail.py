"""Class sizes and the choice of samples for CIFAR-100-imb(gamma) and CIFAR-100-bln(gamma) (Sec. 4.3). Yields indices only."""

from __future__ import annotations

import numpy as np

from crl_tf.imbalance import power_law_counts

LARGEST, SMALLEST = 500, 25
"""f(1) and f(100) of Sec. 4.3."""


def imbalanced_sizes(available: np.ndarray, gamma: float) -> np.ndarray:
    """Class sizes f(i) = a / (i^gamma + b), f(1) = 500, f(K) = 25, clipped at what is there.

    The validation split of 10 images per class leaves 490 of the 500 that f(1) asks for, hence the clipping.

    Args:
        available: samples that each class has, [K].
    """
    return np.minimum(power_law_counts(len(available), gamma, LARGEST, SMALLEST), available)


def balanced_sizes(available: np.ndarray, gamma: float) -> np.ndarray:
    """The same number in each class, in all as many as `imbalanced_sizes` (up to the rounding of the mean)."""
    mean = round(float(imbalanced_sizes(available, gamma).mean()))
    return np.full(len(available), mean, np.int64)


def choose_per_class(labels: np.ndarray, sizes: np.ndarray, seed: int) -> np.ndarray:
    """Indices (ascending) of `sizes[k]` samples of every class k, chosen at random from the seed.

    A class's samples are ranked once and the first `sizes[k]` taken: with the same seed a smaller set lies within a larger.

    Args:
        labels: class of every sample, integers [n].
        sizes: samples to choose per class, [K], none above what the class has.
        seed: of the ranking.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for k, size in enumerate(sizes):
        members = rng.permutation(np.flatnonzero(labels == k))
        if not 0 <= size <= len(members):
            raise ValueError(f"choose_per_class: sizes[{k}] must lie in [0, {len(members)}], received {int(size)}")
        chosen.append(members[:size])
    return np.sort(np.concatenate(chosen))
