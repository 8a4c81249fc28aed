"""Normalization by anchors, positives not squared, the gate and the two balances, against loops written from docs/spec.md."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from objective_cases import batch_of, one_hot
from oracle import finite_difference_gradient, oracle_crl, oracle_cross_entropy, oracle_gate
from rectification_cases import CASES, GRADIENT_TOLERANCE, VALUE_TOLERANCE, random_case, value_and_gradient

from crl_tf import CRL, class_rectification_loss
from crl_tf.layout import Layout, log_probabilities, rows_of_labels
from crl_tf.losses.crl.rectification import Rectifier

WITH_MARGIN = [(level, comparison) for level in ("class", "instance") for comparison in ("relative", "absolute")]
OTHER_FORMS = [
    *((level, comparison, {"normalization": "anchors"}) for level, comparison in WITH_MARGIN),
    *((level, "absolute", {"squared_positives": False}) for level in ("class", "instance")),
    ("class", "absolute", {"normalization": "anchors", "squared_positives": False}),
]
every_other_form = pytest.mark.parametrize(
    ("level", "comparison", "form"), OTHER_FORMS, ids=["-".join([*row[:2], *map(str, row[2].values())]) for row in OTHER_FORMS]
)


@every_other_form
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_the_oracle(name, level, comparison, form):
    case = CASES[name]()
    inputs = case.logits if level == "class" else case.features
    options = {"level": level, "comparison": comparison, **form, **case.options}
    value, gradient = value_and_gradient(case.labels, inputs, num_classes=case.num_classes, **options)
    expected = oracle_crl(case.labels, inputs, case.num_classes, **options)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(expected).max()))
    assert np.isfinite(gradient).all()
    readable = value_and_gradient(case.labels, inputs, num_classes=case.num_classes, form="readable", **options)
    np.testing.assert_allclose(value, readable[0], rtol=1e-5, atol=1e-6)
    if case.gradient != "finite":  # of tied samples the two forms may mine different ones
        tolerance = GRADIENT_TOLERANCE * max(1e-3, np.abs(readable[1]).max())
        np.testing.assert_allclose(gradient, readable[1], rtol=0, atol=tolerance)
    if case.gradient == "coordinates":
        every = list(np.ndindex(*inputs.shape))
        some = [every[k] for k in np.random.default_rng(0).permutation(len(every))[:12]]
        slopes = finite_difference_gradient(
            lambda x: float(oracle_crl(case.labels, x, case.num_classes, **options).sum()), inputs, coordinates=some
        )
        tolerance = GRADIENT_TOLERANCE * np.abs(slopes).max() + 1e-6
        np.testing.assert_allclose([gradient[index] for index in some], slopes, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("level", "comparison"), WITH_MARGIN)
def test_a_label_with_one_term_per_anchor_is_the_mean_times_its_anchors(level, comparison):
    """kappa=None and two samples of the minority class: both anchors have as many terms, so the sum is twice the mean."""
    case = random_case(7, 9, [2])
    case.labels = np.array([[1], [1], *[[0]] * 7], np.int32)
    inputs = case.logits if level == "class" else case.features
    options = {"num_classes": [2], "level": level, "comparison": comparison, "kappa": None}
    mean = class_rectification_loss(case.labels, inputs, **options).numpy()
    summed = class_rectification_loss(case.labels, inputs, normalization="anchors", **options).numpy()
    np.testing.assert_allclose(summed, 2 * mean, rtol=1e-6)


@pytest.mark.parametrize("compiled", ["eager", "graph", "xla"])
def test_in_graphs_and_under_xla(compiled):
    case = random_case(8, 40, [2, 5])
    options = {"num_classes": case.num_classes, "normalization": "anchors", "kappa": 4}
    expected = oracle_crl(case.labels, case.logits, case.num_classes, normalization="anchors", kappa=4)

    def loss(labels, logits):
        return class_rectification_loss(labels, logits, **options)

    run = {"eager": loss, "graph": tf.function(loss), "xla": tf.function(loss, jit_compile=True)}[compiled]
    np.testing.assert_allclose(run(tf.constant(case.labels), tf.constant(case.logits)), expected, rtol=1e-5)


@pytest.mark.parametrize("balance", ["interpolate", "sum"])
@pytest.mark.parametrize("normalization", ["triplets", "anchors"])
@pytest.mark.parametrize(("level", "comparison"), WITH_MARGIN)
def test_the_gated_objective_equals_the_oracle_and_the_gate_has_no_gradient(level, comparison, normalization, balance):
    sizes, alpha = [2, 5, 3], [0.7, 0.4, 1.0]
    labels, logits, features = batch_of(11, 30, sizes, unannotated=0.1)
    # Classes that are partly apart, so that gates are neither open nor closed.
    logits, features = 0.7 * logits + 3.0 * one_hot(np.maximum(labels, 0), sizes), 0.3 * features
    inputs = logits if level == "class" else features
    gate = oracle_gate(labels, inputs, sizes, level, comparison, normalization=normalization)
    rectification = oracle_crl(labels, inputs, sizes, level, comparison, normalization=normalization)
    cross_entropy = oracle_cross_entropy(labels, logits, sizes)
    gated = np.array(alpha) * gate
    rest = 1.0 if balance == "sum" else 1.0 - gated
    loss = CRL(sizes, level=level, comparison=comparison, alpha=alpha, normalization=normalization, gate=True, balance=balance)
    constant = CRL(sizes, level=level, comparison=comparison, alpha=gated, normalization=normalization, balance=balance)
    assert any(0 < g < 1 for g in gate)
    x, f = tf.constant(logits), tf.constant(features)
    gradients = []
    for one in (loss, constant):
        with tf.GradientTape() as tape:
            tape.watch([x, f])
            value = tf.reduce_mean(one.batch_terms(labels, x, f).per_sample)
        gradients.append(tape.gradient(value, [x, f]))
        np.testing.assert_allclose(value, (gated * rectification + rest * cross_entropy).sum(), rtol=2e-5)
    for ours, expected in zip(*gradients, strict=True):
        if ours is not None:
            np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("comparison", ["relative", "absolute"])
@pytest.mark.parametrize("normalization", ["triplets", "anchors"])
def test_equal_scores_close_the_gate_and_classes_apart_open_it(comparison, normalization):
    labels = np.array([[1]] * 4 + [[0]] * 6, np.int32)
    loss = CRL(2, comparison=comparison, alpha=0.5, gate=True, normalization=normalization)
    equal = loss.batch_terms(labels, tf.zeros([10, 2]))
    np.testing.assert_allclose(tf.reduce_sum(equal.by_label), np.log(2), rtol=1e-6)  # cross-entropy alone, at full weight
    np.testing.assert_allclose(equal.tallies["relative"], [1.0], rtol=1e-6)
    apart = np.where(labels == np.arange(2), 20.0, -20.0).astype(np.float32)
    terms = loss.batch_terms(labels, apart)
    np.testing.assert_allclose(terms.tallies["relative"], [0.0], atol=1e-6)
    # Of reversed classes L_crl is above its value for equal scores: the gate stays closed, and does not turn round.
    reversed_terms = loss.batch_terms(labels, -apart)
    assert reversed_terms.tallies["relative"][0] > 1
    np.testing.assert_allclose(tf.reduce_sum(reversed_terms.by_label), oracle_cross_entropy(labels, -apart, [2]).sum(), rtol=1e-6)


def test_without_a_triplet_the_gate_is_open():
    labels = np.array([[0], [0], [0], [1]], np.int32)  # one sample of the minority class: no triplet
    logits = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    gated, plain = (CRL(2, alpha=0.25, gate=gate).batch_terms(labels, logits) for gate in (True, False))
    np.testing.assert_array_equal(gated.by_label, plain.by_label)
    assert gated.tallies["compared"].numpy().tolist() == [0] and gated.tallies["relative"].numpy().tolist() == [0]


@pytest.mark.parametrize("kappa", [1, 2, None])
@pytest.mark.parametrize("normalization", ["triplets", "anchors"])
@pytest.mark.parametrize(("level", "comparison"), WITH_MARGIN)
def test_equal_scores_have_their_value_also_where_an_anchor_has_no_positive(level, comparison, normalization, kappa):
    """kappa = 1 at the class level: the one hard positive is an anchor without a positive, but with negatives."""
    labels = np.array([[1]] * 3 + [[0]] * 6, np.int32)
    loss = CRL(2, level=level, comparison=comparison, alpha=0.5, kappa=kappa, normalization=normalization)
    tallies = loss.batch_terms(labels, tf.zeros([9, 2]), tf.ones([9, 1, 4])).tallies
    np.testing.assert_allclose(tallies["relative"], [1.0], rtol=1e-6)
    assert tallies["compared"].numpy().tolist() == [1]


def test_positives_without_negatives_are_no_triplet():
    """scope="all" and one class only: the absolute comparison has a loss (half the mean of its positives), the gate is open."""
    labels, logits = np.ones([5, 1], np.int32), np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    options = {"comparison": "absolute", "scope": "all"}
    terms = CRL(2, alpha=0.25, gate=True, **options).batch_terms(labels, logits)
    (rectification,), (cross_entropy,) = (oracle_crl(labels, logits, [2], **options), oracle_cross_entropy(labels, logits, [2]))
    assert rectification > 1e-3
    np.testing.assert_allclose(tf.reduce_sum(terms.by_label), 0.25 * rectification + 0.75 * cross_entropy, rtol=1e-5)
    assert terms.tallies["relative"].numpy().tolist() == terms.tallies["compared"].numpy().tolist() == [0]


@every_other_form
@pytest.mark.parametrize("kappa", [1, 5])
def test_both_forms_give_every_sample_the_same_share(level, comparison, form, kappa):
    """And count the same classes, triplets and anchors."""
    case = random_case(12, 60, [2, 3, 6])
    layout, labels = Layout.of(case.num_classes), rows_of_labels(tf.constant(case.labels))
    inputs = log_probabilities(case.logits, layout) if level == "class" else tf.constant(case.features)
    fast, readable = (
        Rectifier(layout, level, comparison, kappa, 0.5, None, "minority", 20, **form, readable=readable)(labels, inputs)
        for readable in (False, True)
    )
    assert (np.count_nonzero(readable.by_label, axis=1) > 2).all()
    for a, b in zip(fast, readable, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_scores_are_computed_in_float32(dtype):
    case = random_case(13, 30, [3, 2])
    logits = tf.cast(case.logits, dtype)
    options = {"num_classes": case.num_classes, "comparison": "absolute", "normalization": "anchors", "squared_positives": False}
    value = class_rectification_loss(case.labels, logits, **options)
    assert value.dtype == tf.float32
    np.testing.assert_allclose(value, oracle_crl(case.labels, tf.cast(logits, tf.float32).numpy(), **options), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalization": "samples"}, r"normalization must be one of \('triplets', 'anchors'\), received 'samples'"),
        (
            {"normalization": "anchors", "comparison": "distribution"},
            "normalization must be 'triplets' for comparison='distribution'",
        ),
        ({"squared_positives": False}, "squared_positives must be True for comparison='relative'"),
        ({"gate": True, "comparison": "distribution"}, "gate must be False without a margin > 0, received True"),
        ({"gate": True, "margin": 0.0}, "gate must be False without a margin > 0, received True"),
        ({"balance": "mean"}, r"balance must be one of \('interpolate', 'sum'\), received 'mean'"),
    ],
)
def test_what_has_no_meaning_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CRL(3, alpha=0.5, **options)


def test_the_new_arguments_are_saved_and_older_files_load():
    options = {"comparison": "absolute", "normalization": "anchors", "squared_positives": False, "gate": True, "balance": "sum"}
    config = CRL(3, alpha=0.5, **options).get_config()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(CRL(3, alpha=0.5, **options)))
    assert again.get_config() == config and {key: config[key] for key in options} == options
    older = {key: value for key, value in config.items() if key not in options}
    assert CRL.from_config(older).get_config() == CRL(3, alpha=0.5).get_config()


def test_the_paper_in_two_forms_by_hand():
    """Positives with scores 0.8 and 0.6: the square of 0.2 against 0.2 itself, and the same hinges."""
    scores = np.array([0.8, 0.6, 0.5, 0.4, 0.3])
    logits = np.stack([np.zeros(5), np.log(scores / (1 - scores))], axis=1).astype(np.float32)
    labels = np.array([[1], [1], [0], [0], [0]], np.int32)
    hinges = [max(0.5 - (a - n), 0) ** 2 for a in (0.8, 0.6) for n in (0.5, 0.4, 0.3)]
    for squared, pull in ((True, 0.04), (False, 0.2)):
        value = class_rectification_loss(labels, logits, num_classes=2, comparison="absolute", squared_positives=squared)
        np.testing.assert_allclose(value, [0.5 * (pull + np.mean(hinges))], **VALUE_TOLERANCE)
