"""The samples of LMLE (Huang et al., CVPR 2016): clusters of every class, their quintuplets, and the anchors of a batch."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

FULL_KMEANS = 10_000
"""Classes with more samples are clustered by mini-batches."""

KMEANS_STARTS = 10
"""k-means is started so often, and the tightest clusters are taken."""

QUINTUPLET_SHARE = 0.5
"""Quintuplets are of so many of the images, drawn at random."""

DISTANCES_AT_ONCE = 1 << 25
"""How many distances are in memory at a time: 128 MB of float32."""


class Clusters(NamedTuple):
    """cluster: int64 [n], of each sample. centres: float32 [K, D], the mean of each cluster. classes: int64 [K], its class;
    clusters of a class are next to each other, in the order of the classes."""

    cluster: np.ndarray
    centres: np.ndarray
    classes: np.ndarray


class Quintuplets(NamedTuple):
    """index: int64 [n, 5], anchor, farthest in its cluster, nearest of its class outside its cluster, farthest of its class,
    nearest of another class. valid: bool [n, 4], which of the last four exist; one that does not is the anchor itself."""

    index: np.ndarray
    valid: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """bool [n]: whether the quintuplet has a hinge, which needs two neighbours in the order above."""
        return (self.valid[:, :-1] & self.valid[:, 1:]).any(axis=1)


def cluster_classes(features: np.ndarray, classes: np.ndarray, *, size: int, seed: int) -> Clusters:
    """Clusters each class by k-means into max(1, round(n_c / size)) clusters of its n_c samples.

    Clusters without a sample, as coinciding features leave them, are dropped. scikit-learn's KMeans with ten starts, or
    MiniBatchKMeans above 10,000 samples of a class, which compares its ten starts on some of them and goes on with the best.
    On one thread: the order in which threads add up would change the last digits, and with them what a seed gives.

    Args:
        features: float32 [n, D].
        classes: int [n], >= 0.
        size: the mean number of samples per cluster.
        seed: of the starts.

    >>> points = np.array([[0.0], [0.5], [5.0], [5.5], [9.0]], np.float32)
    >>> clusters = cluster_classes(points, np.array([0, 0, 0, 0, 2]), size=2, seed=0)
    >>> clusters.classes.tolist(), sorted(clusters.centres[:2, 0].tolist()), clusters.centres[2].tolist()
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
        _, number = np.unique(_kmeans(features[members], max(1, round(len(members) / size)), seed), return_inverse=True)
        cluster[members] = len(of_class) + number
        centres += [features[members[number == k]].mean(axis=0) for k in range(number.max() + 1)]
        of_class += [value] * (number.max() + 1)
    return Clusters(cluster, np.stack(centres), np.array(of_class, np.int64))


