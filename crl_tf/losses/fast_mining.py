"""The fast form of `mining`: the same pairs, in one list of the anchors that are needed, over all labels.

`mining` has a row for every sample that could be an anchor; here there are as many rows as anchors, and at the class level,
where a comparison allows it, fewer: of all anchors of a class that score above its mined positives, one stands for the rest.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util

from crl_tf.layout import Layout
from crl_tf.losses.mining import NEVER, Pairs, anchor_rows, safe_root

# Squared distances from one matmul are off by a few float32 roundings of the squared lengths; below this share of those, a
# pair is computed again from its differences.
CLOSE = 0.1


class Rows(NamedTuple):
    """label, sample, column: int32 [R], where an anchor is and which class it has. weight: float32 [R], how many anchors of
    that class the row stands for; 0 where it only fills up a static shape."""

    label: tf.Tensor
    sample: tf.Tensor
    column: tf.Tensor
    weight: tf.Tensor


class MinedRows(NamedTuple):
    """Pairs are [R, P] and [R, N]; the negatives are sorted, nearest first, the valid ones in front."""

    rows: Rows
    positive: Pairs
    negative: Pairs


class Profile(NamedTuple):
    """labels: int32 [L, B]. histogram: int32 [L, largest]. rectified: bool [L, largest]. anchors: bool [L, B]. most: how many
    anchors a label can have, int or scalar."""

    labels: tf.Tensor
    histogram: tf.Tensor
    rectified: tf.Tensor
    anchors: tf.Tensor
    most: int | tf.Tensor


class _Cells(NamedTuple):
    """row, column: int32 [R], of the true cells of a mask. real: bool [R], False where a static shape is filled up."""

    row: tf.Tensor
    column: tf.Tensor
    real: tf.Tensor


def shapes_are_fixed() -> bool:
    """Whether this graph is traced for XLA, which wants every shape to be known; elsewhere rows are as many as there are."""
    return control_flow_util.GraphOrParentsInXlaContext(ops.get_default_graph())


def profile(labels: tf.Tensor, histogram: tf.Tensor, rectified: tf.Tensor, *, rho: float, scope: str) -> Profile:
    """Who is an anchor: the samples of the rectified classes."""
    largest = rectified.shape[1]
    cell = tf.clip_by_value(labels, 0, largest - 1) + largest * tf.range(rectified.shape[0])[:, None]
    anchors = _pick(rectified, cell) & (labels >= 0)
    return Profile(labels, histogram, rectified, anchors, anchor_rows(_length(labels, 1), rho, scope))


def mine_class_rows(
    profiled: Profile, log_probability: tf.Tensor, layout: Layout, *, kappa: int | None, collapse: bool
) -> MinedRows:
    """Eqs. 4, 5 and 10, as `mining.mine_class_level` has them.

    Args:
        log_probability: float32 [sum(num_classes), B].
        collapse: let one row stand for all the anchors of a class that score above its mined positives. The anchor's own
            score p_a cancels out of d(a,+) - d(a,-) = (p_a - p_+) - (p_a - p_-) there: right for what sees differences only.
    """
    labels, most = profiled.labels, profiled.most
    batch = _length(labels, 1)
    label, class_, column, real = _rectified_columns(profiled, layout)
    slot_labels = tf.gather(labels, label)
    member = slot_labels == class_[:, None]
    other = (slot_labels >= 0) & ~member
    scores = tf.stop_gradient(tf.gather(log_probability, column))
    mined = _at_most(kappa, most)
    depth = _at_most(mined + 1, most) if collapse else mined
    positive = tf.math.top_k(tf.where(member, -scores, NEVER), depth).indices
    negative = tf.math.top_k(tf.where(other, scores, NEVER), _at_most(kappa, batch)).indices
    cell = column[:, None] * batch + tf.concat([positive, negative], axis=1)
    probability = tf.exp(_pick(log_probability, cell))  # [slots, depth + negatives]
    size = tf.where(real, _pick(profiled.histogram, label * layout.largest + class_), 0)
    others = tf.where(real, tf.reduce_sum(tf.cast(other, tf.int32), axis=1), 0)

    rank = tf.range(_length(positive, 1))
    if collapse and not (shapes_are_fixed() and _is_less(len(layout) * most, _length(positive, 0) * _length(positive, 1))):
        cells = _true_cells(rank < size[:, None], None)
        slot = cells.row
        sample = _pick(positive, slot * _length(positive, 1) + cells.column)
        score = _pick(probability, slot * _length(probability, 1) + cells.column)
        weight = tf.where(cells.column < mined, 1, tf.gather(size, slot) - mined)
        rows = Rows(tf.gather(label, slot), sample, tf.gather(column, slot), _weight(cells.real, weight))
    else:
        cells = _true_cells(profiled.anchors, most)
        row_column = tf.maximum(_pick(labels, cells.row * batch + cells.column), 0) + tf.gather(layout.offsets, cells.row)
        slot = tf.gather(tf.math.unsorted_segment_max(tf.range(_length(column, 0)), column, layout.width), row_column)
        sample = cells.column
        slot = tf.where(cells.real, slot, 0)
        score = tf.exp(_pick(log_probability, row_column * batch + sample))
        rows = Rows(cells.row, sample, row_column, _weight(cells.real, 1))
    of_slot = tf.gather(probability, slot)
    positive_score, negative_score = of_slot[:, :mined], of_slot[:, _length(positive, 1) :]
    alive = cells.real[:, None]
    not_self = tf.gather(positive[:, :mined], slot) != sample[:, None]
    return MinedRows(
        rows,
        Pairs(tf.abs(score[:, None] - positive_score), alive & not_self & (rank[:mined] < tf.gather(size, slot)[:, None])),
        Pairs(
            score[:, None] - negative_score,
            alive & (tf.range(_length(negative, 1)) < tf.gather(others, slot)[:, None]),
        ),
    )


def mine_instance_rows(profiled: Profile, features: tf.Tensor, layout: Layout, *, kappa: int | None) -> MinedRows:
    """Eqs. 6, 7 and 11, as `mining.mine_instance_level` has them.

    Args:
        features: float32 [B, L, D], or [B, D] shared by all labels.
    """
    labels, most = profiled.labels, profiled.most
    batch = _length(labels, 1)
    shared = features.shape.rank == 2
    groups = features[None] if shared else tf.transpose(features, [1, 0, 2])
    if shared:
        cells = _true_cells(profiled.anchors, most)
        label, place, sample = cells.row, cells.column, cells.column
        group, table = tf.zeros_like(label), tf.range(batch)[None]
    else:
        width = most if shapes_are_fixed() else tf.reduce_max(tf.reduce_sum(tf.cast(profiled.anchors, tf.int32), axis=1))
        is_anchor, table = tf.math.top_k(tf.cast(profiled.anchors, tf.float32), width)
        cells = _true_cells(is_anchor > 0, None)
        label, place = cells.row, cells.column
        group, sample = label, _pick(table, label * _length(table, 1) + place)
    groups -= tf.stop_gradient(tf.reduce_mean(groups, axis=1, keepdims=True))  # distances stay, squares round less
    anchors = groups if shared else tf.gather(groups, table, batch_dims=1)
    squared = _squared_distances(anchors, groups)
    row = group * _length(table, 1) + place
    of_row = tf.gather(tf.reshape(tf.stop_gradient(squared), [-1, batch]), row)

    row_class = _pick(labels, label * batch + sample)[:, None]
    row_labels = tf.gather(labels, label)
    positive, positive_valid = _hardest(of_row, (row_labels == row_class) & (tf.range(batch) != sample[:, None]), kappa, most)
    negative, negative_valid = _hardest(-of_row, (row_labels != row_class) & (row_labels >= 0), kappa, batch)
    chosen = tf.concat([positive, negative], axis=1)
    if shapes_are_fixed() or tf.config.list_logical_devices("GPU"):
        # XLA fuses the differences into their sum. On a GPU a matmul may round to TensorFloat-32: enough to mine, not to measure.
        distance = safe_root(_squares_of_differences(groups, group, sample, chosen))
    else:
        distance = safe_root(_chosen_squares(squared, row, groups, group, sample, chosen))
    rows = Rows(label, sample, row_class[:, 0] + tf.gather(layout.offsets, label), _weight(cells.real, 1))
    count = _length(positive, 1)
    alive = cells.real[:, None]
    return MinedRows(
        rows,
        Pairs(distance[:, :count], positive_valid & alive),
        Pairs(distance[:, count:], negative_valid & alive),
    )


def share_of_collapsed(profiled: Profile, rows: Rows, by_row: tf.Tensor, layout: Layout) -> tf.Tensor:
    """What the anchors get that have no row, because another of their class stands for them: float32 [L, B]."""
    labels = profiled.labels
    batch = _length(labels, 1)
    of_class = tf.math.unsorted_segment_sum(tf.where(rows.weight > 1, by_row, 0.0), rows.column, layout.width)
    has_row = tf.math.unsorted_segment_sum(rows.weight, rows.label * batch + rows.sample, len(layout) * batch) > 0
    without = profiled.anchors & ~tf.reshape(has_row, tf.shape(labels))
    column = tf.clip_by_value(labels, 0, np.asarray(layout.sizes)[:, None] - 1) + layout.offsets[:, None]
    return tf.where(without, _pick(of_class, column), 0.0)


def _rectified_columns(profiled: Profile, layout: Layout) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Label, class and column of every rectified class, int32 [slots], ascending, and which slots are taken."""
    chosen = _pick(profiled.rectified, layout.column_label * layout.largest + layout.column_class)
    cells = _true_cells(chosen[None], layout.width)
    column = cells.column
    return tf.gather(layout.column_label, column), tf.gather(layout.column_class, column), column, cells.real


