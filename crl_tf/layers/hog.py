"""Histograms of oriented gradients (Dalal & Triggs, CVPR 2005): by scikit-image, and the same as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

ORIENTATIONS, CELL, BLOCK = 9, 8, 2
CLIP, EPSILON = 0.2, 1e-5  # of L2-Hys


def hog_of_images(images: np.ndarray) -> np.ndarray:
    """HOG features of images [n, H, W, 3] in [0, 255] by scikit-image, float32 [n, features].

    Dalal & Triggs' best: 9 orientations over 180 degrees, cells of 8 x 8 pixels, blocks of 2 x 2 cells, L2-Hys, at each pixel
    the channel with the largest gradient. scikit-image's has neither their Gaussian window nor their interpolation of votes.

    Raises:
        ValueError: images under 16 x 16 pixels.
        ImportError: scikit-image is not installed.
    """
    try:
        from skimage.feature import hog
    except ImportError as error:
        raise ImportError("HOG features are scikit-image's: pip install -e '.[hog]'") from error
    check_size(images.shape[1:3])
    settings = {"orientations": ORIENTATIONS, "pixels_per_cell": (CELL, CELL), "cells_per_block": (BLOCK, BLOCK)}
    of_image = [hog(image, **settings, block_norm="L2-Hys", channel_axis=-1) for image in images]
    return np.array(of_image, np.float32).reshape(len(images), -1)


def check_size(image_size: Sequence[int]) -> None:
    """Refuses images too small for one block."""
    if min(image_size) < CELL * BLOCK:
        raise ValueError(f"image_size must be {CELL * BLOCK} x {CELL * BLOCK} or more for HOG, received {tuple(image_size)}")


@keras.saving.register_keras_serializable(package="crl_tf")
class HOG(keras.layers.Layer):
    """What `hog_of_images` computes, in TensorFlow: images [B, H, W, 3] in [0, 255] to float32 [B, features].

    >>> tuple(HOG()(tf.zeros([2, 32, 24, 3])).shape)  # 3 x 2 blocks of 2 x 2 cells of 9 orientations
    (2, 216)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def build(self, input_shape: Sequence[int | None]) -> None:
        check_size(input_shape[1:3])
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
