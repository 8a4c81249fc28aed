"""PANDA (Zhang et al., CVPR 2014), a network of parts which the paper compares with on CelebA (Sec. 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from crl_tf.models.heads import scaled

SMALLEST_SIDE = 32

SMALLEST_PART = 8
"""Pixels that a part must have each way."""

Region = tuple[float, float, float, float]
"""(top, left, bottom, right) in shares of the image's height and width."""

FIXED_REGIONS: tuple[Region, ...] = (
    (0.0, 0.0, 0.6, 0.6),
    (0.0, 0.4, 0.6, 1.0),
    (0.4, 0.0, 1.0, 0.6),
    (0.4, 0.4, 1.0, 1.0),
    (0.2, 0.2, 0.8, 0.8),
)
"""Where nothing is annotated: four quadrants that overlap, and the centre."""


def panda(images: keras.KerasTensor, width: float = 1.0, regions: Sequence[Region] = FIXED_REGIONS) -> keras.KerasTensor:
    """A network for every part and one for the whole image, none sharing weights, their features joined.

    Published: parts are poselets, patches of 56 x 56 that a detector finds in each image; a network is trained on each kind on
    its own, and a linear SVM decides on the features of all and of a network for the whole image. Here: there is no detector,
    and a part is the same region of every image; all networks are trained at once, under one linear layer. CelebA's faces are
    aligned, so that a landmark is at nearly the same place in each, and what a trained network is asked about is an image
    without landmarks: regions belong to a data set (`regions_of_landmarks`), not to an image.

    A part's network is that of the authors' published definition: 5x5, 5x5, 3x3 and 3x3 convolutions of 64 filters, each
    followed by 3x3 max pooling with stride 2, and a last layer of 576 units. Theirs is connected locally, 3 x 3 positions of 64
    filters; this one is connected fully, for parts of any size. Ours too: no local response normalisation, which He's
    initialisation makes up for, and for the whole image a network like those of the parts, where theirs was trained on ImageNet.

    Args:
        images: [B, H, W, 3] in [-1, 1]; height and width are free from 32 on (112 x 92 is ours: CelebA's proportions, and
            parts near the published 56 x 56).
        width: multiplies the filters and units.
        regions: of the parts, rounded outward to whole pixels.
    Returns:
        features [B, 576 (1 + parts)], those of the whole image first.
    Raises:
        ValueError: for regions that are none, outside the image, empty, or of fewer than 8 pixels either way.
    """
    if not regions:
        raise ValueError(f"regions must be one or more of (top, left, bottom, right), received {regions!r}")
    parts = [images, *(_cut(images, region) for region in regions)]
    return layers.Concatenate()([_part_features(part, width) for part in parts])


def regions_of_landmarks(landmarks: np.ndarray, image_size: Sequence[int]) -> tuple[Region, ...]:
    """A region around the mean position of every landmark: half of the image's height and width, less what lies outside.

    Args:
        landmarks: [n, P, 2], (x, y) in pixels of the images they were annotated on; CelebA has P = 5.
        image_size: (height, width) of those images; CelebA's aligned ones are 218 x 178.
    Returns:
        P regions, for `panda`.
    Raises:
        ValueError: for landmarks of another shape, none at all, or whose mean is outside the image.

    >>> regions_of_landmarks(np.array([[[50.0, 20.0], [10.0, 40.0]]]), (80, 100))
    ((0.0, 0.25, 0.5, 0.75), (0.25, 0.0, 0.75, 0.35))
    """
    landmarks = np.asarray(landmarks, np.float64)
    if landmarks.ndim != 3 or landmarks.shape[2] != 2 or not landmarks.size:
        raise ValueError(f"landmarks must be [n, P, 2] with n and P 1 or more, received {list(landmarks.shape)}")
    height, width = image_size
    centres = landmarks.mean(axis=0)[:, ::-1] / (height, width)
    if not ((centres >= 0) & (centres <= 1)).all():
        raise ValueError(f"landmarks must be within images of {height} x {width}, received means (x, y) {landmarks.mean(axis=0)}")
    sides = np.concatenate([centres - 0.25, centres + 0.25], axis=1).clip(0.0, 1.0)
    return tuple(tuple(region) for region in sides.tolist())


def _cut(images: keras.KerasTensor, region: Region) -> keras.KerasTensor:
    if len(region) != 4 or not (0 <= region[0] < region[2] <= 1 and 0 <= region[1] < region[3] <= 1):
        raise ValueError(
            "regions must be (top, left, bottom, right) with 0 <= top < bottom <= 1 and 0 <= left < right <= 1,"
            f" received {tuple(region)}"
        )
    cropping = []
    for size, start, stop in zip(images.shape[1:3], region[:2], region[2:], strict=True):
        # In floating point, 0.55 * 100 is a little above 55.
        first, end = math.floor(round(start * size, 6)), math.ceil(round(stop * size, 6))
        if end - first < SMALLEST_PART:
            raise ValueError(
                f"regions must have {SMALLEST_PART} pixels or more each way, received {tuple(region)},"
                f" of which {end - first} are left in images of {images.shape[1]} x {images.shape[2]}"
            )
        cropping.append((first, size - end))
    return layers.Cropping2D(tuple(cropping))(images)


def _part_features(x: keras.KerasTensor, width: float) -> keras.KerasTensor:
    for kernel in (5, 5, 3, 3):
        x = layers.Conv2D(scaled(64, width), kernel, padding="same", activation="relu", kernel_initializer="he_normal")(x)
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    return layers.Dense(scaled(576, width), "relu", kernel_initializer="he_normal")(layers.Flatten()(x))
