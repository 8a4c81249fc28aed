"""Replaces the last layer of a trained network by a linear SVM per label, as ANet decides (Liu et al., 2015)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from crl_tf.crl_model import CRLModel
from crl_tf.progress import SILENT, Progress

NEVER = -1e4
"""The score of a class without a training image: below every decision value of an SVM."""


def refit_last_layer(
    model: CRLModel, batches: tf.data.Dataset, num_classes: Sequence[int], *, C: float = 1.0, progress: Progress = SILENT
) -> None:
    """Fits a linear SVM per label on the network's features and writes it into the layer "logits".

    Two classes take one SVM, whose decision value is the logit of the second class, while that of the first is 0; more take one
    SVM each, against the rest. The logits are then decision values: the largest is the SVM's choice, but a softmax over them is
    no calibrated probability. Samples that are not annotated (-1) are left out of their label's SVM.

    Args:
        model: its network's head is `crl_tf.models.heads.linear`.
        batches: training images and labels int32 [B, L].
        num_classes: one int per label.
        C: cost of an error, of scikit-learn's LinearSVC (squared hinge), on features of unit variance.
        progress: receives the progress, label by label.
    Raises:
        ValueError: the last layer is not a linear one on shared features.
    """
    layer = model.network.get_layer("logits")
    kernel, bias = layer.get_weights() if len(layer.weights) == 2 else (np.zeros(0), np.zeros(0))
    if kernel.ndim != 2:
        raise ValueError(f"refit_last_layer: logits must be a linear layer on features [B, D], received {type(layer).__name__}")
    features_of = tf.function(model.features, reduce_retracing=True)
    parts = [(features_of(images).numpy(), labels.numpy()) for images, labels in batches]
    features, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    scaler = StandardScaler()
    features = scaler.fit_transform(features)
    start = 0
    for label, classes in enumerate(progress.track(num_classes, "fitting a linear SVM per label")):
        columns = slice(start, start + classes)
        weights, offsets = _fit_label(features, labels[:, label], classes, C)
        # The scaling is linear too, and becomes part of the layer.
        kernel[:, columns] = weights / scaler.scale_[:, np.newaxis]
        bias[columns] = offsets - scaler.mean_ @ kernel[:, columns]
        start += classes
    layer.set_weights([kernel, bias])


def _fit_label(features: np.ndarray, labels: np.ndarray, classes: int, C: float) -> tuple[np.ndarray, np.ndarray]:
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
