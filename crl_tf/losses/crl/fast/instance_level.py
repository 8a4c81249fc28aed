"""The fast form of the instance level (eqs. 6, 7, 11): a mined set for every anchor, of the distances of one matmul."""

from __future__ import annotations

import tensorflow as tf

from crl_tf.gradients import pick
from crl_tf.layout import Layout, class_members, columns_of, compiled_by_xla, length
from crl_tf.losses.crl.fast.distances import GroupAnchors, groups_of, nearness_to_all, pair_distances
from crl_tf.losses.crl.fast.rows import FAR, MinedRows, Profile, Rows, anchor_mask, hardest, true_cells
from crl_tf.losses.crl.mining import Pairs, at_most


def mine_instance_rows(profiled: Profile, features: tf.Tensor, layout: Layout, *, kappa: int | None, in_order: bool) -> MinedRows:
    """Eqs. 6, 7 and 11, as `mining.mine_instance_level` has them.

    Args:
        features: float32 [B, L, D], or [B, D] shared by all labels.
        in_order: whether the negatives must come nearest first.
    """
    labels, groups, shared = profiled.labels, groups_of(features), features.shape.rank == 2
    batch = length(labels, 1)
    rows, anchors = _anchors_of_groups(profiled, layout, shared)
    nearness = nearness_to_all(groups, anchors)

    cell = rows.label * batch + rows.sample
    other_classes = ~class_members(labels, layout) & tf.gather(labels >= 0, layout.column_label)
    enemies = tf.gather(other_classes, pick(columns_of(labels, layout), cell))
    negative, negative_valid = hardest(nearness, enemies, at_most(kappa, batch), in_order)
    # All samples of a rectified class are anchors: its positives are among the candidates.
    candidates = tf.gather(anchors.candidates, anchors.group)
    classes = tf.gather(labels if shared else tf.gather(labels, anchors.candidates, batch_dims=1), rows.label)
    friends = (classes == pick(labels, cell)[:, None]) & (candidates != rows.sample[:, None])
    farness = -pick(nearness, tf.range(length(candidates, 0))[:, None] * batch + candidates)
    width = length(anchors.candidates, 1)
    index, positive_valid = hardest(farness, friends, at_most(kappa, width), in_order=False)
    positive = pick(anchors.candidates, anchors.group[:, None] * width + index)

    valid = rows.only_real(tf.concat([positive_valid, negative_valid], axis=1))
    distance = pair_distances(groups, anchors, tf.concat([positive, negative], axis=1), valid, nearness)
    split = [length(positive, 1), length(negative, 1)]
    (near, far), (near_valid, far_valid) = (tf.split(t, split, axis=1) for t in (distance, valid))
    far = tf.where(far_valid, far, FAR)
    return MinedRows(rows, Pairs(near, near_valid), Pairs(_nearest_first(far) if in_order else far, far_valid))


def _nearest_first(distance: tf.Tensor) -> tf.Tensor:
    """Each row sorted. They come in the order of what they were mined by, which rounds differently: seldom to another order."""

    def in_order() -> tf.Tensor:
        count = length(distance, 1)
        order = tf.math.top_k(-tf.stop_gradient(distance), count).indices
        return pick(distance, tf.range(length(distance, 0))[:, None] * count + order)

    if compiled_by_xla():
        return in_order()  # inside a condition, XLA would not know how many there are to sort
    return tf.cond(tf.reduce_all(distance[:, 1:] >= distance[:, :-1]), lambda: distance, in_order)


def _anchors_of_groups(profiled: Profile, layout: Layout, shared: bool) -> tuple[Rows, GroupAnchors]:
    """The anchors, and the groups of features that they look into: one that all labels share, or one per label."""
    mask = anchor_mask(profiled, layout)
    if shared:
        rows = Rows(*true_cells(mask, profiled.most))
        return rows, GroupAnchors(tf.zeros_like(rows.label), rows.sample, tf.range(length(mask, 1))[None], rows.sample)
    counts = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    width = profiled.most if compiled_by_xla() else at_most(tf.maximum(tf.reduce_max(counts), 1), length(mask, 1))
    is_anchor, candidates = tf.math.top_k(tf.cast(mask, tf.float32), width)
    cells = true_cells(is_anchor > 0, None)
    place = cells.row * length(candidates, 1) + cells.column
    sample = pick(candidates, place)
    return Rows(cells.row, sample, cells.real), GroupAnchors(cells.row, sample, candidates, place)
