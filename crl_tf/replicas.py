"""The replicas of a `tf.distribute` strategy as one batch: values of all of them, with the gradient of one's own share."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

MINING = ("replica", "global")
"""Over which samples a loss compares and averages: those of each replica, or those of all."""


def replicas() -> int:
    """How many replicas take a step together."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def of_all(value: tf.Tensor) -> tf.Tensor:
    """The samples of all replicas, along the first axis, in the order of the replicas. Call inside of a replica."""
    # The exchange asks for a value's device, which an argument of a graph does not have.
    return tf.distribute.get_replica_context().all_gather(tf.identity(value), axis=0)


_of_thread = threading.local()


@contextlib.contextmanager
def with_real(count: tf.Tensor) -> Iterator[None]:
    """Tells the layers that are called inside how many samples of a batch are real. Those behind them fill an empty share."""
    _of_thread.count = count
    try:
        yield
    finally:
        _of_thread.count = None


def real(values: tf.Tensor) -> tf.Tensor:
    """The real samples of a batch (`with_real`)."""
    count = getattr(_of_thread, "count", None)
    return values if count is None else values[:count]


class Share(NamedTuple):
    """Where the samples of this replica are among those of all.

    first, count: scalars int32. is_first: 1 on the first replica, 0 on the others, a scalar float32.
    """

    first: tf.Tensor
    count: tf.Tensor
    is_first: tf.Tensor

    @classmethod
    def of(cls, batch: tf.Tensor) -> Share:
        """The share of a tensor whose first axis are this replica's samples. Call inside of a replica."""
        count = tf.shape(batch)[0]
        counts = of_all(count[tf.newaxis])
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        return cls(tf.reduce_sum(counts[:number]), count, tf.cast(tf.equal(number, 0), tf.float32))

    def gathered(self, value: tf.Tensor) -> tf.Tensor:
        """The samples of all replicas, in the order of the replicas; only this replica's own have a gradient.

        Each replica that takes the gradient of the same loss of all samples so takes its part, and their sum is the whole.
        """
        every = tf.stop_gradient(of_all(value))
        last = self.first + self.count
        return tf.ensure_shape(tf.concat([every[: self.first], value, every[last:]], axis=0), [None, *value.shape[1:]])
