"""Calibration by hand and against loops; temperatures against a grid, and one that is known."""

import numpy as np
import pytest

from crl_tf.calibration import TEMPERATURES, reliability, reliability_of_classes, temperature, temperatures


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def slow_error(scores, positive, bins):
    total = 0.0
    for place in range(bins):
        low, high = place / bins, (place + 1) / bins
        inside = [k for k, score in enumerate(scores) if low <= score < high or (score == 1 and place == bins - 1)]
        if inside:
            total += abs(sum(bool(positive[k]) for k in inside) - sum(scores[k] for k in inside))
    return total / len(scores)


def test_a_diagram_by_hand():
    # Three bins; a score of 1 belongs to the last one, and one on an edge to the upper of its two.
    scores = np.array([0.0, 0.25, 0.5, 0.5, 0.75, 1.0])
    positive = np.array([False, True, True, False, True, True])
    diagram = reliability(scores, positive, bins=2)
    assert diagram.count.tolist() == [2, 4]
    np.testing.assert_allclose(diagram.mean_score, [0.125, 0.6875])
    np.testing.assert_allclose(diagram.share, [0.5, 0.75])
    assert diagram.error == pytest.approx((2 * 0.375 + 4 * 0.0625) / 6)


@pytest.mark.parametrize("bins", [1, 7, 10])
def test_the_error_is_that_of_a_loop(bins):
    rng = np.random.default_rng(0)
    for count in (1, 5, 300):
        scores = rng.beta(0.5, 0.5, count)
        positive = rng.random(count) < scores**2
        assert reliability(scores, positive, bins).error == pytest.approx(slow_error(scores, positive, bins))


def test_without_a_sample_there_is_no_error_and_empty_bins_count_nothing():
    nothing = reliability(np.zeros(0), np.zeros(0, bool))
    assert np.isnan(nothing.error) and not nothing.count.any() and np.isnan(nothing.share).all()
    assert reliability(np.array([1.0, 1.0]), np.array([True, True])).error == 0


def test_classes_are_joined_each_against_the_rest_of_its_label():
    rng = np.random.default_rng(1)
    labels = np.stack([rng.integers(-1, 2, 50), rng.integers(-1, 3, 50)], axis=1)
    scores = np.concatenate([softmax(rng.normal(size=(50, size))) for size in (2, 3)], axis=1)
    joined, positive = [], []
    for column, label, of_class in ((1, 0, 1), (2, 1, 0), (4, 1, 2)):
        for image in range(50):
            if labels[image, label] >= 0:
                joined.append(scores[image, column])
                positive.append(labels[image, label] == of_class)
    found = reliability_of_classes(scores, labels, (2, 3), np.array([1, 2, 4]))
    assert found.error == pytest.approx(slow_error(joined, positive, 10)) and found.count.sum() == len(joined)
    none = reliability_of_classes(scores, np.full((50, 2), -1), (2, 3), np.array([0, 1]))
    assert np.isnan(none.error) and np.isnan(reliability_of_classes(scores, labels, (2, 3), np.zeros(0, int)).error)


def cross_entropy(logits, truth, scale):
    return -np.mean(np.log(softmax(logits / scale)[np.arange(len(truth)), truth]))


def drawn(count, size, seed):
    """Logits whose softmax is right: the classes are drawn from it."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(count, size))
    return logits, (softmax(logits).cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("scale", [1 / 3, 1.0, 3.0])
def test_a_known_temperature_is_found(size, scale):
    logits, truth = drawn(20_000, size, 0)
    assert temperature(scale * logits, truth) == pytest.approx(scale, rel=0.05)
    # Where a model is surer than it was, the temperature is higher by as much.
    assert temperature(scale * logits, truth) == pytest.approx(scale * temperature(logits, truth), rel=1e-3)


def test_no_other_temperature_fits_better():
    logits, truth = drawn(200, 4, 1)
    found = temperature(2 * logits, truth)
    best = cross_entropy(2 * logits, truth, found)
    assert all(best <= cross_entropy(2 * logits, truth, scale) + 1e-9 for scale in np.geomspace(*TEMPERATURES, 400))


def test_a_temperature_stays_within_its_bounds():
    _, truth = drawn(100, 3, 2)
    right = np.eye(3)[truth]
    assert TEMPERATURES[0] <= temperature(right, truth) < 1.1 * TEMPERATURES[0]
    assert 0.9 * TEMPERATURES[1] < temperature(-right, truth) <= TEMPERATURES[1]
    assert np.isfinite(temperature(1e30 * right.astype(np.float32), truth))


def test_calibrated_scores_agree_better():
    logits, truth = drawn(5000, 3, 3)
    sure = 4 * logits
    errors = [reliability(softmax(of)[:, 0], truth == 0).error for of in (sure, sure / temperature(sure, truth), logits)]
    assert errors[0] > 0.1 and errors[1] < 0.03 and errors[1] == pytest.approx(errors[2], abs=0.01)


def test_each_label_has_its_temperature_of_its_annotated_samples():
    parts = [drawn(300, size, seed) for seed, size in enumerate((2, 3))]
    logits = np.concatenate([of * scale for (of, _), scale in zip(parts, (1.0, 3.0), strict=True)], axis=1)
    labels = np.stack([truth for _, truth in parts], axis=1)
    labels[:100, 0] = -1
    found = temperatures(logits.astype(np.float32), labels, (2, 3))
    expected = [temperature(logits[100:, :2], labels[100:, 0]), temperature(logits[:, 2:], labels[:, 1])]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    labels[:, 0] = -1
    assert temperatures(logits, labels, (2, 3))[0] == 1
    np.testing.assert_array_equal(temperatures(np.zeros((0, 5)), np.zeros((0, 2), int), (2, 3)), [1, 1])


def test_a_sample_of_no_number_takes_no_part():
    logits, truth = drawn(60, 3, 4)
    broken = np.arange(60) % 4 == 0
    expected = temperature(logits[~broken], truth[~broken])
    error = reliability(softmax(logits)[~broken, 0], truth[~broken] == 0).error
    for value in (np.nan, np.inf):
        logits[broken, 1] = value
        assert temperature(logits, truth) == expected
        with np.errstate(invalid="ignore"):
            assert reliability(softmax(logits)[:, 0], truth == 0).error == pytest.approx(error)
