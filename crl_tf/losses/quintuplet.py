"""The triple-header hinge loss of LMLE, on quintuplets (Huang, Li, Loy & Tang, CVPR 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def triple_header_hinge(
    anchor: tf.Tensor,
    within_cluster: tf.Tensor,
    outside_cluster: tf.Tensor,
    farthest_of_class: tf.Tensor,
    other_class: tf.Tensor,
    margins: Sequence[float] | tf.Tensor,
    valid: tf.Tensor,
    cost: tf.Tensor,
) -> tf.Tensor:
    """Sum of three hinges that order four distances of an anchor, each a margin above the one before.

    The triple-header hinge loss of Huang et al., *Learning Deep Representation for Imbalanced Classification*: with the squared
    Euclidean distances D1 to D4 from the anchor to the four others, in the order of the arguments,
    max(0, g1 + D1 - D2) + max(0, g2 + D2 - D3) + max(0, g3 + D3 - D4).

    The features have length 1; the squared distance has a finite gradient everywhere. A hinge drops out where one of its two
    samples does not exist. The loss is the mean over the anchors that have a hinge left.

    Args:
        anchor: float [B, D], L2-normalised features.
        within_cluster: the sample farthest from the anchor in its cluster, [B, D].
        outside_cluster: the nearest sample of its class in another cluster, [B, D].
        farthest_of_class: the farthest sample of its class, [B, D].
        other_class: the nearest sample of another class, [B, D].
        margins: g1, g2, g3, each >= 0, for all anchors; or float [B, 3], of each.
        valid: bool [B, 4], which of the four exist; where one does not, its features may be anything finite.
        cost: float [B], the weight of the anchor's class.
    Returns:
        float32 [B], the shares of the anchors, whose sum is the loss; exactly 0 with a zero gradient where nothing is valid.
    Raises:
        ValueError: margins that are not three numbers per anchor; numbers, not a tensor's, that are not >= 0.

    >>> x = tf.constant([[1.0, 0.0]])
    >>> loss = triple_header_hinge(x, x, x, x, x, (0.1, 0.2, 0.3), [[True, True, True, False]], [2.0])
    >>> round(float(loss[0]), 4)  # 2 (0.1 + 0.2): all distances are 0, and the third hinge lacks its sample
    0.6
    """
    shape = tf.TensorShape(np.shape(margins) if not tf.is_tensor(margins) else margins.shape)
    if shape.rank not in (1, 2) or shape[-1] != 3 or not (tf.is_tensor(margins) or np.all(np.asarray(margins) >= 0)):
        raise ValueError(f"margins must be three numbers >= 0, or three per anchor, received {margins!r}")
    anchor = tf.cast(anchor, tf.float32)
    others = tf.stack([tf.cast(x, tf.float32) for x in (within_cluster, outside_cluster, farthest_of_class, other_class)], axis=1)
    distance = tf.reduce_sum(tf.square(others - anchor[:, tf.newaxis]), axis=-1)
    valid = tf.convert_to_tensor(valid)
    both = valid[:, :-1] & valid[:, 1:]
    hinge = tf.nn.relu(tf.cast(margins, tf.float32) + distance[:, :-1] - distance[:, 1:])
    by_anchor = tf.cast(cost, tf.float32) * tf.reduce_sum(tf.where(both, hinge, 0.0), axis=1)
    return by_anchor / tf.maximum(tf.reduce_sum(tf.cast(tf.reduce_any(both, axis=1), tf.float32)), 1.0)
