"""The fast form of `comparison`: the same numbers from `fast_mining`'s rows, without ever building a triplet.

The hinges of an anchor are summed by sorted prefix sums, kappa log kappa instead of kappa squared; labels are segments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from crl_tf.losses.comparison import Scale, neighbouring_nodes
from crl_tf.losses.fast_mining import MinedRows, Rows

# Up to here a running sum is faster as a product with a triangle of ones.
TRIANGLE = 256


class ComparedRows(NamedTuple):
    """by_row: float32 [R], the share of one anchor of each row; weighted by `Rows.weight` and summed it is L_crl of the label.

    triplets, active: float32 [L], as in `comparison.Compared`."""

    by_row: tf.Tensor
    triplets: tf.Tensor
    active: tf.Tensor


def fast_relative(mined: MinedRows, scale: Scale) -> ComparedRows:
    """Eq. 9. The loss is linear between its kinks: sum of coefficient times distance gives value and gradient in one."""
    positive, negative = mined.positive, mined.negative
    # A hinge is m + d(a,+) - d(a,-) where that is > 0: per positive, all negatives nearer than the threshold m + d(a,+).
    threshold = tf.gather(scale.margin, mined.rows.label)[:, None] + positive.distance
    fixed = tf.stop_gradient(tf.where(negative.valid, negative.distance, tf.float32.max))
    nearer = tf.searchsorted(fixed, tf.stop_gradient(threshold), side="left")
    nearer = tf.where(positive.valid, nearer, 0)
    times = tf.cast(nearer, tf.float32)
    thresholds_beyond = _thresholds_beyond(nearer, tf.shape(negative.distance)[1])
    hinges = tf.reduce_sum(times * threshold, axis=-1) - tf.reduce_sum(
        tf.where(negative.valid, thresholds_beyond * negative.distance, 0.0), axis=-1
    )
    triplets = _count(positive.valid) * _count(negative.valid)
    labels = scale.margin.shape[0]
    return ComparedRows(
        _label_mean(hinges, triplets, mined.rows, labels),
        _by_label(triplets, mined.rows, labels),
        _by_label(tf.reduce_sum(times, axis=-1), mined.rows, labels),
    )


def fast_absolute(mined: MinedRows, scale: Scale) -> ComparedRows:
    """Eq. 13."""
    positive, negative = mined.positive, mined.negative
    labels = scale.margin.shape[0]
    hinge = tf.nn.relu(tf.gather(scale.margin, mined.rows.label)[:, None] - negative.distance)
    hinge = tf.where(negative.valid, hinge, 0.0)
    near = tf.where(positive.valid, positive.distance, 0.0)
    positives, negatives = _count(positive.valid), _count(negative.valid)
    pulled = tf.reduce_sum(tf.square(near), axis=-1)
    pushed = tf.reduce_sum(tf.square(hinge), axis=-1)
    by_row = 0.5 * (_label_mean(pulled, positives, mined.rows, labels) + _label_mean(pushed, negatives, mined.rows, labels))
    active = positives * _count(hinge > 0)
    return ComparedRows(by_row, _by_label(positives * negatives, mined.rows, labels), _by_label(active, mined.rows, labels))


def fast_distribution(mined: MinedRows, scale: Scale) -> ComparedRows:
    """Eqs. 14-16."""
    positive, negative = mined.positive, mined.negative
    labels, bins = scale.margin.shape[0], scale.num_bins
    first = (mined.rows.label * bins)[:, None]
    positives, negatives = _count(positive.valid), _count(negative.valid)
    node, share = neighbouring_nodes(negative.distance, scale)
    node = tf.where(negative.valid & (mined.rows.weight > 0)[:, None], node + first, -1)
    at_node = tf.math.unsorted_segment_sum(tf.ones_like(share), node, labels * bins)
    above = tf.math.unsorted_segment_sum(share, node, labels * bins)
    histogram = tf.reshape(at_node - above, [labels, bins]) + tf.pad(tf.reshape(above, [labels, bins])[:, :-1], [[0, 0], [1, 0]])
    pairs = _by_label(negatives, mined.rows, labels)
    cumulative = tf.cumsum(histogram, axis=-1) / tf.maximum(pairs, 1.0)[:, None]
    node, share = neighbouring_nodes(positive.distance, scale)
    node = (node + first)[..., None]
    table = tf.reshape(cumulative, [-1])
    step = tf.concat([table[1:], table[-1:]], axis=0) - table
    overlap = tf.gather_nd(table, node) + share * tf.gather_nd(step, node)
    by_row = tf.reduce_sum(tf.where(positive.valid, overlap, 0.0), axis=-1)
    triplets = _by_label(positives * negatives, mined.rows, labels)
    return ComparedRows(_label_mean(by_row, positives, mined.rows, labels), triplets, triplets)


FAST_COMPARISONS: dict[str, Callable[[MinedRows, Scale], ComparedRows]] = {
    "relative": fast_relative,
    "absolute": fast_absolute,
    "distribution": fast_distribution,
}


def _thresholds_beyond(nearer: tf.Tensor, negatives: int | tf.Tensor) -> tf.Tensor:
    """For each negative of a row, by its place, how many of the row's thresholds lie beyond it: [R, P] counts to [R, N]."""
    rows = tf.shape(nearer)[0]
    width = negatives + 1
    cell = tf.range(rows)[:, None] * width + nearer
    ending = tf.math.unsorted_segment_sum(tf.ones_like(nearer, tf.float32), cell, rows * width)
    ending = tf.reshape(ending, [rows, width])
    return tf.cumsum(ending, axis=-1, reverse=True)[:, 1:]


def _count(valid: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(valid, tf.float32), axis=-1)


def _by_label(values: tf.Tensor, rows: Rows, labels: int) -> tf.Tensor:
    """Sum over the anchors of each label: [R] to [L]."""
    return tf.math.unsorted_segment_sum(rows.weight * values, rows.label, labels)


def _label_mean(total: tf.Tensor, count: tf.Tensor, rows: Rows, labels: int) -> tf.Tensor:
    """The one place that divides: [R] by the number of valid terms of the row's label; 0 stays 0 where there are none."""
    return total / tf.gather(tf.maximum(_by_label(count, rows, labels), 1.0), rows.label)
