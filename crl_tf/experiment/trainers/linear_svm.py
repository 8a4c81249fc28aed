"""A linear SVM per label in the place of a trained network's last layer, as ANet decides (Liu et al., 2015)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from rich.progress import track
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from crl_tf.crl_model import CRLModel

NEVER = -1e4
"""The score of a class without a training image, which nothing can be told from: below whatever an SVM says."""


def refit_last_layer(model: CRLModel, data: tf.data.Dataset, num_classes: Sequence[int], *, C: float = 1.0) -> None:
    """Fits a linear SVM per label on the network's features and writes it into the layer "logits".

    Two classes are one SVM, whose decision value is the logit of the second, that of the first being 0; more are one against
    the rest each. The logits are then decision values: which class is chosen is the SVM's; a softmax over them is no
    calibrated probability. Labels of -1 are left out of their label's SVM.

    Args:
        model: its network's head is `crl_tf.models.heads.linear`.
        data: batches of training images and labels int32 [B, L].
        num_classes: one int per label.
        C: cost of an error, of scikit-learn's LinearSVC (squared hinge), on features of unit variance.
    Raises:
        ValueError: if the last layer is another one than a linear one on shared features.
    """
    layer = model.network.get_layer("logits")
    kernel, bias = layer.get_weights() if len(layer.weights) == 2 else (np.zeros(0), np.zeros(0))
    if kernel.ndim != 2:
        raise ValueError(f"refit_last_layer: logits must be a linear layer on features [B, D], received {type(layer).__name__}")
    features, labels = _features_and_labels(model, data)
    scaler = StandardScaler()
    features = scaler.fit_transform(features)
    start = 0
    for label, classes in enumerate(track(num_classes, "fitting a linear SVM per label", transient=True)):
        columns = slice(start, start + classes)
        weights, offsets = _one_label(features, labels[:, label], classes, C)
        # Scaling is linear too, and goes into the layer.
        kernel[:, columns] = weights / scaler.scale_[:, np.newaxis]
        bias[columns] = offsets - scaler.mean_ @ kernel[:, columns]
        start += classes
    layer.set_weights([kernel, bias])


def _features_and_labels(model: CRLModel, data: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    features_of = tf.function(model.features, reduce_retracing=True)
    batches = [(features_of(images).numpy(), labels.numpy()) for images, labels in data]
    return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))


def _one_label(features: np.ndarray, labels: np.ndarray, classes: int, C: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights [D, classes] and offsets [classes] of the decision values."""
    weights, offsets = np.zeros((features.shape[1], classes)), np.full(classes, NEVER)
    annotated = labels >= 0
    present = np.unique(labels[annotated])
    offsets[present] = 0.0
    if len(present) > 1:
        svm = LinearSVC(C=C, dual="auto", random_state=0).fit(features[annotated], labels[annotated])
        # Of two classes scikit-learn fits one SVM, whose decision value is that of the second.
        scored = present if len(present) > 2 else present[1:]
        weights[:, scored], offsets[scored] = svm.coef_.T, svm.intercept_
    return weights, offsets
