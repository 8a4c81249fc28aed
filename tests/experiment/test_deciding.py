"""Scores and decisions of a measured model: chosen on validation images, measured on test images, and the same when served."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf.calibration import reliability, temperatures
from crl_tf.decision import rule_offsets
from crl_tf.experiment.deciding import decide, scores_of
from crl_tf.experiment.measure import SHARES
from crl_tf.experiment.predictions import Outputs
from crl_tf.experiment.run import run
from crl_tf.files import read_json
from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.serving.export import export_saved_model
from crl_tf.serving.scoring import Scoring
from crl_tf.serving.served import load_served
from crl_tf.thresholds import Goal, choose_thresholds

SCHEMA = AttributeSchema(
    (Attribute("hat", ("no", "yes")), Attribute("hue", ("r", "g", "b")), Attribute("kind", ("t", "u", "v", "never")))
)
SIZES, WIDTH = SCHEMA.num_classes, SCHEMA.width
COUNTS = [np.array([900, 100]), np.array([600, 300, 100]), np.array([500, 300, 200, 3])]
RULE = {"rule": "logit_adjustment", "strengths": [1.0, 0.5, 0.0]}
OF_RULE = rule_offsets(RULE["rule"], COUNTS, RULE["strengths"])
RECALL, BALANCED = Goal.parse("recall:0.9"), Goal.parse("balanced")


def outputs(seed, count=240):
    """A model that is too sure and seldom says the rare; "never" has no image."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.choice(size, count, p=of / of.sum()) for size, of in zip((2, 3, 4), COUNTS, strict=True)], axis=1)
    labels[labels[:, 2] == 3, 2] = 0
    labels[: count // 8, 0] = -1
    logits = rng.normal(size=(count, WIDTH))
    for label, first in enumerate((0, 2, 5)):
        known = labels[:, label] >= 0
        logits[np.flatnonzero(known), first + labels[known, label]] += 1.2
    logits += np.log(np.concatenate([of / of.sum() for of in COUNTS]))
    return Outputs(labels.astype(np.int32), (3 * logits).astype(np.float32))


VALIDATION, TEST = outputs(0), outputs(1)


def decided(goal=None, calibrate=False, test=TEST, **rule):
    return decide(VALIDATION, test, SCHEMA, COUNTS, goal=goal, calibrate=calibrate, **(rule or RULE))


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def parts(columns):
    return np.split(columns, np.cumsum(SIZES)[:-1], axis=1)


def largest(columns):
    return np.stack([part.argmax(axis=1) for part in parts(columns)], axis=1)


def balanced_accuracy(found, labels):
    means = []
    for label in range(len(SIZES)):
        truth = labels[:, label]
        means.append(np.mean([(found[truth == k, label] == k).mean() for k in np.unique(truth[truth >= 0])]))
    return np.mean(means)


def deciding(decision, logits):
    """What the scoring decides, as a server does it but without one."""
    scale = np.ones(len(SIZES)) if decision.scoring.temperatures is None else decision.scoring.temperatures
    added = [np.zeros(WIDTH) if of is None else of for of in (decision.scoring.offsets, decision.scoring.decision_offsets)]
    scores = [softmax(part) for part in parts(logits / np.repeat(scale, SIZES) + added[0])]
    return largest(np.log(np.concatenate(scores, axis=1)) + added[1])


def test_without_either_the_scores_are_those_that_the_rule_adjusts():
    decision = decided()
    np.testing.assert_array_equal(decision.scoring.offsets, OF_RULE)
    assert decision.scoring == Scoring(offsets=decision.scoring.offsets)
    assert list(decision.numbers) == ["calibration"] and list(decision.diagrams) == ["as trained"]


def pooled_error(scores, columns):
    """Of the classes together, each against the rest of its label."""
    joined, positive = [], []
    for column in columns:
        label = int(np.repeat(np.arange(3), SIZES)[column])
        known = TEST.labels[:, label] >= 0
        joined.append(scores[known, column])
        positive.append(TEST.labels[known, label] == column - (0, 2, 5)[label])
    return reliability(np.concatenate(joined), np.concatenate(positive)).error


def test_calibration_is_of_the_rarest_and_of_the_most_frequent_third_of_all_classes():
    decision = decided(calibrate=True)
    scale = np.repeat(temperatures(VALIDATION.logits, VALIDATION.labels, SIZES), SIZES)
    for title, logits in (("as_trained", TEST.logits), ("calibrated", TEST.logits / scale)):
        scores = np.concatenate([softmax(part) for part in parts(logits.astype(np.float64))], axis=1)
        found = decision.numbers["calibration"][title]
        # Of 9 classes with 900, 100, 600, 300, 100, 500, 300, 200 and 3 images.
        assert found["rarest_third"] == pytest.approx(pooled_error(scores, [8, 1, 4]), rel=1e-3)
        assert found["most_frequent_third"] == pytest.approx(pooled_error(scores, [5, 2, 0]), rel=1e-3)
        assert found["rarest_third"] == decision.diagrams[title.replace("_", " ")]["rarest_third"].error
    before, after = decision.numbers["calibration"].values()
    assert after["rarest_third"] < before["rarest_third"] / 2 and after["most_frequent_third"] < before["most_frequent_third"] / 2


@pytest.mark.parametrize(
    "rule", [RULE, {"rule": "threshold_adjustment", "strengths": [5.0, 1.0, 2.0]}], ids=lambda of: of["rule"]
)
def test_a_temperature_changes_scores_and_no_decision(rule):
    decision, offsets = decided(calibrate=True, **rule), rule_offsets(rule["rule"], COUNTS, rule["strengths"])
    scale = decision.scoring.temperatures
    assert decision.numbers["temperatures"] == dict(zip(SCHEMA.names, scale, strict=True)) and (scale > 1.5).all()
    expected = largest(TEST.logits + offsets)
    np.testing.assert_array_equal(deciding(decision, TEST.logits), expected)
    assert decision.numbers["balanced_accuracy"] == pytest.approx(balanced_accuracy(expected, TEST.labels))
    assert (expected != largest(TEST.logits)).any()
    scores = scores_of(TEST.logits, decision.scoring, SIZES)
    for part, own in zip(parts(scores), parts(TEST.logits / np.repeat(scale, SIZES)), strict=True):
        np.testing.assert_allclose(part, softmax(own), atol=1e-6)
    assert "thresholds" not in decision.numbers and decision.scoring.thresholds is None


@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("goal", [RECALL, BALANCED], ids=str)
def test_thresholds_are_chosen_on_validation_images_and_measured_on_test_images(goal, calibrate):
    decision = decided(goal, calibrate)
    assert decision.scoring.offsets is None and (decision.scoring.temperatures is not None) == calibrate
    scaled = Scoring(temperatures=decision.scoring.temperatures)
    validation, test = (scores_of(of.logits, scaled, SIZES) for of in (VALIDATION, TEST))
    priors = [of / of.sum() for of in COUNTS]
    chosen = list(itertools.chain(*choose_thresholds(validation, VALIDATION.labels, SIZES, priors, goal)))
    np.testing.assert_array_equal(decision.scoring.thresholds, [of_class.threshold for of_class in chosen])
    assert decision.numbers["goal"] == str(goal)
    described = [
        (label, k, facts)
        for label, attribute in enumerate(SCHEMA.attributes)
        for k, facts in enumerate(decision.numbers["thresholds"][attribute.name].values())
    ]
    assert [list(of_label) for of_label in decision.numbers["thresholds"].values()] == [
        list(attribute.classes) for attribute in SCHEMA.attributes
    ]
    for column, ((label, k, facts), of_class) in enumerate(zip(described, chosen, strict=True)):
        assert facts["threshold"] == of_class.threshold and facts["validation"]["images"] == of_class.positives
        truth, detected = TEST.labels[:, label], test[:, column] >= of_class.threshold
        hits = (detected & (truth == k)).sum()
        if (label, k) == (2, 3):  # "never"
            assert facts["threshold"] == 1.0 and not facts["reached"]
            assert facts["interval"] == [None, None] and facts["test"]["recall"] is None
            continue
        assert facts["interval"] == [of_class.low, of_class.high] and facts["reached"]
        assert facts["test"] == {
            "recall": pytest.approx(hits / (truth == k).sum()),
            "precision": pytest.approx(hits / (detected & (truth >= 0)).sum()),
            "images": (truth == k).sum(),
        }
        if goal is RECALL and (label, k) != (0, 0):  # of a binary label, the rarer class
            assert facts["validation"]["recall"] == of_class.recall >= 0.9
            assert facts["test"]["recall"] > 0.7
    found = deciding(decision, TEST.logits)
    assert decision.numbers["balanced_accuracy"] == pytest.approx(balanced_accuracy(found, TEST.labels))
    assert decision.numbers["balanced_accuracy"] > balanced_accuracy(largest(TEST.logits), TEST.labels) + 0.05
    json.dumps(decision.numbers, allow_nan=False)


def test_of_a_binary_label_the_decision_is_the_class_that_is_detected():
    plain, calibrated = (decided(RECALL, calibrate) for calibrate in (False, True))
    for decision in (plain, calibrated):
        first, second = decision.scoring.thresholds[:2]
        assert first == 1 - second
        scores = scores_of(TEST.logits, Scoring(temperatures=decision.scoring.temperatures), SIZES)
        np.testing.assert_array_equal(deciding(decision, TEST.logits)[:, 0], scores[:, 1] >= second)
    # A temperature keeps the order of the scores, of which the same is chosen.
    np.testing.assert_array_equal(deciding(plain, TEST.logits)[:, 0], deciding(calibrated, TEST.logits)[:, 0])


def test_an_image_whose_logits_are_no_numbers_spoils_nothing():
    for split in (VALIDATION, TEST):
        assert np.isfinite(split.logits).all()
    broken = Outputs(TEST.labels, TEST.logits.copy())
    broken.logits[5] = np.nan
    for goal, calibrate in ((None, False), (RECALL, True)):
        decision, whole = (decided(goal, calibrate, test) for test in (broken, TEST))
        json.dumps(decision.numbers, allow_nan=False)
        assert decision.numbers["calibration"]["as_trained"]["rarest_third"] == pytest.approx(
            whole.numbers["calibration"]["as_trained"]["rarest_third"], abs=0.01
        )
    nothing = Outputs(np.full_like(TEST.labels, -1), TEST.logits)
    numbers = decide(nothing, nothing, SCHEMA, COUNTS, goal=BALANCED, calibrate=True, **RULE).numbers
    assert numbers["balanced_accuracy"] is None and set(numbers["temperatures"].values()) == {1.0}
    json.dumps(numbers, allow_nan=False)


@pytest.mark.parametrize("goal, calibrate", [(None, False), (None, True), (RECALL, False), (RECALL, True)])
def test_an_export_decides_and_detects_what_was_measured(goal, calibrate, tmp_path):
    decision = decided(goal, calibrate)
    # Images that carry the logits.
    images = keras.Input((WIDTH, 1, 3))
    model = keras.Model(images, keras.layers.Flatten()(images[..., 0]))
    export_saved_model(model, SCHEMA, (WIDTH, 1), tmp_path / "export", scoring=decision.scoring)
    pixels = np.repeat(TEST.logits[:, :, np.newaxis, np.newaxis], 3, axis=3)
    found = load_served(tmp_path / "export").answer("serving_default", images=tf.constant(pixels))
    index = np.stack([found[f"{name}_index"] for name in SCHEMA.names], axis=1)
    np.testing.assert_array_equal(index, deciding(decision, TEST.logits))
    measured = decision.numbers.get("balanced_accuracy")
    if measured is not None:
        assert balanced_accuracy(index, TEST.labels) == pytest.approx(measured)
    for label, attribute in enumerate(SCHEMA.attributes):
        assert (f"{attribute.name}_detected" in found) == (goal is not None)
        for k, name in enumerate(attribute.classes if goal else ()):
            of_class = TEST.labels[:, label] == k
            recall = decision.numbers["thresholds"][attribute.name][name]["test"]["recall"]
            if recall is not None:
                assert found[f"{attribute.name}_detected"][of_class, k].mean() == pytest.approx(recall)


def test_a_run_writes_its_decision_and_its_export_follows_it(tiny_recipe, tmp_path):
    tiny_recipe.train.epochs = 1
    tiny_recipe.network.width = 0.25
    tiny_recipe.decision.threshold, tiny_recipe.decision.calibrate = "recall:0.8", True
    result = run(tiny_recipe, tmp_path / "run")
    written = read_json(tmp_path / "run" / "result.json")["decision"]
    assert written == json.loads(json.dumps(result["decision"])) and written["goal"] == "recall:0.8"
    assert set(written) == {"calibration", "temperatures", "goal", "thresholds", *SHARES}
    served = load_served(tmp_path / "run" / "export")
    assert served.card["decision"] == written and served.card["program"].startswith("crl_tf ")
    assert served.card["test"]["labels"]["colour"]["train_counts"] == {"blue": 6, "green": 6, "red": 24}
    assert {key: served.card[key] for key in ("dataset", "model", "method", "seed", "epochs")} == {
        key: result[key] for key in ("dataset", "model", "method", "seed", "epochs")
    }
    for attribute, thresholds in zip(served.schema.attributes, np.split(served.scoring.thresholds, [3]), strict=True):
        of_label = written["thresholds"][attribute.name]
        np.testing.assert_allclose(thresholds, [of_label[name]["threshold"] for name in attribute.classes], rtol=1e-6)
    for name in ("confusions", "precision_recall", "reliability"):
        assert (tmp_path / "run" / "figures" / f"{name}.png").stat().st_size > 0
