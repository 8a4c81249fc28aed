"""The triplet loss with semi-hard negatives of the batch (Schroff, Kalenichenko & Philbin, CVPR 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.layout import length, pick
from crl_tf.losses.base import FeatureLoss

# Above every squared distance of features of length 1, yet finite.
NEVER = 1e9


@keras.saving.register_keras_serializable(package="crl_tf")
class TripletLoss(FeatureLoss):
    """Sum over the labels of the mean of max(0, margin + D(a,p) - D(a,n)) over the triplets of the batch.

    The loss of *FaceNet*: D is the squared Euclidean distance of L2-normalised features; every pair of an anchor a and another
    sample p of its class is taken, with one negative n: the nearest to a that is farther from it than p ("semi-hard"; beyond
    the margin it costs nothing). Needs features: train with `CRLModel`. Logits are not looked at.

    Decision, ours: where every negative is as near as p or nearer, the farthest of them is taken. A label without a triplet in
    the batch is exactly 0. Which negative is taken carries no gradient.

    Args:
        num_classes: an int for one label, or one int per label.
        margin: how much farther a negative should be than a positive.
        feature_shape: D or (L, D), as in `FeatureLoss`.

    >>> loss = TripletLoss(2, feature_shape=2)
    >>> features = tf.constant([[1.0, 0.0], [1.0, 0.0], [0.8, 0.6]])
    >>> joined = tf.concat([features, tf.zeros([3, 2])], axis=1)
    >>> round(float(loss([0, 0, 1], joined)), 4)  # 0: the negative is 0.04 + 0.36 = 0.4 away, more than 0.2
    0.0
    """

    def __init__(self, num_classes: int | Sequence[int], *, margin: float = 0.2, **parameters: Any) -> None:
        super().__init__(num_classes, **{"name": "triplet", **parameters})
        if isinstance(margin, bool) or not np.isfinite(margin) or margin < 0:
            raise ValueError(f"margin must be a number >= 0, received {margin!r}")
        self.margin = float(margin)

    def by_sample(self, labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
        distance = self._squared_distances(features, length(labels, 0))
        batch = length(labels, 1)
        same = labels[:, :, tf.newaxis] == labels[:, tf.newaxis, :]
        annotated = labels >= 0
        known = annotated[:, :, tf.newaxis] & annotated[:, tf.newaxis, :]
        negative = known & ~same
        pair = known & same & ~tf.eye(batch, dtype=tf.bool) & tf.reduce_any(negative, axis=2, keepdims=True)

        # Per anchor the negatives from near to far, and for each positive the first of them that is farther.
        fixed = tf.stop_gradient(distance)
        nearest = tf.math.top_k(tf.where(negative, -fixed, -NEVER), batch)
        in_order, positive = (tf.reshape(table, [-1, batch]) for table in (-nearest.values, fixed))
        place = tf.reshape(tf.searchsorted(in_order, positive, side="right"), tf.shape(fixed))
        last = tf.reduce_sum(tf.cast(negative, tf.int32), axis=2, keepdims=True) - 1
        place = tf.maximum(tf.minimum(place, last), 0)
        chosen = tf.gather(nearest.indices, place, batch_dims=2)

        row = tf.reshape(tf.range(tf.size(labels)), tf.shape(labels))[:, :, tf.newaxis]
        hinge = tf.nn.relu(self.margin + distance - pick(distance, row * batch + chosen))
        count = tf.reduce_sum(tf.cast(pair, tf.float32), axis=[1, 2])[:, tf.newaxis]
        return tf.reduce_sum(tf.where(pair, hinge, 0.0), axis=2) / tf.maximum(count, 1.0)

    def _squared_distances(self, features: tf.Tensor, labels: int | tf.Tensor) -> tf.Tensor:
        """float32 [L, B, B] of L2-normalised features [B, D], alike for all labels, or [B, L, D]."""
        features = tf.cast(tf.convert_to_tensor(features), tf.float32)
        rank = features.shape.rank
        if rank not in (2, 3) or (rank == 3 and features.shape[1] != len(self._layout)):
            raise ValueError(f"features must be [B, D] or [B, {len(self._layout)}, D], received shape {features.shape}")
        unit = tf.math.l2_normalize(features, axis=-1)
        unit = unit[tf.newaxis] if rank == 2 else tf.transpose(unit, [1, 0, 2])
        square = tf.reduce_sum(tf.square(unit), axis=-1)
        distance = square[:, :, tf.newaxis] + square[:, tf.newaxis, :] - 2.0 * tf.matmul(unit, unit, transpose_b=True)
        return tf.repeat(distance, labels, axis=0) if rank == 2 else distance

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin}
