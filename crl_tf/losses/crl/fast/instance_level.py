"""The fast form of the instance level (eqs. 6, 7, 11): a mined set for every anchor, of the distances of one matmul."""

from __future__ import annotations

import tensorflow as tf

from crl_tf.layout import Layout, compiled_by_xla, length, pick
from crl_tf.losses.crl.fast.distances import Pairing, pair_distances, squares_of_differences
from crl_tf.losses.crl.fast.rows import (
    FAR,
    Cells,
    MinedRows,
    Profile,
    Rows,
    anchor_mask,
    hardest,
    true_cells,
    weight_of,
)
from crl_tf.losses.crl.mining import Pairs, at_most, safe_root


def mine_instance_rows(profiled: Profile, features: tf.Tensor, layout: Layout, *, kappa: int | None, in_order: bool) -> MinedRows:
    """Eqs. 6, 7 and 11, as `mining.mine_instance_level` has them.

    Args:
        features: float32 [B, L, D], or [B, D] shared by all labels.
        in_order: whether the negatives must come nearest first.
    """
    labels = profiled.labels
    batch = length(labels, 1)
    groups = features[None] if features.shape.rank == 2 else tf.transpose(features, [1, 0, 2])
    shared = groups.shape[0] < len(layout)
    groups -= tf.stop_gradient(tf.reduce_mean(groups, axis=1, keepdims=True))  # distances stay, their squares round less
    fixed = tf.stop_gradient(groups)
    anchors, group, table, row = _anchors_of_groups(profiled, layout, shared)
    label, sample = anchors.row, anchors.column
    left = fixed if shared else tf.gather(fixed, table, batch_dims=1)

    # Of the square |a|^2 + |b|^2 - 2 a b, the first term is the same for all that an anchor is compared with.
    products = tf.gather(tf.reshape(tf.matmul(2.0 * left, fixed, transpose_b=True), [-1, batch]), row)
    nearness = products - tf.gather(tf.reduce_sum(tf.square(fixed), axis=-1), group)
    row_class = pick(labels, label * batch + sample)
    row_column = tf.maximum(row_class, 0) + tf.gather(layout.offsets, label)
    enemies = tf.gather(~profiled.members & tf.gather(profiled.annotated, layout.column_label), row_column)
    negative, negative_valid = hardest(nearness, enemies, at_most(kappa, batch), in_order)
    # All samples of a rectified class are anchors: its positives are among them.
    candidates = tf.gather(table, group)
    friends = tf.gather(labels if shared else tf.gather(labels, table, batch_dims=1), label) == row_class[:, None]
    friends &= candidates != sample[:, None]
    of_candidates = -pick(nearness, tf.range(length(candidates, 0))[:, None] * batch + candidates)
    at, positive_valid = hardest(of_candidates, friends, at_most(kappa, length(table, 1)), in_order=False)
    positive = pick(table, group[:, None] * length(table, 1) + at)
    valid = tf.concat([positive_valid, negative_valid], axis=1) & anchors.real[:, None]
    pairing = Pairing(group * batch + sample, sample, row, tf.concat([positive, negative], axis=1), valid)
    if compiled_by_xla() or tf.config.list_logical_devices("GPU"):
        # XLA fuses the differences into their sum. On a GPU a matmul may round to TensorFloat-32: enough to mine, not to measure.
        flat = tf.reshape(groups, [-1, groups.shape[-1]])
        distance = safe_root(squares_of_differences(flat, pairing.first, (group * batch)[:, None] + pairing.second))
    else:
        distance = pair_distances(groups, left, table, pairing, nearness)
    split = [length(positive, 1), length(negative, 1)]
    (near, far), (near_valid, far_valid) = (tf.split(t, split, axis=1) for t in (distance, valid))
    far = tf.where(far_valid, far, FAR)
    if in_order:
        far = _nearest_first(far)
    rows = Rows(label, sample, row_column, weight_of(anchors.real, 1))
    counts = (tf.reduce_sum(tf.cast(mask, tf.float32), axis=1) for mask in (near_valid, far_valid))
    return MinedRows(rows, Pairs(near, near_valid), Pairs(far, far_valid), *counts)


def _nearest_first(distance: tf.Tensor) -> tf.Tensor:
    """Each row sorted. They come in the order of what they were mined by, which rounds differently: seldom to another order."""

    def in_order() -> tf.Tensor:
        count = length(distance, 1)
        order = tf.math.top_k(-tf.stop_gradient(distance), count).indices
        return pick(distance, tf.range(length(distance, 0))[:, None] * count + order)

    if compiled_by_xla():
        return in_order()  # inside a condition, it would not know how many there are to sort
    return tf.cond(tf.reduce_all(distance[:, 1:] >= distance[:, :-1]), lambda: distance, in_order)


def _anchors_of_groups(profiled: Profile, layout: Layout, shared: bool) -> tuple[Cells, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The anchors (label and place in the batch); which group of features each looks into; per group the places of those
    that may be anchors, int32 [G, A]; and where in that table each anchor is, as a row of [G A]."""
    mask = anchor_mask(profiled, layout)
    if shared:
        anchors = true_cells(mask, profiled.most)
        return anchors, tf.zeros_like(anchors.row), tf.range(length(mask, 1))[None], anchors.column
    counts = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    width = profiled.most if compiled_by_xla() else at_most(tf.maximum(tf.reduce_max(counts), 1), length(mask, 1))
    is_anchor, table = tf.math.top_k(tf.cast(mask, tf.float32), width)
    cells = true_cells(is_anchor > 0, None)
    row = cells.row * length(table, 1) + cells.column
    return Cells(cells.row, pick(table, row), cells.real), cells.row, table, row
