"""Features of length 1 from a network, of one label or of all, and their extraction from images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from crl_tf.callbacks import Diverged
from crl_tf.crl_model import CRLModel
from crl_tf.layers.unit_features import UnitFeatures

COLLAPSED = 1e-3
"""The least standard deviation, in the widest direction, of features of length 1 that tell images apart."""


def feature_model(model: CRLModel, label: int | None = None, name: str | None = None) -> keras.Model:
    """The part of a network that computes its features, with `UnitFeatures` on top; it shares the layers of the network."""
    network = model.network
    return keras.Model(network.input, UnitFeatures(label, name="unit_features")(network.output["features"]), name=name)


def features_and_logits(model: keras.Model) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None:
    """From images to the features and logits of a trained model: its own, or what its last layer receives and gives.

    None where the last layer joins several features.
    """
    if (own := getattr(model, "features_and_logits", None)) is not None:
        return own
    inputs = model.layers[-1].input
    return None if isinstance(inputs, (list, tuple)) else inference(keras.Model(model.input, (inputs, model.output)))


def freeze_beside(model: CRLModel, features: keras.Model) -> None:
    """Freezes the layers that do not lead to the features: a loss of features gives them no gradient."""
    leading = {id(layer) for layer in features.layers}
    for layer in model.network.layers:
        if id(layer) not in leading:
            layer.trainable = False


def inference(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """The model in inference mode as a graph, which is traced once for all its calls."""
    return tf.function(lambda images: model(images, training=False), reduce_retracing=True, autograph=False)


def extract_features(compute: Callable[[tf.Tensor], tf.Tensor], batches: Iterable[tuple[tf.Tensor, tf.Tensor]]) -> np.ndarray:
    """The features of the images of all batches, in order, float32 [n, ...].

    Raises:
        Diverged: features that are not finite.
    """
    features = np.concatenate([compute(images).numpy() for images, _ in batches])
    if not np.isfinite(features).all():
        raise Diverged("features must be finite, received NaN or infinity: training has diverged, lower the learning rate")
    return features


def warn_if_collapsed(features: np.ndarray, what: str) -> None:
    """Warns if training has brought the features of all images to one point, as hard samples can; it hardly recovers from that.

    Args:
        features: float32 [n, D] or [n, L, D], of length 1.
        what: the name of what was trained.
    """
    if len(features) > 1 and (features.std(axis=0).max(axis=-1) < COLLAPSED).any():
        warnings.warn(
            f"{what}: the features of all images are alike, training has collapsed; more embedding.pretraining_epochs (lmle),"
            " pretrained weights, a lower learning rate or a wider network may keep them apart",
            stacklevel=2,
        )
