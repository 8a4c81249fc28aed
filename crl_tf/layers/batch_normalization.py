"""Batch normalisation of images, in training by TensorFlow's fused operation."""

from __future__ import annotations

import keras
import tensorflow as tf

from crl_tf.replicas import real
from crl_tf.serialization import registered

WHOLE_VECTOR = 16
"""oneDNN normalises bfloat16 fast where the channels are a multiple of this; with others, float32 and two casts are faster."""


@registered
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer with the same weights and the same values, which trains in fewer passes over the images.

    Keras 3 computes mean, variance and each product of the normalisation, and of its gradient, in operations of their own, in
    float32 under a mixed policy too. TensorFlow has one operation for all of it and one for its gradient, which read images of
    the policy's type and compute in float32. In inference it is Keras's.

    Input and output:
        [B, H, W, C], normalised over all but the channels; anything else, and what Keras has arguments for (`axis`, `renorm`,
        `synchronized`, a mask), is left to Keras.

    >>> images = tf.constant([[[[1.0], [3.0]]]])
    >>> BatchNormalization(epsilon=1e-6)(images, training=True).numpy().ravel().round(3).tolist()
    [-1.0, 1.0]
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        plain = mask is None and not self.renorm and not self.synchronized and self.scale and self.center
        if not (training and self.trainable and plain and len(inputs.shape) == 4 and self.axis in (-1, 3)):
            return super().call(inputs, training=training, mask=mask)
        x = tf.cast(inputs, self.compute_dtype if inputs.shape[-1] % WHOLE_VECTOR == 0 else tf.float32)
        weights = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        normalized = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=weights[0], offset=weights[1], mean=[], variance=[], epsilon=self.epsilon, is_training=True
        )
        # The operation estimates the variance of all images from those of the batch; Keras keeps that of the batch itself.
        values = tf.cast(tf.size(x), tf.float32) / x.shape[-1]
        variance = normalized.batch_variance * (tf.maximum(values - 1.0, 1.0) / values)
        for moving, value in ((self.moving_mean, normalized.batch_mean), (self.moving_variance, variance)):
            # A replica's share of the last batch may be empty: it has no mean.
            value = tf.where(tf.size(real(x)) > 0, value, moving)
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        return tf.cast(normalized.y, self.compute_dtype)

    def _moments(self, inputs: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        # Of a batch that replicas normalise together, what stands in for an empty share is no part.
        return super()._moments(real(inputs) if self.synchronized else inputs, mask)
