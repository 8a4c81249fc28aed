"""A layer of local response normalisation (Krizhevsky et al., 2012, Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.serialization import registered


@registered
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each value by (1 + alpha s)^0.75, where s is the sum of squares over the neighbouring channels at its place.

    The same values as `tf.nn.local_response_normalization` with bias 1 and beta 0.75. That operation's gradient is slow on a CPU;
    here the sums are a product with a banded matrix [C, C], so that a step takes less than half the time.

    Computed in float32 under every policy: 1 + alpha s rounds to 1 in bfloat16. The output has the policy's type.

    Args:
        depth_radius: the neighbours are this many channels below and above, the channel itself included.
        alpha: the weight of the sum of squares, not divided by the number of channels (as TensorFlow has it, not Caffe).

    >>> LocalResponseNormalization(depth_radius=1, alpha=1.0)(tf.constant([[2.0, 1.0, 3.0]])).numpy().round(3)
    array([[0.522, 0.131, 0.497]], dtype=float32)
    """

    def __init__(self, depth_radius: int = 4, alpha: float = 0.001 / 9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(depth_radius, int) or depth_radius < 0:
            raise ValueError(f"depth_radius must be a whole number of 0 or more, received {depth_radius!r}")
        if not alpha >= 0:
            raise ValueError(f"alpha must be 0 or more, received {alpha!r}")
        self.depth_radius, self.alpha = depth_radius, alpha

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = tf.cast(inputs, tf.float32)
        channel = np.arange(x.shape[-1])
        near = np.abs(channel[:, None] - channel[None, :]) <= self.depth_radius
        root = tf.math.rsqrt(1.0 + self.alpha * tf.tensordot(tf.square(x), tf.constant(near, tf.float32), 1))
        # root * sqrt(root) is the power -0.75, and a third of the time of tf.pow.
        return tf.cast(x * root * tf.sqrt(root), self.compute_dtype)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "depth_radius": self.depth_radius, "alpha": self.alpha}
