"""The fast form of `comparison`: the same numbers from `fast_mining`'s rows, without ever building a triplet.

The hinges of an anchor are summed by sorted prefix sums, kappa log kappa instead of kappa squared; labels are segments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from crl_tf.layout import length, pick
from crl_tf.losses.comparison import Scale
from crl_tf.losses.fast_class_level import AnchorScores, ClassSets
from crl_tf.losses.fast_rows import MinedRows, Rows

# Up to this length a running sum is faster as a product with a triangle of ones.
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
    thresholds_beyond = _thresholds_beyond(nearer, length(negative.distance, 1))
    hinges = tf.reduce_sum(times * threshold, axis=-1) - tf.reduce_sum(thresholds_beyond * negative.distance, axis=-1)
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


def fast_absolute_of_classes(
    sets: ClassSets, rows: Rows, anchors: AnchorScores, scale: Scale, batch: int | tf.Tensor
) -> ComparedRows:
    """Eq. 13 at the class level, where a class shares its mined samples: sums of squares over them are polynomials in p_a.

    Around the positives' mean c, sum (p_a - p_+)^2 = P (p_a - c)^2 - 2 (p_a - c) sum (p_+ - c) + sum (p_+ - c)^2. The open
    hinges are the first few of the sorted negatives; around the highest one, h, their squares are
    sum (u + (p_- - h))^2 with u = m - p_a + h: again sums over a prefix. Neither loses digits to cancellation.
    """
    slots, labels, margin = length(sets.label, 0), scale.margin.shape[0], tf.gather(scale.margin, rows.label)
    count = length(sets.negative_scores, 1)
    rank = tf.range(sets.mined)
    positives, negatives = tf.minimum(sets.size, sets.mined), tf.minimum(sets.others, count)
    low = sets.low_scores[:, : sets.mined]
    exists = rank < positives[:, None]
    number = tf.cast(positives, tf.float32)
    centre = tf.stop_gradient(tf.reduce_sum(tf.where(exists, low, 0.0), axis=1) / tf.maximum(number, 1.0))
    off = tf.where(exists, low - centre[:, None], 0.0)
    moments = tf.stack([centre, number, tf.reduce_sum(off, axis=1), tf.reduce_sum(tf.square(off), axis=1)], axis=1)
    centre, number, first, second = tf.unstack(tf.gather(moments, anchors.slot), axis=1)
    away = anchors.score - centre
    pulled = number * tf.square(away) - 2.0 * away * first + second

    high, exists = sets.negative_scores, tf.range(count) < negatives[:, None]
    below = tf.where(exists, high - high[:, :1], 0.0)
    # One sorted list for all slots: -p_- lies in [-1, 0], a threshold m - p_a is cut at 1/2, and float64 holds slot and score.
    band = 4.0 * tf.range(slots, dtype=tf.float64)
    listed = band[:, None] + tf.cast(tf.where(exists, tf.stop_gradient(-high), 1.0), tf.float64)
    threshold = tf.cast(tf.minimum(margin - tf.stop_gradient(anchors.score), 0.5), tf.float64)
    found = tf.searchsorted(tf.reshape(listed, [1, -1]), (tf.gather(band, anchors.slot) + threshold)[None], side="left")[0]
    open_ = found - anchors.slot * count
    cell = anchors.slot * (count + 1) + open_
    once, twice = (pick(tf.pad(tf.cumsum(t, axis=1), [[0, 0], [1, 0]]), cell) for t in (below, tf.square(below)))
    highest = margin - anchors.score + tf.gather(tf.reduce_sum(high[:, :1], axis=1), anchors.slot)
    pushed = tf.cast(open_, tf.float32) * tf.square(highest) + 2.0 * highest * once + twice

    def of_label(values: tf.Tensor) -> tf.Tensor:
        return tf.math.unsorted_segment_sum(tf.cast(values, tf.float32), sets.label, labels)

    # Each of the mined positives is an anchor too, and not its own positive.
    pairs = (sets.size - 1) * positives, sets.size * negatives
    by_row = 0.5 * sum(
        total / tf.gather(tf.maximum(of_label(valid), 1.0), rows.label)
        for total, valid in zip((pulled, pushed), pairs, strict=True)
    )
    # A triplet is active when its hinge is open; the metric's own count, no part of the loss.
    place = tf.where(rank < positives[:, None], tf.range(slots)[:, None] * batch + sets.lowest[:, : sets.mined], -1)
    is_mined = tf.math.unsorted_segment_sum(tf.ones_like(place), place, slots * batch)
    own_positives = tf.gather(positives, anchors.slot) - pick(is_mined, anchors.slot * batch + rows.sample)
    active = _by_label(tf.cast(own_positives * open_, tf.float32), rows, labels)
    return ComparedRows(by_row, of_label(pairs[0] * negatives), active)


def fast_distribution(mined: MinedRows, scale: Scale) -> ComparedRows:
    """Eqs. 14-16. Each pair needs the node below it and its share of the node above, once; its gradient is read off the
    other side's histogram: moving a negative up takes mass from cumsum(h-) at the node below it, and nowhere else."""
    positive, negative, rows = mined.positive, mined.negative, mined.rows
    labels, bins = scale.margin.shape[0], scale.num_bins
    per_unit = (bins - 1) / (scale.high - scale.low)
    positives, negatives = _count(positive.valid), _count(negative.valid)
    pairs = tf.maximum(_by_label(negatives, rows, labels), 1.0)[:, None]

    def cells(distance: tf.Tensor, valid: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # What is not valid falls into one more cell, behind those of all labels, where every table holds 0.
        position = tf.clip_by_value((distance - scale.low) * per_unit, 0.0, bins - 1.0)
        node = tf.cast(tf.minimum(position, bins - 1.5), tf.int32)
        inside = valid & (rows.weight > 0)[:, None]
        return tf.where(inside, node + (rows.label * bins)[:, None], labels * bins), position - tf.cast(node, tf.float32)

    def histogram(cell: tf.Tensor, mass: tf.Tensor, above: tf.Tensor) -> tf.Tensor:
        at, above = (
            tf.reshape(tf.math.unsorted_segment_sum(t, cell, labels * bins + 1)[:-1], [labels, bins]) for t in (mass, above)
        )
        return at - above + tf.pad(above[:, :-1], [[0, 0], [1, 0]])

    def read(table: tf.Tensor, cell: tf.Tensor) -> tf.Tensor:
        return pick(tf.pad(tf.reshape(table, [-1]), [[0, 1]]), cell)

    @tf.custom_gradient
    def overlaps(near: tf.Tensor, far: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        near_cell, near_share = cells(near, positive.valid)
        far_cell, far_share = cells(far, negative.valid)
        below = histogram(far_cell, tf.ones_like(far_share), far_share) / pairs
        rise = read(tf.pad(below[:, 1:], [[0, 0], [0, 1]]), near_cell)
        overlap = read(tf.cumsum(below, axis=-1), near_cell) + near_share * rise

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            mass = tf.zeros_like(near_share) + upstream[:, None]
            pulled = histogram(near_cell, mass, mass * near_share) / pairs
            return mass * rise * per_unit, read(-per_unit * pulled, far_cell)

        return tf.reduce_sum(overlap, axis=-1), gradient

    triplets = _by_label(positives * negatives, rows, labels)
    shares = _label_mean(overlaps(positive.distance, negative.distance), positives, rows, labels)
    return ComparedRows(shares, triplets, triplets)


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
    if isinstance(negatives, int) and negatives <= TRIANGLE:
        # A running sum over a short axis costs more than the product with a triangle of ones; of small counts it is exact.
        return tf.matmul(ending, np.tri(width, negatives, -1, np.float32))
    return tf.cumsum(ending, axis=-1, reverse=True)[:, 1:]


def _count(valid: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(valid, tf.float32), axis=-1)


def _by_label(values: tf.Tensor, rows: Rows, labels: int) -> tf.Tensor:
    """Sum over the anchors of each label: [R] to [L]."""
    return tf.math.unsorted_segment_sum(rows.weight * values, rows.label, labels)


def _label_mean(total: tf.Tensor, count: tf.Tensor, rows: Rows, labels: int) -> tf.Tensor:
    """The one place that divides: [R] by the number of valid terms of the row's label; 0 stays 0 where there are none."""
    return total / tf.gather(tf.maximum(_by_label(count, rows, labels), 1.0), rows.label)
