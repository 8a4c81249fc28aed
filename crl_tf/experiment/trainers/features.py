"""From a network to the features that are compared: one label's or all, of length 1."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from crl_tf.callbacks import Diverged
from crl_tf.crl_model import CRLModel
from crl_tf.layers.unit_features import UnitFeatures

COLLAPSED = 1e-3
"""The standard deviation, in its widest direction, below which features of length 1 tell images apart no more."""


def feature_model(model: CRLModel, label: int | None = None, name: str | None = None) -> keras.Model:
    """The part of a network that leads to its features, and `UnitFeatures` on top; shares the network's layers."""
    network = model.network
    return keras.Model(network.input, UnitFeatures(label, name="unit_features")(network.output["features"]), name=name)


def freeze_beside(model: CRLModel, features: keras.Model) -> None:
    """Freezes what does not lead to the features: the last layer, which gets no gradient from a loss of features."""
    leading = {id(layer) for layer in features.layers}
    for layer in model.network.layers:
        if id(layer) not in leading:
            layer.trainable = False


def inference(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """The model in inference mode as a graph, traced once however often it is asked."""
    return tf.function(lambda images: model(images, training=False), reduce_retracing=True)


def extract_features(of: Callable[[tf.Tensor], tf.Tensor], data: tf.data.Dataset) -> np.ndarray:
    """The features of all images of a pipeline, in its order, float32 [n, ...].

    Raises:
        Diverged: features that are not finite.
    """
    features = np.concatenate([of(images).numpy() for images, _ in data])
    if not np.isfinite(features).all():
        raise Diverged("features must be finite, received NaN or infinity: training has diverged, lower the learning rate")
    return features


def warn_if_collapsed(features: np.ndarray, what: str) -> None:
    """Says so where training has brought all images to one point, from which it hardly returns: hard samples pull that way.

    Args:
        features: float32 [n, D] or [n, L, D], of length 1.
        what: was trained, to be named.
    """
    if len(features) > 1 and (features.std(axis=0).max(axis=-1) < COLLAPSED).any():
        warnings.warn(
            f"{what}: the features of all images are alike, training has collapsed; more embedding.pretraining_epochs (lmle),"
            " pretrained weights, a lower learning rate or a wider network may keep them apart",
            stacklevel=2,
        )
