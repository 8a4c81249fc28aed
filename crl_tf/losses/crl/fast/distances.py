"""Distances between the features of chosen pairs, from one matmul instead of a copy of the features for every pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from crl_tf.gradients import pick
from crl_tf.layout import compiled_by_xla, length
from crl_tf.losses.crl.mining import safe_root

# A squared distance from a matmul is off by a few float32 roundings, 1e-7 each, of the squared lengths. Where it is below this
# share of them, more than a few 1e-6 of it could be lost, and the pair is computed again from its difference.
CLOSE = 0.1


class Part(NamedTuple):
    """Groups [P] with about as many anchors each. groups: int32 [P]; None for all groups, in their order.

    candidates: int32 [P, A], the samples that may be anchors, as rows of [G B].
    """

    groups: tf.Tensor | None
    candidates: tf.Tensor

    def of(self, groups: tf.Tensor) -> tf.Tensor:
        """The features of these groups: [G, B, D] to [P, B, D]."""
        return groups if self.groups is None else tf.gather(groups, self.groups)


class GroupAnchors(NamedTuple):
    """Anchors [R], each in a group of features [G, B, D].

    group, sample: int32 [R], its group and its place in the batch.
    parts: all groups. A product of matrices fills up the groups of a part to the largest of them.
    place: int32 [R], its place among the candidates of all parts, one after the other.
    """

    group: tf.Tensor
    sample: tf.Tensor
    parts: Sequence[Part]
    place: tf.Tensor


def groups_of(features: tf.Tensor) -> tf.Tensor:
    """Features [B, D], which all labels share, to one group [1, B, D]; features [B, L, D] to one per label, [L, B, D].

    Moved to their mean: distances stay the same, and their squares round less.
    """
    groups = features[None] if features.shape.rank == 2 else tf.transpose(features, [1, 0, 2])
    return groups - tf.stop_gradient(tf.reduce_mean(groups, axis=1, keepdims=True))


def nearness_to_all(groups: tf.Tensor, anchors: GroupAnchors) -> tf.Tensor:
    """2 a b - |b|^2 of every anchor a with every b of its group: float32 [R, B], without a gradient.

    The square |a|^2 + |b|^2 - 2 a b without its first term, which is the same for all that an anchor is compared with.
    """
    groups = tf.stop_gradient(groups)
    flat = tf.reshape(groups, [-1, groups.shape[-1]])
    products = [tf.matmul(2.0 * tf.gather(flat, part.candidates), part.of(groups), transpose_b=True) for part in anchors.parts]
    return tf.gather(_rows(products), anchors.place) - tf.gather(tf.reduce_sum(tf.square(groups), axis=-1), anchors.group)


def pair_distances(
    groups: tf.Tensor, anchors: GroupAnchors, second: tf.Tensor, valid: tf.Tensor, nearness: tf.Tensor
) -> tf.Tensor:
    """Euclidean distances [R, K], 0 where not valid; the gradient at distance 0 is 0.

    Args:
        groups: float32 [G, B, D], features.
        second: int32 [R, K], the places in the batch of what each anchor is paired with. valid: bool [R, K].
        nearness: float32 [R, B], from `nearness_to_all`.
    """
    batch = length(groups, 1)
    first_row = anchors.group * batch + anchors.sample
    second_row = (anchors.group * batch)[:, None] + second
    if compiled_by_xla() or tf.config.list_logical_devices("GPU"):
        # XLA fuses the differences into their sum. On a GPU a matmul may round to TensorFloat-32: enough to mine, not to measure.
        flat = tf.reshape(groups, [-1, groups.shape[-1]])
        difference = tf.gather(flat, first_row)[:, None, :] - tf.gather(flat, second_row)
        return safe_root(tf.where(valid, tf.reduce_sum(tf.square(difference), axis=-1), 0.0))

    def in_order(of_parts: Sequence[tf.Tensor]) -> tf.Tensor:
        if len(of_parts) == 1:
            return of_parts[0]
        order = tf.concat([part.groups for part in anchors.parts], axis=0)
        return tf.gather(tf.concat(of_parts, axis=0), tf.math.invert_permutation(order))

    @tf.custom_gradient
    def distances(groups: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        flat = tf.reshape(groups, [-1, groups.shape[-1]])
        own = tf.reduce_sum(tf.square(tf.gather(flat, first_row)), axis=-1)[:, None]
        squared = own - pick(nearness, tf.range(length(second, 0))[:, None] * batch + second)
        close = tf.cast(tf.where(valid & (squared < CLOSE * own)), tf.int32)
        ends = tf.gather(first_row, close[:, 0]), tf.gather_nd(second_row, close)
        difference = tf.gather(flat, ends[0]) - tf.gather(flat, ends[1])
        squared = tf.tensor_scatter_nd_update(squared, close, tf.reduce_sum(tf.square(difference), axis=-1))
        distance = tf.sqrt(tf.where(valid, squared, 0.0))

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # d|a - b| / da = (a - b) / |a - b|: weights of a graph, whose Laplacian times the features is the gradient.
            pull = tf.math.divide_no_nan(upstream, distance)
            apart = tf.gather_nd(pull, close)[:, None] * difference
            pull = tf.tensor_scatter_nd_update(pull, close, tf.zeros_like(close[:, 0], pull.dtype))
            samples, sizes = tf.shape(flat)[0], [tf.size(part.candidates) for part in anchors.parts]
            weights = tf.math.unsorted_segment_sum(pull, anchors.place[:, None] * batch + second, tf.add_n(sizes) * batch)
            pulled, back = [], []
            for part, of_part in zip(anchors.parts, tf.split(tf.reshape(weights, [-1, batch]), sizes), strict=True):
                of_part = tf.reshape(of_part, [part.candidates.shape[0], length(part.candidates, 1), batch])
                pulled.append(tf.matmul(of_part, part.of(groups)))
                back.append(tf.matmul(of_part, tf.gather(flat, part.candidates), transpose_a=True))
            degree = tf.math.unsorted_segment_sum(pull, second_row, samples)
            degree += tf.math.unsorted_segment_sum(tf.reduce_sum(pull, axis=1), first_row, samples)
            total = degree[:, None] * flat - tf.reshape(in_order(back), tf.shape(flat))
            total -= tf.math.unsorted_segment_sum(_rows(pulled), _flat([part.candidates for part in anchors.parts]), samples)
            near = tf.concat([apart, -apart], axis=0), tf.concat(ends, axis=0)
            total = tf.cond(tf.size(close) > 0, lambda: total + tf.math.unsorted_segment_sum(*near, samples), lambda: total)
            message = "the instance level has no second derivatives in its fast form: use form='readable'"
            return tf.raw_ops.PreventGradient(input=tf.reshape(total, tf.shape(groups)), message=message)

        return distance, gradient

    return distances(groups)


def _rows(of_parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """The rows of all parts: [P, A, N] each to [R, N]."""
    return tf.concat([tf.reshape(values, [-1, length(values, 2)]) for values in of_parts], axis=0)


def _flat(of_parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat([tf.reshape(values, [-1]) for values in of_parts], axis=0)
