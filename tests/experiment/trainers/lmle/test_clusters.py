import numpy as np
import pytest

from crl_tf.experiment.trainers.lmle import clusters
from crl_tf.experiment.trainers.lmle.clusters import cluster_classes


@pytest.fixture
def blobs():
    """Class 0 in four heaps of 25, class 1 in one of 10, class 4 a single point."""
    rng = np.random.default_rng(0)
    corners = np.array([[0, 0], [9, 0], [0, 9], [9, 9]])
    points = np.concatenate([np.repeat(corners, 25, axis=0), np.full((10, 2), 20), [[30, 30]]])
    return (points + rng.normal(scale=0.1, size=points.shape)).astype(np.float32), np.repeat([0, 1, 4], [100, 10, 1])


@pytest.mark.parametrize("full", [10_000, 50], ids=["kmeans", "mini-batches"])
def test_heaps_are_found_class_by_class(blobs, monkeypatch, full):
    monkeypatch.setattr(clusters, "FULL_KMEANS", full)
    points, classes = blobs
    found = cluster_classes(points, classes, size=25, seed=0)
    assert found.classes.tolist() == [0, 0, 0, 0, 1, 4]
    for heap in range(4):
        assert len(set(found.cluster[25 * heap : 25 * heap + 25])) == 1
    for number, of_class in enumerate(found.classes):
        members = found.cluster == number
        assert set(classes[members]) == {of_class}
        np.testing.assert_allclose(found.centres[number], points[members].mean(axis=0), rtol=1e-5)


def test_so_many_clusters_as_the_rule_says():
    points = np.random.default_rng(1).normal(size=(36, 3)).astype(np.float32)
    counts = np.unique(cluster_classes(points, np.repeat([0, 1, 2], [29, 4, 3]), size=10, seed=0).classes, return_counts=True)
    assert counts[1].tolist() == [3, 1, 1]  # round(2.9), round(0.4) and round(0.3) are at least 1


def test_points_that_coincide_make_fewer_clusters_and_no_warning(recwarn):
    found = cluster_classes(np.ones((10, 2), np.float32), np.zeros(10, int), size=2, seed=0)
    assert found.centres.tolist() == [[1, 1]] and not found.cluster.any()
    assert not recwarn.list


def test_a_seed_gives_the_same_again():
    points, classes = np.random.default_rng(2).normal(size=(400, 4)).astype(np.float32), np.zeros(400, int)
    first, again, other = (cluster_classes(points, classes, size=10, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.cluster, again.cluster)
    np.testing.assert_array_equal(first.centres, again.centres)
    assert (first.cluster != other.cluster).any()


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="size must be >= 1, received 0"):
        cluster_classes(np.ones((2, 2)), np.zeros(2, int), size=0, seed=0)
    with pytest.raises(ValueError, match=r"features must be \[n, D\] and classes \[n\]"):
        cluster_classes(np.ones((2, 2)), np.zeros(3, int), size=1, seed=0)
