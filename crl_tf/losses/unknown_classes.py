"""What becomes of a class that does not exist, where XLA has dropped the check of the labels."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from crl_tf.layout import Layout, compiled_by_xla


def nan_if_unknown(terms: tf.Tensor, labels: tf.Tensor, layout: Layout) -> tf.Tensor:
    """`terms` float32 [L, B], NaN under XLA where a label (int32 [L, B]) is none of its classes: it must not pass for a number.

    >>> nan_if_unknown(tf.ones([1, 2]), tf.constant([[0, -1]]), Layout((2,))).numpy()
    array([[1., 1.]], dtype=float32)
    """
    if not compiled_by_xla():
        return terms
    return tf.where(labels < np.asarray(layout.sizes, np.int32)[:, None], terms, float("nan"))
