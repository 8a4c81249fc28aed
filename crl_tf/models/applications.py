"""The networks of keras.applications as rows like the others: keras:NAME."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from crl_tf.layers.preprocessing import ApplicationInput
from crl_tf.models.backbones import Network
from crl_tf.models.heads import linear

PREFIX = "keras:"
IMAGENET_CLASSES = (1000,)

MOST_MOMENTUM = 0.9
"""The most momentum of the averages of batch normalisation. Keras's networks have 0.99 and more, MobileNets 0.999: in the few
hundred steps of a small dataset their averages lag far behind the weights, and inference stays near chance for long."""

DEPTHWISE = ("convnext", "efficientnet", "efficientnet_v2", "mobilenet", "mobilenet_v2", "mobilenet_v3", "nasnet", "xception")
"""The modules of keras.applications whose networks have depthwise convolutions."""

STDDEV_RGB = (0.229, 0.224, 0.225)
"""Standard deviations of ImageNet's pixels, for `_as_published`."""


def application_names() -> list[str]:
    """keras:NAME for every network of the installed Keras.

    >>> "keras:ResNet50" in application_names()
    True
    """
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    return [f"{PREFIX}{name}" for name, function in functions if "include_top" in inspect.signature(function).parameters]


def application(name: str) -> Network:
    """The row of keras:NAME: the network without its classifier, averaged over positions, with a linear head.

    The head is the one of the paper's ResNet50 for DeepFashion (Sec. 4.2), which has no layers per attribute.

    >>> row = application("keras:InceptionV3")
    >>> row.image_size, row.smallest_side
    ((299, 299), 75)
    """
    build = constructor(name)
    module = _module(build)
    # Keras names the sizes that it takes in its errors, before it builds or downloads anything.
    smallest = re.search(r"at least (\d+)x\d+", _error_for_one_pixel(build, include_top=False, weights=None))
    # MobileNetV3's classifier takes any size, and was published with 224 x 224.
    published = re.search(r"should be \((\d+), (\d+), 3\)", _error_for_one_pixel(build, include_top=True, weights="imagenet"))
    return Network(
        functools.partial(_features, build),
        linear,
        (int(published[1]), int(published[2])) if published else (224, 224),
        IMAGENET_CLASSES,
        int(smallest[1]) if smallest else 1,
        preprocess=lambda images: ApplicationInput(module)(images),
        widths=False,
        depthwise=module in DEPTHWISE,
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
    """EfficientNet with the layer that its published weights need: a division by sqrt(stddev) after its Normalization.

    Keras adds it with weights="imagenet" only. Here it is always there, so that the same weights give the same features whether
    Keras downloads them or a file holds them.
    """

    def call(layer: layers.Layer, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        if isinstance(layer, layers.Normalization):
            outputs = layers.Rescaling([stddev**-0.5 for stddev in STDDEV_RGB])(outputs)
        return outputs

    inputs = keras.tree.map_structure(lambda _: images, model.input)
    return keras.models.clone_model(model, input_tensors=inputs, call_function=call)


def _module(build: Callable[..., keras.Model]) -> str:
    """The name of the module of keras.applications that defines a network."""
    return build.__module__.rpartition(".")[2]


def _error_for_one_pixel(build: Callable[..., keras.Model], **arguments: Any) -> str:
    try:
        build(input_shape=(1, 1, 3), **arguments)
    except ValueError as error:
        return str(error)
    return ""
