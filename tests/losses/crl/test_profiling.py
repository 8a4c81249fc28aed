"""`minority_classes`, eq. 3: by hand, against the oracle, and the names of bad input."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from oracle import oracle_minority
from rectification_cases import GOOD, random_case

from crl_tf import minority_classes


@pytest.mark.parametrize(
    ("counts", "rho", "scope", "expected"),
    [
        ([5, 3], 0.5, "minority", [1]),  # 3 <= 4
        ([4, 4], 0.5, "minority", [0]),  # a tie: class 0 first, 4 <= 4; then 8 > 4
        ([3, 3, 3], 0.5, "minority", [0]),  # 3 <= 4.5; 6 > 4.5
        ([2, 2, 2, 2], 0.5, "minority", [0, 1]),  # 2, 4 <= 4
        ([6, 0, 1, 2, 3], 0.5, "minority", [3, 4]),  # 0, 1, 3, 6 <= 6 of n = 12; class 2 is a singleton
        ([1, 1, 1, 1, 4], 0.5, "minority", []),  # four singletons
        ([0, 8, 0], 0.5, "minority", []),
        ([3, 5, 2], 0.3, "minority", [2]),  # 2 <= 3; 5 > 3
        ([3, 5, 2], 0.2, "minority", [2]),  # 2 <= 2
        ([3, 5, 2], 0.19, "minority", []),  # 2 > 1.9
        ([3, 5, 2], 1.0, "minority", [0, 1, 2]),  # 2, 5, 10 <= 10
        ([29, 71], 0.29, "minority", [0]),  # 0.29 * 100 is 28.999999999999996 in binary: the tolerance of 1e-9
        ([43, 57], 0.43, "minority", [0]),
        ([7, 3], 0.29, "minority", []),  # 3 > 2.9
        ([3, 5, 1, 0, 2], 0.5, "all", [0, 1, 4]),  # h >= 2
        ([0, 8, 0], 0.5, "all", [1]),
    ],
)
def test_minority_classes_by_hand(counts, rho, scope, expected):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    mask = minority_classes(labels, len(counts), rho=rho, scope=scope)
    assert mask.dtype == tf.bool and mask.shape == (1, len(counts))
    assert np.flatnonzero(mask.numpy()[0]).tolist() == expected
    assert np.flatnonzero(oracle_minority(labels[:, None], [len(counts)], rho, scope)[0]).tolist() == expected


def test_minority_classes_of_several_labels():
    """-1 is not counted, neither in h nor in n; the padding behind a short label is False."""
    labels = np.array([[0, 2], [1, 2], [0, -1], [-1, 0], [-1, 1], [1, 1], [0, -1], [-1, 2], [-1, 2], [-1, -1]])
    # Label 0: counts 3, 2 of n = 5: class 1 (2 <= 2.5); a budget over all 10 samples would let class 0 in, too (5 <= 5).
    # Label 1: counts 1, 2, 4, 0 of n = 7: 0, 1, 3 <= 3.5: classes 3, 0, 1; class 3 is absent, class 0 a singleton.
    expected = [[False, True, False, False], [False, True, False, False]]
    np.testing.assert_array_equal(minority_classes(labels, [2, 4]), expected)
    # scope="all": label 0 both; label 1: classes 1 and 2.
    expected = [[True, True, False, False], [False, True, True, False]]
    np.testing.assert_array_equal(minority_classes(labels, [2, 4], scope="all"), expected)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("scope", ["minority", "all"])
def test_minority_classes_equal_the_oracle(seed, scope):
    rng = np.random.default_rng(100 + seed)
    case = random_case(100 + seed, 30, [2, 7, 12, 4], skew=rng.uniform(0, 2))
    case.labels[rng.random(case.labels.shape) < 0.15] = -1
    rho = float(rng.choice([0.1, 0.3, 0.5, 0.7, 0.9]))
    mask = minority_classes(case.labels, case.num_classes, rho=rho, scope=scope)
    np.testing.assert_array_equal(mask, oracle_minority(case.labels, case.num_classes, rho, scope))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("labels", {"labels": np.zeros((4, 3), np.int32)}),
        ("labels", {"labels": np.zeros((4, 2), np.float32)}),
        ("num_classes", {"num_classes": [1, 3]}),
        ("rho", {"rho": 0.0}),
        ("rho", {"rho": 1.5}),
        ("scope", {"scope": "few"}),
    ],
)
def test_minority_classes_name_bad_input(name, changes):
    arguments = {"labels": GOOD["labels"], "num_classes": [2, 3], **changes}
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        minority_classes(**arguments)
