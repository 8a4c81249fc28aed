"""AUROC and average precision against scikit-learn and by hand: ties, weights, classes that cannot be ranked."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from crl_tf.ranking import class_rankings, label_columns, one_against_rest_scores


def case(seed, n=80, classes=4):
    """Labels, of which some are not annotated, and logits [n, C]; every second case is full of ties."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    return rng.integers(-1, classes, n), np.round(logits) if seed % 2 else logits


def probabilities(logits):
    """Eq. 1 in double precision, rounded where only the order of summation differs."""
    powers = np.exp(logits.astype(np.float64))
    return np.round(powers / powers.sum(axis=1, keepdims=True), 10)


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("seed", range(6))
def test_every_class_is_ranked_by_its_probability_as_scikit_learn_ranks_it(seed, classes):
    labels, logits = case(seed, classes=classes)
    known = labels >= 0
    auroc, precision = class_rankings(labels, logits)
    for index in range(classes):
        truth, score = labels[known] == index, probabilities(logits)[known, index]
        assert auroc[index] == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
        assert precision[index] == pytest.approx(average_precision_score(truth, score), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_weight_counts_as_so_many_samples(seed):
    labels, logits = case(seed)
    weights = np.random.default_rng(seed).poisson(1, (80, 20)).astype(np.float32)
    auroc, precision = class_rankings(labels, logits, [weights[:, :17], weights[:, 17:]])
    assert auroc.shape == precision.shape == (4, 20)
    for replicate in range(20):
        drawn = np.repeat(np.arange(80), weights[:, replicate].astype(int) * (labels >= 0))
        for index in range(4):
            truth, score = labels[drawn] == index, probabilities(logits)[drawn, index]
            assert auroc[index, replicate] == pytest.approx(roc_auc_score(truth, score), abs=1e-5)
            assert precision[index, replicate] == pytest.approx(average_precision_score(truth, score), abs=1e-5)


def test_by_hand():
    # Scores of class 1, high to low: 3 (class 1), 2 (both), 1 (class 0).
    auroc, precision = class_rankings(np.array([1, 1, 0, 0, -1]), np.array([[0, 3.0], [0, 2], [0, 2], [0, 1], [0, 9]]))
    assert auroc.tolist() == [3.5 / 4, 3.5 / 4]
    # Class 1: half of recall at precision 1, half at 2/3; class 0 the same from the other end.
    assert precision.tolist() == pytest.approx([0.5 + 0.5 * 2 / 3] * 2)
    auroc, precision = class_rankings(np.array([0, 1, 0]), np.zeros((3, 2)))
    assert auroc.tolist() == [0.5, 0.5] and precision.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_a_class_without_a_sample_or_without_another_class_has_no_number():
    logits = np.random.default_rng(0).normal(size=(6, 3))
    for labels, without in (([0, 0, 1, 1, -1, -1], [2]), ([1] * 6, [0, 1, 2]), ([-1] * 6, [0, 1, 2])):
        for numbers in class_rankings(np.array(labels), logits):
            assert np.flatnonzero(np.isnan(numbers)).tolist() == without
    # A replicate without the class has none either; the other replicate has.
    auroc, _ = class_rankings(np.array([0, 0, 1]), logits[:3, :2], [np.array([[1, 1], [1, 1], [0, 2]], np.float32)])
    assert np.isnan(auroc).tolist() == [[True, False], [True, False]]


def test_where_a_network_is_sure_its_scores_are_still_told_apart():
    labels = np.array([1, 1, 0, 0])
    two = np.array([[0, 60], [0, 50], [0, 40], [0, 30]], np.float32)
    assert class_rankings(labels, two)[0].tolist() == [1.0, 1.0]
    three = np.concatenate([two, np.full((4, 1), -5, np.float32)], axis=1)
    assert class_rankings(labels, three)[0][:2].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_scores_are_log_odds_and_never_overflow(classes):
    logits = np.random.default_rng(1).normal(size=(50, classes)).astype(np.float32)
    powers = np.exp(logits.astype(np.float64))
    share = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(one_against_rest_scores(logits), np.log(share / (1 - share)), rtol=1e-4, atol=1e-5)
    assert np.isfinite(one_against_rest_scores(logits * 1e4)).all()


def test_a_score_that_is_nan_counts_as_wrong():
    labels, logits = np.array([0, 1, 1, 0]), np.array([[1.0, 0], [0, 1], [np.nan, 1], [0, np.nan]])
    # Of 2 * 2 pairs only that of the two sound samples is in order.
    assert class_rankings(labels, logits)[0].tolist() == [0.25, 0.25]


def test_columns_of_labels():
    assert list(label_columns((2, 5))) == [slice(0, 2), slice(2, 7)]
