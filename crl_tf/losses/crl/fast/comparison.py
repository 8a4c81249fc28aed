"""The fast form of `comparison`: the same numbers from the rows of `fast.rows`, without ever building a triplet.

The hinges of an anchor are summed by sorted prefix sums, kappa log kappa instead of kappa squared; labels are segments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
import tensorflow as tf

from crl_tf.gradients import pick, scaled, weighted_sum
from crl_tf.layout import length
from crl_tf.losses.crl.comparison import Scale, pulled
from crl_tf.losses.crl.fast.rows import MinedRows


class ComparedRows(NamedTuple):
    """by_row: float32 [R], the anchors' shares, whose sum over the rows of a label is its L_crl; any number in unreal rows.

    triplets, active, anchors: float32 [L], as in `comparison.Compared`.
    """

    by_row: tf.Tensor
    triplets: tf.Tensor
    active: tf.Tensor
    anchors: tf.Tensor

    @classmethod
    def of(
        cls,
        by_row: tf.Tensor,
        triplets: tf.Tensor,
        label: tf.Tensor,
        scale: Scale,
        active: tf.Tensor | None = None,
        terms: tf.Tensor | None = None,
    ) -> Self:
        """With counts of each label, from those of rows: triplets, active, terms float32 [R]; None: as many as triplets."""
        labels = scale.margin.shape[0]
        has_term = tf.cast((triplets if terms is None else terms) > 0, tf.float32)
        total, anchors = (_by_label(count, label, labels) for count in (triplets, has_term))
        return cls(by_row, total, total if active is None else _by_label(active, label, labels), anchors)


class Counts(NamedTuple):
    """Valid pairs of each anchor, float32 [R]; 0 in unreal rows."""

    positives: tf.Tensor
    negatives: tf.Tensor

    @classmethod
    def of(cls, mined: MinedRows) -> Counts:
        return cls(*(tf.reduce_sum(tf.cast(p.valid, tf.float32), axis=1) for p in (mined.positive, mined.negative)))


def fast_relative(mined: MinedRows, scale: Scale) -> ComparedRows:
    """Eq. 9. The loss is linear between its kinks: a weighted sum of distances gives value and gradient in one."""
    positive, negative, label = mined.positive, mined.negative, mined.rows.label
    counts = Counts.of(mined)
    # A hinge is m + d(a,+) - d(a,-) where that is > 0: per positive, all negatives nearer than the threshold m + d(a,+).
    margin = _of_label(scale.margin, label)
    threshold = tf.stop_gradient(margin[:, None] + positive.distance)
    # The op behind tf.searchsorted, which fails without rows.
    nearer = tf.raw_ops.LowerBound(sorted_inputs=tf.stop_gradient(negative.distance), values=threshold)
    nearer = tf.where(positive.valid, nearer, 0)
    times, beyond = tf.cast(nearer, tf.float32), _thresholds_beyond(nearer, length(negative.distance, 1), scale.kappa)
    active = tf.reduce_sum(times, axis=-1)
    hinges = tf.add_n([weighted_sum(positive.distance, times), weighted_sum(negative.distance, -beyond), margin * active])
    triplets = counts.positives * counts.negatives
    return ComparedRows.of(_mean(hinges, triplets, label, scale), triplets, label, scale, active)


def fast_absolute(mined: MinedRows, scale: Scale) -> ComparedRows:
    """Eq. 13."""
    positive, negative, label = mined.positive, mined.negative, mined.rows.label
    counts = Counts.of(mined)
    hinge = tf.nn.relu(_of_label(scale.margin, label)[:, None] - negative.distance)  # 0 for what is FAR
    pulls = tf.reduce_sum(pulled(tf.where(positive.valid, positive.distance, 0.0), scale), axis=-1)
    pushes = tf.reduce_sum(tf.square(hinge), axis=-1)
    means = _mean(pulls, counts.positives, label, scale) + _mean(pushes, counts.negatives, label, scale)
    active = counts.positives * tf.reduce_sum(tf.cast(hinge > 0, tf.float32), axis=-1)
    triplets, terms = counts.positives * counts.negatives, counts.positives + counts.negatives
    return ComparedRows.of(0.5 * means, triplets, label, scale, active, terms)


def fast_distribution(mined: MinedRows, scale: Scale) -> ComparedRows:
    """Eqs. 14-16, as `compare_distribution` has them: only the negatives' histogram, read off at every positive pair."""
    label, counts = mined.rows.label, Counts.of(mined)
    labels, bins = scale.margin.shape[0], scale.num_bins
    per_unit = (bins - 1) / (scale.high - scale.low)
    first_cell = _of_label(tf.range(0, labels * bins, bins), label)[:, None]
    negatives = tf.maximum(_by_label(counts.negatives, label, labels), 1.0)[:, None]

    def cells(distance: tf.Tensor, valid: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The node below each distance, and the share of the node above.

        What is not valid falls into one more cell, behind those of all labels, where every table holds 0.
        """
        position = (distance - scale.low) * per_unit
        # Cut as a whole number: distances leave the scale by rounding only, and NaN, which is no node, goes on in the share.
        node = tf.maximum(tf.minimum(tf.cast(position, tf.int32), bins - 2), 0)
        return tf.where(valid, node + first_cell, labels * bins), position - tf.cast(node, tf.float32)

    def histogram(weight: tf.Tensor, cell: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
        below, above = (
            tf.reshape(tf.math.unsorted_segment_sum(values, cell, labels * bins + 1)[:-1], [labels, bins])
            for values in (weight * tf.ones_like(share), weight * share)
        )
        return below - above + tf.pad(above[:, :-1], [[0, 0], [1, 0]])

    def read(table: tf.Tensor, cell: tf.Tensor) -> tf.Tensor:
        return pick(tf.pad(tf.reshape(table, [-1]), [[0, 1]]), cell)

    @tf.custom_gradient
    def overlaps(
        positive: tf.Tensor, negative: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        positive_cell, positive_share = cells(positive, mined.positive.valid)
        negative_cell, negative_share = cells(negative, mined.negative.valid)
        of_negatives = histogram(tf.ones([]), negative_cell, negative_share) / negatives
        rise = read(tf.pad(of_negatives[:, 1:], [[0, 0], [0, 1]]), positive_cell)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # A positive climbs the negatives' histogram, and a negative descends the positives'.
            upstream = per_unit * upstream[:, None]
            of_positives = histogram(upstream, positive_cell, positive_share) / negatives
            return upstream * rise, -read(of_positives, negative_cell)

        return tf.reduce_sum(read(tf.cumsum(of_negatives, axis=-1), positive_cell) + positive_share * rise, axis=-1), gradient

    by_row = _mean(overlaps(mined.positive.distance, mined.negative.distance), counts.positives, label, scale)
    return ComparedRows.of(by_row, counts.positives * counts.negatives, label, scale)


FAST_COMPARISONS: dict[str, Callable[[MinedRows, Scale], ComparedRows]] = {
    "relative": fast_relative,
    "absolute": fast_absolute,
    "distribution": fast_distribution,
}


def _thresholds_beyond(nearer: tf.Tensor, negatives: int | tf.Tensor, kappa: int | None) -> tf.Tensor:
    """How many of a row's thresholds lie beyond each negative: counts int32 [R, P] of nearer negatives to float32 [R, N]."""

    def ending(most: int | tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.DenseBincount(input=nearer, size=most + 1, weights=tf.zeros([0]), binary_output=False)

    if kappa is None or kappa > 256:
        return tf.cumsum(ending(negatives), axis=-1, reverse=True)[:, 1:]
    # Sums over a short axis take five times as long as a product with a triangle, 0.3 % of a celeba step.
    return tf.matmul(ending(kappa), np.tri(kappa + 1, kappa, -1, dtype=np.float32))[:, :negatives]


def _by_label(values: tf.Tensor, label: tf.Tensor, labels: int) -> tf.Tensor:
    """Sum over the anchors of each label: [R] to [L]."""
    if labels == 1:
        return tf.reduce_sum(values, keepdims=True)
    return tf.math.unsorted_segment_sum(values, label, labels)


def _of_label(values: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
    """The number of each anchor's label: [L] to [R], or as it is for one label."""
    return values if values.shape[0] == 1 else tf.gather(values, label)


def _mean(total: tf.Tensor, count: tf.Tensor, label: tf.Tensor, scale: Scale) -> tf.Tensor:
    """[R] divided by the number of valid terms of the row's label, so that the rows are shares of one mean; or of the row itself.

    0 stays 0 where nothing is valid.
    """
    if not scale.per_anchor:
        count = _of_label(_by_label(count, label, scale.margin.shape[0]), label)
    return scaled(total, 1.0 / tf.maximum(count, 1.0))
