"""Distances between the features of chosen pairs, from one matmul instead of a copy of the features for every pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from crl_tf.layout import length, pick

# A squared distance from a matmul is off by a few float32 roundings, 1e-7 each, of the squared lengths. Where it is below this
# share of them, more than a few 1e-6 of it could be lost, and the pair is computed again from its difference.
CLOSE = 0.1


class Pairing(NamedTuple):
    """Anchors [R] and what each is paired with [R, K].

    first: int32 [R], anchors as rows of the flat features [G B, D]. place: int32 [R], their places in the batch.
    row: int32 [R], where their products are in [G A, B]. second: int32 [R, K], places in the batch. valid: bool [R, K].
    """

    first: tf.Tensor
    place: tf.Tensor
    row: tf.Tensor
    second: tf.Tensor
    valid: tf.Tensor


def squares_of_differences(flat: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """|a - b|^2 of rows of flat features, [R] and [R, K]: float32 [R, K]."""
    difference = tf.gather(flat, first)[:, None, :] - tf.gather(flat, second)
    return tf.reduce_sum(tf.square(difference), axis=-1)


def pair_distances(groups: tf.Tensor, left: tf.Tensor, table: tf.Tensor, pairing: Pairing, nearness: tf.Tensor) -> tf.Tensor:
    """Euclidean distances [R, K], 0 where not valid; the gradient at distance 0 is 0.

    Args:
        groups: float32 [G, B, D], features.
        left: float32 [G, A, D], those of the anchors, no gradient.
        table: int32 [G, A], places in the batch of those that may be anchors.
        nearness: float32 [R, B], 2 a b - |b|^2 of every anchor a with every b of its group.
    """
    batch = length(groups, 1)
    first, place, row, second, valid = pairing
    second_row = (first - place)[:, None] + second

    @tf.custom_gradient
    def distances(groups: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        flat = tf.reshape(groups, [-1, groups.shape[-1]])
        own = tf.reduce_sum(tf.square(tf.gather(flat, first)), axis=-1)[:, None]
        squared = own - pick(nearness, tf.range(length(second, 0))[:, None] * batch + second)
        close = tf.cast(tf.where(valid & (squared < CLOSE * own)), tf.int32)
        ends = tf.gather(first, close[:, 0]), tf.gather_nd(second_row, close)
        difference = tf.gather(flat, ends[0]) - tf.gather(flat, ends[1])
        squared = tf.tensor_scatter_nd_update(squared, close, tf.reduce_sum(tf.square(difference), axis=-1))
        distance = tf.sqrt(tf.where(valid, squared, 0.0))

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # d|a - b| / da = (a - b) / |a - b|: weights of a graph, whose Laplacian times the features is the gradient.
            pull = tf.math.divide_no_nan(upstream, distance)
            apart = tf.gather_nd(pull, close)[:, None] * difference
            pull = tf.tensor_scatter_nd_update(pull, close, tf.zeros_like(close[:, 0], pull.dtype))
            samples, ends_of_table = tf.shape(flat)[0], tf.reshape(table + tf.range(length(table, 0))[:, None] * batch, [-1])
            weights = tf.math.unsorted_segment_sum(pull, row[:, None] * batch + second, tf.size(table) * batch)
            weights = tf.reshape(weights, [-1, length(table, 1), batch])
            pulled = tf.reshape(tf.matmul(weights, groups), [-1, groups.shape[-1]])
            degree = tf.math.unsorted_segment_sum(pull, second_row, samples)
            degree += tf.math.unsorted_segment_sum(tf.reduce_sum(pull, axis=1), first, samples)
            total = degree[:, None] * flat - tf.reshape(tf.matmul(weights, left, transpose_a=True), tf.shape(flat))
            total -= tf.math.unsorted_segment_sum(pulled, ends_of_table, samples)
            near = tf.concat([apart, -apart], axis=0), tf.concat(ends, axis=0)
            total = tf.cond(tf.size(close) > 0, lambda: total + tf.math.unsorted_segment_sum(*near, samples), lambda: total)
            message = "the instance level has no second derivatives in its fast form: use form='readable'"
            return tf.raw_ops.PreventGradient(input=tf.reshape(total, tf.shape(groups)), message=message)

        return distance, gradient

    return distances(groups)
