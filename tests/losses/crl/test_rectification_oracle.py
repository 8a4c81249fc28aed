"""`class_rectification_loss` against docs/spec.md: every case with every variant, a brute-force oracle, finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from oracle import (
    class_level_pairs,
    columns_of,
    finite_difference_gradient,
    finite_difference_slope,
    instance_level_pairs,
    minority_of,
    normalised,
    oracle_crl,
    softmax,
)
from rectification_cases import CASES, GRADIENT_TOLERANCE, VALUE_TOLERANCE, random_case, value_and_gradient
from variants import every_variant

from crl_tf import class_rectification_loss


@every_variant
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_the_oracle(name, level, comparison):
    case = CASES[name]()
    inputs = case.logits if level == "class" else case.features
    options = {"level": level, "comparison": comparison, **case.options}
    weights = 1.0 + 0.37 * np.arange(len(case.num_classes)) / len(case.num_classes)  # tells the labels apart in the gradient

    value, gradient = value_and_gradient(case.labels, inputs, weights, num_classes=case.num_classes, **options)
    expected = oracle_crl(case.labels, inputs, case.num_classes, **options)
    assert value.shape == (len(case.num_classes),) and value.dtype == np.float32
    np.testing.assert_allclose(value, expected, **VALUE_TOLERANCE)
    assert gradient.shape == inputs.shape and np.isfinite(gradient).all()

    def f(x):
        return float(weights @ oracle_crl(case.labels, x, case.num_classes, **options))

    rng = np.random.default_rng(0)
    if case.gradient == "zero":
        assert (value == 0).all() and (gradient == 0).all()
    elif case.gradient == "coordinates":
        every = list(np.ndindex(*inputs.shape))
        some = [every[k] for k in rng.permutation(len(every))[:40]]
        slopes = finite_difference_gradient(f, inputs, coordinates=some)
        tolerance = GRADIENT_TOLERANCE * np.abs(slopes).max() + 1e-7
        np.testing.assert_allclose([gradient[index] for index in some], slopes, rtol=0, atol=tolerance)
    elif case.gradient == "directions":
        for _ in range(4):
            direction = rng.standard_normal(inputs.shape)
            # Thousands of distances move at once: a step of 1e-8 keeps each on its side of its histogram nodes and hinge.
            slope = finite_difference_slope(f, inputs, direction, eps=1e-8)
            assert float((gradient * direction).sum()) == pytest.approx(
                slope, rel=GRADIENT_TOLERANCE, abs=GRADIENT_TOLERANCE * float(np.linalg.norm(gradient))
            )


@pytest.mark.parametrize("name", CASES)
def test_the_battery_says_what_it_means_to_say(name):
    """The cases are what their names promise: those that should compare something do, and only those."""
    case = CASES[name]()
    expected = oracle_crl(case.labels, case.logits, case.num_classes, comparison="absolute", **case.options)
    assert (expected > 0).any() != (case.gradient == "zero")
    if case.gradient in ("coordinates", "directions"):
        assert distance_to_the_nearest_node(case) > 1e-6  # else float32 and float64 may differentiate on two sides of a kink


def distance_to_the_nearest_node(case):
    """Of all distances that the two distribution losses put into histograms."""
    num_bins, kappa = case.options.get("num_bins", 100), case.options.get("kappa", 25)
    nearest = math.inf
    for j, columns in enumerate(columns_of(case.num_classes)):
        column = case.labels[:, j].tolist()
        rest = {key: case.options[key] for key in ("rho", "scope") if key in case.options}
        minority = minority_of(column, case.num_classes[j], **rest)
        scores = [softmax(row) for row in case.logits[:, columns]]
        directions = [normalised(feature) for feature in case.features[:, j].astype(np.float64).tolist()]
        for low, anchors in (
            (-1.0, class_level_pairs(column, scores, minority, kappa)),
            (0.0, instance_level_pairs(column, directions, minority, kappa)),
        ):
            for distance in [d for pair in anchors for distances in pair for d in distances]:
                position = (distance - low) / 2 * (num_bins - 1)
                nearest = min(nearest, abs(position - round(position)) * 2 / (num_bins - 1))
    return nearest


@every_variant
def test_margin(level, comparison):
    case = random_case(20, 18, [2, 4])
    inputs = case.logits if level == "class" else 0.3 * case.features  # distances about 1: every margin below opens some hinge
    options = {"num_classes": case.num_classes, "level": level, "comparison": comparison}
    if comparison == "distribution":
        with pytest.raises(ValueError, match="margin"):
            class_rectification_loss(case.labels, inputs, margin=0.5, **options)
        return
    default = class_rectification_loss(case.labels, inputs, **options).numpy()
    for margin in (0.0, 0.2, 1.7):
        value, gradient = value_and_gradient(case.labels, inputs, margin=margin, **options)
        np.testing.assert_allclose(value, oracle_crl(case.labels, inputs, margin=margin, **options), **VALUE_TOLERANCE)
        assert np.isfinite(gradient).all()
        assert np.abs(value - default).max() > 1e-3
    # The defaults of docs/spec.md, by hand: 0.5 at the class level; 2 pi / |Z_j| (eq. 12) or 1 at the instance level.
    for j, size in enumerate(case.num_classes):
        given = 0.5 if level == "class" else 2 * math.pi / size if comparison == "relative" else 1.0
        value = class_rectification_loss(case.labels, inputs, margin=given, **options).numpy()
        assert value[j] == pytest.approx(default[j], abs=1e-6)
