"""Thresholds against a slow loop that tries every one, and their intervals against a slow loop over the same draws."""

import itertools

import numpy as np
import pytest

from crl_tf import thresholds
from crl_tf.thresholds import DRAWS, Goal, choose_threshold, choose_thresholds, decision_offsets, is_goal

GOALS = [Goal.parse(text) for text in ("balanced", "recall:0.8", "recall:1", "precision:0.5", "precision:0.9", "costs:10:1")]
NAMED = {"argvalues": GOALS, "ids": str}


def counts(detected, positive, weights):
    """Weighted true positives, false positives, misses and true negatives, one sample after the other."""
    found = np.zeros(4)
    for is_detected, is_positive, weight in zip(detected, positive, weights, strict=True):
        found[(0 if is_positive else 1) if is_detected else (2 if is_positive else 3)] += weight
    return found


def quality(goal, hits, alarms, misses, correct):
    """What the goal maximises, as pairs that are compared one after the other."""
    recall, precision = hits / max(hits + misses, 1), hits / max(hits + alarms, 1)
    if goal.name == "balanced":
        return (round((recall + correct / max(alarms + correct, 1)) / 2, 12),)
    if goal.name == "recall":  # the fewest detections that reach it
        return (recall >= goal.values[0] - 1e-12, -(hits + alarms))
    if goal.name == "precision":  # the most hits with it, or the highest precision
        reached = precision >= goal.values[0] - 1e-12
        return (reached, hits if reached else precision)
    return (-(goal.values[0] * misses + goal.values[1] * alarms),)


def candidates(scores):
    """Half-way between two neighbouring scores, and the lowest one, which all reach; the highest first."""
    values = sorted(set(scores.tolist()), reverse=True)
    return [(a + b) / 2 for a, b in itertools.pairwise(values)] + [values[-1]]


def slow(scores, positive, goal, weights=None):
    weights = np.ones(len(scores)) if weights is None else weights
    best = None
    for threshold in candidates(scores):
        found = quality(goal, *counts(scores >= threshold, positive, weights))
        # A goal of recall that is not reached is never better than one that is.
        if best is None or found > best[0]:
            best = (found, threshold)
    return best[1]


