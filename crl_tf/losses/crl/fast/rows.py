"""The rows of the fast form: one list of the anchors of all labels.

The readable form (`mining`, `comparison`) has a row for every sample that could be an anchor, and every triplet. The fast form
has as many rows as there are anchors, and no triplets. XLA needs static shapes: there the rows are filled up.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from crl_tf.gradients import pick
from crl_tf.layout import Layout, columns_of, compiled_by_xla, length
from crl_tf.losses.crl.mining import NEVER, Pairs, anchor_rows

# Farther than any threshold, yet finite: times 0 it is 0.
FAR = 1e30


class Profile(NamedTuple):
    """The classes of a batch.

    labels: int32 [L, B]. rectified: bool [sum(num_classes)].
    most: the largest number of anchors that a label can have, int or scalar.
    """

    labels: tf.Tensor
    rectified: tf.Tensor
    most: int | tf.Tensor


class Rows(NamedTuple):
    """Anchors.

    label, sample: int32 [R], label and place in the batch. real: bool [R], False for a row that only fills up; None where all
    rows are real.
    """

    label: tf.Tensor
    sample: tf.Tensor
    real: tf.Tensor | None

    def only_real(self, valid: tf.Tensor) -> tf.Tensor:
        """bool [R, N] without the cells of rows that only fill up."""
        return valid if self.real is None else valid & self.real[:, None]


class MinedRows(NamedTuple):
    """Anchors with their mined pairs. positive, negative: distances and validity, [R, P] and [R, N].

    Invalid negatives are `FAR` away. For the relative comparison the negatives are sorted, nearest first.
    """

    rows: Rows
    positive: Pairs
    negative: Pairs


class Cells(NamedTuple):
    """True cells of a mask. row, column: int32 [R]. real: bool [R], False for what only fills up; None where nothing does."""

    row: tf.Tensor
    column: tf.Tensor
    real: tf.Tensor | None


def profile(labels: tf.Tensor, rectified: tf.Tensor, layout: Layout, *, rho: float, scope: str) -> Profile:
    """The profile of labels int32 [L, B] whose rectified classes are bool [L, largest]."""
    return Profile(labels, layout.unpad(rectified[None])[0], anchor_rows(length(labels, 1), rho, scope))


def anchor_mask(profiled: Profile, layout: Layout) -> tf.Tensor:
    """bool [L, B]: the anchors, which are all samples of the rectified classes."""
    return pick(profiled.rectified, columns_of(profiled.labels, layout)) & (profiled.labels >= 0)


def true_cells(mask: tf.Tensor, most_per_row: int | tf.Tensor | None) -> Cells:
    """The true cells of a mask [X, Y], row by row.

    Under XLA, `most_per_row` cells of each row (None: all), of which only some are real.
    """
    if not compiled_by_xla():
        return Cells(*tf.unstack(tf.cast(tf.where(mask), tf.int32), axis=1), None)
    count, width = length(mask, 0), length(mask, 1)
    if most_per_row is None or (isinstance(width, int) and width == most_per_row):
        column, real = tf.tile(tf.range(width)[None], [count, 1]), mask
    else:
        value, column = tf.math.top_k(tf.cast(mask, tf.float32), most_per_row)
        real = value > 0
    row = tf.zeros_like(column) + tf.range(count)[:, None]
    return Cells(*(tf.reshape(t, [-1]) for t in (row, column, real)))


def hardest(
    hardness: tf.Tensor, candidate: tf.Tensor, count: int | tf.Tensor, in_order: bool = True
) -> tuple[tf.Tensor, tf.Tensor]:
    """The `count` hardest candidates of each row, ties by lower index: their indices, and which of them exist."""
    values, index = tf.math.top_k(tf.where(candidate, hardness, NEVER), count, sorted=in_order)
    return index, values != NEVER
