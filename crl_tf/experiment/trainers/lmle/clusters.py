"""Clusters of every class by k-means, as LMLE looks at a label's classes (Huang, Li, Loy & Tang, CVPR 2016)."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

FULL_KMEANS = 10_000
"""Classes above this size are clustered by mini-batches."""


class Clusters(NamedTuple):
    """cluster: int64 [n], of each sample. centres: float32 [K, D], the mean of each cluster. classes: int64 [K], its class;
    clusters of a class are next to each other, in the order of the classes."""

    cluster: np.ndarray
    centres: np.ndarray
    classes: np.ndarray


def cluster_classes(features: np.ndarray, classes: np.ndarray, *, size: int, seed: int) -> Clusters:
    """k-means of each class on its own, max(1, round(n_c / size)) clusters for its n_c samples.

    Decision, ours: of these, those that hold a sample (where features coincide there can be fewer); one start; scikit-learn's
    KMeans up to 10,000 samples of a class, MiniBatchKMeans above. On one thread, because the order in which threads add up
    would change the last digits, and with them what a seed gives.

    Args:
        features: float32 [n, D].
        classes: int [n], >= 0.
        size: samples per cluster aimed at.
        seed: of the starts.

    >>> points = np.array([[0.0], [0.5], [5.0], [5.5], [9.0]], np.float32)
    >>> found = cluster_classes(points, np.array([0, 0, 0, 0, 2]), size=2, seed=0)
    >>> found.classes.tolist(), sorted(found.centres[:2, 0].tolist()), found.centres[2].tolist()
    ([0, 0, 2], [0.25, 5.25], [9.0])
    """
    features, classes = np.asarray(features, np.float32), np.asarray(classes)
    if features.ndim != 2 or classes.shape != features.shape[:1] or not len(features):
        raise ValueError(
            f"cluster_classes: features must be [n, D] and classes [n], n >= 1, received {features.shape} and {classes.shape}"
        )
    if size < 1:
        raise ValueError(f"cluster_classes: size must be >= 1, received {size!r}")
    cluster, centres, of_class = np.empty(len(features), np.int64), [], []
    for value in np.unique(classes):
        members = np.flatnonzero(classes == value)
        _, place = np.unique(_kmeans(features[members], max(1, round(len(members) / size)), seed), return_inverse=True)
        cluster[members] = len(of_class) + place
        for number in range(place.max() + 1):
            centres.append(features[members[place == number]].mean(axis=0))
            of_class.append(value)
    return Clusters(cluster, np.stack(centres), np.array(of_class, np.int64))


def _kmeans(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    if count == 1:
        return np.zeros(len(points), np.int64)
    means = KMeans if len(points) <= FULL_KMEANS else MiniBatchKMeans
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        return means(count, n_init=1, random_state=seed).fit_predict(points)
