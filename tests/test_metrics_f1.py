"""Macro F1 over the classes that occur, by hand and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from crl_tf.metrics import macro_f1


def test_by_hand():
    # Class 0: TP 6, FN 2, FP 3; class 1: TP 1, FN 3, FP 2.
    confusion = np.array([[6, 2], [3, 1]])
    assert macro_f1(confusion) == pytest.approx((12 / (12 + 3 + 2) + 2 / (2 + 2 + 3)) / 2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("classes", "occurring"), [(2, [0, 1]), (5, [0, 2, 3]), (7, [6])])
def test_as_scikit_learn_says_over_the_classes_that_occur(seed, classes, occurring):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.choice(occurring, 60), rng.integers(0, classes, 60)
    confusion = confusion_matrix(truth, predicted, labels=range(classes))
    expected = f1_score(truth, predicted, average="macro", labels=np.unique(truth), zero_division=0)
    assert macro_f1(confusion) == pytest.approx(expected, abs=1e-12)


def test_a_class_never_found_counts_as_0_and_one_never_seen_does_not_count():
    assert macro_f1([[4, 0], [4, 0]]) == pytest.approx((8 / 12 + 0) / 2)
    assert macro_f1([[3, 1], [0, 0]]) == pytest.approx(6 / 7)


def test_of_no_sample_is_nan():
    assert math.isnan(macro_f1(np.zeros((3, 3), int)))
