"""Operations whose gradients are as few operations as can be.

Where the batch size is unknown, TensorFlow's own gradient of a product, a sum or a choice works out at run time what was
broadcast: a dozen operations each, a microsecond apiece. On a small model that is most of what a loss costs.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def pick(table: tf.Tensor, cell: tf.Tensor) -> tf.Tensor:
    """Single numbers of a table of any shape, by flat indices int32 of any shape.

    What gather does, but of single numbers gather_nd is twice as fast forwards, and a segment sum ten times as fast as the
    gradient of either (on a CPU).
    """
    flat = tf.reshape(table, [-1])
    if not flat.dtype.is_floating:
        return tf.gather_nd(flat, cell[..., tf.newaxis])

    @tf.custom_gradient
    def picked(flat: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.math.unsorted_segment_sum(upstream, cell, tf.size(flat))

        return tf.gather_nd(flat, cell[..., tf.newaxis]), gradient

    return picked(flat)


def put(values: tf.Tensor, cell: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """Adds numbers up in `count` cells, by indices int32 of the same shape: the reverse of `pick`."""

    @tf.custom_gradient
    def added(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return pick(upstream, cell)

        return tf.math.unsorted_segment_sum(values, cell, count), gradient

    return added(values)


def scaled(values: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Values times a factor that has no gradient; where the factor is 0 that is 0, whatever the value.

    Args:
        factor: float32, of a shape that broadcasts to that of the values.

    >>> scaled(tf.constant([2.0, float("nan")]), tf.constant([3.0, 0.0])).numpy()
    array([6., 0.], dtype=float32)
    """
    factor = tf.stop_gradient(factor)

    @tf.custom_gradient
    def product(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.math.multiply_no_nan(values, factor), lambda upstream: scaled(upstream, factor)

    return product(values)


def weighted_sum(values: tf.Tensor, weights: tf.Tensor, axis: int = -1) -> tf.Tensor:
    """The sum over an axis of values times weights, which have no gradient.

    Args:
        weights: float32, of the shape of the values, except that axes which are not summed over may be 1.
    """
    weights = tf.stop_gradient(weights)

    @tf.custom_gradient
    def total(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.reduce_sum(values * weights, axis=axis), lambda upstream: tf.expand_dims(upstream, axis) * weights

    return total(values)
