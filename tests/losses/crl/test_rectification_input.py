"""What `class_rectification_loss` takes, and the names of what it does not."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from oracle import oracle_crl
from rectification_cases import GOOD, VALUE_TOLERANCE, random_case, value_and_gradient

from crl_tf import class_rectification_loss


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8"])
def test_any_integer_labels(dtype):
    case = random_case(26, 16, [3, 2])
    expected = oracle_crl(case.labels, case.logits, case.num_classes)
    value = class_rectification_loss(case.labels.astype(dtype), case.logits, num_classes=case.num_classes)
    np.testing.assert_allclose(value, expected, **VALUE_TOLERANCE)


def test_labels_may_leave_out_the_label_axis():
    case = random_case(27, 16, [4])
    flat = class_rectification_loss(case.labels[:, 0], case.logits, num_classes=4).numpy()
    column = class_rectification_loss(case.labels, case.logits, num_classes=[4]).numpy()
    assert flat.shape == column.shape == (1,)
    np.testing.assert_array_equal(flat, column)


@pytest.mark.parametrize("comparison", ["relative", "absolute", "distribution"])
def test_features_may_be_shared_by_all_labels(comparison):
    case = random_case(28, 20, [2, 4, 3])
    shared = case.features[:, 0]
    spread = np.repeat(shared[:, None], 3, axis=1)
    expected = oracle_crl(case.labels, spread, case.num_classes, "instance", comparison)
    options = {"num_classes": case.num_classes, "level": "instance", "comparison": comparison}
    value, gradient = value_and_gradient(case.labels, shared, **options)
    np.testing.assert_allclose(value, expected, **VALUE_TOLERANCE)
    _, gradient_spread = value_and_gradient(case.labels, spread, **options)
    np.testing.assert_allclose(gradient, gradient_spread.sum(axis=1), atol=1e-5 + 1e-4 * np.abs(gradient).max())


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_inputs_are_computed_in_float32(dtype):
    case = random_case(29, 20, [3, 2])
    inputs = tf.cast(case.logits, dtype)
    value = class_rectification_loss(case.labels, inputs, num_classes=case.num_classes)
    assert value.dtype == tf.float32
    expected = oracle_crl(case.labels, tf.cast(inputs, tf.float32).numpy(), case.num_classes)
    np.testing.assert_allclose(value, expected, **VALUE_TOLERANCE)


def test_the_good_input_is_good():
    assert class_rectification_loss(**GOOD).shape == (2,)


@pytest.mark.parametrize(
    ("names", "changes"),
    [
        ("inputs", {"inputs": np.zeros((4, 6), np.float32)}),  # width
        ("inputs", {"inputs": np.zeros((4,), np.float32)}),  # rank
        ("inputs", {"inputs": np.zeros((4, 2, 5), np.float32)}),  # features at the class level
        ("inputs", {"inputs": np.zeros((4, 3, 5), np.float32), "level": "instance"}),  # features of 3 labels
        ("inputs", {"inputs": np.zeros((4,), np.float32), "level": "instance"}),
        ("inputs|labels", {"inputs": np.zeros((5, 5), np.float32)}),  # batch
        ("labels", {"labels": np.zeros((4, 3), np.int32)}),
        ("labels", {"labels": np.zeros((4,), np.int32)}),  # one label where there are two
        ("labels", {"labels": np.zeros((4, 2, 1), np.int32)}),
        ("labels", {"labels": np.zeros((4, 2), np.float32)}),
        ("labels", {"labels": np.array([[0, 3], [1, 2], [0, 0], [0, 1]])}),  # 3 of 3 classes
        ("labels", {"labels": np.array([[2, 0], [1, 2], [0, 0], [0, 1]])}),  # 2 of 2: within the widest label's range
        ("labels", {"labels": np.array([[0, -2], [1, 2], [0, 0], [0, 1]])}),
        ("num_classes", {"num_classes": [1, 4]}),
        ("num_classes", {"num_classes": []}),
        ("num_classes", {"num_classes": 1, "labels": np.zeros(4, np.int32), "inputs": np.zeros((4, 1), np.float32)}),
        ("kappa", {"kappa": 0}),
        ("kappa", {"kappa": -3}),
        ("kappa", {"kappa": 2.5}),
        ("rho", {"rho": 0.0}),
        ("rho", {"rho": -0.5}),
        ("rho", {"rho": 1.1}),
        ("rho", {"rho": float("nan")}),
        ("level", {"level": "pixel"}),
        ("comparison", {"comparison": "triplet"}),
        ("scope", {"scope": "majority"}),
        ("num_bins", {"num_bins": 1, "comparison": "distribution"}),
        ("num_bins", {"num_bins": 1}),
        ("margin", {"margin": -0.1}),
        ("margin", {"margin": float("nan")}),
        ("margin", {"margin": 0.5, "comparison": "distribution"}),
    ],
)
def test_bad_input_is_named(names, changes):
    arguments = {**GOOD, **changes}
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=rf"\b({names})\b"):
        class_rectification_loss(**arguments)
