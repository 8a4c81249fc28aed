"""k nearest neighbours as a layer, for all labels at once, and which training images stay as its references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.layout import Layout, plain_sizes

NEVER = 3e38
"""Above every squared distance, yet finite."""
NEARER = 0.01
"""What the nearest neighbour is worth beside its vote: less than any vote."""
NO_VOTE = 1e-3
"""Added to every class, so that the logarithm of none is finite."""


def choose_references(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Which training images are kept, int64 in ascending order: `count` at random, among them one of each class that occurs.

    Decision, ours: one set for all labels, since images without an annotation of a label are just not looked at for it.

    Args:
        labels: int [n, L], -1 = not annotated; an image without any annotation is never kept.
        count: the most images to keep.
        seed: of the choice.
    Raises:
        ValueError: fewer than the classes need.

    >>> choose_references(np.array([[0], [0], [-1], [0], [1]]), 2, seed=0)[-1]
    np.int64(4)
    """
    order = np.random.default_rng([seed, 1]).permutation(np.flatnonzero((labels >= 0).any(axis=1)))
    first = [order[np.unique(column, return_index=True)[1]] for column in labels[order].T]
    needed = [samples[labels[samples, label] >= 0] for label, samples in enumerate(first)]
    needed = np.unique(np.concatenate(needed)) if needed else order[:0]
    if not len(order):
        raise ValueError("choose_references: no training image has an annotation")
    if count < len(needed):
        raise ValueError(f"embedding.references must be {len(needed)} or more to keep one image of each class, received {count}")
    others = order[~np.isin(order, needed)]
    return np.sort(np.concatenate([needed, others[: count - len(needed)]]))


@keras.saving.register_keras_serializable(package="crl_tf")
class NearestNeighbours(keras.layers.Layer):
    """From features to logits whose softmax is the share of the k nearest references' votes, by Euclidean distance.

    Features [B, D] are compared with references [R, D] for all labels, features [B, L, D] with [R, L, D] label by label. A
    reference that is not annotated for a label (-1) is none of its neighbours; where fewer than k are, these vote.

    Decision, ours: of classes with equally many votes the one with the nearest neighbour wins (0.01 of a vote for the nearest,
    less for each after it); every class has 0.001 of a vote, so that all logits are finite.

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
        layer.known.assign(features)
        layer.labels.assign(labels)
        return layer

    def build(self, input_shape: Sequence[int | None]) -> None:
        labels = len(self._layout)
        if len(input_shape) == 3 and input_shape[1] != labels:
            raise ValueError(f"features must be [B, D] or [B, {labels}, D], received shape {tuple(input_shape)}")
        shape = (self.references, *input_shape[1:])
        self.known = self.add_weight(name="references", shape=shape, initializer="zeros", trainable=False)
        shape = (self.references, labels)
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
        """int32 [L, B, k] from near to far, -1 where a label has fewer neighbours."""
        known, labels = tf.convert_to_tensor(self.known), tf.convert_to_tensor(self.labels)
        count = min(self.neighbours, self.references)
        by_label = features.shape.rank == 3
        if self.complete and not by_label:
            nearest = tf.math.top_k(-_squared_distances(features, known), count).indices
            return tf.transpose(tf.gather(labels, nearest), [2, 0, 1])

        shared = None if by_label else _squared_distances(features, known)

        def of_label(label: tf.Tensor) -> tf.Tensor:
            distance = _squared_distances(features[:, label], known[:, label]) if by_label else shared
            classes = labels[:, label]
            nearest = tf.math.top_k(tf.where(classes >= 0, -distance, -NEVER), count).indices
            return tf.gather(classes, nearest)

        # One label after the other: the distances of all at once would be L times the memory.
        return tf.map_fn(of_label, tf.range(len(self._layout)), fn_output_signature=tf.int32, parallel_iterations=1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        return (input_shape[0], self._layout.width)

    def get_config(self) -> dict[str, Any]:
        sizes = {"num_classes": self.num_classes, "references": self.references, "neighbours": self.neighbours}
        return {**super().get_config(), **sizes, "complete": self.complete}


def _squared_distances(features: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
    """[B, D] and [R, D] to [B, R]."""
    square = tf.reduce_sum(tf.square(features), axis=1)[:, tf.newaxis] + tf.reduce_sum(tf.square(known), axis=1)
    return square - 2.0 * tf.matmul(features, known, transpose_b=True)
