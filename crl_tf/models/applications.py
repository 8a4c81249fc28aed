"""Every network of keras.applications as a row like the others: keras:NAME."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from crl_tf.models.backbones import Network
from crl_tf.models.heads import linear
from crl_tf.models.preprocessing import as_application

PREFIX = "keras:"
IMAGENET = (1000,)

MOST_MOMENTUM = 0.9
"""Of batch normalisation's averages. Keras's networks have 0.99 and more, MobileNets 0.999: in the few hundred steps of a small
data set their averages lag far behind the weights, and inference, so all that is measured, stays near chance for long."""

STDDEV_RGB = (0.229, 0.224, 0.225)
"""Of ImageNet's pixels. Keras divides by their square root behind EfficientNet's Normalization, in `published` below."""


def application_names() -> list[str]:
    """keras:NAME for every network that the installed Keras has.

    >>> "keras:ResNet50" in application_names()
    True
    """
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    return [f"{PREFIX}{name}" for name, function in functions if "include_top" in inspect.signature(function).parameters]


def application(name: str) -> Network:
    """The row of keras:NAME: the network without its classifier, averaged over positions, and the logits of all labels on it.

    The head is one layer, as on the ResNet50 of the paper's DeepFashion experiment (Sec. 4.2), of which no layer per attribute is
    told: 1,000 labels with 64 features each on 2,048 would be 131 million parameters, against 4 million of the logits alone.

    >>> row = application("keras:InceptionV3")
    >>> row.image_size, row.smallest_side
    ((299, 299), 75)
    """
    build = constructor(name)
    return Network(
        functools.partial(_features, build),
        linear,
        _published_size(build),
        IMAGENET,
        _smallest_side(build),
        preprocess=as_application(_module(build)),
        widths=False,
    )


def constructor(name: str) -> Callable[..., keras.Model]:
    """The function of keras.applications that builds keras:NAME."""
    if name not in application_names():
        raise ValueError(f"model must be {PREFIX}NAME, a network of keras.applications, received {name!r}")
    return getattr(keras.applications, name.removeprefix(PREFIX))


def _features(build: Callable[..., keras.Model], images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    model = build(include_top=False, weights=None, input_tensor=images, pooling="avg")
    if _module(build) == "efficientnet":
        model = _as_published(model, images)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = min(layer.momentum, MOST_MOMENTUM)
    return model.output


def _as_published(model: keras.Model, images: keras.KerasTensor) -> keras.Model:
    """EfficientNet as Keras builds it by weights="imagenet" only: divided by sqrt(stddev) once more after its Normalization.

    The published weights want it. Always there, so that weights mean the same whichever way they came.
    """

    def call(layer: layers.Layer, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        if isinstance(layer, layers.Normalization):
            outputs = layers.Rescaling([stddev**-0.5 for stddev in STDDEV_RGB])(outputs)
        return outputs

    inputs = keras.tree.map_structure(lambda _: images, model.input)
    return keras.models.clone_model(model, input_tensors=inputs, call_function=call)


def _module(build: Callable[..., keras.Model]) -> str:
    """The module of keras.applications that a network is of: not all of them are also attributes of theirs."""
    return build.__module__.rpartition(".")[2]


def _smallest_side(build: Callable[..., keras.Model]) -> int:
    found = re.search(r"at least (\d+)x\d+", _refusal(build, include_top=False, weights=None))
    return int(found[1]) if found else 1


def _published_size(build: Callable[..., keras.Model]) -> tuple[int, int]:
    """(height, width) that the published classifier takes; MobileNetV3's takes any, and was published with 224 x 224."""
    found = re.search(r"should be \((\d+), (\d+), 3\)", _refusal(build, include_top=True, weights="imagenet"))
    return (int(found[1]), int(found[2])) if found else (224, 224)


def _refusal(build: Callable[..., keras.Model], **settings: Any) -> str:
    """What Keras says to images of one pixel: it looks at their size before it builds or fetches anything."""
    try:
        build(input_shape=(1, 1, 3), **settings)
    except ValueError as error:
        return str(error)
    return ""
