"""The triplet loss with semi-hard negatives of the batch (Schroff, Kalenichenko & Philbin, CVPR 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from crl_tf.checks import real
from crl_tf.distances import squared_distances
from crl_tf.gradients import pick
from crl_tf.layout import checked_feature_shape, length
from crl_tf.losses.base import Loss, Terms
from crl_tf.serialization import registered

# Above every squared distance of features of length 1, yet finite.
NEVER = 1e9


@registered
class TripletLoss(Loss):
    """Sum over the labels of the mean of max(0, margin + D(a,p) - D(a,n)) over the triplets of the batch.

    The loss of *FaceNet*. D is the squared Euclidean distance of L2-normalised features. Every pair of an anchor a and another
    sample p of its class is taken, with one negative n: the nearest to a that is farther from a than p ("semi-hard"). Where no
    negative is farther than p, the farthest negative is taken. The choice of the negative carries no gradient. A label without
    a triplet in the batch is exactly 0. Logits are not used.

    Needs features: train with `CRLModel`, or join features and logits into one output (`JoinFeatures`) and give `feature_shape`.

    Args:
        num_classes: an int for one label, or one int per label.
        margin: >= 0, how much farther a negative should be than a positive.
        feature_shape: D or (L, D), where the first columns of the output are features.
        from_logits, reduction, name: as in Keras.
    Returns (from `call`):
        float32 [B], whose mean is the loss; a pair's hinge is with its anchor.
    Raises:
        ValueError: a margin below 0, or features that are not [B, D] or [B, L, D].

    >>> loss = TripletLoss(2, feature_shape=2)
    >>> features = tf.constant([[1.0, 0.0], [1.0, 0.0], [0.8, 0.6]])
    >>> joined = tf.concat([features, tf.zeros([3, 2])], axis=1)
    >>> round(float(loss([0, 0, 1], joined)), 4)  # 0: the negative is 0.04 + 0.36 = 0.4 away, more than 0.2
    0.0
    """

    default_name = "triplet"
    config_keys = ("margin", "feature_shape")
    needs_features = True

    def __init__(
        self,
        num_classes: int | Sequence[int],
        *,
        margin: float = 0.2,
        feature_shape: int | Sequence[int] | None = None,
        **parameters: Any,
    ) -> None:
        super().__init__(num_classes, **parameters)
        if not 0 <= real(margin) < np.inf:
            raise ValueError(f"margin must be a number >= 0, received {margin!r}")
        self.margin = float(margin)
        self.feature_shape = checked_feature_shape(feature_shape, self._layout)

    def terms(self, labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor | None = None) -> Terms:
        unit = tf.math.l2_normalize(features, axis=-1)
        unit = unit[tf.newaxis] if features.shape.rank == 2 else tf.transpose(unit, [1, 0, 2])
        distance = squared_distances(unit, unit)
        if features.shape.rank == 2:
            distance = tf.repeat(distance, len(self._layout), axis=0)
        batch = length(labels, 1)
        same = labels[:, :, tf.newaxis] == labels[:, tf.newaxis, :]
        annotated = labels >= 0
        both_annotated = annotated[:, :, tf.newaxis] & annotated[:, tf.newaxis, :]
        negative = both_annotated & ~same
        pair = both_annotated & same & ~tf.eye(batch, dtype=tf.bool) & tf.reduce_any(negative, axis=2, keepdims=True)

        # Per anchor the negatives from near to far, and for each positive the first of them that is farther.
        without_gradient = tf.stop_gradient(distance)
        nearest = tf.math.top_k(tf.where(negative, -without_gradient, -NEVER), batch)
        in_order, positive = (tf.reshape(table, [-1, batch]) for table in (-nearest.values, without_gradient))
        place = tf.reshape(tf.searchsorted(in_order, positive, side="right"), tf.shape(distance))
        last = tf.reduce_sum(tf.cast(negative, tf.int32), axis=2, keepdims=True) - 1
        place = tf.maximum(tf.minimum(place, last), 0)
        chosen = tf.gather(nearest.indices, place, batch_dims=2)

        row = tf.reshape(tf.range(tf.size(labels)), tf.shape(labels))[:, :, tf.newaxis]
        hinge = tf.nn.relu(self.margin + distance - pick(distance, row * batch + chosen))
        count = tf.reduce_sum(tf.cast(pair, tf.float32), axis=[1, 2])[:, tf.newaxis]
        return Terms(tf.reduce_sum(tf.where(pair, hinge, 0.0), axis=2) / tf.maximum(count, 1.0))
