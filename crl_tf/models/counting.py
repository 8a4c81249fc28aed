"""What a network is in numbers: its parameters, what one image costs, and what of it the seed decides."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from typing import NamedTuple

import keras
import tensorflow as tf

from crl_tf.models import BACKBONE, build_network, find_network
from crl_tf.models.transfer import weighted_layers

ELSEWHERE = frozenset({"PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If", "StatelessIf", "Case"})
"""Nodes of a graph whose work lies in another graph, where nobody would count it."""


class Parameters(NamedTuple):
    """How many numbers a network keeps: all, those that are trained, and those of its head."""

    total: int
    trainable: int
    head: int


class NetworkFacts(NamedTuple):
    """A row of `--model=list`: a network of width 1 as published.

    image_size: (height, width). smallest_side: of any image. layers: those with weights in the backbone. features: the shape of
    an image's, (D,) or (L, D). num_classes: of every label of the data that parameters and FLOPs are counted with. seed: what of
    the network the seed decides.
    """

    name: str
    image_size: tuple[int, int]
    smallest_side: int
    layers: int
    features: tuple[int, ...]
    num_classes: tuple[int, ...]
    parameters: Parameters
    flops: int
    seed: tuple[str, ...]


def parameters(network: keras.Model) -> Parameters:
    """Counts the parameters of a network of `build_network`.

    Not trained are the averages that batch normalisation keeps, and frozen layers. `LabelLogits` counts as it is kept: every
    label has a column for each class of the largest.
    """
    total = network.count_params()
    trainable = sum(math.prod(weight.shape) for weight in network.trainable_weights)
    return Parameters(total, trainable, total - network.get_layer(BACKBONE).count_params())


def flops(network: keras.Model) -> int:
    """Floating-point operations of one image's forward pass, from its bytes to its logits; a multiply-add counts as two.

    What TensorFlow's profiler counts (`tf.compat.v1.profiler`) and the einsums, which it leaves out. All of the convolutions
    and matrix products are in it: 2 · kernel height · kernel width · channels in · channels out per pixel that a convolution
    yields, 2 · in · out of a fully connected layer. Of the rest: sums, products, means, softmax, and of a pooling its window
    per pixel that it yields; activations such as ReLU, padding and reordering count nothing.

    Raises:
        ValueError: where the graph of the network has a shape that is not known, or a loop or a function of its own, whose
            work the profiler would pass over in silence.
    """
    graph = _graph(network)
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    with _quiet():
        counted = tf.compat.v1.profiler.profile(graph, options=options).total_float_ops
    return counted + sum(_einsum(op) for op in graph.get_operations() if op.type == "Einsum")


def drawn_by_seed(network: keras.Model, pretrained: bool = False) -> tuple[str, ...]:
    """What of a network the seed decides, apart from the order and the augmentation of what it is trained on.

    Its first weights (of pretrained ones, the head's only), and dropout's masks where it drops anything.
    """
    # To Keras, the state of a random generator is a variable but not a weight.
    drops = len(network.variables) > len(network.weights)
    return ("the head's weights" if pretrained else "weights", *(["dropout"] if drops else []))


def describe(name: str) -> NetworkFacts:
    """Builds the network `name` as published and counts.

    >>> facts = describe("cifarnet")
    >>> facts.image_size, facts.features, sum(facts.num_classes), facts.parameters.total, facts.seed
    ((32, 32), (1, 64), 100, 151428, ('weights',))
    """
    row = find_network(name)
    network = build_network(name, image_size=row.image_size, num_classes=row.published_classes)
    features = tuple(network.output["features"].shape[1:])
    return NetworkFacts(
        name,
        tuple(row.image_size),
        row.smallest_side,
        len(weighted_layers(network.get_layer(BACKBONE))),
        features,
        tuple(row.published_classes),
        parameters(network),
        flops(network),
        drawn_by_seed(network),
    )


def _graph(network: keras.Model) -> tf.Graph:
    # Of a batch whose size is not known, the profiler would count nothing.
    one_image = tf.TensorSpec((1, *network.input_shape[1:]), tf.float32)
    with _functions_inline():
        graph = tf.compat.v1.wrap_function(lambda images: network(images, training=False)["logits"], [one_image]).graph
    for op in graph.get_operations():
        if op.type in ELSEWHERE or not all(output.shape.is_fully_defined() for output in op.outputs):
            what = "its work in another graph" if op.type in ELSEWHERE else "a shape that is not known"
            raise ValueError(f"network must be one graph of known shapes to be counted; {op.name} ({op.type}) has {what}")
    return graph


@contextlib.contextmanager
def _functions_inline() -> Iterator[None]:
    """A tf.function called while a graph is made puts its work into it; Keras's grouped convolutions on a CPU are one."""
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
    """The profiler tells once that it uses what is deprecated; nobody could act on it."""
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
