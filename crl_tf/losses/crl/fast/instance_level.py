"""The fast form of the instance level (eqs. 6, 7, 11): a mined set for every anchor, of the distances of one matmul."""

from __future__ import annotations

import tensorflow as tf

from crl_tf.gradients import pick
from crl_tf.layout import Layout, class_members, columns_of, compiled_by_xla, length
from crl_tf.losses.crl.fast.distances import GroupAnchors, Part, groups_of, nearness_to_all, pair_distances
from crl_tf.losses.crl.fast.rows import FAR, MinedRows, Profile, Rows, anchor_mask, hardest, true_cells
from crl_tf.losses.crl.mining import Pairs, at_most

PARTS, SMALLEST_PART = 3, 8
"""How many parts of the groups there are at most, and how many groups each has at least: more parts save little, and cost
operations."""


def mine_instance_rows(profiled: Profile, features: tf.Tensor, layout: Layout, *, kappa: int | None, in_order: bool) -> MinedRows:
    """Eqs. 6, 7 and 11, as `mining.mine_instance_level` has them.

    Args:
        features: float32 [B, L, D], or [B, D] shared by all labels.
        in_order: whether the negatives must come nearest first.
    """
    labels, groups, shared = profiled.labels, groups_of(features), features.shape.rank == 2
    batch = length(labels, 1)
    rows, anchors, candidates_of_groups = _anchors_of_groups(profiled, layout, shared)
    nearness = nearness_to_all(groups, anchors)

    cell = rows.label * batch + rows.sample
    other_classes = ~class_members(labels, layout) & tf.gather(labels >= 0, layout.column_label)
    enemies = tf.gather(other_classes, pick(columns_of(labels, layout), cell))
    negative, negative_valid = hardest(nearness, enemies, at_most(kappa, batch), in_order)
    # All samples of a rectified class are anchors: its positives are among the candidates.
    candidates = tf.gather(candidates_of_groups, anchors.group)
    classes = tf.gather(labels if shared else tf.gather(labels, candidates_of_groups, batch_dims=1), rows.label)
    friends = (classes == pick(labels, cell)[:, None]) & (candidates != rows.sample[:, None])
    farness = -pick(nearness, tf.range(length(candidates, 0))[:, None] * batch + candidates)
    width = length(candidates_of_groups, 1)
    index, positive_valid = hardest(farness, friends, at_most(kappa, width), in_order=False)
    positive = pick(candidates_of_groups, anchors.group[:, None] * width + index)

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


def _anchors_of_groups(profiled: Profile, layout: Layout, shared: bool) -> tuple[Rows, GroupAnchors, tf.Tensor]:
    """The anchors, the groups of features that they look into, and the candidates int32 [G, A] of each group.

    A group is all labels' where features are shared, else one per label.
    """
    mask = anchor_mask(profiled, layout)
    if shared:
        rows, candidates = Rows(*true_cells(mask, profiled.most)), tf.range(length(mask, 1))[None]
        return rows, GroupAnchors(tf.zeros_like(rows.label), rows.sample, [Part(None, candidates)], rows.sample), candidates
    counts = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    width = profiled.most if compiled_by_xla() else at_most(tf.maximum(tf.reduce_max(counts), 1), length(mask, 1))
    is_anchor, candidates = tf.math.top_k(tf.cast(mask, tf.float32), width)
    cells = true_cells(is_anchor > 0, None)
    sample = pick(candidates, cells.row * length(candidates, 1) + cells.column)
    parts, first = _parts(counts, candidates + (tf.range(len(layout)) * length(mask, 1))[:, None])
    anchors = GroupAnchors(cells.row, sample, parts, tf.gather(first, cells.row) + cells.column)
    return Rows(cells.row, sample, cells.real), anchors, candidates


def _parts(counts: tf.Tensor, candidates: tf.Tensor) -> tuple[list[Part], tf.Tensor]:
    """Groups by their numbers of anchors, int32 [G], in parts; and where the candidates of each group begin, int32 [G].

    Args:
        candidates: int32 [G, A], as rows of [G B]; the anchors come first.

    With all groups filled up to the largest, two thirds of the rows of 40 attributes would only fill up. XLA has one part: it
    wants to know the shapes.
    """
    groups = counts.shape[0]
    number = min(PARTS, groups // SMALLEST_PART)
    if compiled_by_xla() or number <= 1:
        return [Part(None, candidates)], tf.range(groups) * length(candidates, 1)
    order, parts, begins, begin = tf.math.top_k(counts, groups).indices, [], [], 0
    for members in tf.split(order, [(groups + part) // number for part in range(number)]):
        # The first one has the most.
        width = tf.maximum(counts[members[0]], 1)
        parts.append(Part(members, tf.gather(candidates, members)[:, :width]))
        begins.append(begin + width * tf.range(members.shape[0]))
        begin += width * members.shape[0]
    return parts, tf.gather(tf.concat(begins, axis=0), tf.math.invert_permutation(order))
