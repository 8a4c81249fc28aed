"""The balance of `CRL`: alpha, from the class counts or given; the names of bad arguments."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from objective_cases import TOLERANCE, batch_of
from oracle import oracle_alpha, oracle_objective

import crl_tf
from crl_tf import CRL


@pytest.mark.parametrize("eta", [0.01, 0.5, 2.0])
def test_alpha_follows_from_the_class_counts(eta):
    num_classes, counts = [2, 3, 2], [[900, 100], [50, 50, 50], [10, 0]]
    # Omega: 800 / (2 * 900) = 0.444..; 0 (balanced); 10 / (2 * 10) = 0.5. eta = 2: 0.888.., 0, 1 (= 2 * 0.5).
    alpha = [min(1.0, eta * omega) for omega in (800 / 1800, 0.0, 0.5)]
    assert alpha == pytest.approx(oracle_alpha(counts, eta))
    labels, logits, _ = batch_of(11, 24, num_classes)
    value = CRL(num_classes, class_counts=counts, eta=eta)(labels, logits)
    np.testing.assert_allclose(value, oracle_objective(labels, logits, num_classes, alpha), **TOLERANCE)


def test_alpha_is_clipped_at_1():
    """Omega = 90 / (2 * 100) = 0.45 and eta = 10: alpha is 1, not 4.5; what is left is the rectification alone."""
    labels, logits, _ = batch_of(12, 24, [2])
    value = CRL(2, class_counts=[100, 10], eta=10.0)(labels, logits)
    np.testing.assert_allclose(value, oracle_objective(labels, logits, [2], [1.0]), **TOLERANCE)


def test_eta_is_0_01_by_default():
    labels, logits, _ = batch_of(13, 24, [2])
    value = CRL(2, class_counts=[100, 10])(labels, logits)
    np.testing.assert_allclose(value, oracle_objective(labels, logits, [2], [0.0045]), rtol=1e-6)
    assert abs(oracle_objective(labels, logits, [2], [0.0045]) - oracle_objective(labels, logits, [2], [0.0])) > 1e-5


def test_alpha_goes_before_the_class_counts():
    labels, logits, _ = batch_of(14, 24, [2, 3])
    value = CRL([2, 3], class_counts=[[9, 1], [5, 3, 1]], eta=0.5, alpha=0.8)(labels, logits)
    np.testing.assert_allclose(value, oracle_objective(labels, logits, [2, 3], [0.8, 0.8]), **TOLERANCE)


def test_alpha_0_is_the_cross_entropy_and_1_the_rectification():
    labels, logits, _ = batch_of(15, 24, [4])
    reference = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels[:, 0], logits)
    np.testing.assert_allclose(CRL(4, alpha=0.0)(labels, logits), reference, rtol=1e-5)
    np.testing.assert_allclose(
        CRL(4, alpha=1.0)(labels, logits), crl_tf.class_rectification_loss(labels, logits, num_classes=4)[0], rtol=1e-5
    )


def test_neither_alpha_nor_class_counts():
    with pytest.raises(ValueError, match=r"class_counts.*alpha|alpha.*class_counts"):
        CRL(3)


@pytest.mark.parametrize(
    ("names", "arguments"),
    [
        ("num_classes", {"num_classes": 1, "alpha": 0.5}),
        ("num_classes", {"num_classes": [], "alpha": 0.5}),
        ("level", {"level": "pixel", "alpha": 0.5}),
        ("comparison", {"comparison": "triplet", "alpha": 0.5}),
        ("scope", {"scope": "most", "alpha": 0.5}),
        ("kappa", {"kappa": 0, "alpha": 0.5}),
        ("rho", {"rho": 0.0, "alpha": 0.5}),
        ("margin", {"margin": -1.0, "alpha": 0.5}),
        ("margin", {"margin": 0.5, "comparison": "distribution", "alpha": 0.5}),
        ("num_bins", {"num_bins": 1, "alpha": 0.5}),
        ("alpha", {"alpha": 1.5}),
        ("alpha", {"alpha": -0.1}),
        ("alpha", {"alpha": [0.5, 0.5, 0.5]}),
        ("eta", {"eta": -1.0, "class_counts": [[9, 1], [5, 3, 1]]}),
        ("class_counts", {"class_counts": [[9, 1], [5, 3]]}),
        ("class_counts", {"class_counts": [[9, 1]]}),
        ("feature_shape", {"feature_shape": (5, 4), "level": "instance", "alpha": 0.5}),
        ("feature_shape", {"feature_shape": 0, "level": "instance", "alpha": 0.5}),
    ],
)
def test_a_bad_argument_is_named(names, arguments):
    with pytest.raises(ValueError, match=rf"\b({names})\b"):
        CRL(**{"num_classes": [2, 3], **arguments})


@pytest.mark.parametrize(
    ("names", "y_true", "y_pred"),
    [
        ("y_pred", np.zeros((4, 2), np.int32), np.zeros((4, 6), np.float32)),
        ("y_pred", np.zeros((4, 2), np.int32), np.zeros((4, 2), np.float32)),  # sigmoid logits need binary labels
        ("y_pred", np.zeros((4, 2), np.int32), np.zeros((4, 5, 1), np.float32)),
        ("y_true", np.zeros((4, 3), np.int32), np.zeros((4, 5), np.float32)),
        ("y_true", np.zeros((4,), np.int32), np.zeros((4, 5), np.float32)),
        ("y_true|labels", np.array([[0, 0], [0, 3], [1, 1], [0, 2]]), np.zeros((4, 5), np.float32)),
        ("y_true|labels", np.array([[0, 0], [2, 2], [1, 1], [0, 2]]), np.zeros((4, 5), np.float32)),
        ("y_true|labels", np.array([[0, 0], [-2, 2], [1, 1], [0, 2]]), np.zeros((4, 5), np.float32)),
    ],
)
def test_bad_targets_and_predictions_are_named(names, y_true, y_pred):
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=rf"\b({names})\b"):
        CRL([2, 3], alpha=0.5)(y_true, y_pred)


def test_the_instance_level_without_features():
    with pytest.raises(ValueError, match=r"\bfeature_shape\b"):
        CRL([2, 3], level="instance", alpha=0.5)(np.zeros((4, 2), np.int32), np.zeros((4, 5), np.float32))
