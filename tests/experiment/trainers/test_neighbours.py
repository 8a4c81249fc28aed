"""Which training images become references."""

import numpy as np
import pytest

from crl_tf.experiment.trainers.neighbours import choose_references


def test_references_hold_every_class_that_occurs():
    rng = np.random.default_rng(0)
    labels = np.where(rng.random((1000, 2)) < 0.5, -1, 0)
    labels[17, 0], labels[500, 1], labels[501, 1] = 1, 3, 2
    unknown = (labels < 0).all(axis=1)
    for seed in range(5):
        references = choose_references(labels, 30, seed)
        assert len(references) == len(set(references)) == 30 and (np.diff(references) > 0).all()
        assert {17, 500, 501} <= set(references) and not unknown[references].any()
    assert set(choose_references(labels, 30, 0)) != set(choose_references(labels, 30, 1))
    np.testing.assert_array_equal(choose_references(labels, 30, 0), choose_references(labels, 30, 0))
    np.testing.assert_array_equal(choose_references(labels, 5000, 0), np.flatnonzero(~unknown))


def test_too_few_references_are_refused():
    with pytest.raises(ValueError, match=r"embedding\.references must be 3 or more to keep one image of each class, received 2"):
        choose_references(np.array([[0], [1], [2], [0]]), 2, 0)
    with pytest.raises(ValueError, match="no training image has an annotation"):
        choose_references(np.full((3, 2), -1), 2, 0)
