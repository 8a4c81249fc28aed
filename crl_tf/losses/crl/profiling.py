"""Profiling the batch: which classes of each label are its minority (eq. 3 of Dong, Gong & Zhu)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from crl_tf.checks import real
from crl_tf.layout import Layout, integer_labels, rows_of_labels

SCOPES = ("minority", "all")


def class_histogram(labels: tf.Tensor, layout: Layout) -> tf.Tensor:
    """h_j[k], samples of the batch per class: int32 labels [L, B] (-1 = not annotated) to int32 [L, largest]."""
    # What is not annotated counts 0, wherever it goes.
    column = labels + layout.offsets[:, None]
    counts = tf.math.unsorted_segment_sum(tf.cast(labels >= 0, tf.int32), column, layout.width)
    return layout.pad(counts[None], 0)[0]


def minority_mask(histogram: tf.Tensor, layout: Layout, *, rho: float, scope: str) -> tf.Tensor:
    """bool [L, largest]: the classes that are rectified.

    The longest prefix of the classes, smallest first (ties: lower class index first), whose samples together are at most
    rho times the annotated ones; or with scope="all" every class. Of these, only those with 2 samples or more (footnote 2).
    """
    usable = histogram >= 2  # never what only fills up: there are 0 samples of it
    if scope == "all":
        return usable
    # One integer orders by count, then by class index: all of them negative, as top_k has the largest first.
    key = histogram * -layout.largest - np.arange(layout.largest, dtype=np.int32)
    ordered = tf.math.top_k(key, layout.largest).values
    cumulative = tf.cumsum(ordered // -layout.largest, axis=-1)
    # float64 and a small tolerance, so that 0.29 * 100 admits 29 samples.
    annotated = tf.cast(tf.reduce_sum(histogram, axis=-1, keepdims=True), tf.float64)
    budget = tf.cast(annotated * tf.constant(rho, tf.float64) + 1e-9, tf.int32)
    last = tf.reduce_min(tf.where(cumulative <= budget, ordered, 1), axis=-1, keepdims=True)
    return usable & (key >= last)


def minority_classes(
    labels: tf.Tensor, num_classes: int | Sequence[int], *, rho: float = 0.5, scope: str = "minority"
) -> tf.Tensor:
    """The minority classes of a batch that class rectification works on (eq. 3).

    Args:
        labels: integers [B, L], or [B] for one label; -1 = not annotated. One-hot [B, sum(num_classes)] as well.
        num_classes: an int for one label, or L ints.
        rho: the minority classes of a label together hold at most this share of its annotated samples; in (0, 1].
        scope: "minority", or "all" for every class (Table 12).
    Returns:
        bool [L, max(num_classes)]; True where the class is a minority class with at least 2 samples.

    >>> minority_classes([0, 0, 0, 0, 1, 1, 2], 3).numpy()  # 1 + 2 of 7 samples are within a half; class 2 has only one
    array([[False,  True, False]])
    """
    layout = Layout.of(num_classes)
    check_rho(rho)
    check_scope(scope)
    labels = tf.convert_to_tensor(labels)
    if not labels.dtype.is_integer:
        raise ValueError(f"labels must be integers, received {labels.dtype.name} of shape {labels.shape}")
    histogram = class_histogram(rows_of_labels(integer_labels(labels, layout, "labels")), layout)
    return minority_mask(histogram, layout, rho=rho, scope=scope)


def check_rho(rho: float) -> None:
    if not 0 < real(rho) <= 1:
        raise ValueError(f"rho must lie in (0, 1], received {rho!r}")


def check_scope(scope: str) -> None:
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {SCOPES}, received {scope!r}")
