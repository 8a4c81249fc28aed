"""Keras's optimizers, whose `global_clipnorm` means the same on one device and on the replicas of a strategy."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from crl_tf.replicas import replicas
from crl_tf.serialization import registered


class _ClipsTheSum:
    """An optimizer that bounds the gradient of the whole batch; Keras's own bounds that of each replica before it adds them."""

    def _clip_gradients(self, grads: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        context = tf.distribute.get_replica_context()
        if self.global_clipnorm is None or replicas() == 1 or context is None:
            return super()._clip_gradients(grads)
        whole = context.all_reduce(tf.distribute.ReduceOp.SUM, list(grads))
        # Keras adds them up over the replicas, each of which has the same.
        return [gradient / replicas() for gradient in super()._clip_gradients(whole)]


@registered
class SGD(_ClipsTheSum, keras.optimizers.SGD):
    """Keras's optimizer, whose `global_clipnorm` means the same on one device and on several."""


@registered
class AdamW(_ClipsTheSum, keras.optimizers.AdamW):
    """Keras's optimizer, whose `global_clipnorm` means the same on one device and on several."""
