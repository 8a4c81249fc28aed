"""From logits to scores, decisions and names, against a loop."""

import json

import numpy as np
import pytest
import tensorflow as tf

from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.serving.scoring import DETECTED, INDEX, NAME, NO_DECISION, SCORES, Scoring, answers

SCHEMA = AttributeSchema(
    (Attribute("hat", ("no", "ja, ödd")), Attribute("hue", ("r", "g", "b")), Attribute("many", tuple(map(str, range(300)))))
)
WIDTH, COLUMNS = SCHEMA.width, {name: SCHEMA.columns(name) for name in SCHEMA.names}
RNG = np.random.default_rng(0)
PARTS = {
    "offsets": RNG.normal(size=WIDTH),
    "temperatures": np.array([0.5, 3.0, 1.7]),
    "decision_offsets": RNG.normal(size=WIDTH),
    "thresholds": RNG.uniform(0, 0.5, WIDTH),
}
CASES = [(), ("offsets",), ("temperatures",), ("temperatures", "decision_offsets"), tuple(PARTS)]


def found(logits, scoring=None, valid=None, schema=SCHEMA):
    valid = np.ones(len(logits), bool) if valid is None else valid
    outputs = answers(tf.constant(logits, tf.float32), schema, scoring or Scoring(), tf.constant(valid))
    return {name: value.numpy() for name, value in outputs.items()}


def softmax(row):
    powers = np.exp(row - row.max())
    return powers / powers.sum()


@pytest.mark.parametrize("names", CASES, ids="+".join)
def test_scores_and_decisions_are_the_formulas(names):
    parts = {name: PARTS[name] for name in names}
    logits = 3 * RNG.normal(size=(20, WIDTH))
    outputs = found(logits, Scoring(**parts))
    for place, attribute in enumerate(SCHEMA.attributes):
        columns, name = COLUMNS[attribute.name], attribute.name
        for image, row in enumerate(logits[:, columns]):
            row = row / parts.get("temperatures", np.ones(3))[place] + parts.get("offsets", np.zeros(WIDTH))[columns]
            scores = softmax(row)
            decided = int(np.argmax(np.log(scores) + parts.get("decision_offsets", np.zeros(WIDTH))[columns]))
            np.testing.assert_allclose(outputs[name + SCORES][image], scores, rtol=1e-5)
            assert outputs[name + INDEX][image] == decided
            assert outputs[name + NAME][image].decode() == attribute.classes[decided]
            if "thresholds" in parts:
                np.testing.assert_array_equal(outputs[name + DETECTED][image], scores >= parts["thresholds"][columns])
        assert outputs[name + SCORES].dtype == np.float32 and outputs[name + INDEX].dtype == np.int32
    assert ("hat" + DETECTED in outputs) == ("thresholds" in parts)


def test_an_image_that_is_none_has_no_score_and_no_decision():
    logits, valid = RNG.normal(size=(5, WIDTH)), np.array([True, False, True, False, False])
    logits[3] = np.nan
    thresholds = Scoring(thresholds=np.zeros(WIDTH))
    outputs, whole = found(logits, thresholds, valid), found(logits[valid], thresholds)
    for name in SCHEMA.names:
        assert np.isnan(outputs[name + SCORES][~valid]).all() and (outputs[name + INDEX][~valid] == NO_DECISION).all()
        assert (outputs[name + NAME][~valid] == b"").all() and not outputs[name + DETECTED][~valid].any()
        np.testing.assert_allclose(outputs[name + SCORES][valid], whole[name + SCORES], rtol=1e-6)
        np.testing.assert_array_equal(outputs[name + NAME][valid], whole[name + NAME])
        assert whole[name + DETECTED].all()  # 0 is a score that reaches 0


def test_of_equal_scores_the_first_class_decides_and_large_logits_stay_finite():
    logits = np.zeros((2, WIDTH))
    logits[1, [1, 4, 6, 304]] = 1e30
    outputs = found(logits)
    assert [outputs[name + INDEX].tolist() for name in SCHEMA.names] == [[0, 1], [0, 2], [0, 1]]
    assert all(np.isfinite(outputs[name + SCORES]).all() for name in SCHEMA.names)
    np.testing.assert_allclose(outputs["hat" + SCORES], [[0.5, 0.5], [0, 1]])


def test_half_precision_logits_give_float32_scores():
    logits = tf.constant(RNG.normal(size=(3, WIDTH)), tf.bfloat16)
    outputs = answers(logits, SCHEMA, Scoring(), tf.ones(3, bool))
    assert outputs["hue" + SCORES].dtype == tf.float32
    np.testing.assert_allclose(tf.reduce_sum(outputs["many" + SCORES], axis=1), np.ones(3), atol=1e-5)


def test_no_two_labels_share_an_output():
    suffixes = (SCORES, INDEX, NAME, DETECTED)
    assert not [(a, b) for a in suffixes for b in suffixes if a != b and a.endswith(b)]
    names = ("a", *(f"a{one}{two}" for one in suffixes for two in ("", *suffixes)), *suffixes, "valid", "image_bytes")
    schema = AttributeSchema(tuple(Attribute(name, ("x", "y")) for name in names))
    outputs = found(RNG.normal(size=(1, schema.width)), Scoring(thresholds=np.ones(schema.width)), schema=schema)
    assert len(outputs) == len(names) * len(suffixes)
    assert set(outputs) == {name + suffix for name in names for suffix in suffixes}


@pytest.mark.parametrize("names", CASES, ids="+".join)
def test_a_configuration_of_it_is_read_as_the_same(names):
    scoring = Scoring(**{name: PARTS[name] for name in names})
    again = Scoring.from_config(json.loads(json.dumps(scoring.to_config(), allow_nan=False)))
    logits = RNG.normal(size=(4, WIDTH))
    for one, other in zip(found(logits, scoring).values(), found(logits, again).values(), strict=True):
        np.testing.assert_array_equal(one, other)
