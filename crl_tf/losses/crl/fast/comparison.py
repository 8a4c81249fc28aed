"""The fast form of `comparison`: the same numbers from the rows of `fast_rows`, without ever building a triplet.

The hinges of an anchor are summed by sorted prefix sums, kappa log kappa instead of kappa squared; labels are segments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from crl_tf.layout import length, pick
from crl_tf.losses.crl.comparison import Scale
from crl_tf.losses.crl.fast.class_level import ClassRows, ClassSets, counts_of
from crl_tf.losses.crl.fast.rows import FAR, MinedRows, Rows, weight_of

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
    positive, negative, rows = mined.positive, mined.negative, mined.rows
    # A hinge is m + d(a,+) - d(a,-) where that is > 0: per positive, all negatives nearer than the threshold m + d(a,+).
    threshold = tf.gather(scale.margin, rows.label)[:, None] + positive.distance
    # The op behind tf.searchsorted, which cannot do with no rows at all.
    nearer = tf.raw_ops.LowerBound(sorted_inputs=tf.stop_gradient(negative.distance), values=tf.stop_gradient(threshold))
    nearer = tf.where(positive.valid, nearer, 0)
    times, beyond = tf.cast(nearer, tf.float32), _thresholds_beyond(nearer, length(negative.distance, 1))
    hinges = tf.reduce_sum(times * threshold, axis=-1) - tf.reduce_sum(beyond * negative.distance, axis=-1)
    labels, triplets = scale.margin.shape[0], mined.positives * mined.negatives
    return ComparedRows(
        _label_mean(hinges, triplets, rows, labels),
        _by_label(triplets, rows, labels),
        _by_label(tf.reduce_sum(times, axis=-1), rows, labels),
    )


def fast_absolute(mined: MinedRows, scale: Scale) -> ComparedRows:
    """Eq. 13."""
    positive, negative, rows = mined.positive, mined.negative, mined.rows
    labels = scale.margin.shape[0]
    hinge = tf.nn.relu(tf.gather(scale.margin, rows.label)[:, None] - negative.distance)  # 0 for what is FAR
    pulled = tf.reduce_sum(tf.square(tf.where(positive.valid, positive.distance, 0.0)), axis=-1)
    pushed = tf.reduce_sum(tf.square(hinge), axis=-1)
    by_row = 0.5 * (_label_mean(pulled, mined.positives, rows, labels) + _label_mean(pushed, mined.negatives, rows, labels))
    active = mined.positives * tf.reduce_sum(tf.cast(hinge > 0, tf.float32), axis=-1)
    return ComparedRows(by_row, _by_label(mined.positives * mined.negatives, rows, labels), _by_label(active, rows, labels))


def fast_absolute_of_classes(sets: ClassSets, anchors: ClassRows, scale: Scale) -> ComparedRows:
    """Eq. 13 at the class level, where a class shares its mined samples: sums of squares over them are polynomials in p_a.

    Around the positives' mean c, sum (p_a - p_+)^2 = P (p_a - c)^2 - 2 (p_a - c) sum (p_+ - c) + sum (p_+ - c)^2. The open
    hinges are those of the first few sorted negatives; with u = m - p_a + h, h the highest, their squares are
    sum (u + (p_- - h))^2: again sums over a prefix, in float64, because one high negative among many low ones cancels.
    """
    rows, slot, score = anchors.rows, anchors.slot, anchors.score
    labels, slots, count = scale.margin.shape[0], length(sets.label, 0), length(sets.high_scores, 1)
    low, high = sets.low_scores[:, : sets.mined], sets.high_scores
    exists = tf.range(sets.mined) < sets.size[:, None]
    number = tf.cast(tf.minimum(sets.size, sets.mined), tf.float32)
    centre = tf.stop_gradient(tf.reduce_sum(tf.where(exists, low, 0.0), axis=1) / tf.maximum(number, 1.0))
    off = tf.where(exists, low - centre[:, None], 0.0)
    moments = tf.stack([centre, number, tf.reduce_sum(off, axis=1), tf.reduce_sum(tf.square(off), axis=1)], axis=1)
    centre, number, first, second = tf.unstack(tf.gather(moments, slot), axis=1)
    away = score - centre
    pulled = number * tf.square(away) - 2.0 * away * first + second

    # One sorted list for all slots: -p_- lies in [-1, 0], what does not exist at 1, a threshold m - p_a is cut at 1/2, and
    # float64 holds slot and score exactly.
    margin = tf.gather(scale.margin, rows.label)
    band = 4.0 * tf.range(slots, dtype=tf.float64)
    listed = band[:, None] + tf.cast(tf.minimum(tf.stop_gradient(-high), 1.0), tf.float64)
    threshold = tf.cast(tf.minimum(margin - tf.stop_gradient(score), 0.5), tf.float64)
    at = tf.gather(band, slot) + threshold
    found = tf.raw_ops.LowerBound(sorted_inputs=tf.reshape(listed, [1, slots * count]), values=at[None])[0]
    inside = found - slot * count
    top = tf.cast(tf.reduce_sum(high[:, :1], axis=1), tf.float64)
    below = tf.where(high > -FAR, tf.cast(high, tf.float64) - top[:, None], 0.0)
    once, twice = (
        pick(tf.pad(tf.cumsum(t, axis=1), [[0, 0], [1, 0]]), slot * (count + 1) + inside) for t in (below, tf.square(below))
    )
    reach = tf.where(inside > 0, tf.cast(margin - score, tf.float64) + tf.gather(top, slot), 0.0)
    pushed = tf.cast(tf.cast(inside, tf.float64) * tf.square(reach) + 2.0 * reach * once + twice, tf.float32)

    positives, negatives = (weight_of(rows.weight > 0, t) for t in counts_of(sets, anchors))
    by_row = 0.5 * (_label_mean(pulled, positives, rows, labels) + _label_mean(pushed, negatives, rows, labels))
    active = positives * tf.cast(inside, tf.float32)
    return ComparedRows(by_row, _by_label(positives * negatives, rows, labels), _by_label(active, rows, labels))


def fast_distribution(mined: MinedRows, scale: Scale) -> ComparedRows:
    """Eqs. 14-16. Each pair needs the node below it and its share of the node above, once; its gradient is read off the
    other side's histogram: moving a negative up takes mass from cumsum(h-) at the node below it, and nowhere else."""
    positive, negative, rows = mined.positive, mined.negative, mined.rows
    labels, bins = scale.margin.shape[0], scale.num_bins
    per_unit = (bins - 1) / (scale.high - scale.low)
    pairs = tf.maximum(_by_label(mined.negatives, rows, labels), 1.0)[:, None]

    def cells(distance: tf.Tensor, valid: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # What is not valid falls into one more cell, behind those of all labels, where every table holds 0.
        position = tf.clip_by_value((distance - scale.low) * per_unit, 0.0, bins - 1.0)
        # Cut as a whole number again: there is none for NaN, whose share must carry it on.
        node = tf.clip_by_value(tf.cast(position, tf.int32), 0, bins - 2)
        return tf.where(valid, node + (rows.label * bins)[:, None], labels * bins), position - tf.cast(node, tf.float32)

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

    triplets = _by_label(mined.positives * mined.negatives, rows, labels)
    shares = _label_mean(overlaps(positive.distance, negative.distance), mined.positives, rows, labels)
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

    def by_triangle() -> tf.Tensor:
        # Over a short axis the product with a triangle of ones is faster than a running sum; of small counts it is exact.
        return tf.matmul(ending, tf.cast(tf.range(width)[:, None] > tf.range(negatives), tf.float32))

    def by_running_sum() -> tf.Tensor:
        return tf.cumsum(ending, axis=-1, reverse=True)[:, 1:]

    if isinstance(negatives, int):
        return by_triangle() if negatives <= TRIANGLE else by_running_sum()
    return tf.cond(negatives <= TRIANGLE, by_triangle, by_running_sum)


def _by_label(values: tf.Tensor, rows: Rows, labels: int) -> tf.Tensor:
    """Sum over the anchors of each label: [R] to [L]."""
    return tf.math.unsorted_segment_sum(rows.weight * values, rows.label, labels)


def _label_mean(total: tf.Tensor, count: tf.Tensor, rows: Rows, labels: int) -> tf.Tensor:
    """Shares of a mean over a label: [R] divided by the number of valid terms of the row's label; 0 stays 0 where none is."""
    return total / tf.gather(tf.maximum(_by_label(count, rows, labels), 1.0), rows.label)
