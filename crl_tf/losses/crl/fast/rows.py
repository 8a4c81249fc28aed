"""The fast form of the rectification works on one list of anchors over all labels; this is the list.

The readable form (`mining`, `comparison`) has a row for every sample that could be an anchor, and every triplet. The fast form
(`fast_class_level`, `fast_instance_level`, `fast_comparison`) has as many rows as there are anchors, and no triplets.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from crl_tf.layout import Layout, class_members, compiled_by_xla, length, pick
from crl_tf.losses.crl.mining import NEVER, Pairs, anchor_rows

# Farther than any threshold, yet finite: times 0 it is 0.
FAR = 1e30


class Profile(NamedTuple):
    """labels: int32 [L, B]. annotated: bool [L, B]. members: bool [sum(num_classes), B]. sizes: int32 [sum(num_classes)], samples
    of each class. rectified: bool [sum(num_classes)]. most: how many anchors a label can have, int or scalar."""

    labels: tf.Tensor
    annotated: tf.Tensor
    members: tf.Tensor
    sizes: tf.Tensor
    rectified: tf.Tensor
    most: int | tf.Tensor


class Rows(NamedTuple):
    """label, sample, column: int32 [R], where an anchor is and which class it has. weight: float32 [R], how many anchors of
    that class the row stands for; 0 where it only fills up a static shape."""

    label: tf.Tensor
    sample: tf.Tensor
    column: tf.Tensor
    weight: tf.Tensor


class MinedRows(NamedTuple):
    """positive, negative: [R, P] and [R, N]; the negatives are sorted, nearest first, and those not valid lie `FAR` away.
    positives, negatives: float32 [R], how many are valid."""

    rows: Rows
    positive: Pairs
    negative: Pairs
    positives: tf.Tensor
    negatives: tf.Tensor


class Cells(NamedTuple):
    """row, column: int32 [R], of the true cells of a mask. real: bool [R], False where a static shape is filled up."""

    row: tf.Tensor
    column: tf.Tensor
    real: tf.Tensor


def profile(labels: tf.Tensor, rectified: tf.Tensor, layout: Layout, *, rho: float, scope: str) -> Profile:
    """What both levels need to know of labels int32 [L, B] and the rectified classes, bool [L, largest]."""
    columns = pick(rectified, tf.constant(layout.column_label * layout.largest + layout.column_class))
    members = class_members(labels, layout)
    sizes = tf.reduce_sum(tf.cast(members, tf.int32), axis=1)
    return Profile(labels, labels >= 0, members, sizes, columns, anchor_rows(length(labels, 1), rho, scope))


def anchor_mask(profiled: Profile, layout: Layout) -> tf.Tensor:
    """Who is an anchor, bool [L, B]: the samples of the rectified classes."""
    return pick(profiled.rectified, columns_of(profiled.labels, layout)) & profiled.annotated


def true_cells(mask: tf.Tensor, most_per_row: int | tf.Tensor | None) -> Cells:
    """The true cells of [X, Y], row by row; with static shapes `most_per_row` of each row (None: all of them), true or not."""
    if not compiled_by_xla():
        cells = tf.cast(tf.where(mask), tf.int32)
        return Cells(cells[:, 0], cells[:, 1], tf.ones([tf.shape(cells)[0]], tf.bool))
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


def weight_of(real: tf.Tensor, anchors: int | tf.Tensor) -> tf.Tensor:
    """`Rows.weight` of rows that stand for so many anchors."""
    return tf.where(real, tf.cast(anchors, tf.float32), 0.0)


def columns_of(labels: tf.Tensor, layout: Layout) -> tf.Tensor:
    """Column of every sample's class, int32 [L, B]; of one that is not annotated, some column of its label."""
    largest = tf.constant(layout.sizes)[:, None] - 1
    return tf.clip_by_value(labels, 0, largest) + tf.constant(layout.offsets)[:, None]
