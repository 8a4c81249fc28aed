"""Comparing mined pairs: relative (eq. 9), absolute (eq. 13) and distribution (eqs. 14-16).

A comparison turns distances and their validity into one number per label, split over its anchors. It does not know at which level
the pairs were mined.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from crl_tf.losses.crl.mining import MinedPairs, Pairs


class Scale(NamedTuple):
    """How distances become a loss.

    margin: float32 [L]. low, high: where the distances lie. num_bins: histogram nodes from low to high.
    per_anchor: sum the means of the anchors, instead of one mean over all terms of a label.
    squared_positives: whether the absolute comparison squares the distances of positives.
    kappa: the most negatives that an anchor has; None for any number.
    """

    margin: tf.Tensor
    low: float
    high: float
    num_bins: int
    per_anchor: bool = False
    squared_positives: bool = True
    kappa: int | None = None


class Compared(NamedTuple):
    """by_anchor: float32 [L, A], the anchors' shares; their sum over A is L_crl of the label.

    triplets, active: float32 [L], the number of triplets (anchor, positive, negative), and of those with a gradient.
    anchors: float32 [L], the number of anchors with a term: a triplet, or in the absolute comparison a pair.
    """

    by_anchor: tf.Tensor
    triplets: tf.Tensor
    active: tf.Tensor
    anchors: tf.Tensor

    @classmethod
    def of(
        cls, by_anchor: tf.Tensor, mined: MinedPairs, active: tf.Tensor | None = None, terms: tf.Tensor | None = None
    ) -> Compared:
        """With the counts of mined pairs; active None: all triplets; terms [L, A], of each anchor, None: its triplets."""
        per_anchor = triplets_of_anchors(mined.positive.valid, mined.negative.valid)
        triplets = tf.reduce_sum(per_anchor, axis=1)
        anchors = tf.reduce_sum(tf.cast((per_anchor if terms is None else terms) > 0, tf.float32), axis=1)
        return cls(by_anchor, triplets, triplets if active is None else active, anchors)


def pulled(distance: tf.Tensor, scale: Scale) -> tf.Tensor:
    """What a positive pair adds to the absolute comparison: d(a,+)^2 of eq. 13, or |d(a,+)| of the conference paper."""
    return tf.square(distance) if scale.squared_positives else tf.abs(distance)


def per_valid(total: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """Divides [L, N] by the number of valid terms of each label; 0 stays 0 where there are none."""
    count = tf.reduce_sum(tf.cast(valid, tf.float32), axis=list(range(1, valid.shape.rank)))
    return total / tf.maximum(count, 1.0)[:, None]


def mean_by_anchor(values: tf.Tensor, valid: tf.Tensor, *, per_anchor: bool = False) -> tf.Tensor:
    """The mean of the valid values of each label, as shares of its anchors; or the mean of each anchor.

    [L, A, ...] to [L, A], whose sum over A is the mean; exactly 0 with a zero gradient where nothing is valid.
    """
    inner = list(range(2, values.shape.rank))
    total = tf.reduce_sum(tf.where(valid, values, 0.0), axis=inner)
    if per_anchor:
        return total / tf.maximum(tf.reduce_sum(tf.cast(valid, tf.float32), axis=inner), 1.0)
    return per_valid(total, valid)


def triplets_of_anchors(positive: tf.Tensor, negative: tf.Tensor) -> tf.Tensor:
    """Triplets of each anchor from masks [L, A, P] and [L, A, N]: float32 [L, A]."""
    return _count(positive) * _count(negative)


def _count(mask: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(mask, tf.float32), axis=-1)


def compare_relative(mined: MinedPairs, scale: Scale) -> Compared:
    """Eq. 9: the mean of max(0, m + d(a,+) - d(a,-)) over all triplets of a label, or of each anchor."""
    positive, negative = mined.positive, mined.negative
    hinge = tf.nn.relu(scale.margin[:, None, None, None] + positive.distance[..., :, None] - negative.distance[..., None, :])
    valid = positive.valid[..., :, None] & negative.valid[..., None, :]
    active = tf.reduce_sum(tf.cast(valid & (hinge > 0), tf.float32), axis=[1, 2, 3])
    return Compared.of(mean_by_anchor(hinge, valid, per_anchor=scale.per_anchor), mined, active)


def compare_absolute(mined: MinedPairs, scale: Scale) -> Compared:
    """Eq. 13: half the mean of d(a,+)^2 plus half the mean of max(m - d(a,-), 0)^2.

    A triplet counts as active when its negative is nearer than the margin.
    """
    positive, negative = mined.positive, mined.negative
    hinge = tf.nn.relu(scale.margin[:, None, None] - negative.distance)
    pulls, pushes = (
        mean_by_anchor(values, pairs.valid, per_anchor=scale.per_anchor)
        for values, pairs in ((pulled(positive.distance, scale), positive), (tf.square(hinge), negative))
    )
    by_anchor = 0.5 * (pulls + pushes)
    active = tf.reduce_sum(triplets_of_anchors(positive.valid, negative.valid & (hinge > 0)), axis=1)
    return Compared.of(by_anchor, mined, active, terms=_count(positive.valid) + _count(negative.valid))


def compare_distribution(mined: MinedPairs, scale: Scale) -> Compared:
    """Eqs. 14-16: the chance that a negative pair is nearer than a positive one, by soft histograms over [low, high].

    sum_t h+[t] cumsum(h-)[t] is the mean, over the positive pairs, of cumsum(h-) read off between the two nodes next to the
    pair; so only the negatives' histogram is built. Every triplet is active: there is no hinge.
    """
    positive_node, positive_share = _neighbouring_nodes(mined.positive.distance, scale)
    cumulative = tf.cumsum(_histogram(mined.negative, scale), axis=-1)
    shape = tf.shape(positive_node)
    node = tf.reshape(positive_node, [shape[0], -1])
    below = tf.reshape(tf.gather(cumulative, node, batch_dims=1), shape)
    above = tf.reshape(tf.gather(cumulative, node + 1, batch_dims=1), shape)
    overlap = (1.0 - positive_share) * below + positive_share * above
    return Compared.of(mean_by_anchor(overlap, mined.positive.valid), mined)


def _neighbouring_nodes(distance: tf.Tensor, scale: Scale) -> tuple[tf.Tensor, tf.Tensor]:
    """Index of the node at or below each clipped distance, at most num_bins - 2, and the share of the node above."""
    from_low = tf.clip_by_value(distance, scale.low, scale.high) - scale.low
    position = from_low * ((scale.num_bins - 1) / (scale.high - scale.low))
    node = tf.clip_by_value(tf.cast(tf.floor(position), tf.int32), 0, scale.num_bins - 2)
    return node, position - tf.cast(node, tf.float32)


def _histogram(pairs: Pairs, scale: Scale) -> tf.Tensor:
    """Eq. 14 for every label at once: float32 [L, num_bins], each row summing to 1, or all 0 where no pair is valid."""
    node, share = _neighbouring_nodes(pairs.distance, scale)
    labels, num_bins = node.shape[0], scale.num_bins
    first = num_bins * tf.range(labels)[:, None, None]
    total = tf.zeros([labels * num_bins])
    for index, weight in ((node, 1.0 - share), (node + 1, share)):
        weight = tf.where(pairs.valid, weight, 0.0)
        total += tf.math.unsorted_segment_sum(weight, first + index, labels * num_bins)
    return per_valid(tf.reshape(total, [labels, num_bins]), pairs.valid)


class Comparison(NamedTuple):
    """A row of `COMPARISONS`.

    compare: mined pairs to L_crl. class_margin, instance_margin: the paper's m per level, from |Z_j| of every label [L];
    None for a comparison that has no margin. at_constant: from m [L] to the L_crl of a model that scores all samples alike.
    per_anchor: whether it is a mean over terms of single anchors. unit_features: compares L2-normalised features.
    """

    compare: Callable[[MinedPairs, Scale], Compared]
    class_margin: Callable[[np.ndarray], np.ndarray] | None = None
    instance_margin: Callable[[np.ndarray], np.ndarray] | None = None
    at_constant: Callable[[np.ndarray], np.ndarray] | None = None
    per_anchor: bool = True
    unit_features: bool = False


COMPARISONS: dict[str, Comparison] = {
    "relative": Comparison(
        compare_relative,
        class_margin=lambda sizes: np.full_like(sizes, 0.5),
        instance_margin=lambda sizes: 2.0 * math.pi / sizes,  # eq. 12
        at_constant=lambda margin: margin,
    ),
    "absolute": Comparison(
        compare_absolute,
        class_margin=lambda sizes: np.full_like(sizes, 0.5),
        instance_margin=np.ones_like,
        at_constant=lambda margin: 0.5 * np.square(margin),
    ),
    "distribution": Comparison(compare_distribution, per_anchor=False, unit_features=True),
}
