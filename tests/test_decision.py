"""Decision rules against loops from their formulas, and their strengths chosen on validation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf.decision import RULES, candidates, check_rule, chosen_strengths, rule_offsets
from crl_tf.experiment.measure import evaluate_model
from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.serving.export import export_saved_model
from crl_tf.serving.scoring import Scoring

COUNTS = [np.array([90, 10]), np.array([60, 30, 0, 10])]
SCHEMA = AttributeSchema((Attribute("hat", ("no", "yes")), Attribute("hue", ("r", "g", "b", "y"))))


def softmax(row):
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def test_threshold_adjustment_is_the_formula():
    logits = np.random.default_rng(0).normal(size=(20, 6))
    shifted = logits + rule_offsets("threshold_adjustment", COUNTS, [3.0, 2.0])
    for row, after in zip(logits, shifted, strict=True):
        for columns, counts, strength in ((slice(0, 2), COUNTS[0], 3.0), (slice(2, 6), COUNTS[1], 2.0)):
            p = softmax(row[columns])
            moved = [p[k] * np.exp(-counts[k] / counts.sum()) ** strength for k in range(len(counts))]
            np.testing.assert_allclose(softmax(after[columns]), np.array(moved) / sum(moved), rtol=1e-5)


def test_logit_adjustment_is_the_formula():
    # A class without an image counts as one with one: 60, 30, 1 and 10 of 101.
    expected = [-0.5 * np.log(0.9), -0.5 * np.log(0.1), *(-1.5 * np.log(np.array([60, 30, 1, 10]) / 101))]
    np.testing.assert_allclose(rule_offsets("logit_adjustment", COUNTS, [0.5, 1.5]), expected, rtol=1e-6)


def test_argmax_adds_nothing_and_every_rule_is_tried_at_every_strength():
    assert not rule_offsets("argmax", COUNTS, [0.0, 0.0]).any()
    tried = candidates(COUNTS)
    assert [key for key in tried if key[0] == "threshold_adjustment"] == [("threshold_adjustment", t) for t in (1, 2, 3, 4, 5)]
    assert ("logit_adjustment", 0.0) in tried and ("logit_adjustment", 1.0) in tried
    assert all(offsets.shape == (6,) and np.isfinite(offsets).all() for offsets in tried.values())


def test_strengths_are_each_labels_best_and_the_weakest_of_equals():
    accuracies = {(name, s): [0.5, np.nan] for name, rule in RULES.items() for s in rule.strengths}
    accuracies["threshold_adjustment", 4.0] = [0.7, np.nan]
    accuracies["threshold_adjustment", 5.0] = [0.7, np.nan]
    chosen = chosen_strengths(accuracies, 2)
    assert chosen == {"argmax": [0.0, 0.0], "threshold_adjustment": [4.0, 1.0], "logit_adjustment": [0.0, 0.0]}


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match=r"rule must be one of \['argmax', .*received 'median'"):
        check_rule("median")


@pytest.fixture(scope="module")
def timid():
    """A model that hardly ever says "yes": images carry the logits; and labels that it is wrong about."""
    rng = np.random.default_rng(1)
    labels = np.stack([rng.random(400) < 0.3, rng.integers(0, 4, 400)], axis=1).astype(np.int32)
    labels[:7, 0] = -1
    pixels = np.zeros((400, 2, 3, 3), np.float32)
    logits = rng.normal(size=(400, 6))
    logits[np.arange(400), labels[:, 0]] += 1.0
    logits[np.arange(400), 2 + labels[:, 1]] += 1.0
    logits[:, 0] += 2.0
    pixels[:, :, :, 0] = logits.reshape(400, 2, 3)
    images = keras.Input((2, 3, 3))
    model = keras.Model(images, keras.layers.Flatten()(images[..., 0]))

    def batches(part):
        return tf.data.Dataset.from_tensor_slices((pixels[part], labels[part])).batch(64)

    return model, batches(slice(0, 200)), batches(slice(200, 400)), logits[200:], labels[200:], pixels[200:]


def balanced(logits, labels):
    accuracies = []
    for label, columns in enumerate((slice(0, 2), slice(2, 6))):
        known = labels[:, label] >= 0
        found, truth = logits[known, columns].argmax(axis=1), labels[known, label]
        accuracies.append(np.mean([(found[truth == k] == k).mean() for k in np.unique(truth)]))
    return np.mean(accuracies)


def test_a_model_is_measured_under_every_rule(timid):
    model, validation, test, logits, labels, _ = timid
    result = evaluate_model(model, test, SCHEMA, COUNTS, validation=validation, rule="logit_adjustment")
    assert result["rule"] == "logit_adjustment" and list(result["rules"]) == list(RULES)
    for name, measured in result["rules"].items():
        strengths = list(measured["strengths"].values())
        expected = balanced(logits.astype(np.float32) + rule_offsets(name, COUNTS, strengths), labels)
        assert measured["balanced_accuracy"] == pytest.approx(expected)
    assert result["balanced_accuracy"] == result["rules"]["logit_adjustment"]["balanced_accuracy"]
    # What it is for: the timid model is much better with it, and "hat" needs it.
    assert result["balanced_accuracy"] > result["rules"]["argmax"]["balanced_accuracy"] + 0.05
    assert result["rules"]["logit_adjustment"]["strengths"]["hat"] > 0


def test_a_rule_wants_validation_data(timid):
    with pytest.raises(ValueError, match="needs validation data"):
        evaluate_model(timid[0], timid[2], SCHEMA, COUNTS, rule="logit_adjustment")


def test_the_exported_model_decides_by_the_rule(timid, tmp_path):
    model, _, _, logits, _, pixels = timid
    offsets = rule_offsets("threshold_adjustment", COUNTS, [5.0, 2.0])
    export_saved_model(model, SCHEMA, (2, 3), tmp_path / "export", scoring=Scoring(offsets=offsets))
    served = tf.saved_model.load(tmp_path / "export").signatures["serving_default"](images=tf.constant(pixels))
    shifted = logits + offsets
    for name, columns in (("hat", slice(0, 2)), ("hue", slice(2, 6))):
        np.testing.assert_allclose(served[f"{name}_scores"], [softmax(row[columns]) for row in shifted], atol=1e-5)
        np.testing.assert_array_equal(served[f"{name}_index"], shifted[:, columns].argmax(axis=1))
    assert (logits[:, :2].argmax(axis=1) != served["hat_index"].numpy()).any()
