"""A layer that decides as LMLE does: the class with the largest margin among the nearest clusters (Huang et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.distances import squared_distances
from crl_tf.serialization import registered

FARTHEST = 4.0
"""The largest squared distance between features of length 1 and means of such."""
NO_NEIGHBOUR, NO_CLUSTER = -5.0, -10.0
"""Scores of classes with a neighbour lie in [-4, 4], of classes with a cluster but no neighbour in [-9, -5]."""


@registered
class ClusterDecision(keras.layers.Layer):
    """Scores the classes of one label by the k nearest cluster centres (the large margin local rule of Huang et al.).

    D is the squared distance from the features to a centre. The score of class c is the smallest D among the neighbours of other
    classes, minus the largest D among those of class c; the decision is the class with the largest score. Where all neighbours
    are of one class, the distance to the others counts as 4, the largest possible. A class with no neighbour scores -5 - D to
    its nearest cluster, which is below every class that has one. A class without a cluster scores -10. All scores are finite; a
    softmax over them ranks the classes but is no probability.

    Args:
        num_classes: of the label.
        clusters: K, the number of centres.
        neighbours: k; at most K are used.

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
        layer.set_weights([centres, classes])
        return layer

    def build(self, input_shape: Sequence[int | None]) -> None:
        shape = (self.clusters, input_shape[-1])
        self.centres = self.add_weight(name="centres", shape=shape, initializer="zeros", trainable=False)
        self.classes = self.add_weight(name="classes", shape=shape[:1], initializer="zeros", dtype="int32", trainable=False)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        centres, classes = tf.convert_to_tensor(self.centres), tf.convert_to_tensor(self.classes)
        distance = tf.clip_by_value(squared_distances(features, centres), 0.0, FARTHEST)
        nearest = tf.math.top_k(-distance, min(self.neighbours, self.clusters))
        near = -tf.expand_dims(nearest.values, -1)
        own = tf.expand_dims(tf.gather(classes, nearest.indices), -1) == tf.range(self.num_classes)  # [B, k, C]
        nearest_other = tf.reduce_min(tf.where(own, FARTHEST, near), axis=1)
        farthest_own = tf.reduce_max(tf.where(own, near, 0.0), axis=1)
        # The distance to the nearest cluster of each class; the largest float for a class without one.
        by_class = tf.transpose(tf.math.unsorted_segment_min(tf.transpose(distance), classes, self.num_classes))
        without_neighbour = tf.where(by_class <= FARTHEST, NO_NEIGHBOUR - by_class, NO_CLUSTER)
        return tf.where(tf.reduce_any(own, axis=1), nearest_other - farthest_own, without_neighbour)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        return (input_shape[0], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        sizes = {"num_classes": self.num_classes, "clusters": self.clusters, "neighbours": self.neighbours}
        return {**super().get_config(), **sizes}