def case(seed):
    """Scores of a class that is told apart a little; every third case has many equal ones."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 60))
    positive = rng.random(count) < rng.uniform(0.05, 0.7)
    positive[rng.permutation(count)[:2]] = True, False
    scores = 1 / (1 + np.exp(-rng.normal(positive * 1.0)))
    return np.round(scores, 1) if seed % 3 == 0 else scores.astype(np.float32), positive


@pytest.mark.parametrize("goal", **NAMED)
def test_the_threshold_is_the_best_of_all(goal):
    for seed in range(40):
        scores, positive = case(seed)
        chosen = choose_threshold(scores, positive, goal)
        expected = slow(scores.astype(np.float64), positive, goal)
        assert chosen.threshold == pytest.approx(expected, abs=1e-12), seed
        hits, alarms, misses, _ = counts(scores >= chosen.threshold, positive, np.ones(len(scores)))
        assert chosen.recall == pytest.approx(hits / (hits + misses))
        assert chosen.precision == pytest.approx(hits / (hits + alarms))
        single = min(positive.sum(), (~positive).sum()) == 1
        assert chosen.positives == positive.sum() and (np.isnan(chosen.low) if single else chosen.low <= chosen.high)
        if goal.name == "recall":
            assert chosen.reached and chosen.recall >= goal.values[0]
        elif goal.name == "precision":
            assert chosen.reached == (chosen.precision >= goal.values[0])
        else:
            assert chosen.reached


@pytest.mark.parametrize("goal", **NAMED)
def test_the_interval_is_that_of_a_slow_loop_over_the_same_draws(goal):
    for seed in (3, 4):
        scores, positive = case(seed)
        # The draws are counts of the samples in the order of their scores.
        order = np.argsort(-scores, kind="stable")
        scores, positive = scores[order].astype(np.float64), positive[order]
        rng, count, drawn = np.random.default_rng(7), len(scores), []
        for _ in range(DRAWS):
            weights = rng.multinomial(count, np.full(count, 1 / count))
            if weights[positive].sum() and weights[~positive].sum():
                drawn.append(slow(scores, positive, goal, weights))
        chosen = choose_threshold(scores, positive, goal, seed=7)
        np.testing.assert_allclose([chosen.low, chosen.high], np.quantile(drawn, [0.025, 0.975]), atol=1e-12)


def test_how_many_draws_are_held_at_a_time_changes_nothing(monkeypatch):
    scores, positive = case(5)
    whole = [choose_threshold(scores, positive, goal) for goal in GOALS]
    for held in (1, 3 * len(scores), 7 * len(scores) + 1):
        monkeypatch.setattr(thresholds, "IN_MEMORY", held)
        assert [choose_threshold(scores, positive, goal) for goal in GOALS] == whole


def test_one_positive_and_equal_scores():
    scores, positive = np.array([0.9, 0.7, 0.5, 0.3]), np.array([False, True, False, False])
    for goal in GOALS:
        chosen = choose_threshold(scores, positive, goal)
        assert chosen.threshold == 0.6 and chosen.recall == 1 and chosen.precision == 0.5
        assert chosen.reached == (str(goal) != "precision:0.9")
        # All are detected or none is, and none is no choice.
        equal = choose_threshold(np.full(4, 0.25), positive, goal)
        assert (equal.threshold, equal.recall, equal.precision) == (0.25, 1.0, 0.25)
        assert equal.reached == (goal.name != "precision")


def test_a_single_image_of_a_kind_gives_no_interval():
    scores = np.array([0.9, 0.7, 0.5, 0.3])
    for positive, known in (([1, 0, 0, 0], False), ([1, 1, 1, 0], False), ([1, 0, 1, 0], True)):
        chosen = choose_threshold(scores, np.array(positive, bool), GOALS[0])
        assert np.isfinite([chosen.low, chosen.high]).tolist() == [known, known]


def test_neighbours_among_float32_are_told_apart_in_float32():
    """A server compares in float32: what is half-way between two neighbours must not round to the lower one."""
    for first in np.random.default_rng(0).random(20).astype(np.float32):
        second = np.nextafter(first, np.float32(2))
        chosen = choose_threshold(np.array([first, second]), np.array([False, True]), GOALS[0])
        assert first < np.float32(chosen.threshold) <= second


def test_one_kind_of_sample_is_refused():
    for positive in (np.zeros(3, bool), np.ones(3, bool)):
        with pytest.raises(ValueError, match=rf"positive must hold both kinds of samples, received {positive.sum()} of 3"):
            choose_threshold(np.array([0.1, 0.2, 0.3]), positive, GOALS[0])


def scores_of(rng, labels, num_classes):
    parts = []
    for label, size in enumerate(num_classes):
        logits = rng.normal(size=(len(labels), size)) + 1.5 * (labels[:, [label]] == np.arange(size))
        parts.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("goal", **NAMED)
def test_every_class_of_every_label_has_its_own_threshold(goal):
    rng = np.random.default_rng(1)
    labels = np.stack([rng.random(80) < 0.2, rng.integers(-1, 3, 80), rng.integers(-1, 2, 80)], axis=1).astype(int)
    sizes, priors = (2, 3, 2), [np.array([0.8, 0.2]), np.array([0.2, 0.3, 0.5]), np.array([0.4, 0.6])]
    scores = scores_of(rng, labels, sizes)
    chosen = choose_thresholds(scores, labels, sizes, priors, goal)
    assert [len(of_label) for of_label in chosen] == list(sizes)
    for label, (first, rarer) in enumerate(((0, 1), (2, None), (5, 0))):
        known = labels[:, label] >= 0
        for k, of_class in enumerate(chosen[label]):
            column, truth = scores[known, first + k], labels[known, label] == k
            if rarer in (None, k):
                assert of_class == choose_threshold(column, truth, goal)
                continue
            # The other class of a binary label: the same decisions, seen from it.
            other = chosen[label][rarer]
            assert of_class.threshold == 1 - other.threshold
            assert (of_class.low, of_class.high) == (1 - other.high, 1 - other.low)
            detected = scores[known, first + rarer] < other.threshold
            assert of_class.recall == pytest.approx((detected & truth).sum() / truth.sum())
            assert of_class.precision == pytest.approx(
                (detected & truth).sum() / detected.sum() if detected.any() else np.nan, nan_ok=True
            )
            assert of_class.positives == truth.sum() and of_class.reached == other.reached


def test_a_class_without_a_validation_image_is_not_detected():
    labels = np.array([[0, 0, 1], [1, 0, -1], [1, 0, 1]])
    priors = [np.array([0.5, 0.3, 0.2]), np.array([0.9, 0.1]), np.array([0.0, 1.0])]
    scores = scores_of(np.random.default_rng(0), labels, (3, 2, 2))
    three, alone, never = choose_thresholds(scores, labels, (3, 2, 2), priors, GOALS[1])
    assert three[0].reached and three[1].reached
    for of_class in (three[2], alone[1], never[0]):
        assert of_class.threshold == 1.0 and not of_class.reached and of_class.positives == 0
        assert np.isnan([of_class.low, of_class.high, of_class.recall, of_class.precision]).all()
    # A binary label stays in agreement with itself.
    assert alone[0].threshold == 0.0 and not alone[0].reached and alone[0].positives == 3


def test_a_class_that_training_never_saw_is_not_detected():
    labels = np.array([[0], [1], [2], [2], [1], [0]])
    scores = scores_of(np.random.default_rng(0), labels, (3,))
    seen, unseen = (
        choose_thresholds(scores, labels, (3,), [np.array(p)], GOALS[1])[0] for p in ([0.5, 0.3, 0.2], [0.6, 0.4, 0.0])
    )
    assert seen[:2] == unseen[:2] and seen[2].reached
    assert unseen[2].threshold == 1.0 and not unseen[2].reached and unseen[2].positives == 2


def test_nothing_annotated_detects_no_rare_class():
    scores = np.full((4, 5), 0.5)
    (binary, three) = choose_thresholds(scores, np.full((4, 2), -1), (2, 3), [np.array([0.3, 0.7]), np.full(3, 1 / 3)], GOALS[0])
    assert [of_class.threshold for of_class in binary] == [1.0, 0.0]
    assert [of_class.threshold for of_class in three] == [1.0] * 3


def test_a_sample_of_no_number_takes_no_part():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, (30, 1))
    scores, broken = scores_of(rng, labels, (3,)), np.arange(30) % 5 == 0
    priors = [np.full(3, 1 / 3)]
    expected = choose_thresholds(scores[~broken], labels[~broken], (3,), priors, GOALS[2])
    scores[broken, 1] = np.nan
    assert choose_thresholds(scores, labels, (3,), priors, GOALS[2]) == expected


def test_by_the_offsets_the_largest_multiple_of_its_threshold_decides():
    rng = np.random.default_rng(2)
    values = [np.array([0.3, 0.7]), np.array([0.1, 0.5, 0.9])]
    offsets = decision_offsets(values)
    assert offsets.dtype == np.float32 and np.isfinite(decision_offsets([np.array([0.0, 1.0])])).all()
    for _ in range(50):
        p = rng.random()
        assert np.argmax(np.log([1 - p, p]) + offsets[:2]) == (p >= 0.7)
        scores = rng.dirichlet(np.ones(3))
        assert np.argmax(np.log(scores) + offsets[2:]) == np.argmax(scores / values[1])


@pytest.mark.parametrize(
    "text", ["balanced", "recall:1", "recall:0.05", "precision:0.5", "costs:10:1", "costs:1e3:0.5", " balanced "]
)
def test_goals_are_read_and_written(text):
    assert is_goal(text) and Goal.parse(str(Goal.parse(text))) == Goal.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "best", "Recall:0.9", "recall=0.9", None, 0.9),
        *("recall", "recall:", "recall:0", "recall:1.1", "recall:-1", "recall:nan", "recall:0.9:1", "recall:x", "precision:2"),
        *("balanced:1", "costs:1", "costs:0:1", "costs:1:-1", "costs:1:inf", "costs:1:1:1"),
    ],
)
def test_other_goals_are_refused_with_the_rule(text):
    numbers = r"recall:R or precision:P with a number in \(0, 1\], or costs:MISS:ALARM with two numbers > 0"
    rule = rf"threshold must be balanced \(.*\), {numbers}"
    assert not is_goal(text)
    with pytest.raises(ValueError, match=rf"{rule}, received {text!r}"):
        Goal.parse(text)
