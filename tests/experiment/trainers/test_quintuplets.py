"""Clusters of every class, quintuplets against a loop over all samples, and the anchors that a batch draws."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from crl_tf.experiment.trainers import quintuplets
from crl_tf.experiment.trainers.quintuplets import (
    Clusters,
    Quintuplets,
    class_costs,
    cluster_classes,
    draw_anchors,
    find_quintuplets,
    geometric_margins,
    random_half,
)


@pytest.fixture
def blobs():
    """Class 0 in four heaps of 25, class 1 in one of 10, class 4 a single point."""
    rng = np.random.default_rng(0)
    corners = np.array([[0, 0], [9, 0], [0, 9], [9, 9]])
    points = np.concatenate([np.repeat(corners, 25, axis=0), np.full((10, 2), 20), [[30, 30]]])
    return (points + rng.normal(scale=0.1, size=points.shape)).astype(np.float32), np.repeat([0, 1, 4], [100, 10, 1])


@pytest.mark.parametrize("full", [10_000, 50], ids=["kmeans", "mini-batches"])
def test_heaps_are_found_class_by_class(blobs, monkeypatch, full):
    monkeypatch.setattr(quintuplets, "FULL_KMEANS", full)
    points, classes = blobs
    clusters = cluster_classes(points, classes, size=25, seed=0)
    assert clusters.classes.tolist() == [0, 0, 0, 0, 1, 4]
    for heap in range(4):
        assert len(set(clusters.cluster[25 * heap : 25 * heap + 25])) == 1
    for number, of_class in enumerate(clusters.classes):
        members = clusters.cluster == number
        assert set(classes[members]) == {of_class}
        np.testing.assert_allclose(clusters.centres[number], points[members].mean(axis=0), rtol=1e-5)


def test_so_many_clusters_as_the_rule_says():
    points = np.random.default_rng(1).normal(size=(36, 3)).astype(np.float32)
    counts = np.unique(cluster_classes(points, np.repeat([0, 1, 2], [29, 4, 3]), size=10, seed=0).classes, return_counts=True)
    assert counts[1].tolist() == [3, 1, 1]  # round(2.9), round(0.4) and round(0.3) are at least 1


def test_points_that_coincide_make_fewer_clusters_and_no_warning(recwarn):
    clusters = cluster_classes(np.ones((10, 2), np.float32), np.zeros(10, int), size=2, seed=0)
    assert clusters.centres.tolist() == [[1, 1]] and not clusters.cluster.any()
    assert not recwarn.list


def test_a_seed_gives_the_same_clusters_again():
    points, classes = np.random.default_rng(2).normal(size=(400, 4)).astype(np.float32), np.zeros(400, int)
    first, again, other = (cluster_classes(points, classes, size=10, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.cluster, again.cluster)
    np.testing.assert_array_equal(first.centres, again.centres)
    assert (first.cluster != other.cluster).any()


def test_what_cannot_be_clustered_is_refused():
    with pytest.raises(ValueError, match="size must be >= 1, received 0"):
        cluster_classes(np.ones((2, 2)), np.zeros(2, int), size=0, seed=0)
    with pytest.raises(ValueError, match=r"features must be \[n, D\] and classes \[n\]"):
        cluster_classes(np.ones((2, 2)), np.zeros(3, int), size=1, seed=0)


def test_of_ten_starts_the_tightest_clusters_are_taken():
    """Against single starts of scikit-learn's k-means, of the same number of clusters."""
    points = np.random.default_rng(3).normal(size=(60, 2)).astype(np.float32)
    clusters = cluster_classes(points, np.zeros(60, int), size=5, seed=0)

    def spread(centres, cluster):
        return ((points - centres[cluster]) ** 2).sum()

    single = [KMeans(12, n_init=1, random_state=seed).fit(points) for seed in range(40)]
    spreads = sorted(spread(one.cluster_centers_, one.labels_) for one in single)
    # The best of ten is among the best tenth of single starts in two thirds of all seeds, and above the median in 0.1 %.
    assert len(clusters.classes) == 12 and spread(clusters.centres, clusters.cluster) < spreads[20]


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
@pytest.mark.parametrize(("non_negative", "circle"), [(False, 1.0), (True, 0.25)])
def test_margins_are_chords_of_arcs_by_loops(share, non_negative, circle):
    """Each arc laid on a circle, or a quarter of one, and measured from end to end; more than half a circle has the diameter."""
    of_cluster = np.array([0, 0, 0, 2, 5, 5])
    cluster = np.repeat(np.arange(6), [30, 20, 40, 10, 3, 7])
    margins = geometric_margins(Clusters(cluster, np.zeros((6, 2)), of_cluster), share, non_negative=non_negative)
    assert margins.shape == (110, 3) and margins.dtype == np.float32
    for i in range(110):
        of_class = [j for j in range(110) if of_cluster[cluster[j]] == of_cluster[cluster[i]]]
        size = len(of_class) / len({int(cluster[j]) for j in of_class})
        arcs = (share * size / 110, share * (len(of_class) - size) / 110, 1 / 3)  # of what there is of the circle
        for margin, arc in zip(margins[i], arcs, strict=True):
            ends = [np.exp(2j * np.pi * part) for part in (0.0, min(circle * arc, 0.5))]
            assert margin == pytest.approx(abs(ends[1] - ends[0]), abs=1e-6)


