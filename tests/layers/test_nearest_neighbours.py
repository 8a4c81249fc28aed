"""k nearest neighbours against scikit-learn's, label by label."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.neighbors import KNeighborsClassifier

from crl_tf.layers.nearest_neighbours import NearestNeighbours

SIZES = [2, 4, 3]


@pytest.fixture(params=[(True, False), (True, True), (False, False)], ids=["shared", "incomplete", "by label"])
def case(request):
    """Features, labels and queries; of the second label's four classes one does not occur."""
    shared, missing = request.param
    rng = np.random.default_rng(0)
    shape = (5,) if shared else (3, 5)
    labels = np.stack([rng.integers(0, most, 80) for most in (2, 3, 3)], axis=1)
    if missing:
        labels[rng.random(labels.shape) < 0.3] = -1
    return rng.normal(size=(80, *shape)).astype(np.float32), labels, rng.normal(size=(40, *shape)).astype(np.float32)


@pytest.mark.parametrize("neighbours", [1, 4, 7])
def test_votes_are_scikit_learns_and_ties_go_to_the_nearest(case, neighbours):
    features, labels, queries = case
    logits = NearestNeighbours.of(features, labels, num_classes=SIZES, neighbours=neighbours)(queries).numpy()
    assert np.isfinite(logits).all()
    start, ties = 0, 0
    for label, size in enumerate(SIZES):
        known = labels[:, label] >= 0
        mine, theirs = (x if x.ndim == 2 else x[:, label] for x in (features, queries))
        knn = KNeighborsClassifier(neighbours, algorithm="brute").fit(mine[known], labels[known, label])
        votes = np.zeros((len(queries), size))
        votes[:, knn.classes_] = knn.predict_proba(theirs)
        of_label = logits[:, start : start + size]
        start += size
        shares = np.exp(of_label) / np.exp(of_label).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(shares, votes, atol=0.012)
        nearest = labels[known, label][knn.kneighbors(theirs, return_distance=False)]
        for row, classes, decided in zip(votes, nearest, of_label.argmax(axis=1), strict=True):
            most = np.flatnonzero(np.isclose(row, row.max()))
            ties += len(most) > 1
            assert decided == next(value for value in classes if value in most)
    assert ties or neighbours == 1


def test_fewer_annotated_references_than_neighbours_still_vote():
    layer = NearestNeighbours.of([[0.0], [1.0], [2.0], [3.0]], [[1], [-1], [-1], [-1]], num_classes=[3], neighbours=3)
    shares = tf.nn.softmax(layer(tf.constant([[2.5]]))).numpy()[0]
    np.testing.assert_allclose(shares, [0, 1, 0], atol=2e-3)


@pytest.mark.parametrize("missing", [False, True])
def test_it_is_saved_with_its_references(tmp_path, missing):
    rng = np.random.default_rng(1)
    labels = rng.integers(-1 if missing else 0, 2, (20, 3))
    inputs = keras.Input((4,))
    layer = NearestNeighbours.of(rng.normal(size=(20, 4)), labels, num_classes=SIZES, neighbours=5)
    assert layer.complete is not missing
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "x.keras")
    points = rng.normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "x.keras")(points), model(points), rtol=1e-6)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match=r"features must be \[R, ...\] and labels \[R, L\]"):
        NearestNeighbours.of(np.zeros((3, 2)), np.zeros((2, 1), int), num_classes=2, neighbours=1)
    with pytest.raises(ValueError, match=r"features must be \[B, D\] or \[B, 3, D\], received"):
        NearestNeighbours.of(np.zeros((3, 2, 4)), np.zeros((3, 3), int), num_classes=SIZES, neighbours=1)
    with pytest.raises(ValueError, match="references and neighbours must be >= 1"):
        NearestNeighbours(2, 0, 1)
