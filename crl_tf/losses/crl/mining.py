"""Mining hard positives and hard negatives of the minority classes (eqs. 4-7), at the class or the instance level.

A level defines how hard a pair is and how far apart it is. It returns distances and their validity, and does not know how they
are compared. Mining chooses indices, through which no gradient flows.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from crl_tf.distances import squared_distances
from crl_tf.layout import Layout, class_members, length

# Below (above) every hardness there is, yet finite.
NEVER = -3.0e38


class Pairs(NamedTuple):
    """distance: float32 [L, A, N] from each anchor to each of its mined samples. valid: bool [L, A, N]."""

    distance: tf.Tensor
    valid: tf.Tensor


class Anchors(NamedTuple):
    """index: int32 [L, A] into the batch. label: int32 [L, A], its class. valid: bool [L, A]."""

    index: tf.Tensor
    label: tf.Tensor
    valid: tf.Tensor


class MinedPairs(NamedTuple):
    """The pairs of every anchor with its mined samples."""

    positive: Pairs
    negative: Pairs


def select_anchors(labels: tf.Tensor, rectified: tf.Tensor, *, rho: float, scope: str) -> Anchors:
    """Every sample of a rectified class, in batch order, in as many rows as eq. 3 can fill: A = rho B (scope="all": B).

    Args:
        labels: int32 [L, B].
        rectified: bool [L, largest], from `profiling.minority_mask`.
    """
    rows = anchor_rows(length(labels, 1), rho, scope)
    is_anchor = tf.gather(rectified, tf.maximum(labels, 0), batch_dims=1) & (labels >= 0)
    valid, index = tf.math.top_k(tf.cast(is_anchor, tf.float32), rows)
    return Anchors(index, tf.maximum(tf.gather(labels, index, batch_dims=1), 0), valid > 0)


def anchor_rows(batch: int | tf.Tensor, rho: float, scope: str) -> int | tf.Tensor:
    """How many anchors a label can have: what eq. 3 admits of the batch."""
    if scope == "all":
        return batch
    # A replica's share of the last batch may be empty: then no row at all.
    if isinstance(batch, int):
        return min(batch, max(1, int(batch * rho + 1e-9)))
    return tf.minimum(batch, tf.maximum(1, tf.cast(tf.cast(batch, tf.float64) * rho + 1e-9, tf.int32)))


def at_most(count: int | tf.Tensor | None, most: int | tf.Tensor) -> int | tf.Tensor:
    """Limits kappa to the length of a row; None means all samples."""
    if count is None:
        return most
    return min(count, most) if isinstance(count, int) and isinstance(most, int) else tf.minimum(count, most)


def mine_class_level(
    labels: tf.Tensor, anchors: Anchors, probabilities: tf.Tensor, layout: Layout, *, kappa: int | None
) -> MinedPairs:
    """Hard samples by prediction score (eqs. 4, 5), one set per class and shared by its anchors; distances of eq. 10.

    Args:
        labels: int32 [L, B].
        probabilities: float32 [sum(num_classes), B].
    Returns:
        distances |p_a - p_+| and p_a - p_- (signed), all on the anchor's class. An anchor inside the mined set is not its
        own positive.
    """
    scores, batch = probabilities, length(labels, 1)
    member = class_members(labels, layout)
    other = tf.gather(labels >= 0, layout.column_label) & ~member
    positive, positive_valid = _hardest(-scores, member, at_most(kappa, batch))
    negative, negative_valid = _hardest(scores, other, at_most(kappa, batch))

    column = layout.offsets[:, None] + anchors.label
    anchor_score = tf.gather(tf.reshape(scores, [-1]), column * batch + anchors.index)[..., None]
    positive_score = tf.gather(tf.gather(scores, positive, batch_dims=1), column)
    negative_score = tf.gather(tf.gather(scores, negative, batch_dims=1), column)
    real = anchors.valid[..., None]
    not_self = tf.gather(positive, column) != anchors.index[..., None]
    return MinedPairs(
        Pairs(tf.abs(anchor_score - positive_score), real & not_self & tf.gather(positive_valid, column)),
        Pairs(anchor_score - negative_score, real & tf.gather(negative_valid, column)),
    )


def mine_instance_level(labels: tf.Tensor, anchors: Anchors, features: tf.Tensor, *, kappa: int | None) -> MinedPairs:
    """Hard samples by feature distance (eqs. 6, 7), a set per anchor; Euclidean distances of eq. 11.

    Args:
        labels: int32 [L, B].
        features: float32 [B, L, D], or [B, D] shared by all labels.
    """
    batch = length(labels, 1)
    if features.shape.rank == 2:
        features = tf.repeat(features[None], labels.shape[0], axis=0)
    else:
        features = tf.transpose(features, [1, 0, 2])  # [L, B, D]
    # Far from the origin the squares below would lose the digits that tell distances apart.
    features -= tf.stop_gradient(tf.reduce_mean(features, axis=1, keepdims=True))
    anchor_features = tf.gather(features, anchors.index, batch_dims=1)
    squared = tf.stop_gradient(squared_distances(anchor_features, features))
    same = labels[:, None, :] == anchors.label[..., None]
    itself = tf.range(batch) == anchors.index[..., None]
    positive, positive_valid = _hardest(squared, same & ~itself, at_most(kappa, batch))
    negative, negative_valid = _hardest(-squared, ~same & (labels >= 0)[:, None, :], at_most(kappa, batch))

    def pairs(index: tf.Tensor, valid: tf.Tensor) -> Pairs:
        # From the differences, not from the expanded square above: that loses small distances to cancellation.
        difference = anchor_features[:, :, None, :] - tf.gather(features, index, batch_dims=1)
        return Pairs(safe_root(tf.reduce_sum(tf.square(difference), axis=-1)), valid & anchors.valid[..., None])

    return MinedPairs(pairs(positive, positive_valid), pairs(negative, negative_valid))


def _hardest(hardness: tf.Tensor, candidate: tf.Tensor, count: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The `count` hardest candidates of each row, ties by lower index: their indices, and which of them exist."""
    index = tf.math.top_k(tf.stop_gradient(tf.where(candidate, hardness, NEVER)), count).indices
    return index, tf.gather(candidate, index, batch_dims=len(candidate.shape) - 1)


def safe_root(squared: tf.Tensor) -> tf.Tensor:
    """The square root, with gradient 0 at 0 (the plain one's is infinite there, and times 0 that is NaN)."""
    zero = squared == 0  # not "> 0": a NaN must stay one
    return tf.where(zero, 0.0, tf.sqrt(tf.where(zero, 1.0, squared)))
