"""What a network is in numbers: image sizes, layers, parameters, and what of it depends on the seed."""

from __future__ import annotations

import math
from typing import NamedTuple

import keras

from crl_tf.models.build import build_network, find_network
from crl_tf.models.transfer import BACKBONE, weighted_layers


class Parameters(NamedTuple):
    """Numbers of parameters: all, those that are trained, and those of the head."""

    total: int
    trainable: int
    head: int


class NetworkFacts(NamedTuple):
    """A row of `--model=list`: a network of width 1 as published.

    image_size: (height, width). smallest_side: of any image. layers: those with weights in the backbone. features: shape of the
    features of an image, (D,) or (L, D). num_classes: of every label of the published data. seed: what of the network depends
    on the seed.
    """

    name: str
    image_size: tuple[int, int]
    smallest_side: int
    layers: int
    features: tuple[int, ...]
    num_classes: tuple[int, ...]
    parameters: Parameters
    seed: tuple[str, ...]


def parameters(network: keras.Model) -> Parameters:
    """Counts the parameters of a network of `build_network`.

    The averages of batch normalisation and frozen layers are not trained. `LabelLogits` has a column for each class of the
    largest label, for every label.
    """
    total = network.count_params()
    trainable = sum(math.prod(weight.shape) for weight in network.trainable_weights)
    return Parameters(total, trainable, total - network.get_layer(BACKBONE).count_params())


def drawn_by_seed(network: keras.Model, pretrained: bool = False) -> tuple[str, ...]:
    """What of a network depends on the seed: its random weights (with pretrained ones, the head's only), and dropout."""
    # To Keras, the state of a random generator is a variable but not a weight.
    drops = len(network.variables) > len(network.weights)
    return ("the head's weights" if pretrained else "weights", *(["dropout"] if drops else []))


def describe(name: str) -> NetworkFacts:
    """Builds the network `name` as published and describes it.

    >>> facts = describe("cifarnet")
    >>> facts.image_size, facts.features, sum(facts.num_classes), facts.parameters.total, facts.seed
    ((32, 32), (192,), 100, 1773796, ('weights', 'dropout'))
    """
    row = find_network(name)
    network = build_network(name, image_size=row.image_size, num_classes=row.published_classes)
    return NetworkFacts(
        name,
        row.image_size,
        row.smallest_side,
        len(weighted_layers(network.get_layer(BACKBONE))),
        tuple(network.output["features"].shape[1:]),
        row.published_classes,
        parameters(network),
        drawn_by_seed(network),
    )
