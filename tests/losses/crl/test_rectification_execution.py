"""The three ways to run `class_rectification_loss`, eager, graph and XLA; an unknown batch size; the size of the graph."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from oracle import oracle_crl
from rectification_cases import VALUE_TOLERANCE, XDOMAIN_SIZES, random_case
from variants import every_variant

from crl_tf import class_rectification_loss


@every_variant
def test_eager_graph_and_xla_agree(level, comparison):
    case = random_case(24, 14, [2, 4, 3])
    case.labels[3, 1] = -1
    inputs = tf.constant(case.logits if level == "class" else case.features)
    labels = tf.constant(case.labels)

    def step(labels, inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = class_rectification_loss(
                labels, inputs, num_classes=case.num_classes, level=level, comparison=comparison, kappa=4
            )
            total = tf.reduce_sum(value)
        return value, tape.gradient(total, inputs)

    value, gradient = step(labels, inputs)
    assert (value.numpy() > 0).all()
    for compiled in (tf.function(step), tf.function(step, jit_compile=True)):
        value_compiled, gradient_compiled = compiled(labels, inputs)
        np.testing.assert_allclose(value_compiled, value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient_compiled, gradient, rtol=0, atol=1e-4 * np.abs(gradient).max())


@every_variant
def test_the_batch_size_may_be_unknown(level, comparison):
    num_classes = [2, 4]
    shape = [None, 6] if level == "class" else [None, 2, 5]

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.int32), tf.TensorSpec(shape, tf.float32)])
    def loss(labels, inputs):
        return class_rectification_loss(labels, inputs, num_classes=num_classes, level=level, comparison=comparison, kappa=5)

    for batch in (1, 3, 19):  # below and above kappa
        case = random_case(25, batch, num_classes)
        inputs = case.logits if level == "class" else case.features
        expected = oracle_crl(case.labels, inputs, num_classes, level, comparison, kappa=5)
        value = loss(case.labels, inputs)
        assert value.shape == (2,)
        np.testing.assert_allclose(value, expected, **VALUE_TOLERANCE)
    assert loss.experimental_get_tracing_count() == 1


def graph_operations(level, comparison, num_classes):
    """The operations of the loss and its gradient, those inside nested functions included."""
    shape = [32, sum(num_classes)] if level == "class" else [32, len(num_classes), 6]

    @tf.function
    def step(labels, inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = class_rectification_loss(labels, inputs, num_classes=num_classes, level=level, comparison=comparison)
            total = tf.reduce_sum(value)
        return value, tape.gradient(total, inputs)

    concrete = step.get_concrete_function(tf.TensorSpec([32, len(num_classes)], tf.int32), tf.TensorSpec(shape, tf.float32))
    definition = concrete.graph.as_graph_def()
    return len(definition.node) + sum(len(function.node_def) for function in definition.library.function)


@every_variant
def test_the_graph_does_not_grow_with_labels_or_classes(level, comparison):
    """No operation per label or class: 9 labels of 178 classes, or 30 labels, take as many as 3 labels of 9.

    To within 12: a small array of zeros is one operation, a larger one three, and there are up to six. The instance level cuts 16
    and more labels into two or three parts, with operations for each.
    """
    small = graph_operations(level, comparison, [2, 3, 4])
    assert abs(graph_operations(level, comparison, XDOMAIN_SIZES) - small) <= 12
    many = graph_operations(level, comparison, [2, 3] * 20)
    assert abs(graph_operations(level, comparison, [2, 3] * 60) - many) <= 12
    assert many - small <= (12 if level == "class" else 3 * 80)
