"""The nearest training images."""

import numpy as np
import pytest

from crl_tf.serving.neighbours import MOST, Neighbours


def neighbours(features):
    count = len(features)
    return Neighbours(features=features, thumbnail=lambda index: b"", captions=["x"] * count, labels=[{}] * count)


def test_the_nearest_by_cosine_come_first():
    found = neighbours(np.array([[1, 0], [0, 2], [3, 3], [-1, 0]])).nearest(np.array([10, 1]), 3)
    assert [near.index for near in found] == [0, 2, 1]
    assert found[0].similarity == pytest.approx(10 / np.sqrt(101))


def test_they_are_those_of_a_full_sort():
    rng = np.random.default_rng(0)
    features, wanted = rng.normal(size=(500, 4, 3)), rng.normal(size=(4, 3))
    cosine = [np.sum(row * wanted) / np.linalg.norm(row) / np.linalg.norm(wanted) for row in features]
    found = neighbours(features).nearest(wanted, 7)
    assert [near.index for near in found] == np.argsort(cosine)[::-1][:7].tolist()


def test_there_are_at_most_as_many_as_asked_allowed_and_known():
    assert len(neighbours(np.eye(3)).nearest(np.ones(3), 100)) == 3
    assert len(neighbours(np.eye(50)).nearest(np.ones(50), 100)) == MOST
    assert neighbours(np.zeros((0, 3))).nearest(np.ones(3), 5) == []
    assert neighbours(np.eye(3)).nearest(np.full(3, np.nan), 5) == []


def test_an_image_without_features_is_near_to_nothing():
    assert [near.similarity for near in neighbours(np.zeros((2, 3))).nearest(np.ones(3), 5)] == [0, 0]


def test_features_captions_and_labels_belong_together():
    with pytest.raises(ValueError, match="of the same images, received"):
        Neighbours(features=np.eye(3), thumbnail=lambda index: b"", captions=["a"], labels=[{}] * 3)
    with pytest.raises(ValueError, match="must be finite"):
        neighbours(np.full((2, 3), np.nan))