def test_margins_of_two_classes_and_of_one():
    two, one = (
        Clusters(np.array([0, 1, 1, 2]), np.zeros((3, 1)), np.array([0, 0, 1])),
        Clusters(np.zeros(3, int), *[np.zeros(1)] * 2),
    )
    assert geometric_margins(two, 0.5, non_negative=False)[:, 2].tolist() == [2, 2, 2, 2]
    np.testing.assert_allclose(geometric_margins(two, 0.5, non_negative=True)[:, 2], [2 * np.sin(np.pi / 8)] * 4, rtol=1e-6)
    assert geometric_margins(one, 0.5, non_negative=False)[:, 1:].tolist() == [[0, 2]] * 3
    with pytest.raises(ValueError, match=r"occupied_share must be a number in \(0, 1\], received 0"):
        geometric_margins(two, 0, non_negative=False)


@pytest.mark.parametrize("counts", [(1, 99), (50, 50), (98, 1, 1), (30, 30, 40)])
def test_hinges_of_features_that_are_not_negative_can_all_close(counts):
    """At half the sphere occupied, the three margins of a sample are less than the largest squared distance, 2."""
    for clusters_of_first in (1, 2, 5):
        clusters_of_class = [min(clusters_of_first, counts[0]), *[1] * (len(counts) - 1)]
        of_cluster = np.repeat(np.arange(len(counts)), clusters_of_class)
        cluster = np.concatenate(
            [
                np.arange(n) % m + sum(clusters_of_class[:k])
                for k, (n, m) in enumerate(zip(counts, clusters_of_class, strict=True))
            ]
        )
        margins = geometric_margins(Clusters(cluster, np.zeros((len(of_cluster), 1)), of_cluster), 0.5, non_negative=True)
        assert margins.sum(axis=1).max() < 2


def test_half_of_each_class_is_drawn_at_random():
    classes = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3, 7], [100, 7, 3, 2, 1]))
    halves = [random_half(classes, np.random.default_rng(seed)) for seed in (0, 0, *range(1, 200))]
    for half in halves:
        assert (np.diff(half) > 0).all()
        assert [int((classes[half] == k).sum()) for k in (0, 1, 2, 3, 7)] == [50, 4, 2, 2, 1]
    assert (halves[0] == halves[1]).all() and (halves[1] != halves[2]).any()
    times = np.bincount(np.concatenate(halves[1:]), minlength=len(classes))
    # Of 200 draws half, with an error of 7.
    assert np.abs(times[classes == 0] - 100).max() < 5 * 7.1


