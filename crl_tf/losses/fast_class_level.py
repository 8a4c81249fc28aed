"""The fast form of the class level (eqs. 4, 5, 10): what is mined is shared by all anchors of a class."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from crl_tf.layout import Layout, length, pick
from crl_tf.losses.fast_rows import MinedRows, Profile, Rows, at_most, columns_of, shapes_are_fixed, true_cells, weight_of
from crl_tf.losses.mining import NEVER, Pairs


class ClassSets(NamedTuple):
    """What is mined for each rectified class, a slot each.

    label, column: int32 [S]. size, others: int32 [S], samples of the class and of the other classes of its label in the batch;
    0 where a slot is not taken. mined: int, P. lowest: int32 [S, P or P + 1], the samples of the class that score lowest, in
    order; the first P are its positives. low_scores, negative_scores: float32 [S, P or P + 1] and [S, N], of which the first
    `size` and `others` exist.
    """

    label: tf.Tensor
    column: tf.Tensor
    size: tf.Tensor
    others: tf.Tensor
    mined: int | tf.Tensor
    lowest: tf.Tensor
    low_scores: tf.Tensor
    negative_scores: tf.Tensor


class AnchorScores(NamedTuple):
    """slot: int32 [R]. score: float32 [R], p of each anchor on its own class."""

    slot: tf.Tensor
    score: tf.Tensor


def mine_class_sets(
    profiled: Profile, log_probability: tf.Tensor, layout: Layout, *, kappa: int | None, one_more: bool
) -> ClassSets:
    """Eqs. 4 and 5: per rectified class its lowest-scoring samples and the highest-scoring of the others.

    Args:
        log_probability: float32 [sum(num_classes), B].
        one_more: also the sample next to the mined positives.
    """
    labels = profiled.labels
    batch = length(labels, 1)
    cell = tf.constant(layout.column_label * layout.largest + layout.column_class)
    chosen = true_cells(pick(profiled.rectified, cell)[None], None)
    column, real = chosen.column, chosen.real
    label = tf.gather(layout.column_label, column)
    slot_labels = tf.gather(labels, label)
    member = slot_labels == tf.gather(layout.column_class, column)[:, None]
    other = (slot_labels >= 0) & ~member
    scores = tf.stop_gradient(tf.gather(log_probability, column))
    mined = at_most(kappa, profiled.most)
    depth = at_most(mined + 1, profiled.most) if one_more else mined
    lowest = tf.math.top_k(tf.where(member, -scores, NEVER), depth).indices
    negative = tf.math.top_k(tf.where(other, scores, NEVER), at_most(kappa, batch)).indices
    probability = tf.exp(pick(log_probability, column[:, None] * batch + tf.concat([lowest, negative], axis=1)))
    low_scores, negative_scores = tf.split(probability, [length(lowest, 1), length(negative, 1)], axis=1)
    size, others = (tf.where(real, tf.reduce_sum(tf.cast(who, tf.int32), axis=1), 0) for who in (member, other))
    return ClassSets(label, column, size, others, mined, lowest, low_scores, negative_scores)


def anchors_of(
    profiled: Profile, sets: ClassSets, log_probability: tf.Tensor, layout: Layout
) -> tuple[Rows, AnchorScores]:
    """Every anchor, with the slot of its class and its score there."""
    cells = true_cells(profiled.anchors, profiled.most)
    batch = length(profiled.labels, 1)
    place = cells.row * batch + cells.column
    column = pick(columns_of(profiled.labels, layout), place)
    slot_of = tf.math.unsorted_segment_max(tf.range(length(sets.column, 0)), sets.column, layout.width)
    slot = tf.where(cells.real, tf.gather(slot_of, column), 0)
    score = tf.exp(pick(log_probability, column * batch + cells.column))
    return Rows(cells.row, cells.column, column, weight_of(cells.real, 1)), AnchorScores(slot, score)


def anchors_that_differ(
    profiled: Profile, sets: ClassSets, log_probability: tf.Tensor, layout: Layout
) -> tuple[Rows, AnchorScores]:
    """The anchors inside the mined sets, and one for all that score above them.

    For what sees only d(a,+) - d(a,-) = (p_a - p_+) - (p_a - p_-), every anchor above the mined positives is the same.
    `sets` must be mined with `one_more`.
    """
    slots, depth = length(sets.lowest, 0), length(sets.lowest, 1)
    if shapes_are_fixed() and isinstance(profiled.most, int) and len(layout) * profiled.most < slots * depth:
        return anchors_of(profiled, sets, log_probability, layout)  # many small classes: there are fewer anchors than this
    cells = true_cells(tf.range(depth) < sets.size[:, None], None)
    slot, place = cells.row, cells.row * depth + cells.column
    weight = tf.where(cells.column < sets.mined, 1, tf.gather(sets.size, slot) - sets.mined)
    rows = Rows(
        tf.gather(sets.label, slot), pick(sets.lowest, place), tf.gather(sets.column, slot), weight_of(cells.real, weight)
    )
    return rows, AnchorScores(slot, pick(sets.low_scores, place))


def pairs_of(sets: ClassSets, rows: Rows, anchors: AnchorScores) -> MinedRows:
    """Distances of eq. 10, |p_a - p_+| and p_a - p_-; an anchor inside the mined set is not its own positive."""
    slot, score = anchors.slot, anchors.score[:, None]
    positives, negatives = length(sets.low_scores, 1), length(sets.negative_scores, 1)
    of_slot = tf.gather(tf.concat([sets.low_scores, sets.negative_scores], axis=1), slot)
    low, _, high = tf.split(of_slot, [sets.mined, positives - sets.mined, negatives], axis=1)
    alive = (rows.weight > 0)[:, None]
    not_self = tf.gather(sets.lowest[:, : sets.mined], slot) != rows.sample[:, None]
    exists = tf.range(sets.mined) < tf.gather(sets.size, slot)[:, None]
    return MinedRows(
        rows,
        Pairs(tf.abs(score - low), alive & not_self & exists),
        Pairs(score - high, alive & (tf.range(negatives) < tf.gather(sets.others, slot)[:, None])),
    )


def share_of_the_rest(profiled: Profile, rows: Rows, by_row: tf.Tensor, layout: Layout) -> tf.Tensor:
    """What the anchors get for which another of their class stands: float32 [L, B]."""
    labels = profiled.labels
    batch = length(labels, 1)
    of_class = tf.math.unsorted_segment_sum(tf.where(rows.weight > 1, by_row, 0.0), rows.column, layout.width)
    has_row = tf.math.unsorted_segment_sum(rows.weight, rows.label * batch + rows.sample, len(layout) * batch) > 0
    without = profiled.anchors & ~tf.reshape(has_row, tf.shape(labels))
    return tf.where(without, pick(of_class, columns_of(labels, layout)), 0.0)