def _true_cells(mask: tf.Tensor, most_per_row: int | tf.Tensor | None) -> _Cells:
    """The true cells of [X, Y], row by row; with static shapes `most_per_row` of each row (None: all of them), true or not."""
    if not shapes_are_fixed():
        cells = tf.cast(tf.where(mask), tf.int32)
        return _Cells(cells[:, 0], cells[:, 1], tf.ones([tf.shape(cells)[0]], tf.bool))
    count, length = _length(mask, 0), _length(mask, 1)
    if most_per_row is None or (isinstance(length, int) and length == most_per_row):
        column, real = tf.tile(tf.range(length)[None], [count, 1]), mask
    else:
        value, column = tf.math.top_k(tf.cast(mask, tf.float32), most_per_row)
        real = value > 0
    row = tf.zeros_like(column) + tf.range(count)[:, None]
    return _Cells(*(tf.reshape(t, [-1]) for t in (row, column, real)))


def _hardest(
    hardness: tf.Tensor, candidate: tf.Tensor, kappa: int | None, most: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    values, index = tf.math.top_k(tf.where(candidate, hardness, NEVER), _at_most(kappa, most))
    return index, values != NEVER


def _squared_distances(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """[G, A, D] and [G, B, D] to [G, A, B]."""
    norms = tf.reduce_sum(a * a, -1)[:, :, None] + tf.reduce_sum(b * b, -1)[:, None, :]
    return norms - 2.0 * tf.matmul(a, b, transpose_b=True)


def _squares_of_differences(
    groups: tf.Tensor, group: tf.Tensor, sample: tf.Tensor, other: tf.Tensor
) -> tf.Tensor:
    flat = tf.reshape(groups, [-1, groups.shape[-1]])
    first = group * _length(groups, 1)
    difference = tf.gather(flat, first + sample)[:, None, :] - tf.gather(flat, first[:, None] + other)
    return tf.reduce_sum(tf.square(difference), axis=-1)


def _chosen_squares(
    squared: tf.Tensor, row: tf.Tensor, groups: tf.Tensor, group: tf.Tensor, sample: tf.Tensor, chosen: tf.Tensor
) -> tf.Tensor:
    """Squared distances of the chosen pairs [R, K], read off `squared`; of close ones from their differences."""
    expanded = _pick(squared, row[:, None] * _length(squared, 2) + chosen)
    length = tf.reduce_sum(tf.square(tf.stop_gradient(groups)), axis=-1)
    close = tf.where(expanded < CLOSE * _pick(length, group * _length(groups, 1) + sample)[:, None])
    at = tf.cast(close, tf.int32)
    again = _squares_of_differences(
        groups, tf.gather(group, at[:, 0]), tf.gather(sample, at[:, 0]), tf.gather_nd(chosen, at)[:, None]
    )
    return tf.tensor_scatter_nd_update(expanded, at, again[:, 0])


def _pick(table: tf.Tensor, cell: tf.Tensor) -> tf.Tensor:
    """Single numbers of a table by flat index, of any shape. gather_nd takes half the time of gather for them."""
    return tf.gather_nd(tf.reshape(table, [-1]), tf.convert_to_tensor(cell)[..., tf.newaxis])


def _weight(real: tf.Tensor, weight: int | tf.Tensor) -> tf.Tensor:
    return tf.where(real, tf.cast(weight, tf.float32), 0.0)


def _length(tensor: tf.Tensor, axis: int) -> int | tf.Tensor:
    return tensor.shape[axis] if tensor.shape[axis] is not None else tf.shape(tensor)[axis]


def _at_most(count: int | tf.Tensor | None, most: int | tf.Tensor) -> int | tf.Tensor:
    if count is None:
        return most
    return min(count, most) if isinstance(count, int) and isinstance(most, int) else tf.minimum(count, most)


def _is_less(a: int | tf.Tensor, b: int | tf.Tensor) -> bool:
    return isinstance(a, int) and isinstance(b, int) and a < b
