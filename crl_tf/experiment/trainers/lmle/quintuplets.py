"""Quintuplets of LMLE: for every sample four others that its distances are to be ordered by (Huang et al., CVPR 2016)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crl_tf.experiment.trainers.lmle.clusters import Clusters

NUMBERS_AT_ONCE = 1 << 25
"""How many distances are held at a time: 128 MB of float32, however many samples there are."""


class Quintuplets(NamedTuple):
    """index: int64 [n, 5], anchor, farthest in its cluster, nearest of its class outside its cluster, farthest of its class,
    nearest of another class. valid: bool [n, 4], which of the last four exist; one that does not is the anchor itself."""

    index: np.ndarray
    valid: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """bool [n]: whether a hinge is left, which takes two neighbours in the order above."""
        return (self.valid[:, :-1] & self.valid[:, 1:]).any(axis=1)


def find_quintuplets(features: np.ndarray, clusters: Clusters) -> Quintuplets:
    """The quintuplet of every sample, by Euclidean distances in full, a piece at a time.

    n^2 D multiplications, as exact search wants in 64 dimensions. A sample is never its own neighbour.

    Args:
        features: float32 [n, D].
        clusters: of these samples.

    >>> points = np.array([[0.0], [1.0], [5.0], [7.0], [9.0]], np.float32)  # classes 0 0 0 0 1, clusters {0, 1}, {5, 7}, {9}
    >>> found = find_quintuplets(points, Clusters(np.array([0, 0, 1, 1, 2]), points[:3], np.array([0, 0, 1])))
    >>> found.index[0].tolist(), found.valid[0].tolist()
    ([0, 1, 2, 3, 4], [True, True, True, True])
    >>> found.index[4].tolist(), found.valid[4].tolist()  # alone in its class
    ([4, 4, 4, 4, 3], [False, False, False, True])
    """
    # In the order of the clusters, and so of the classes, each cluster and each class is one slice.
    order = np.argsort(clusters.cluster, kind="stable")
    features = np.ascontiguousarray(features[order], np.float32)
    square = np.einsum("nd,nd->n", features, features)
    bounds = np.searchsorted(clusters.cluster[order], np.arange(len(clusters.classes) + 1))
    same_class = np.searchsorted(clusters.classes, clusters.classes), np.searchsorted(clusters.classes, clusters.classes, "right")
    n = len(features)
    index, valid = np.empty((n, 5), np.int64), np.empty((n, 4), bool)
    index[:, 0] = np.arange(n)
    rows = max(1, NUMBERS_AT_ONCE // n)
    for number in range(len(clusters.classes)):
        cluster = slice(bounds[number], bounds[number + 1])
        of_class = slice(bounds[same_class[0][number]], bounds[same_class[1][number]])
        for start in range(cluster.start, cluster.stop, rows):
            anchors = np.arange(start, min(start + rows, cluster.stop))
            # |b|^2 - 2 a b, the squared distance without what is the same for all b.
            distance = square - 2.0 * (features[anchors] @ features.T)
            for column, found in enumerate(_neighbours(distance, anchors, cluster, of_class)):
                valid[anchors, column] = found is not None
                index[anchors, column + 1] = anchors if found is None else found
    back = np.empty(n, np.int64)
    back[order] = np.arange(n)
    return Quintuplets(order[index][back], valid[back])


def _neighbours(distance: np.ndarray, anchors: np.ndarray, cluster: slice, of_class: slice) -> list[np.ndarray | None]:
    """The four of every anchor, or None where there is none for any of this cluster; distance [anchors, n], spoiled."""
    n = distance.shape[1]
    nearest_other = _nearest(distance, [slice(0, of_class.start), slice(of_class.stop, n)])
    outside = _nearest(distance, [slice(of_class.start, cluster.start), slice(cluster.stop, of_class.stop)])
    distance[np.arange(len(anchors)), anchors] = -np.inf  # never the farthest, unless there is no other
    within, farthest = (
        piece.start + distance[:, piece].argmax(axis=1) if piece.stop - piece.start > 1 else None for piece in (cluster, of_class)
    )
    return [within, outside, farthest, nearest_other]


def _nearest(distance: np.ndarray, pieces: list[slice]) -> np.ndarray | None:
    best, least = None, None
    for piece in pieces:
        if piece.start == piece.stop:
            continue
        place = distance[:, piece].argmin(axis=1) + piece.start
        value = np.take_along_axis(distance, place[:, np.newaxis], axis=1)[:, 0]
        if best is None:
            best, least = place, value
        else:
            best, least = np.where(value < least, place, best), np.minimum(value, least)
    return best
