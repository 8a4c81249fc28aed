"""The fast form of the class level (eqs. 4, 5, 10): what is mined is shared by all anchors of a class."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from crl_tf.layout import Layout, compiled_by_xla, length, pick
from crl_tf.losses.crl.fast.rows import (
    FAR,
    MinedRows,
    Profile,
    Rows,
    anchor_mask,
    columns_of,
    true_cells,
    weight_of,
)
from crl_tf.losses.crl.mining import NEVER, Pairs, at_most


class ClassSets(NamedTuple):
    """What is mined for each rectified class, a slot each.

    label, column: int32 [S]. members: bool [S, B]. size, others: int32 [S], samples of the class and of the other classes of
    its label in the batch; 0 where a slot is not taken. mined: int, P. lowest: int32 [S, P or P + 1], the samples of the class
    that score lowest, in order; the first P are its positives. low_scores, high_scores: float32 [S, P or P + 1] and [S, N], of
    the lowest and of the negatives; the first `size` and `others` exist, the other high scores are -FAR.
    """

    label: tf.Tensor
    column: tf.Tensor
    members: tf.Tensor
    size: tf.Tensor
    others: tf.Tensor
    mined: int | tf.Tensor
    lowest: tf.Tensor
    low_scores: tf.Tensor
    high_scores: tf.Tensor


class ClassRows(NamedTuple):
    """Anchors: rows; slot: int32 [R]; rank: int32 [R], their places among the `lowest` of the slot, or -1; score: float32 [R],
    p_a, on their own class."""

    rows: Rows
    slot: tf.Tensor
    rank: tf.Tensor
    score: tf.Tensor


def mine_class_sets(
    profiled: Profile, log_probability: tf.Tensor, layout: Layout, *, kappa: int | None, one_more: bool
) -> ClassSets:
    """Eqs. 4 and 5: per rectified class its lowest-scoring samples and the highest-scoring of the others.

    Args:
        log_probability: float32 [sum(num_classes), B].
        one_more: also the sample next to the mined positives.
    """
    chosen = true_cells(profiled.rectified[None], None)
    column, real = chosen.column, chosen.real
    label = tf.gather(layout.column_label, column)
    members = tf.gather(profiled.members, column)
    other = ~members & tf.gather(profiled.annotated, label)
    scores = tf.stop_gradient(tf.gather(log_probability, column))
    # A class that is masked out has a logit, and so a score, of -inf: still more of a candidate than what is none.
    scores = tf.where(scores < 0.5 * NEVER, 0.5 * NEVER, scores)
    mined = at_most(kappa, profiled.most)
    depth = at_most(mined + 1, profiled.most) if one_more else mined
    lowest = tf.math.top_k(tf.where(members, -scores, NEVER), depth).indices
    highest = tf.math.top_k(tf.where(other, scores, NEVER), at_most(kappa, length(members, 1))).indices
    of_label = tf.math.unsorted_segment_sum(profiled.sizes, layout.column_label, len(layout))
    size = tf.where(real, tf.gather(profiled.sizes, column), 0)
    others = tf.where(real, tf.gather(of_label, label) - size, 0)
    first = column[:, None] * length(members, 1)
    low_scores, high_scores = (tf.exp(pick(log_probability, first + index)) for index in (lowest, highest))
    high_scores = tf.where(tf.range(length(highest, 1)) < others[:, None], high_scores, -FAR)
    return ClassSets(label, column, members, size, others, mined, lowest, low_scores, high_scores)


def anchors_of(profiled: Profile, sets: ClassSets, log_probability: tf.Tensor, layout: Layout) -> ClassRows:
    """Every anchor."""
    cells = true_cells(anchor_mask(profiled, layout), profiled.most)
    batch, slots, depth = length(profiled.labels, 1), length(sets.column, 0), length(sets.lowest, 1)
    column = pick(columns_of(profiled.labels, layout), cells.row * batch + cells.column)
    slot_of = tf.math.unsorted_segment_max(tf.range(slots), sets.column, layout.width)
    slot = tf.where(cells.real, tf.gather(slot_of, column), 0)
    score = tf.exp(pick(log_probability, column * batch + cells.column))
    exists = tf.range(depth) < sets.size[:, None]
    place = tf.where(exists, tf.range(slots)[:, None] * batch + sets.lowest, -1)
    rank = tf.math.unsorted_segment_sum(tf.zeros_like(place) + tf.range(1, depth + 1), place, slots * batch) - 1
    rows = Rows(cells.row, cells.column, column, weight_of(cells.real, 1))
    return ClassRows(rows, slot, pick(rank, slot * batch + cells.column), score)


def anchors_that_differ(profiled: Profile, sets: ClassSets, log_probability: tf.Tensor, layout: Layout) -> ClassRows:
    """The anchors inside the mined sets, and one for all that score above them.

    For what sees only d(a,+) - d(a,-) = (p_a - p_+) - (p_a - p_-), every anchor above the mined positives is the same.
    `sets` must be mined with `one_more`.
    """
    slots, depth = length(sets.lowest, 0), length(sets.lowest, 1)
    if compiled_by_xla() and isinstance(profiled.most, int) and len(layout) * profiled.most < slots * depth:
        return anchors_of(profiled, sets, log_probability, layout)  # many small classes: there are fewer anchors than this
    cells = true_cells(tf.range(depth) < sets.size[:, None], None)
    slot, place = cells.row, cells.row * depth + cells.column
    weight = weight_of(cells.real, tf.where(cells.column < sets.mined, 1, tf.gather(sets.size, slot) - sets.mined))
    rows = Rows(tf.gather(sets.label, slot), pick(sets.lowest, place), tf.gather(sets.column, slot), weight)
    return ClassRows(rows, slot, cells.column, pick(sets.low_scores, place))


def pairs_of(sets: ClassSets, anchors: ClassRows) -> MinedRows:
    """Distances of eq. 10, |p_a - p_+| and p_a - p_-; an anchor inside the mined set is not its own positive."""
    slot, score, real = anchors.slot, anchors.score[:, None], anchors.rows.weight > 0
    rank, negatives = tf.range(sets.mined), length(sets.high_scores, 1)
    exists = (rank < tf.gather(sets.size, slot)[:, None]) & (rank != anchors.rank[:, None])
    there = tf.range(negatives) < tf.gather(sets.others, slot)[:, None]
    if compiled_by_xla():
        exists, there = exists & real[:, None], there & real[:, None]
    positives, others = counts_of(sets, anchors)
    return MinedRows(
        anchors.rows,
        Pairs(tf.abs(score - tf.gather(sets.low_scores[:, : sets.mined], slot)), exists),
        Pairs(score - tf.gather(sets.high_scores, slot), there),
        weight_of(real, positives),
        weight_of(real, others),
    )


def counts_of(sets: ClassSets, anchors: ClassRows) -> tuple[tf.Tensor, tf.Tensor]:
    """How many positives and negatives each anchor has: int32 [R] twice."""
    is_mined = tf.cast((anchors.rank >= 0) & (anchors.rank < sets.mined), tf.int32)
    positives = tf.gather(tf.minimum(sets.size, sets.mined), anchors.slot) - is_mined
    return positives, tf.gather(tf.minimum(sets.others, length(sets.high_scores, 1)), anchors.slot)


def shares_of_samples(sets: ClassSets, anchors: ClassRows, by_row: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """What every sample gets, float32 [L, B]: its row's share, or that of the row which stands for it."""
    slots, batch = length(sets.column, 0), length(labels, 1)
    stands_for_more = tf.where(anchors.rows.weight > 1, by_row, 0.0)
    of_the_rest = tf.math.unsorted_segment_sum(stands_for_more, anchors.slot, slots)
    more = by_row - tf.gather(of_the_rest, anchors.slot)
    own = tf.math.unsorted_segment_sum(more, anchors.slot * batch + anchors.rows.sample, slots * batch)
    of_slots = tf.reshape(own, [slots, batch]) + tf.where(sets.members, of_the_rest[:, None], 0.0)
    return tf.math.unsorted_segment_sum(of_slots, sets.label, labels.shape[0])
