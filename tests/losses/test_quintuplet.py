"""The triple-header hinge loss: numbers from plain arithmetic, and hinges that drop out."""

import numpy as np
import pytest
import tensorflow as tf

from crl_tf.losses.quintuplet import triple_header_hinge

MARGINS = (0.1, 0.2, 0.3)
# From the anchor 0 the others lie 1, 0.5, 1.2, 1 away on a line: squares 1, 0.25, 1.44, 1.
LINE = [[[0.0]], [[1.0]], [[0.5]], [[-1.2]], [[1.0]]]
FIRST, SECOND, THIRD = 0.1 + 1 - 0.25, 0.0, 0.3 + 1.44 - 1  # the second: 0.2 + 0.25 - 1.44 < 0


def five(*rows):
    return [tf.constant(x, tf.float32) for x in (np.concatenate(parts) for parts in zip(*rows, strict=True))]


@pytest.mark.parametrize(
    "valid, expected",
    [
        ([True] * 4, FIRST + SECOND + THIRD),
        ([True, True, True, False], FIRST + SECOND),
        ([False, True, True, True], SECOND + THIRD),
        ([True, False, True, True], THIRD),
        ([False, False, True, True], THIRD),
        ([True, False, True, False], 0.0),
        ([False] * 4, 0.0),
    ],
)
def test_a_hinge_takes_two_samples_that_exist(valid, expected):
    loss = triple_header_hinge(*five(LINE), margins=MARGINS, valid=[valid], cost=[1.0])
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)


def test_costs_weigh_and_the_mean_is_over_anchors_with_a_hinge():
    valid = [[True] * 4, [False] * 4, [True, True, False, False]]
    loss = triple_header_hinge(*five(LINE, LINE, LINE), margins=MARGINS, valid=valid, cost=[0.5, 7.0, 3.0])
    np.testing.assert_allclose(loss, [0.5 * (FIRST + SECOND + THIRD) / 2, 0, 3 * FIRST / 2], rtol=1e-6)


def test_several_dimensions_and_any_float():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 6, 4))
    total = 0.0
    for i in range(6):
        d = [sum((x[0, i, k] - x[j, i, k]) ** 2 for k in range(4)) for j in range(1, 5)]
        total += sum(max(0.0, g + d[j] - d[j + 1]) for j, g in enumerate(MARGINS)) / 6
    inputs = [tf.constant(part) for part in x]
    loss = triple_header_hinge(*inputs, margins=MARGINS, valid=np.ones((6, 4), bool), cost=np.ones(6))
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(tf.reduce_sum(loss), total, rtol=1e-5)


def test_each_anchor_may_have_margins_of_its_own():
    margins = tf.constant([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]])
    valid, cost = np.ones((2, 4), bool), [1.0, 1.0]
    loss = triple_header_hinge(*five(LINE, LINE), margins=margins, valid=valid, cost=cost)
    second = (1 + 1 - 0.25) + (2 + 0.25 - 1.44) + (3 + 1.44 - 1)
    np.testing.assert_allclose(loss, [(FIRST + SECOND + THIRD) / 2, second / 2], rtol=1e-6)
    np.testing.assert_array_equal(loss, triple_header_hinge(*five(LINE, LINE), margins=margins.numpy(), valid=valid, cost=cost))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradients_are_finite_and_zero_where_nothing_is_valid(jit_compile):
    points = tf.zeros([5, 3, 2])  # every distance is 0

    @tf.function(jit_compile=jit_compile)
    def gradient(points, valid):
        with tf.GradientTape() as tape:
            tape.watch(points)
            loss = triple_header_hinge(*tf.unstack(points), margins=MARGINS, valid=valid, cost=tf.ones(3))
        return loss, tape.gradient(loss, points)

    loss, pull = gradient(points, tf.ones([3, 4], tf.bool))
    np.testing.assert_allclose(loss, [0.2] * 3, rtol=1e-6)  # (0.1 + 0.2 + 0.3) / 3
    assert np.isfinite(pull).all()
    moved = tf.random.stateless_normal([5, 3, 2], [0, 0])
    loss, pull = gradient(moved, tf.zeros([3, 4], tf.bool))
    assert not loss.numpy().any() and not pull.numpy().any()


@pytest.mark.parametrize("margins", [(0.1, 0.2), (0.1, 0.2, -0.1), (0.1, 0.2, float("nan")), tf.ones([3, 2])])
def test_margins_that_cannot_be_are_refused(margins):
    with pytest.raises(ValueError, match="margins must be three numbers >= 0, or three per anchor, received"):
        triple_header_hinge(*five(LINE), margins=margins, valid=[[True] * 4], cost=[1.0])
