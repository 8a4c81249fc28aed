"""Distances between feature vectors."""

from __future__ import annotations

import tensorflow as tf


def squared_distances(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Squared Euclidean distances of every row of a [..., A, D] to every row of b [..., B, D]: [..., A, B].

    From one product of matrices, without the differences. Small distances of long vectors lose digits, and may come out below 0.

    >>> squared_distances(tf.constant([[0.0, 0.0]]), tf.constant([[3.0, 4.0], [1.0, 0.0]])).numpy()
    array([[25.,  1.]], dtype=float32)
    """
    square_a, square_b = (tf.reduce_sum(tf.square(x), axis=-1) for x in (a, b))
    # expand_dims and not an index: conversions to ONNX know the one without the shape.
    return tf.expand_dims(square_a, -1) + tf.expand_dims(square_b, -2) - 2.0 * tf.matmul(a, b, transpose_b=True)