def _kmeans(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    if count == 1:
        return np.zeros(len(points), np.int64)
    means = KMeans if len(points) <= FULL_KMEANS else MiniBatchKMeans
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        return means(count, n_init=KMEANS_STARTS, random_state=seed).fit_predict(points)


def geometric_margins(clusters: Clusters, occupied_share: float, *, non_negative: bool) -> np.ndarray:
    """The margins of every sample's quintuplet, from the geometry of the clusters: float32 [n, 3].

    Huang et al. think of the n = L samples as evenly spread over a share s of a circle of radius 1, class by class and cluster by
    cluster. An arc of m samples then spans the angle 2 pi s m / L, and its chord is 2 sin(pi s m / L): the most by which a
    distance can exceed another where such an arc lies between. With L_c samples of the class, l of them per cluster, C classes:
    g1 = 2 sin(pi s l / L), a cluster; g2 = 2 sin(pi s (L_c - l) / L), the rest of the class; g3 = 2 sin(pi / C), the part of the
    circle that a class has. No chord is longer than the diameter, 2, which an arc of half the circle or more has.

    Features that are not negative, as networks that end in ReLU have them, lie on a quarter of the circle, and pi is pi / 4.

    Args:
        clusters: l is the mean size of the clusters of a class, and C the number of classes that occur.
        occupied_share: s, in (0, 1].
        non_negative: whether no feature is negative.

    >>> clusters = Clusters(np.array([0, 1, 2, 2]), np.zeros((3, 1)), np.array([0, 0, 1]))  # classes 0 0 1 1
    >>> margins = geometric_margins(clusters, 0.5, non_negative=False)
    >>> margins[1:3].round(3).tolist()  # 2 sin(pi / 8), the same, 2 sin(pi / 2); 2 sin(pi / 4), 0
    [[0.765, 0.765, 2.0], [1.414, 0.0, 2.0]]
    """
    if not 0 < occupied_share <= 1:
        raise ValueError(f"geometric_margins: occupied_share must be a number in (0, 1], received {occupied_share!r}")
    values, of_cluster, clusters_of_class = np.unique(clusters.classes, return_inverse=True, return_counts=True)
    of_sample = of_cluster[clusters.cluster]
    class_sizes = np.bincount(of_sample, minlength=len(values))
    cluster_sizes = class_sizes / clusters_of_class
    parts = np.stack([cluster_sizes, class_sizes - cluster_sizes], axis=1) * occupied_share / len(of_sample)
    of_circle = np.concatenate([parts, np.full((len(values), 1), 1 / len(values))], axis=1) * (0.25 if non_negative else 1.0)
    return (2 * np.sin(np.pi * np.minimum(of_circle, 0.5)))[of_sample].astype(np.float32)


def random_half(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws half of the samples of each class, rounded up and at least two where it has two: their positions, ascending.

    Quintuplets are found among these, so that one sample with a wrong annotation is not the hardest of all others every time.

    Args:
        classes: int [n].

    >>> random_half(np.array([0, 0, 0, 0, 0, 1, 1, 2]), np.random.default_rng(0)).tolist()
    [0, 1, 4, 5, 6, 7]
    """
    halves = []
    for value in np.unique(classes):
        members = np.flatnonzero(classes == value)
        count = min(len(members), max(2, math.ceil(len(members) * QUINTUPLET_SHARE)))
        halves.append(rng.choice(members, count, replace=False))
    return np.sort(np.concatenate(halves))


def find_quintuplets(features: np.ndarray, clusters: Clusters) -> Quintuplets:
    """The quintuplet of every sample, by exact search with Euclidean distances. A sample is never its own neighbour.

    Args:
        features: float32 [n, D].
        clusters: of these samples.

    >>> points = np.array([[0.0], [1.0], [5.0], [7.0], [9.0]], np.float32)  # classes 0 0 0 0 1, clusters {0, 1}, {5, 7}, {9}
    >>> quintuplets = find_quintuplets(points, Clusters(np.array([0, 0, 1, 1, 2]), points[:3], np.array([0, 0, 1])))
    >>> quintuplets.index[0].tolist(), quintuplets.valid[0].tolist()
    ([0, 1, 2, 3, 4], [True, True, True, True])
    >>> quintuplets.index[4].tolist(), quintuplets.valid[4].tolist()  # alone in its class
    ([4, 4, 4, 4, 3], [False, False, False, True])
    """
    # Sorted by cluster, and so by class, each cluster and each class is one slice.
    order = np.argsort(clusters.cluster, kind="stable")
    features = np.ascontiguousarray(features[order], np.float32)
    square = np.einsum("nd,nd->n", features, features)
    bounds = np.searchsorted(clusters.cluster[order], np.arange(len(clusters.classes) + 1))
    first, behind = (np.searchsorted(clusters.classes, clusters.classes, side) for side in ("left", "right"))
    n = len(features)
    index, valid = np.empty((n, 5), np.int64), np.empty((n, 4), bool)
    index[:, 0] = np.arange(n)
    rows = max(1, DISTANCES_AT_ONCE // n)
    for number in range(len(clusters.classes)):
        cluster = slice(bounds[number], bounds[number + 1])
        of_class = slice(bounds[first[number]], bounds[behind[number]])
        for start in range(cluster.start, cluster.stop, rows):
            anchors = np.arange(start, min(start + rows, cluster.stop))
            # |b|^2 - 2 a b: the squared distance without |a|^2, which is the same for all b.
            distance = square - 2.0 * (features[anchors] @ features.T)
            for column, neighbour in enumerate(_neighbours(distance, anchors, cluster, of_class)):
                valid[anchors, column] = neighbour is not None
                index[anchors, column + 1] = anchors if neighbour is None else neighbour
    back = np.empty(n, np.int64)
    back[order] = np.arange(n)
    return Quintuplets(order[index][back], valid[back])


def _neighbours(distance: np.ndarray, anchors: np.ndarray, cluster: slice, of_class: slice) -> list[np.ndarray | None]:
    """The four neighbours of anchors of one cluster, None for what the cluster lacks; overwrites distance [anchors, n]."""
    size, class_size = cluster.stop - cluster.start, of_class.stop - of_class.start
    distance[np.arange(len(anchors)), anchors] = -np.inf  # never the farthest, unless there is no other
    within = cluster.start + distance[:, cluster].argmax(axis=1) if size > 1 else None
    farthest = of_class.start + distance[:, of_class].argmax(axis=1) if class_size > 1 else None
    distance[:, cluster] = np.inf
    outside = of_class.start + distance[:, of_class].argmin(axis=1) if class_size > size else None
    distance[:, of_class] = np.inf
    nearest_other = distance.argmin(axis=1) if distance.shape[1] > class_size else None
    return [within, outside, farthest, nearest_other]


def draw_anchors(classes: np.ndarray, usable: np.ndarray, *, batches: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws the anchors of each batch, equally many of each class: their positions, int64 [batches, size].

    Classes take turns, across batches, in an order that is shuffled again each time all have had a turn. Of a class, a usable
    sample is drawn at random, with replacement.

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
    count = batches * size
    turns = rng.permuted(np.tile(np.arange(len(members)), (-(-count // len(members)), 1)), axis=1).ravel()[:count]
    drawn = np.empty(count, np.int64)
    for number, of_class in enumerate(members):
        places = np.flatnonzero(turns == number)
        drawn[places] = rng.choice(of_class, len(places))
    return drawn.reshape(batches, size)


def class_costs(classes: np.ndarray) -> np.ndarray:
    """The weight of every anchor of a batch, float32 of the shape [batches, size] of their classes.

    size / (classes in the batch * anchors of this class in it): all classes of a batch weigh the same, also where their numbers
    of anchors differ, and the mean weight is 1.

    >>> class_costs(np.array([[0, 0, 0, 0, 1]])).tolist()  # 5 / (2 * 4) and 5 / (2 * 1)
    [[0.625, 0.625, 0.625, 0.625, 2.5]]
    """
    costs = np.empty(classes.shape, np.float32)
    for row, of_batch in enumerate(classes):
        _, place, count = np.unique(of_batch, return_inverse=True, return_counts=True)
        costs[row] = len(of_batch) / (len(count) * count[place])
    return costs
