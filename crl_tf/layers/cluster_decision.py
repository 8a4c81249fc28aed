"""LMLE's decision: the class with the largest margin among the nearest clusters (Huang, Li, Loy & Tang, CVPR 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

FARTHEST = 4.0
"""The largest squared distance between features of length 1 and means of such."""
FAR, NEVER = -5.0, -10.0
"""Scores of a class among the neighbours lie in [-4, 4], of another in [-9, -5], of one without a cluster it is NEVER."""


@keras.saving.register_keras_serializable(package="crl_tf")
class ClusterDecision(keras.layers.Layer):
    """Large margin classification by the k nearest cluster centres, of one label.

    The score of class c is min of D over the neighbours of other classes - max of D over those of class c, D the squared distance
    from the features to a centre; the decision is its argmax (the large margin local rule of Huang et al.).

    Decision, ours: where all neighbours are of one class, the distance to the others is taken as 4, the largest there is. A class
    with no neighbour scores -5 - D to its nearest cluster, which is below every class that has one; one without a cluster
    scores -10. All scores are finite; a softmax over them is a ranking, no probability.

    Args:
        num_classes: of the label.
        clusters: K, how many centres there are.
        neighbours: k; at most K are looked at.

    Weights: centres float32 [K, D], classes int32 [K]. `ClusterDecision.of` makes a layer from them.

    >>> layer = ClusterDecision.of([[1.0, 0.0], [0.0, 1.0]], [0, 2], num_classes=3, neighbours=2)
    >>> layer(tf.constant([[1.0, 0.0]])).numpy()  # D = 0 and 2
    array([[  2., -10.,  -2.]], dtype=float32)
    """

    def __init__(self, num_classes: int, clusters: int, neighbours: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        if clusters < 1 or neighbours < 1:
            raise ValueError(f"clusters and neighbours must be >= 1, received {clusters!r} and {neighbours!r}")
        self.num_classes, self.clusters, self.neighbours = num_classes, clusters, neighbours

    @classmethod
    def of(cls, centres: np.ndarray, classes: np.ndarray, *, num_classes: int, neighbours: int, **kwargs: Any) -> ClusterDecision:
        """The layer with these centres [K, D] and their classes [K]."""
        centres, classes = np.asarray(centres, np.float32), np.asarray(classes, np.int32)
        if centres.ndim != 2 or classes.shape != centres.shape[:1]:
            raise ValueError(f"centres must be [K, D] and classes [K], received {centres.shape} and {classes.shape}")
        layer = cls(num_classes, len(centres), neighbours, **kwargs)
        layer.build((None, centres.shape[1]))
        layer.centres.assign(centres)
        layer.classes.assign(classes)
        return layer

    def build(self, input_shape: Sequence[int | None]) -> None:
        shape = (self.clusters, input_shape[-1])
        self.centres = self.add_weight(name="centres", shape=shape, initializer="zeros", trainable=False)
        self.classes = self.add_weight(name="classes", shape=shape[:1], initializer="zeros", dtype="int32", trainable=False)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        centres = tf.convert_to_tensor(self.centres)
        classes = tf.convert_to_tensor(self.classes)
        square = tf.reduce_sum(tf.square(features), axis=1)[:, tf.newaxis] + tf.reduce_sum(tf.square(centres), axis=1)
        distance = tf.clip_by_value(square - 2.0 * tf.matmul(features, centres, transpose_b=True), 0.0, FARTHEST)
        near = tf.math.top_k(-distance, min(self.neighbours, self.clusters))
        to_near = -near.values[:, :, tf.newaxis]
        own = tf.gather(classes, near.indices)[:, :, tf.newaxis] == tf.range(self.num_classes)  # [B, k, C]
        nearest_other = tf.reduce_min(tf.where(own, FARTHEST, to_near), axis=1)
        farthest_own = tf.reduce_max(tf.where(own, to_near, 0.0), axis=1)
        present = tf.reduce_any(own, axis=1)
        # For the others, the distance to the nearest cluster of each class; a segment without a member is the largest float.
        by_class = tf.transpose(tf.math.unsorted_segment_min(tf.transpose(distance), classes, self.num_classes))
        absent = tf.where(by_class <= FARTHEST, FAR - by_class, NEVER)
        return tf.where(present, nearest_other - farthest_own, absent)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        return (input_shape[0], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        sizes = {"num_classes": self.num_classes, "clusters": self.clusters, "neighbours": self.neighbours}
        return {**super().get_config(), **sizes}
