"""The fast form of the class level (eqs. 4, 5, 10): one mined set per class, shared by all its anchors."""

from __future__ import annotations

import tensorflow as tf

from crl_tf.layout import Layout, length, pick
from crl_tf.losses.crl.fast.rows import FAR, MinedRows, Profile, Rows, anchor_mask, columns_of, hardest, true_cells
from crl_tf.losses.crl.mining import NEVER, Pairs, at_most


def mine_class_rows(profiled: Profile, log_probability: tf.Tensor, layout: Layout, *, kappa: int | None) -> MinedRows:
    """Eqs. 4, 5 and 10, as `mining.mine_class_level` has them; the negatives are sorted, nearest first.

    Args:
        log_probability: float32 [sum(num_classes), B].
    """
    batch = length(profiled.labels, 1)
    # A slot for each rectified class.
    column = true_cells(profiled.rectified[None], None).column
    members = tf.gather(profiled.members, column)
    others = ~members & tf.gather(profiled.annotated, tf.gather(layout.column_label, column))
    scores = tf.stop_gradient(tf.gather(log_probability, column))
    # A class that is masked out has a logit, and so a score, of -inf; it must still rank above what is no candidate.
    scores = tf.where(scores < 0.5 * NEVER, 0.5 * NEVER, scores)
    lowest, is_low = hardest(-scores, members, at_most(kappa, profiled.most))
    highest, is_high = hardest(scores, others, at_most(kappa, batch))
    low, high = (tf.exp(pick(log_probability, column[:, None] * batch + index)) for index in (lowest, highest))
    high = tf.where(is_high, high, -FAR)

    rows = Rows(*true_cells(anchor_mask(profiled, layout), profiled.most))
    own_column = pick(columns_of(profiled.labels, layout), rows.label * batch + rows.sample)
    slot_of_column = tf.math.unsorted_segment_max(tf.range(length(column, 0)), column, layout.width)
    slot = tf.where(rows.real, tf.gather(slot_of_column, own_column), 0)
    score = tf.exp(pick(log_probability, own_column * batch + rows.sample))[:, None]
    # An anchor inside the mined set is not its own positive.
    is_positive = tf.gather(is_low, slot) & (tf.gather(lowest, slot) != rows.sample[:, None]) & rows.real[:, None]
    is_negative = tf.gather(is_high, slot) & rows.real[:, None]
    positive = Pairs(tf.abs(score - tf.gather(low, slot)), is_positive)
    return MinedRows(rows, positive, Pairs(score - tf.gather(high, slot), is_negative))
