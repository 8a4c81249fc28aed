"""The decision against the rule in plain loops, and that it is always one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf.layers.cluster_decision import ClusterDecision


def by_hand(query, centres, classes, neighbours, num_classes):
    distance = [((query - centre) ** 2).sum() for centre in centres]
    near = sorted(range(len(centres)), key=lambda i: distance[i])[:neighbours]
    scores = []
    for c in range(num_classes):
        own = [distance[i] for i in near if classes[i] == c]
        other = [distance[i] for i in near if classes[i] != c]
        anywhere = [distance[i] for i in range(len(centres)) if classes[i] == c]
        if own:
            scores.append(min(other, default=4.0) - max(own))
        else:
            scores.append(-5.0 - min(anywhere) if anywhere else -10.0)
    return scores


def unit(points):
    return (points / np.linalg.norm(points, axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("neighbours", [1, 2, 5, 12, 20])
@pytest.mark.parametrize("num_classes", [2, 5])
def test_scores_are_those_of_the_rule(neighbours, num_classes):
    rng = np.random.default_rng(neighbours)
    centres = unit(rng.normal(size=(12, 3))) * rng.uniform(0.5, 1, (12, 1)).astype(np.float32)
    classes = rng.integers(0, max(2, num_classes - 1), 12)  # of five classes, the last has no cluster
    queries = unit(rng.normal(size=(50, 3)))
    layer = ClusterDecision.of(centres, classes, num_classes=num_classes, neighbours=neighbours)
    expected = np.array([by_hand(query, centres, classes, neighbours, num_classes) for query in queries])
    scores = layer(queries).numpy()
    np.testing.assert_allclose(scores, expected, atol=2e-6)
    # A class without a neighbour is below every one that has one.
    for query, row in zip(queries, scores, strict=True):
        near = np.argsort(((centres - query) ** 2).sum(axis=1))[:neighbours]
        present = np.isin(np.arange(num_classes), classes[near])
        assert present.all() or row[~present].max() < row[present].min()


def test_a_margin_beats_a_nearer_centre():
    # Three clusters around the query: of class 0 at squared distances 0.1 and 1.5, of class 1 at 0.2.
    centres = np.sqrt(np.array([[0.1, 0], [1.5, 0], [0, 0.2]]))
    scores = ClusterDecision.of(centres, [0, 0, 1], num_classes=2, neighbours=3)(tf.zeros([1, 2])).numpy()
    np.testing.assert_allclose(scores, [[0.2 - 1.5, 0.1 - 0.2]], atol=1e-6)
    assert scores.argmax() == 1


def test_one_cluster_and_features_of_zeros():
    scores = ClusterDecision.of([[1.0, 0.0]], [1], num_classes=3, neighbours=20)(tf.zeros([2, 2])).numpy()
    np.testing.assert_allclose(scores, [[-10, 4 - 1, -10]] * 2)


def test_it_is_saved_with_its_clusters(tmp_path):
    inputs = keras.Input((2,))
    layer = ClusterDecision.of([[1.0, 0.0], [0.0, 1.0]], [0, 2], num_classes=3, neighbours=2)
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "x.keras")
    points = unit(np.random.default_rng(0).normal(size=(5, 2)))
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "x.keras")(points), model(points))
    assert not model.trainable_variables


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match=r"centres must be \[K, D\] and classes \[K\]"):
        ClusterDecision.of([[1.0, 0.0]], [0, 1], num_classes=2, neighbours=1)
    with pytest.raises(ValueError, match="clusters and neighbours must be >= 1, received 1 and 0"):
        ClusterDecision(2, 1, 0)
