"""The value of `CRL`, the Keras loss of eq. 8: by hand, and against the oracle for every form of targets and predictions."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from objective_cases import TOLERANCE, batch_of, one_hot, probabilities_of
from oracle import finite_difference_gradient, oracle_cross_entropy, oracle_objective
from variants import every_variant

from crl_tf import CRL


@pytest.mark.parametrize("comparison", ["relative", "absolute", "distribution"])
@pytest.mark.parametrize("num_classes", [[2], [6], [3, 2, 5]], ids=str)
def test_the_class_level_equals_the_oracle(num_classes, comparison):
    labels, logits, _ = batch_of(1, 24, num_classes, unannotated=0.1)
    alpha = [0.7, 0.2, 0.5][: len(num_classes)]
    value = CRL(num_classes, comparison=comparison, alpha=alpha, kappa=4)(labels, logits)
    assert value.shape == () and value.dtype == tf.float32
    expected = oracle_objective(labels, logits, num_classes, alpha, comparison=comparison, kappa=4)
    np.testing.assert_allclose(value, expected, **TOLERANCE)


def test_the_options_reach_the_rectification():
    num_classes = [4, 3]
    labels, logits, _ = batch_of(2, 72, num_classes)
    seen = []
    for options in (
        {},
        {"kappa": 1},
        {"kappa": None},
        {"rho": 0.8, "kappa": 3},
        {"margin": 0.1},
        {"scope": "all"},
        {"comparison": "distribution"},
        {"comparison": "distribution", "num_bins": 5},
    ):
        value = float(CRL(num_classes, alpha=0.9, **options)(labels, logits))
        assert value == pytest.approx(oracle_objective(labels, logits, num_classes, [0.9, 0.9], **options), abs=1e-5)
        seen.append(value)
    assert min(abs(x - y) for k, x in enumerate(seen) for y in seen[:k]) > 1e-4  # each of them tells


def test_by_hand():
    """p of class 1: 0.6, 0.8 (class 1), 0.1, 0.3, 0.5 (class 0); L_crl = 0.4 (kappa 2: see hand_worked.py)."""
    p = np.array([0.6, 0.8, 0.1, 0.3, 0.5])
    logits = np.stack([np.zeros(5), np.log(p / (1 - p))], axis=1).astype(np.float32)
    cross_entropy = -(np.log(0.6) + np.log(0.8) + np.log(0.9) + np.log(0.7) + np.log(0.5)) / 5
    value = CRL(2, alpha=0.25, kappa=2)(np.array([1, 1, 0, 0, 0]), logits)
    np.testing.assert_allclose(value, 0.25 * 0.4 + 0.75 * cross_entropy, **TOLERANCE)


@every_variant
def test_gradient_of_the_objective(level, comparison):
    """Finite differences of the oracle with respect to y_pred, features and logits alike."""
    num_classes, alpha = [3, 2], [0.6, 0.3]
    labels, logits, features = batch_of(3, 12, num_classes, dim=3, unannotated=0.1)
    instance = level == "instance"
    y_pred = np.concatenate([features.reshape(12, -1), logits], axis=1) if instance else logits
    loss = CRL(num_classes, level=level, comparison=comparison, alpha=alpha, feature_shape=(2, 3) if instance else None)
    x = tf.constant(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(labels, x)
    gradient = tape.gradient(value, x).numpy()

    def f(y):
        apart = y[:, :-5].reshape(12, 2, 3) if instance else None
        return oracle_objective(labels, y[:, -5:], num_classes, alpha, apart, level, comparison=comparison)

    np.testing.assert_allclose(value, f(y_pred), **TOLERANCE)
    slopes = finite_difference_gradient(f, y_pred)
    np.testing.assert_allclose(gradient, slopes, rtol=0, atol=1e-4 * np.abs(slopes).max())


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("comparison", ["relative", "absolute", "distribution"])
def test_the_instance_level_through_feature_shape(comparison, shared):
    num_classes, alpha = [3, 2, 4], [0.7, 0.2, 0.5]
    labels, logits, features = batch_of(4, 20, num_classes, unannotated=0.1)
    if shared:
        features[:] = features[:, :1]
        y_pred, feature_shape = np.concatenate([features[:, 0], logits], axis=1), 5
    else:
        y_pred, feature_shape = np.concatenate([features.reshape(20, 15), logits], axis=1), (3, 5)
    loss = CRL(num_classes, level="instance", comparison=comparison, alpha=alpha, kappa=4, feature_shape=feature_shape)
    expected = oracle_objective(labels, logits, num_classes, alpha, features, "instance", comparison=comparison, kappa=4)
    np.testing.assert_allclose(loss(labels, y_pred), expected, **TOLERANCE)


def test_one_sigmoid_logit_per_binary_label():
    """z is the 2-way softmax over (0, z)."""
    num_classes, alpha = [2, 2, 2], [0.6, 0.1, 0.4]
    labels, logits, _ = batch_of(5, 24, num_classes, unannotated=0.1)
    z = logits[:, :3]
    pairs = np.stack([np.zeros_like(z), z], axis=2).reshape(24, 6)
    loss = CRL(num_classes, alpha=alpha)
    np.testing.assert_allclose(loss(labels, z), oracle_objective(labels, pairs, num_classes, alpha), **TOLERANCE)
    np.testing.assert_allclose(loss(labels, z), loss(labels, pairs), rtol=1e-6)
    # One label: [B, 1], with targets [B] and [B, 1].
    single = CRL(2, alpha=0.6)
    expected = oracle_objective(labels[:, :1], pairs[:, :2], [2], [0.6])
    np.testing.assert_allclose(single(labels[:, :1], z[:, :1]), expected, **TOLERANCE)
    np.testing.assert_allclose(single(labels[:, 0], z[:, :1]), expected, **TOLERANCE)
    # Behind features, too.
    _, _, features = batch_of(5, 24, num_classes)
    loss = CRL(num_classes, level="instance", alpha=alpha, feature_shape=(3, 5))
    expected = oracle_objective(labels, pairs, num_classes, alpha, features, "instance")
    np.testing.assert_allclose(loss(labels, np.concatenate([features.reshape(24, 15), z], axis=1)), expected, **TOLERANCE)


def test_softmax_probabilities():
    num_classes, alpha = [3, 2, 5], [0.6, 0.1, 0.4]
    labels, logits, _ = batch_of(6, 24, num_classes)
    probabilities = probabilities_of(logits, num_classes).astype(np.float32)
    value = CRL(num_classes, alpha=alpha, from_logits=False)(labels, probabilities)
    np.testing.assert_allclose(value, oracle_objective(labels, logits, num_classes, alpha), **TOLERANCE)


def test_sigmoid_probabilities():
    num_classes, alpha = [2, 2, 2], [0.6, 0.1, 0.4]
    labels, logits, _ = batch_of(7, 24, num_classes)
    z = logits[:, :3]
    pairs = np.stack([np.zeros_like(z), z], axis=2).reshape(24, 6)
    value = CRL(num_classes, alpha=alpha, from_logits=False)(labels, 1 / (1 + np.exp(-z)))
    np.testing.assert_allclose(value, oracle_objective(labels, pairs, num_classes, alpha), **TOLERANCE)


@pytest.mark.parametrize("num_classes", [[2], [3, 2]], ids=str)
def test_probabilities_of_0_and_1_stay_finite(num_classes):
    labels, _, _ = batch_of(8, 12, num_classes)
    wrong = one_hot((labels + 1) % np.array(num_classes), num_classes)
    for y_pred in [wrong, one_hot(labels, num_classes)]:
        x = tf.constant(y_pred)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = CRL(num_classes, alpha=0.5, from_logits=False)(labels, x)
        assert np.isfinite(value) and np.isfinite(tape.gradient(value, x)).all()


@pytest.mark.parametrize("num_classes", [[2], [6], [3, 2, 5], [2, 2, 2]], ids=str)
def test_one_hot_targets_equal_integer_targets(num_classes):
    labels, logits, _ = batch_of(9, 20, num_classes)
    loss = CRL(num_classes, alpha=0.5)
    expected = oracle_objective(labels, logits, num_classes, [0.5] * len(num_classes))
    for targets in (labels, labels.astype(np.int64), labels.astype(np.float32), one_hot(labels, num_classes)):
        np.testing.assert_allclose(loss(targets, logits), expected, **TOLERANCE)
    if len(num_classes) == 1:
        np.testing.assert_allclose(loss(labels[:, 0], logits), expected, **TOLERANCE)
    if set(num_classes) == {2}:  # one sigmoid logit, one-hot targets
        z = logits[:, 1::2] - logits[:, ::2]
        np.testing.assert_allclose(loss(one_hot(labels, num_classes), z), expected, **TOLERANCE)


def test_a_batch_without_minority_leaves_the_scaled_cross_entropy():
    """Class 1 is a singleton: L_crl is 0, (1 - alpha) L_ce stays."""
    labels = np.array([[0], [0], [1], [0]])
    logits = np.random.default_rng(10).standard_normal((4, 2)).astype(np.float32)
    expected = 0.7 * oracle_cross_entropy(labels, logits, [2])[0]
    np.testing.assert_allclose(CRL(2, alpha=0.3)(labels, logits), expected, **TOLERANCE)
