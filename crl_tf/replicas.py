"""The replicas of a `tf.distribute` strategy as one batch: values of all of them, with the gradient of one's own share."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

MINING = ("replica", "global")
"""Over which samples a loss compares and averages: those of each replica, or those of all."""


def replicas() -> int:
    """How many replicas take a step together."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


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
        context = tf.distribute.get_replica_context()
        count = tf.shape(batch)[0]
        counts = context.all_gather(count[tf.newaxis], axis=0)
        number = context.replica_id_in_sync_group
        return cls(tf.reduce_sum(counts[:number]), count, tf.cast(tf.equal(number, 0), tf.float32))

    def gathered(self, value: tf.Tensor) -> tf.Tensor:
        """The samples of all replicas, in the order of the replicas; only this replica's own have a gradient.

        Each replica that takes the gradient of the same loss of all samples so takes its part, and their sum is the whole.
        """
        every = tf.stop_gradient(tf.distribute.get_replica_context().all_gather(value, axis=0))
        last = self.first + self.count
        return tf.ensure_shape(tf.concat([every[: self.first], value, every[last:]], axis=0), [None, *value.shape[1:]])
