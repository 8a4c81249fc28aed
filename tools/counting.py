"""Counts the floating-point operations of a network."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator

import keras
import tensorflow as tf

OTHER_GRAPHS = frozenset({"PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If", "StatelessIf", "Case"})
"""Nodes of a graph whose work lies in another graph, which the profiler does not count."""


def flops(network: keras.Model) -> int:
    """Floating-point operations of the forward pass of one image, from its bytes to its logits; a multiply-add counts as two.

    What TensorFlow's profiler counts (`tf.compat.v1.profiler`) and the einsums, which it leaves out. This has all convolutions
    and matrix products: 2 · kernel height · kernel width · channels in · channels out per output pixel of a convolution,
    2 · in · out of a fully connected layer. It also has sums, products, means, softmax, and a pooling's window per output pixel.
    Activations such as ReLU, padding and reordering count nothing.

    Raises:
        ValueError: the graph of the network has an unknown shape, or a loop or a function of its own, which the profiler would
            not count.
    """
    graph = _graph(network)
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    with _quiet():
        counted = tf.compat.v1.profiler.profile(graph, options=options).total_float_ops
    return counted + sum(_einsum(op) for op in graph.get_operations() if op.type == "Einsum")


def _graph(network: keras.Model) -> tf.Graph:
    # The profiler counts nothing for a batch of unknown size.
    one_image = tf.TensorSpec((1, *network.input_shape[1:]), tf.float32)
    with _functions_inline():
        graph = tf.compat.v1.wrap_function(lambda images: network(images, training=False)["logits"], [one_image]).graph
    for op in graph.get_operations():
        if op.type in OTHER_GRAPHS or not all(output.shape.is_fully_defined() for output in op.outputs):
            what = "its work in another graph" if op.type in OTHER_GRAPHS else "a shape that is not known"
            raise ValueError(f"network must be one graph of known shapes to be counted; {op.name} ({op.type}) has {what}")
    return graph


@contextlib.contextmanager
def _functions_inline() -> Iterator[None]:
    """A tf.function that is called while a graph is made adds its ops to it, such as Keras's grouped convolutions on a CPU."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _einsum(op: tf.Operation) -> int:
    """A multiply-add for every combination of the indices."""
    equation = op.get_attr("equation").decode()
    if "..." in equation:
        raise ValueError(f"network must name all indices of an einsum to be counted; {op.name} has {equation}")
    sizes: dict[str, int] = {}
    for letters, operand in zip(equation.split("->")[0].split(","), op.inputs, strict=True):
        sizes |= zip(letters, operand.shape, strict=True)
    return 2 * math.prod(sizes.values())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the profiler's warning that it uses a deprecated function, which nobody can act on."""
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
