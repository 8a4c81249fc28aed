"""The fast form of the rectification against the readable one: the same loss, share by share, and the same counts."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from oracle import oracle_crl
from rectification_cases import CASES, GRADIENT_TOLERANCE, VALUE_TOLERANCE, XDOMAIN_SIZES, random_case, value_and_gradient
from variants import every_variant

from crl_tf import class_rectification_loss
from crl_tf.layout import Layout, compiled_by_xla, log_probabilities, rows_of_labels
from crl_tf.losses.crl.rectification import Rectifier


def inputs_of(case, level):
    return case.logits if level == "class" else case.features


def assert_same(seen, expected, gradient=True):
    np.testing.assert_allclose(seen[0], expected[0], **VALUE_TOLERANCE)
    assert np.isfinite(seen[1]).all()
    if gradient:
        largest = np.abs(expected[1]).max()
        np.testing.assert_allclose(seen[1], expected[1], rtol=0, atol=GRADIENT_TOLERANCE * largest + 1e-7)


@every_variant
@pytest.mark.parametrize("name", CASES)
def test_both_forms_agree_on_every_case(name, level, comparison):
    case = CASES[name]()
    weights = 1.0 + 0.37 * np.arange(len(case.num_classes))
    options = {"num_classes": case.num_classes, "level": level, "comparison": comparison, **case.options}
    fast, readable = (
        value_and_gradient(case.labels, inputs_of(case, level), weights, form=form, **options) for form in ("fast", "readable")
    )
    # At a tie each form may take another subgradient.
    assert_same(fast, readable, gradient=case.gradient != "finite")


SHAPES = {
    # sizes of the labels, batch size, kappa, scope
    "many-binary": ([2] * 12, 64, 9, "minority"),
    # Enough labels that the instance level cuts them into parts, of unequal size.
    "very-many": ([2] * 10 + [3] * 9, 48, 6, "minority"),
    "many-small-classes": (XDOMAIN_SIZES, 48, 5, "minority"),
    "one-label": ([40], 90, 6, "all"),
    "large-classes": ([2, 3], 120, 25, "all"),
    "no-mining": ([2, 5], 60, None, "minority"),
}


@every_variant
@pytest.mark.parametrize("shape", SHAPES)
def test_graph_and_xla_agree_with_the_readable_form(shape, level, comparison):
    """In a graph there are as many rows as anchors, under XLA they are filled up: the sum is the same."""
    num_classes, batch, kappa, scope = SHAPES[shape]
    case = random_case(301, batch, num_classes, dim=7)
    case.labels[np.random.default_rng(0).random(case.labels.shape) < 0.06] = -1
    options = {"num_classes": num_classes, "level": level, "comparison": comparison, "kappa": kappa, "scope": scope}
    expected = value_and_gradient(case.labels, inputs_of(case, level), form="readable", **options)
    assert (expected[0] > 0).any()

    def step(labels, inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = class_rectification_loss(labels, inputs, **options)
        return value, tape.gradient(value, inputs)

    for compiled in (tf.function(step), tf.function(step, jit_compile=True)):
        seen = compiled(tf.constant(case.labels), tf.constant(inputs_of(case, level)))
        assert_same([t.numpy() for t in seen], expected)


@every_variant
@pytest.mark.parametrize("scope", ["minority", "all"])
def test_every_sample_gets_its_own_share(scope, level, comparison):
    """And the counts of classes, triplets and active triplets are the same."""
    case = random_case(302, 80, [2, 3, 6])
    layout = Layout.of(case.num_classes)
    labels = rows_of_labels(tf.constant(case.labels))
    inputs = log_probabilities(case.logits, layout) if level == "class" else tf.constant(case.features)
    seen = []
    for readable in (False, True):
        rectifier = Rectifier(layout, level, comparison, 5, 0.5, None, scope, 20, readable=readable)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            result = rectifier(labels, inputs)
            # Unequal weights of the samples, as sample_weight gives them.
            total = tf.reduce_sum(result.by_label * tf.linspace(0.5, 2.0, 80))
        seen.append([*result, tape.gradient(total, inputs)])
    fast, readable = seen
    assert (np.count_nonzero(readable[0], axis=1) > 6).all()  # more anchors than kappa
    for a, b in zip(fast[:-1], readable[:-1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fast[-1], readable[-1], rtol=0, atol=GRADIENT_TOLERANCE * np.abs(readable[-1]).max())


@pytest.mark.parametrize("comparison", ["relative", "absolute", "distribution"])
def test_features_shared_by_all_labels(comparison):
    case = random_case(303, 50, [2, 4, 3], dim=6)
    shared = case.features[:, 0]
    options = {"num_classes": case.num_classes, "level": "instance", "comparison": comparison, "kappa": 6}
    expected = oracle_crl(case.labels, np.repeat(shared[:, None], 3, axis=1), case.num_classes, "instance", comparison, kappa=6)
    fast = value_and_gradient(case.labels, shared, **options)
    np.testing.assert_allclose(fast[0], expected, **VALUE_TOLERANCE)
    assert_same(fast, value_and_gradient(case.labels, shared, form="readable", **options))


@pytest.mark.parametrize("comparison", ["relative", "absolute", "distribution"])
def test_labels_with_many_few_and_no_anchors(comparison):
    """45 labels: so many that they are cut into parts by their number of anchors, some of which have none."""
    rng = np.random.default_rng(307)
    rates = rng.permutation(np.repeat([0.0, 0.05, 0.2, 0.5], [15, 10, 10, 10]))
    labels = (rng.random((40, 45)) < rates).astype(np.int32)
    labels[:, np.flatnonzero(rates == 0.5)[0]] = -1
    features = (rng.standard_normal((40, 45, 5)) + labels[..., None]).astype(np.float32)
    for kappa in (3, None):
        options = {"num_classes": [2] * 45, "level": "instance", "comparison": comparison, "kappa": kappa}
        fast = value_and_gradient(labels, features, **options)
        expected = oracle_crl(labels, features, [2] * 45, "instance", comparison, kappa=kappa)
        np.testing.assert_allclose(fast[0], expected, **VALUE_TOLERANCE)
        assert (expected[rates == 0.0] == 0).all() and np.count_nonzero(expected) > 20
        assert_same(fast, value_and_gradient(labels, features, form="readable", **options))
    none = value_and_gradient(np.zeros_like(labels), features, **options)
    assert not none[0].any() and not none[1].any()


@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize("spacing", [1e-2, 1e-3, 1e-4])
def test_close_pairs_keep_their_digits(spacing, offset):
    """Pairs of samples a hair apart, all far from the origin: |a|^2 + |b|^2 - 2 a b has no digits left for them.

    Against the oracle on the same float32 numbers, so that what rounds is the loss alone. The gradient with kappa=None: which
    of two samples a hair apart is mined is not to be told in float32.
    """
    rng = np.random.default_rng(304)
    centres = np.repeat(rng.standard_normal((12, 1, 4)), 2, axis=0)
    features = (centres + spacing * rng.standard_normal(centres.shape) + offset).astype(np.float32)
    labels = np.tile([[1], [0], [0], [0], [1], [0]], (4, 1)).astype(np.int32)
    for kappa in (1, 4, None):
        for comparison in ("relative", "absolute"):
            options = {"num_classes": [2], "level": "instance", "comparison": comparison, "kappa": kappa}
            fast = value_and_gradient(labels, features, **options)
            expected = oracle_crl(labels, features, [2], "instance", comparison, kappa=kappa)
            np.testing.assert_allclose(fast[0], expected, **VALUE_TOLERANCE)
            if kappa is None:
                assert_same(fast, value_and_gradient(labels, features, form="readable", **options))


@pytest.mark.parametrize("far, spread", [(10.0, 1e-3), (100.0, 1e-2)])
def test_hinges_are_counted_right_where_features_collapse(far, spread):
    """A tight cluster beside far samples: the order in which negatives were mined is not that of their distances."""
    rng = np.random.default_rng(306)
    cluster = spread * rng.standard_normal((30, 4))
    features = np.concatenate([cluster, far + rng.standard_normal((30, 4))]).astype(np.float32)[:, None]
    labels = np.array([1, 0] * 15 + [0] * 30)[:, None]
    options = {"num_classes": [2], "level": "instance", "kappa": None, "margin": 0.0}
    expected = oracle_crl(labels, features, [2], "instance", "relative", kappa=None, margin=0.0)
    fast, readable = (value_and_gradient(labels, features, form=form, **options) for form in ("fast", "readable"))
    np.testing.assert_allclose(fast[0], expected, rtol=1e-4)  # distances of order 1e-3 from coordinates of order 10
    assert_same(fast, readable)


@pytest.mark.parametrize("negatives", [100, 2000])
def test_one_high_negative_among_many_low_ones(negatives):
    scores = np.concatenate([np.full(20, 0.5), [0.999], np.linspace(1e-3, 1.1e-3, negatives - 1)])
    logits = np.stack([np.zeros(len(scores)), np.log(scores / (1 - scores))], axis=1).astype(np.float32)
    logits[:20, 1] = np.linspace(-0.01, 0.01, 20)
    labels = np.arange(len(scores)) < 20
    options = {"num_classes": 2, "comparison": "absolute", "kappa": None}
    fast, readable = (value_and_gradient(labels.astype(int), logits, form=form, **options) for form in ("fast", "readable"))
    np.testing.assert_allclose(fast[0], readable[0], rtol=1e-5)
    assert_same(fast, readable)


@every_variant
def test_what_is_no_number_stays_none(level, comparison):
    case = random_case(307, 30, [3])
    inputs = inputs_of(case, level).copy()
    anchor = int(np.flatnonzero(case.labels[:, 0] == 2)[0])
    inputs[anchor] = np.nan
    assert np.isnan(class_rectification_loss(case.labels, inputs, num_classes=[3], level=level, comparison=comparison)).all()


def test_second_derivatives_of_the_instance_level_are_refused():
    case = random_case(308, 20, [2])
    features = tf.constant(case.features)
    with tf.GradientTape() as outer:
        outer.watch(features)
        with tf.GradientTape() as inner:
            inner.watch(features)
            value = class_rectification_loss(case.labels, features, num_classes=[2], level="instance")
        slope = tf.reduce_sum(tf.square(inner.gradient(value, features)))
    with pytest.raises(LookupError, match="no second derivatives"):
        outer.gradient(slope, features)


def test_vectorized_map_takes_the_readable_form():
    """It needs every shape to be the same in each element; the fast form has as many rows as there are anchors."""
    case = random_case(309, 24, [2, 3])
    logits, labels = tf.reshape(case.logits, [2, 12, 5]), tf.reshape(case.labels, [2, 12, 2])

    def loss(labels, logits):
        return class_rectification_loss(labels, logits, num_classes=[2, 3], form="readable")

    mapped = tf.vectorized_map(lambda both: loss(*both), (labels, logits))
    for k in range(2):
        np.testing.assert_allclose(mapped[k], loss(labels[k], logits[k]), rtol=1e-5)


def test_all_pairs_of_a_large_batch_also_of_unknown_size():
    case = random_case(305, 400, [3], skew=0.3)
    options = {"num_classes": [3], "kappa": None}
    expected = value_and_gradient(case.labels, case.logits, form="readable", **options)
    assert_same(value_and_gradient(case.labels, case.logits, **options), expected)

    # Nor does an unknown batch size change a thing.
    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.int32), tf.TensorSpec([None, 3], tf.float32)])
    def loss(labels, logits):
        return class_rectification_loss(labels, logits, **options)

    for batch in (400, 60):
        rows = slice(batch)
        readable = class_rectification_loss(case.labels[rows], case.logits[rows], form="readable", **options)
        np.testing.assert_allclose(loss(case.labels[rows], case.logits[rows]), readable, **VALUE_TOLERANCE)


def test_compiled_by_xla_where_xla_compiles_and_only_there():
    def seen():
        answers.append(compiled_by_xla())
        return tf.zeros([])

    answers = []
    seen()
    tf.function(seen)()
    tf.function(lambda: tf.function(seen)(), jit_compile=True)()
    tf.function(lambda: tf.while_loop(lambda i: i < 1, lambda i: (seen(), i + 1)[1:], [0]), jit_compile=True)()
    assert answers == [False, False, True, True]


def test_form_must_be_known():
    with pytest.raises(ValueError, match=r"form must be one of \('fast', 'readable'\), received 'quick'"):
        class_rectification_loss([0, 0, 1], np.zeros((3, 2), np.float32), num_classes=2, form="quick")
