"""Bootstrap intervals against a slow loop that repeats the images and calls scikit-learn; paired differences likewise."""

import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from crl_tf.experiment.intervals import (
    RANKINGS,
    Averages,
    bootstrap_intervals,
    drawn_weights,
    paired_difference,
    replicates_for,
)
from crl_tf.experiment.predictions import Outputs, Predictions, load_predictions, save_predictions

SIZES = (2, 4, 3)
COUNTS = (np.array([90, 10]), np.array([50, 3, 40, 0]), np.array([7, 7, 7]))
RULES = ("argmax", "logit_adjustment")


def case(seed, n=40):
    """Three labels, partly annotated; class 2 of the second never occurs, the third is of one class only."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.choice(size, n) for size in SIZES], axis=1)
    labels[:, 1] = np.where(labels[:, 1] == 2, 0, labels[:, 1])
    labels[:, 2] = 1
    labels[rng.random(labels.shape) < 0.2] = -1
    logits = rng.normal(size=(n, sum(SIZES))).round().astype(np.float32)
    decided = {rule: np.stack([rng.choice(size, n) for size in SIZES], axis=1).astype(np.uint16) for rule in RULES}
    return Outputs(labels, logits), Predictions(labels, decided, RULES[1], SIZES, COUNTS)


def known_mean(values):
    values = [value for value in values if value is not None]
    return np.mean(values) if values else np.nan


def over_classes(of_class):
    """The number of a whole model, of its rarest and of its most frequent classes, from a function of label and class.

    By hand: the classes that occur have 90, 10 · 50, 3, 0 · 7 training images, so that ceil(6 / 3) = 2 are a third.
    """
    table = {(j, c): of_class(j, c) for j, size in enumerate(SIZES) for c in range(size)}
    of_labels = [known_mean([table[j, c] for c in range(size)]) for j, size in enumerate(SIZES)]
    whole = known_mean([None if np.isnan(value) else value for value in of_labels])
    return whole, known_mean([table[1, 3], table[1, 1]]), known_mean([table[1, 0], table[0, 0]])


def shares_slowly(labels, decided, weights):
    def sensitivity(j, c):
        of_class = [(said == c, w) for truth, said, w in zip(labels[:, j], decided[:, j], weights, strict=True) if truth == c]
        return sum(hit * w for hit, w in of_class) / sum(w for _, w in of_class) if of_class else None

    return over_classes(sensitivity)


def ranking_slowly(labels, logits, measure, weights):
    starts = np.cumsum([0, *SIZES])

    def of_class(j, c):
        known = labels[:, j] >= 0
        truth = labels[known, j] == c
        powers = np.exp(logits[known, starts[j] : starts[j + 1]].astype(np.float64))
        score = (powers / powers.sum(axis=1, keepdims=True))[:, c].round(10)
        return measure(truth, score, sample_weight=weights[known]) if truth.any() and not truth.all() else None

    return over_classes(of_class)


@pytest.mark.parametrize("seed", range(3))
def test_intervals_are_those_of_a_loop_over_weighted_images(seed):
    outputs, predictions = case(seed)
    found = bootstrap_intervals(outputs, predictions, replicates=300, ranking_replicates=20, seed=seed)
    weights = np.concatenate(list(drawn_weights(40, 300, seed)), axis=1).astype(np.float64).T
    assert weights.shape == (300, 40)
    expected = {"level": 0.95, "replicates": 300, "ranking_replicates": 20, "seed": seed, "rules": {}}

    def interval(values):
        return pytest.approx(np.percentile([v for v in values if np.isfinite(v)], [2.5, 97.5]).tolist(), abs=1e-5)

    for rule in RULES:
        of_drawn = [shares_slowly(outputs.labels, predictions.decided[rule], drawn) for drawn in weights]
        names = ("balanced_accuracy", "rarest_third", "most_frequent_third")
        expected["rules"][rule] = dict(zip(names, map(interval, zip(*of_drawn, strict=True)), strict=True))
    for name, measure in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        of_drawn = [ranking_slowly(outputs.labels, outputs.logits, measure, drawn) for drawn in weights[:20]]
        expected[name], expected[f"rarest_third_{name}"], _ = map(interval, zip(*of_drawn, strict=True))
    assert found == expected
    assert all(low < high for low, high in (found["auroc"], found["rules"]["argmax"]["rarest_third"]))


def test_the_first_draws_do_not_depend_on_how_many_follow_and_a_seed_repeats_them():
    few, many = (np.concatenate(list(drawn_weights(9, replicates, 4)), axis=1) for replicates in (3, 700))
    np.testing.assert_array_equal(few, many[:, :3])
    other = np.concatenate(list(drawn_weights(9, 700, 5)), axis=1)
    assert few.shape == (9, 3) and (many != other).any()
    # Exponential: mean and standard deviation 1, and a share of exp(-1) above the mean.
    assert [many.mean(), many.std(), (many > 1).mean()] == pytest.approx([1, 1, np.exp(-1)], abs=0.05)
    assert (many > 0).all()


def test_rare_classes_do_not_move_the_interval_off_the_number():
    """Ten classes, all ten images of the first right, the only image of each other wrong: 10 % in every replicate."""
    labels = np.concatenate([np.zeros(10, int), np.arange(1, 10)])[:, None]
    predictions = Predictions(labels, {"argmax": np.zeros_like(labels, np.uint16)}, "argmax", (10,), (np.arange(10, 0, -1),))
    found = bootstrap_intervals(Outputs(labels, np.zeros((19, 10), np.float32)), predictions)
    assert found["rules"]["argmax"]["balanced_accuracy"] == pytest.approx([0.1, 0.1])


def test_the_interval_covers_as_the_normal_approximation_does():
    # One balanced label, 2,000 images, 80 % right: a standard error of sqrt(.8 * .2 / 2000).
    labels = np.tile([[0], [1]], (1000, 1))
    wrong = (np.arange(2000) % 10 < 2)[:, None]
    predictions = Predictions(labels, {"argmax": (labels ^ wrong).astype(np.uint16)}, "argmax", (2,), (np.array([9, 1]),))
    outputs = Outputs(labels, np.zeros((2000, 2), np.float32))
    low, high = bootstrap_intervals(outputs, predictions, ranking_replicates=1)["rules"]["argmax"]["balanced_accuracy"]
    assert [low, high] == pytest.approx([0.8 - 1.96 * 0.00894, 0.8 + 1.96 * 0.00894], abs=0.0025)


def test_without_a_number_there_is_no_interval():
    labels = np.full((5, 1), -1)
    predictions = Predictions(labels, {"argmax": np.zeros((5, 1), np.uint16)}, "argmax", (2,), (np.array([1, 1]),))
    found = bootstrap_intervals(Outputs(labels, np.zeros((5, 2), np.float32)), predictions)
    assert found["rules"] == {"argmax": {"balanced_accuracy": None, "rarest_third": None, "most_frequent_third": None}}
    assert [found[name] for name in RANKINGS] == [None] * 4


def test_replicates_fall_with_images_times_classes_within_bounds():
    assert [replicates_for(n, 80, 2 * 10**8) for n in (10, 5_000, 20_000, 10**7)] == [1000, 500, 125, 100]


def test_the_time_stays_bounded():
    # An eighth of the arithmetic of 40 binary labels of 4,640 images, which takes 3 s of a core.
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (2320, 10))
    outputs = Outputs(truth, rng.normal(size=(2320, 20)).astype(np.float32))
    decided = {rule: truth.astype(np.uint16) for rule in ("argmax", "threshold_adjustment", "logit_adjustment")}
    predictions = Predictions(truth, decided, "argmax", (2,) * 10, (np.ones(2, int),) * 10)
    start = time.process_time()
    bootstrap_intervals(outputs, predictions, ranking_replicates=500)
    assert time.process_time() - start < 3  # ten times as long as it takes


def difference_slowly(sides, share, replicates, seed):
    """The differences of every replicate: mean over the runs of a side, all on the same images."""
    place = ("balanced_accuracy", "rarest_third", "most_frequent_third").index(share)
    weights = np.concatenate(list(drawn_weights(40, replicates, seed)), axis=1).astype(np.float64)
    differences = []
    for drawn in [np.ones(40), *weights.T]:
        of_sides = [[shares_slowly(run.labels, run.decided[rule], drawn) for run in runs] for runs, rule in sides]
        means = [np.mean([shares[place] for shares in of_side]) for of_side in of_sides]
        differences.append(means[0] - means[1])
    return differences[0], np.array(differences[1:])


@pytest.mark.parametrize("share", ["balanced_accuracy", "rarest_third", "most_frequent_third"])
def test_a_paired_difference_is_that_of_a_loop_over_runs_and_images(share):
    labels = case(0)[0].labels
    runs = [replace(case(seed)[1], labels=labels) for seed in range(4)]
    found = paired_difference(runs[:2], runs[2:], share, rule_a="argmax", replicates=60, seed=3)
    difference, of_replicates = difference_slowly([(runs[:2], "argmax"), (runs[2:], RULES[1])], share, 60, 3)
    of_replicates = of_replicates[np.isfinite(of_replicates)]
    assert found.difference == pytest.approx(difference, abs=1e-6)
    assert [found.low, found.high] == pytest.approx(np.percentile(of_replicates, [2.5, 97.5]).tolist(), abs=1e-6)


def test_pairs_cancel_what_two_runs_have_in_common():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (500, 1))
    first = np.where(rng.random((500, 1)) < 0.3, 1 - labels, labels)
    second = first.copy()
    repaired = np.flatnonzero((first != labels)[:, 0])[:10]
    second[repaired] = labels[repaired]
    a, b = (Predictions(labels, {"argmax": d.astype(np.uint16)}, "argmax", (2,), (np.array([5, 5]),)) for d in (second, first))
    found = paired_difference(a, b)
    alone = bootstrap_intervals(Outputs(labels, np.zeros((500, 2), np.float32)), a)["rules"]["argmax"]["balanced_accuracy"]
    assert 0 < found.low < found.difference < found.high
    assert found.high - found.low < (alone[1] - alone[0]) / 2
    assert paired_difference(a, a) == (0.0, 0.0, 0.0)


def test_runs_that_cannot_be_paired_are_refused():
    _, run = case(0)
    other = replace(run, labels=np.where(run.labels == 0, 1, run.labels))
    richer = replace(run, train_counts=(np.array([1, 2]), *run.train_counts[1:]))
    for a, b, options, message in (
        (run, other, {}, "all runs must be measured on the same test images, received test labels that differ"),
        ([run, other], [run, run], {}, "received test labels that differ"),
        ([run], [run, run], {}, "a and b must be as many runs, one or more, received 1 and 2"),
        ([], [], {}, "one or more, received 0 and 0"),
        (run, run, {"rule_b": "coin"}, r"rule must be one of \['argmax', 'logit_adjustment'\], received 'coin'"),
        (run, run, {"share": "accuracy"}, "share must be one of .*, received 'accuracy'"),
        (run, richer, {"share": "rarest_third"}, "rarest_third needs runs with the same training counts"),
    ):
        with pytest.raises(ValueError, match=f"paired_difference: .*{message}"):
            paired_difference(a, b, **options)
    assert paired_difference(run, richer).difference == 0.0


def test_predictions_survive_their_file(tmp_path):
    _, run = case(1)
    save_predictions(run, tmp_path / "run" / "predictions.npz")
    again = load_predictions(tmp_path / "run" / "predictions.npz")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["predictions.npz"]
    assert again.labels.dtype == np.int16 and again.decided["argmax"].dtype == np.uint16
    np.testing.assert_array_equal(again.labels, run.labels)
    assert list(again.decided) == list(RULES) and (again.rule, again.num_classes) == (run.rule, SIZES)
    for rule in RULES:
        np.testing.assert_array_equal(again.decided[rule], run.decided[rule])
    assert [counts.tolist() for counts in again.train_counts] == [counts.tolist() for counts in COUNTS]
    assert paired_difference(run, again) == (0.0, 0.0, 0.0)


def test_averages_leave_out_what_is_unknown():
    values = np.array([[0.2], [np.nan], [0.5], [0.7], [np.nan], [np.nan], [np.nan], [np.nan], [np.nan]])
    assert Averages.of(case(0)[1]).mean_of_labels(values)[0] == pytest.approx((0.2 + (0.5 + 0.7) / 2) / 2)
