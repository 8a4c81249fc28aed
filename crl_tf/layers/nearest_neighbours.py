"""A layer that lets the k nearest references vote, for all labels at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.distances import squared_distances
from crl_tf.layout import Layout, check_feature_rank, plain_sizes
from crl_tf.serialization import registered

TOO_FAR = 3e38
"""Above every squared distance, yet finite."""
NEARER = 0.01
"""Added to the vote of the nearest neighbour, less for each after it: below any vote."""
NO_VOTE = 1e-3
"""Added to every class, so that the logarithm of no vote is finite."""


@registered
class NearestNeighbours(keras.layers.Layer):
    """Gives logits whose softmax is the share of the votes of the k nearest references, by Euclidean distance.

    Features [B, D] are compared with references [R, D] for all labels, features [B, L, D] with [R, L, D] label by label. A
    reference that is not annotated for a label (-1) does not vote on it; where fewer than k are annotated, those vote.

    Between classes with equally many votes the nearest neighbour decides: 0.01 of a vote for the nearest, less for each after
    it. Every class has 0.001 of a vote, so that all logits are finite.

    Args:
        num_classes: one int per label.
        references: R.
        neighbours: k.
        complete: whether every reference is annotated for every label; features [B, D] are then searched once for all labels.

    Weights: references float32 [R, ...], labels int32 [R, L]. `NearestNeighbours.of` makes a layer from them.

    >>> layer = NearestNeighbours.of([[0.0], [1.0], [5.0]], [[0], [1], [1]], num_classes=[2], neighbours=3)
    >>> tf.nn.softmax(layer(tf.constant([[0.0]]))).numpy().round(2)
    array([[0.33, 0.67]], dtype=float32)
    """

    def __init__(
        self, num_classes: int | Sequence[int], references: int, neighbours: int, complete: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        if references < 1 or neighbours < 1:
            raise ValueError(f"references and neighbours must be >= 1, received {references!r} and {neighbours!r}")
        self.num_classes, self.complete = plain_sizes(num_classes), complete
        self.references, self.neighbours = references, neighbours
        self._layout = Layout.of(num_classes)

    @classmethod
    def of(
        cls, features: np.ndarray, labels: np.ndarray, *, num_classes: int | Sequence[int], neighbours: int, **kwargs: Any
    ) -> NearestNeighbours:
        """The layer with these references: features [R, D] or [R, L, D], labels [R, L]."""
        features, labels = np.asarray(features, np.float32), np.asarray(labels, np.int32)
        if features.ndim not in (2, 3) or labels.ndim != 2 or len(labels) != len(features):
            raise ValueError(f"features must be [R, ...] and labels [R, L], received {features.shape} and {labels.shape}")
        layer = cls(num_classes, len(features), neighbours, complete=bool((labels >= 0).all()), **kwargs)
        layer.build((None, *features.shape[1:]))
        layer.set_weights([features, labels])
        return layer

    def build(self, input_shape: Sequence[int | None]) -> None:
        check_feature_rank(input_shape, self._layout)
        shape = (self.references, *input_shape[1:])
        self.known = self.add_weight(name="references", shape=shape, initializer="zeros", trainable=False)
        shape = (self.references, len(self._layout))
        self.labels = self.add_weight(name="labels", shape=shape, initializer="zeros", dtype="int32", trainable=False)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        classes = self._classes_of_neighbours(features)
        votes = tf.one_hot(classes, self._layout.largest)  # [L, B, k, C]; -1 is no vote
        count = votes.shape[2]
        nearness = tf.constant((count - np.arange(count)) / count, tf.float32)[:, tf.newaxis]
        score = tf.reduce_sum(votes, axis=2) + NEARER * tf.reduce_max(votes * nearness, axis=2) + NO_VOTE
        score *= tf.constant(self._layout.is_class, tf.float32)[:, tf.newaxis]
        share = score / tf.reduce_sum(score, axis=2, keepdims=True)
        return tf.math.log(self._layout.unpad(tf.transpose(share, [1, 0, 2])))

    def _classes_of_neighbours(self, features: tf.Tensor) -> tf.Tensor:
        """int32 [L, B, k], nearest first, -1 where a label has fewer neighbours."""
        known, labels = tf.convert_to_tensor(self.known), tf.convert_to_tensor(self.labels)
        count = min(self.neighbours, self.references)
        by_label = features.shape.rank == 3
        shared = None if by_label else squared_distances(features, known)
        if self.complete and not by_label:
            nearest = tf.math.top_k(-shared, count).indices
            return tf.transpose(tf.gather(labels, nearest), [2, 0, 1])

        def of_label(label: tf.Tensor) -> tf.Tensor:
            distance = squared_distances(features[:, label], known[:, label]) if by_label else shared
            classes = labels[:, label]
            nearest = tf.math.top_k(tf.where(classes >= 0, -distance, -TOO_FAR), count).indices
            return tf.gather(classes, nearest)

        # One label after the other: the distances of all at once would take L times the memory.
        return tf.map_fn(of_label, tf.range(len(self._layout)), fn_output_signature=tf.int32, parallel_iterations=1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        return (input_shape[0], self._layout.width)

    def get_config(self) -> dict[str, Any]:
        sizes = {"num_classes": self.num_classes, "references": self.references, "neighbours": self.neighbours}
        return {**super().get_config(), **sizes, "complete": self.complete}
