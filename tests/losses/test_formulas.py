"""The losses that CRL is compared with: each against the formula of its paper, class by class and sample by sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from objective_cases import TOLERANCE, batch_of
from oracle import finite_difference_gradient, oracle_objective

from crl_tf.callbacks import TrainingProgress
from crl_tf.layout import Layout
from crl_tf.losses.asymmetric import AsymmetricLoss
from crl_tf.losses.base import counts_by_label
from crl_tf.losses.crl.loss import CRL
from crl_tf.losses.focal import FocalLoss
from crl_tf.losses.ldam import LDAMLoss, ldam_margins
from crl_tf.losses.logit_adjusted import BalancedSoftmaxLoss, LogitAdjustedLoss
from crl_tf.losses.reweighted import ClassBalancedLoss, CostSensitiveLoss, class_balanced_weights

SCHEMAS = {(2, 3, 5): [[90, 10], [50, 0, 7], [400, 30, 20, 1, 0]], (2, 2): [[99, 1], [3, 40]], (4,): [[8, 4, 2, 1]]}


def softmax(z):
    weights = [math.exp(v - max(z)) for v in z]
    return [w / sum(weights) for w in weights]


def at_least_one(n):
    return [max(count, 1) for count in n]


def effective_number(n, beta):
    """The geometric series that (1 - beta^n) / (1 - beta) adds up."""
    return sum(beta**j for j in range(n))


def cb_weight(a, n, beta):
    inverse = [1 / effective_number(count, beta) for count in at_least_one(n)]
    trained = [w for w, count in zip(inverse, n, strict=True) if count] or inverse
    return len(trained) * inverse[a] / sum(trained)


def focal(a, z, n, gamma=2.0, alpha=0.25):
    p = softmax(z)[a]
    alpha_t = 1 - alpha if len(z) == 2 and a == 0 else alpha
    return -alpha_t * (1 - p) ** gamma * math.log(p)


def cost_sensitive(a, z, n):
    return -math.exp(-n[a] / sum(n)) * math.log(softmax(z)[a])


def class_balanced(a, z, n, beta=0.9999):
    return -cb_weight(a, n, beta) * math.log(softmax(z)[a])


def logit_adjusted(a, z, n, tau=1.0):
    pi = [count / sum(at_least_one(n)) for count in at_least_one(n)]
    moved = [v + tau * math.log(share) for v, share in zip(z, pi, strict=True)]
    return -math.log(softmax(moved)[a])


def balanced_softmax(a, z, n):
    n = at_least_one(n)
    return -math.log(n[a] * math.exp(z[a]) / sum(count * math.exp(v) for count, v in zip(n, z, strict=True)))


def ldam(a, z, n, max_margin=0.5, scale=30.0):
    widest = max(count**-0.25 for count in n if count)
    margin = max_margin * n[a] ** -0.25 / widest if n[a] else max_margin
    e = math.exp(z[a] - scale * margin)
    return -math.log(e / (e + sum(math.exp(v) for k, v in enumerate(z) if k != a)))


def asymmetric(a, z, n, gamma_positive=0.0, gamma_negative=4.0, clip=0.05):
    p = softmax(z)
    total = 0.0
    for k in [1] if len(z) == 2 else range(len(z)):
        if k == a:
            total -= (1 - p[k]) ** gamma_positive * math.log(p[k])
        else:
            p_m = max(p[k] - clip, 0.0)
            total -= p_m**gamma_negative * math.log(1 - p_m)
    return total


def by_hand(term, labels, logits, schema, **settings):
    """Sum over the labels of the mean of a term over the annotated samples."""
    total, first = 0.0, 0
    for j, (size, counts) in enumerate(zip(schema, SCHEMAS[schema], strict=True)):
        values = [
            term(a, [float(v) for v in z], counts, **settings)
            for a, z in zip(labels[:, j], logits[:, first : first + size], strict=True)
            if a >= 0
        ]
        total += sum(values) / len(values) if values else 0.0
        first += size
    return total


CASES = [
    (focal, FocalLoss, {}),
    (focal, FocalLoss, {"gamma": 0.5, "alpha": 0.9}),
    (cost_sensitive, CostSensitiveLoss, {}),
    (class_balanced, ClassBalancedLoss, {}),
    (class_balanced, ClassBalancedLoss, {"beta": 0.9}),
    (logit_adjusted, LogitAdjustedLoss, {}),
    (logit_adjusted, LogitAdjustedLoss, {"tau": 0.5}),
    (balanced_softmax, BalancedSoftmaxLoss, {}),
    (ldam, LDAMLoss, {}),
    (ldam, LDAMLoss, {"max_margin": 0.3, "scale": 4.0}),
    (asymmetric, AsymmetricLoss, {}),
    (asymmetric, AsymmetricLoss, {"gamma_positive": 1.0, "gamma_negative": 0.5, "clip": 0.2}),
    (asymmetric, AsymmetricLoss, {"gamma_positive": 0.5, "gamma_negative": 1.0, "clip": 0.0}),
]


def make(kind, schema, settings):
    counts = () if kind in (FocalLoss, AsymmetricLoss) else (SCHEMAS[schema],)
    return kind(list(schema), *counts, **settings)


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
@pytest.mark.parametrize(("term", "kind", "settings"), CASES, ids=lambda x: getattr(x, "__name__", str(x)))
def test_the_formula(term, kind, settings, schema):
    labels, logits, _ = batch_of(1, 30, schema, unannotated=0.2)
    assert (labels == -1).any() and all((labels == size - 1).any() for size in schema)
    value = make(kind, schema, settings)(labels, logits)
    np.testing.assert_allclose(value, by_hand(term, labels, logits, schema, **settings), rtol=2e-5)


@pytest.mark.parametrize(("term", "kind", "settings"), CASES, ids=lambda x: getattr(x, "__name__", str(x)))
def test_the_gradient_is_that_of_the_formula(term, kind, settings):
    """Of the asymmetric loss too: through its focusing factors."""
    schema = (2, 3, 5)
    labels, logits, _ = batch_of(2, 6, schema, unannotated=0.2)
    x = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = make(kind, schema, settings)(labels, x)
    slopes = finite_difference_gradient(lambda y: by_hand(term, labels, y, schema, **settings), logits)
    np.testing.assert_allclose(tape.gradient(value, x), slopes, rtol=0, atol=1e-4 * np.abs(slopes).max())


def test_balanced_softmax_is_logit_adjustment_with_tau_1():
    labels, logits, _ = batch_of(3, 40, (2, 3, 5), unannotated=0.1)
    counts = SCHEMAS[2, 3, 5]
    x, gradients = tf.constant(logits), []
    for loss in (BalancedSoftmaxLoss([2, 3, 5], counts), LogitAdjustedLoss([2, 3, 5], counts)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x)
        gradients.append((value, tape.gradient(value, x)))
    np.testing.assert_allclose(gradients[0][0], gradients[1][0], rtol=1e-6)
    np.testing.assert_allclose(gradients[0][1], gradients[1][1], rtol=1e-4, atol=1e-7)


def test_class_balanced_weights():
    """beta = 0.5: E = 1, 1.5 and 1.75, so weights are as 1 : 2/3 : 4/7 = 21 : 14 : 12, and sum to 3."""
    np.testing.assert_allclose(class_balanced_weights([1, 2, 3], 0.5), [63 / 47, 42 / 47, 36 / 47])
    np.testing.assert_allclose(class_balanced_weights([500, 3], 0.0), [1, 1])  # beta = 0: all alike
    np.testing.assert_allclose(
        class_balanced_weights([300, 100], 1 - 1e-9), [0.5, 1.5], rtol=1e-5
    )  # beta -> 1: inverse frequency
    # E_1 = 1 and E_7 = (1 - 0.9^7) / 0.1; the class without an image has no part in the scale.
    np.testing.assert_allclose(class_balanced_weights([0, 7], 0.9), [(1 - 0.9**7) / 0.1, 1.0])
    np.testing.assert_allclose(class_balanced_weights([0, 0], 0.9), [1.0, 1.0])


def test_alpha_of_the_focal_loss_is_of_the_second_of_two_classes():
    """Scores of 0, so that p = 1/2 and 1/3: alpha_t = 0.9 for "present", 0.1 for "absent"; 0.9 for each of three classes."""
    loss = FocalLoss([2, 3], gamma=1.0, alpha=0.9)
    values = [float(loss([label], tf.zeros([1, 5]))) for label in ([1, -1], [0, -1], [-1, 0], [-1, 2])]
    np.testing.assert_allclose(values, [0.45 * math.log(2), 0.05 * math.log(2), *[0.6 * math.log(3)] * 2], rtol=1e-5)
    # Lin et al., eq. 5, on the one sigmoid logit of a binary label.
    np.testing.assert_allclose(
        FocalLoss(2)([1, 0], [[1.5], [1.5]]),
        (
            0.25 * (1 - 1 / (1 + math.exp(-1.5))) ** 2 * math.log(1 + math.exp(-1.5))
            + 0.75 / (1 + math.exp(-1.5)) ** 2 * math.log(1 + math.exp(1.5))
        )
        / 2,
        rtol=1e-5,
    )


def test_an_alpha_that_leaves_a_class_without_weight_is_refused_for_two_classes_only():
    with pytest.raises(ValueError, match="alpha of the focal loss must be < 1 where a label has two classes, received"):
        FocalLoss([3, 2], alpha=1.0)
    with pytest.raises(ValueError, match="alpha must be a number > 0, received 0"):
        FocalLoss(3, alpha=0)
    # p = 1/3: (2/3)^2 ln 3
    np.testing.assert_allclose(FocalLoss(3, alpha=1.0)([2], tf.zeros([1, 3])), 4 / 9 * math.log(3), rtol=1e-5)


def test_ldam_margins():
    """n^(1/4) = 1, 2, 3: margins as 1 : 1/2 : 1/3; a class without an image is as wide as the widest."""
    np.testing.assert_allclose(ldam_margins([1, 16, 81], 0.6), [0.6, 0.3, 0.2])
    np.testing.assert_allclose(ldam_margins([0, 16, 81], 0.6), [0.6, 0.6, 0.4])
    np.testing.assert_allclose(ldam_margins([0, 0], 0.6), [0.6, 0.6])


def test_a_weight_is_not_divided_by_the_weights():
    """75 and 25 images: weights e^-0.75, e^-0.25; two samples at ln 2."""
    value = CostSensitiveLoss(2, [75, 25])([0, 1], tf.zeros([2, 2]))
    np.testing.assert_allclose(value, math.log(2) * (math.exp(-0.75) + math.exp(-0.25)) / 2, rtol=1e-6)


def weighted_ldam(a, z, n):
    return cb_weight(a, n, 0.9999) * ldam(a, z, n)


def test_ldam_weighs_again_from_a_share_of_the_training_on():
    """In a graph traced before: 10 epochs, the last two re-weighted."""
    schema = (2, 3, 5)
    labels, logits, _ = batch_of(4, 30, schema, unannotated=0.1)
    loss = make(LDAMLoss, schema, {})
    step = tf.function(lambda: loss(labels, logits))
    early, late = (by_hand(term, labels, logits, schema) for term in (ldam, weighted_ldam))
    assert abs(early - late) > 0.1
    callback = TrainingProgress(loss, epochs=10)
    for epoch in (0, 7, 8, 9):
        callback.on_epoch_begin(epoch)
        np.testing.assert_allclose(step(), early if epoch < 8 else late, rtol=2e-5)


@pytest.mark.parametrize("settings", [{"beta": None}, {"defer_until": 1.0}])
def test_ldam_without_weighing_again(settings):
    labels, logits, _ = batch_of(4, 30, (4,))
    loss = make(LDAMLoss, (4,), settings)
    loss.progress.assign(1.0)
    np.testing.assert_allclose(loss(labels, logits), by_hand(ldam, labels, logits, (4,)), rtol=2e-5)


def test_asymmetric_where_probabilities_round_to_1():
    """Wrong by 200 nats of logit: -log(1 - p) = 200 for the binary label; 200 for each of the two classes that are mistaken."""
    loss = AsymmetricLoss([2, 3], gamma_negative=0.0, clip=0.0)
    np.testing.assert_allclose(loss([[0, -1]], [[-100.0, 100.0, 0.0, 0.0, 0.0]]), 200.0, rtol=1e-6)
    # Class 0 is true and has p = e^-200; class 1 takes it all, so -log p + -log(1 - p_1) = 200 + 200.
    np.testing.assert_allclose(loss([[-1, 0]], [[0.0, 0.0, -100.0, 100.0, -110.0]]), 400.0, rtol=1e-6)


def test_negatives_up_to_the_clip_count_nothing():
    logits = tf.constant([[math.log(0.96), math.log(0.04)]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = AsymmetricLoss(2, gamma_negative=0.5)([0], logits)
    assert float(value) == 0.0 and not np.any(tape.gradient(value, logits))


@pytest.mark.parametrize(
    ("term", "kind", "settings"), [(focal, FocalLoss, {}), (weighted_ldam, LDAMLoss, {}), (asymmetric, AsymmetricLoss, {})]
)
@pytest.mark.parametrize("alpha", [0.3, 0.0])
def test_crl_beside_another_loss(term, kind, settings, alpha):
    """Eq. 8 with the base in place of L_ce; the oracle with alpha = 1 is the rectification alone."""
    schema = (2, 3, 5)
    labels, logits, _ = batch_of(5, 40, schema, unannotated=0.1)
    base = make(kind, schema, settings)
    loss = CRL(schema, alpha=alpha, base=base)
    if kind is LDAMLoss:
        loss.progress.assign(0.9)
    rectification = oracle_objective(labels, logits, list(schema), [1.0, 1.0, 1.0])
    assert rectification > 0.1
    expected = alpha * rectification + (1 - alpha) * by_hand(term, labels, logits, schema)
    np.testing.assert_allclose(loss(labels, logits), expected, **TOLERANCE)
    np.testing.assert_allclose(
        loss.batch_terms(labels, logits).logs["L_ce"].value, by_hand(term, labels, logits, schema), rtol=2e-5
    )


def test_counts_by_label():
    assert [c.tolist() for c in counts_by_label([3, 0], Layout((2,)))] == [[3, 0]]
    assert [c.tolist() for c in counts_by_label(((1, 2), np.array([3, 4, 5])), Layout((2, 3)))] == [[1, 2], [3, 4, 5]]
    for wrong in ([[1, 2]], [[1, 2], [3, 4]], [1, 2], {"a": [1, 2]}, [[1, -2], [3, 4, 5]], [[1, 2], [3, 4, float("nan")]]):
        with pytest.raises(ValueError, match="class_counts"):
            counts_by_label(wrong, Layout((2, 3)))
