"""A layer that computes histograms of oriented gradients (Dalal & Triggs, CVPR 2005)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.serialization import registered

ORIENTATIONS, CELL, BLOCK = 9, 8, 2
CLIP, EPSILON = 0.2, 1e-5  # of L2-Hys
SMALLEST_SIDE = CELL * BLOCK


@registered
class HOG(keras.layers.Layer):
    """Computes HOG features: images [B, H, W, 3] in [0, 255] to float32 [B, features].

    The best setting of Dalal & Triggs: 9 orientations over 180 degrees, cells of 8 x 8 pixels, blocks of 2 x 2 cells, L2-Hys, at
    each pixel the channel with the largest gradient. As in scikit-image, and unlike the paper, a block has no Gaussian window
    and votes are not interpolated.

    Images must be 16 x 16 pixels or larger.

    >>> tuple(HOG()(tf.zeros([2, 32, 24, 3])).shape)  # 3 x 2 blocks of 2 x 2 cells of 9 orientations
    (2, 216)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def build(self, input_shape: Sequence[int | None]) -> None:
        if min(input_shape[1:3]) < SMALLEST_SIDE:
            least, size = SMALLEST_SIDE, tuple(input_shape[1:3])
            raise ValueError(f"image_size must be {least} x {least} or more for HOG, received {size}")
        self.built = True

    def call(self, images: tf.Tensor) -> tf.Tensor:
        magnitude, orientation = _gradients(tf.cast(images, tf.float32))
        rows, columns = images.shape[1] // CELL, images.shape[2] // CELL
        cells = []
        for number in range(ORIENTATIONS):
            votes = tf.where(orientation == number, magnitude, 0.0)[:, : rows * CELL, : columns * CELL]
            cells.append(tf.reduce_mean(tf.reshape(votes, [-1, rows, CELL, columns, CELL]), axis=[2, 4]))
        histogram = tf.stack(cells, axis=-1)  # [B, rows, columns, 9]
        down, across = rows - BLOCK + 1, columns - BLOCK + 1
        places = [(i, j) for i in range(BLOCK) for j in range(BLOCK)]
        blocks = tf.stack([histogram[:, i : i + down, j : j + across] for i, j in places], axis=3)
        blocks = _unit_length(tf.minimum(_unit_length(blocks), CLIP))
        return tf.reshape(blocks, [-1, down * across * BLOCK * BLOCK * ORIENTATIONS])

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        down, across = (side // CELL - BLOCK + 1 for side in input_shape[1:3])
        return (input_shape[0], down * across * BLOCK * BLOCK * ORIENTATIONS)


def _gradients(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Magnitude float32 and orientation int32 in [0, 8] of each pixel's strongest channel, [B, H, W]."""
    down = tf.pad(images[:, 2:] - images[:, :-2], [[0, 0], [1, 1], [0, 0], [0, 0]])
    across = tf.pad(images[:, :, 2:] - images[:, :, :-2], [[0, 0], [0, 0], [1, 1], [0, 0]])
    strongest = tf.argmax(tf.square(down) + tf.square(across), axis=-1, output_type=tf.int32)
    down, across = (tf.gather(channels, strongest, batch_dims=3) for channels in (down, across))
    # Directions are turned to the upper half before the angle is taken: exactly 180 degrees is 0, whatever the rounding of pi.
    turned = tf.where((down < 0) | ((down == 0) & (across < 0)), -1.0, 1.0)
    angle = tf.atan2(turned * down, turned * across)
    orientation = tf.cast(tf.floor(angle * (ORIENTATIONS / np.pi)), tf.int32)
    return tf.sqrt(tf.square(down) + tf.square(across)), tf.clip_by_value(orientation, 0, ORIENTATIONS - 1)


def _unit_length(blocks: tf.Tensor) -> tf.Tensor:
    return blocks / tf.sqrt(tf.reduce_sum(tf.square(blocks), axis=[3, 4], keepdims=True) + EPSILON**2)