def test_a_cluster_that_no_drawn_sample_is_of_is_passed_over():
    points, cluster, of_cluster = sample(4, [0, 0, 0, 1, 1])
    kept = np.flatnonzero((cluster != 1) & (cluster != 4))
    fives = find_quintuplets(points[kept], Clusters(cluster[kept], points[:5], of_cluster))
    index, valid = by_hand(points[kept], cluster[kept], of_cluster)
    np.testing.assert_array_equal(fives.index, index)
    np.testing.assert_array_equal(fives.valid, valid)


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
def test_quintuplets_are_what_a_search_of_everything_finds(monkeypatch, of_cluster, at_once):
    monkeypatch.setattr(quintuplets, "DISTANCES_AT_ONCE", at_once)
    points, cluster, of_cluster = sample(0, of_cluster)
    fives = find_quintuplets(points, Clusters(cluster, points[: len(of_cluster)], of_cluster))
    index, valid = by_hand(points, cluster, of_cluster)
    np.testing.assert_array_equal(fives.index, index)
    np.testing.assert_array_equal(fives.valid, valid)


def test_clusters_and_classes_of_one_sample():
    of_cluster = np.array([0, 0, 1])
    points, cluster = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32), np.array([0, 0, 0, 1, 2])
    fives = find_quintuplets(points, Clusters(cluster, points[:3], of_cluster))
    index, valid = by_hand(points, cluster, of_cluster)
    np.testing.assert_array_equal(fives.index, index)
    np.testing.assert_array_equal(fives.valid, valid)
    assert fives.usable.tolist() == [True, True, True, True, False]


def test_points_that_coincide_are_still_someone_else():
    fives = find_quintuplets(np.ones((4, 2), np.float32), Clusters(np.array([0, 0, 1, 1]), np.ones((2, 2)), np.array([0, 1])))
    assert (fives.index[:, 1] != fives.index[:, 0]).all() and (fives.index[:, 3] != fives.index[:, 0]).all()


def test_usable_takes_two_neighbouring_samples():
    valid = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], bool)
    assert Quintuplets(np.zeros((5, 5), int), valid).usable.tolist() == [False, False, True, True, True]


def test_classes_are_drawn_equally_within_a_batch_and_over_all():
    classes = np.repeat([0, 1, 2, 7], [500, 40, 3, 1])
    usable = classes != 7
    usable[0] = False
    drawn = draw_anchors(classes, usable, batches=30, size=7, rng=np.random.default_rng(0))
    assert drawn.shape == (30, 7) and usable[drawn].all()
    for batch in classes[drawn]:
        counts = np.bincount(batch, minlength=3)
        assert counts.min() >= 1 and counts.max() <= 4  # 7 anchors of 3 classes, a turn cut at either end
    assert np.bincount(classes[drawn].ravel()).tolist() == [70, 70, 70]
    assert set(drawn[classes[drawn] == 2]) == {540, 541, 542}


def test_more_classes_than_anchors_take_turns_across_batches():
    classes = np.arange(6)
    drawn = draw_anchors(classes, np.ones(6, bool), batches=3, size=2, rng=np.random.default_rng(0))
    assert sorted(drawn.ravel()) == list(range(6))


def test_anchors_follow_from_the_generator():
    classes, usable = np.repeat([0, 1], [50, 5]), np.ones(55, bool)
    draws = [draw_anchors(classes, usable, batches=4, size=5, rng=np.random.default_rng(s)) for s in (0, 0, 1)]
    assert (draws[0] == draws[1]).all() and (draws[0] != draws[2]).any()


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="usable must hold at least one sample, received none"):
        draw_anchors(np.zeros(3, int), np.zeros(3, bool), batches=1, size=1, rng=np.random.default_rng(0))


def test_costs_make_the_classes_of_a_batch_weigh_the_same():
    costs = class_costs(np.array([[0, 0, 0, 4], [1, 1, 1, 1], [2, 2, 0, 0]]))
    np.testing.assert_allclose(costs, [[4 / 6, 4 / 6, 4 / 6, 4 / 2], [1] * 4, [1] * 4], rtol=1e-6)
    assert costs.dtype == np.float32
