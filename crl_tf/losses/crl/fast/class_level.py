"""The fast form of the class level (eqs. 4, 5, 10): one mined set per class, shared by all its anchors."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from crl_tf.gradients import pick
from crl_tf.layout import Layout, columns_of, compiled_by_xla, length
from crl_tf.losses.crl.fast.rows import FAR, MinedRows, Profile, Rows, anchor_mask, true_cells
from crl_tf.losses.crl.mining import NEVER, Pairs, at_most


def mine_class_rows(profiled: Profile, log_probability: tf.Tensor, layout: Layout, *, kappa: int | None) -> MinedRows:
    """Eqs. 4, 5 and 10, as `mining.mine_class_level` has them; the negatives are sorted, nearest first.

    Args:
        log_probability: float32 [sum(num_classes), B].
    """
    labels, batch = profiled.labels, length(profiled.labels, 1)
    # A slot for each rectified class.
    column = true_cells(profiled.rectified[None], None).column
    label = tf.gather(layout.column_label, column)
    classes = labels if len(layout) == 1 else tf.gather(labels, label)
    members = classes == tf.gather(layout.column_class, column)[:, None]
    # A class that is masked out has a logit, and so a score, of -inf; it must still rank above what is no candidate.
    scores = tf.maximum(tf.stop_gradient(tf.gather(log_probability, column)), 0.5 * NEVER)
    # Where the batch size is not known, what bounds the positives takes more time than a few columns too many.
    most = profiled.most if kappa is None or isinstance(profiled.most, int) else batch
    lowest = tf.math.top_k(tf.where(members, -scores, NEVER), at_most(kappa, most))
    highest = tf.math.top_k(tf.where(members | (classes < 0), NEVER, scores), at_most(kappa, batch))
    hardness, index = (tf.concat(two, axis=1) for two in zip(lowest, highest, strict=True))
    exists = hardness != NEVER

    if compiled_by_xla():
        rows = Rows(*true_cells(anchor_mask(profiled, layout), profiled.most))
        slot = pick(columns_of(labels, layout), rows.label * batch + rows.sample)
    else:
        # All samples of a rectified class are anchors.
        slot, sample, _ = true_cells(members, None)
        rows = Rows(tf.gather(label, slot), sample, None)
    of_anchor = tf.gather(column, slot) * batch + rows.sample
    difference = _differences(log_probability, of_anchor, column[:, None] * batch + index, exists, slot)
    # An anchor inside the mined set is not its own positive; no negative is of its class.
    place = tf.gather(tf.where(exists, index, -1), slot)
    valid = rows.only_real((place >= 0) & (place != rows.sample[:, None]))
    split = [length(lowest.indices, 1), length(highest.indices, 1)]
    (ahead_of_low, ahead_of_high), (positive, negative) = (tf.split(t, split, axis=1) for t in (difference, valid))
    return MinedRows(rows, Pairs(tf.abs(ahead_of_low), positive), Pairs(ahead_of_high, negative))


def _differences(
    log_probability: tf.Tensor, of_anchor: tf.Tensor, of_mined: tf.Tensor, exists: tf.Tensor, slot: tf.Tensor
) -> tf.Tensor:
    """p_a - p of every mined sample, float32 [R, N]; `FAR` where it does not exist, from where no gradient comes.

    Args:
        of_anchor: int32 [R], cells of log_probability [columns, B]. of_mined: int32 [S, N]. slot: int32 [R], of each anchor.
    """

    @tf.custom_gradient
    def differences(flat: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        own, mined = (tf.exp(tf.gather_nd(flat, cell[..., tf.newaxis])) for cell in (of_anchor, of_mined))

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # One sum into the cells of all, in place of one for each way that a probability goes.
            pull = own * tf.reduce_sum(upstream, axis=1)
            push = mined * tf.math.unsorted_segment_sum(upstream, slot, length(exists, 0))
            pulls = tf.concat([pull, -tf.reshape(push, [-1])], axis=0)
            return tf.math.unsorted_segment_sum(pulls, tf.concat([of_anchor, tf.reshape(of_mined, [-1])], axis=0), tf.size(flat))

        return own[:, None] - tf.gather(tf.where(exists, mined, -FAR), slot), gradient

    return differences(tf.reshape(log_probability, [-1]))
