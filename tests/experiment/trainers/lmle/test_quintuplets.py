"""Quintuplets against a loop over all samples."""

import numpy as np
import pytest

from crl_tf.experiment.trainers.lmle import quintuplets
from crl_tf.experiment.trainers.lmle.clusters import Clusters
from crl_tf.experiment.trainers.lmle.quintuplets import Quintuplets, find_quintuplets


def by_hand(points, cluster, of_cluster):
    index, valid = [], []
    classes = of_cluster[cluster]
    for a in range(len(points)):
        far = lambda i: ((points[a] - points[i]) ** 2).sum()  # noqa: B023, E731
        others = [i for i in range(len(points)) if i != a]
        sets = [
            (max, [i for i in others if cluster[i] == cluster[a]]),
            (min, [i for i in others if classes[i] == classes[a] and cluster[i] != cluster[a]]),
            (max, [i for i in others if classes[i] == classes[a]]),
            (min, [i for i in others if classes[i] != classes[a]]),
        ]
        index.append([a, *(best(members, key=far) if members else a for best, members in sets)])
        valid.append([bool(members) for _, members in sets])
    return np.array(index), np.array(valid)


def sample(seed, of_cluster, n=40):
    rng = np.random.default_rng(seed)
    of_cluster = np.array(of_cluster)
    cluster = rng.permutation(np.concatenate([np.arange(len(of_cluster)), rng.integers(0, len(of_cluster), n - len(of_cluster))]))
    return rng.normal(size=(n, 3)).astype(np.float32), cluster, of_cluster


@pytest.mark.parametrize("of_cluster", [[0, 0, 0, 1, 1, 5], [0, 2], [3], [1, 1], [0, 1, 2, 3, 3]])
@pytest.mark.parametrize("at_once", [1 << 25, 50])  # 50: a row at a time
def test_they_are_what_a_search_of_everything_finds(monkeypatch, of_cluster, at_once):
    monkeypatch.setattr(quintuplets, "NUMBERS_AT_ONCE", at_once)
    points, cluster, of_cluster = sample(0, of_cluster)
    found = find_quintuplets(points, Clusters(cluster, points[: len(of_cluster)], of_cluster))
    index, valid = by_hand(points, cluster, of_cluster)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_array_equal(found.valid, valid)


def test_clusters_and_classes_of_one_sample():
    of_cluster = np.array([0, 0, 1])
    points, cluster = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32), np.array([0, 0, 0, 1, 2])
    found = find_quintuplets(points, Clusters(cluster, points[:3], of_cluster))
    index, valid = by_hand(points, cluster, of_cluster)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_array_equal(found.valid, valid)
    assert found.usable.tolist() == [True, True, True, True, False]


def test_points_that_coincide_are_still_someone_else():
    found = find_quintuplets(np.ones((4, 2), np.float32), Clusters(np.array([0, 0, 1, 1]), np.ones((2, 2)), np.array([0, 1])))
    assert (found.index[:, 1] != found.index[:, 0]).all() and (found.index[:, 3] != found.index[:, 0]).all()


def test_usable_takes_two_neighbouring_samples():
    valid = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], bool)
    assert Quintuplets(np.zeros((5, 5), int), valid).usable.tolist() == [False, False, True, True, True]
