"""PANDA (Zhang et al., CVPR 2014), a network of parts that the paper compares with on CelebA (Sec. 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from crl_tf.models.heads import scaled

SMALLEST_PART = 8
"""The least height and width of a part, in pixels."""

Region = tuple[float, float, float, float]
"""(top, left, bottom, right) in shares of the image's height and width."""

FIXED_REGIONS: tuple[Region, ...] = (
    (0.0, 0.0, 0.6, 0.6),
    (0.0, 0.4, 0.6, 1.0),
    (0.4, 0.0, 1.0, 0.6),
    (0.4, 0.4, 1.0, 1.0),
    (0.2, 0.2, 0.8, 0.8),
)
"""The parts where no landmarks are annotated: four overlapping quadrants, and the centre."""


def panda(images: keras.KerasTensor, width: float = 1.0, regions: Sequence[Region] = FIXED_REGIONS) -> keras.KerasTensor:
    """A network for every part and one for the whole image, without shared weights; their features are joined.

    Differs from the paper, where parts are poselets, patches of 56 x 56 that a detector finds in each image, each kind has a
    network trained on its own, and a linear SVM decides on all features. Here a part is the same region of every image, since
    CelebA's faces are aligned, and since the images that a trained network predicts have no landmarks; regions belong to a
    dataset (`regions_of_landmarks`). All networks are trained at once, under one linear layer.

    A part's network is the authors' published one: 5x5, 5x5, 3x3 and 3x3 convolutions of 64 filters, each followed by 3x3 max
    pooling with stride 2, and a layer of 576 units. Differs from it: that layer is fully connected, for parts of any size; no
    local response normalisation; the network of the whole image is like those of the parts, not pretrained on ImageNet.

    Args:
        images: [B, H, W, 3] in [-1, 1], of any size from 32 x 32 on (112 x 92: CelebA's proportions, parts near 56 x 56; not
            published).
        width: multiplies the filters and units.
        regions: of the parts, rounded outward to whole pixels.
    Returns:
        features [B, 576 (1 + parts)], those of the whole image first.
    Raises:
        ValueError: no regions, or regions that are outside the image, empty, or smaller than 8 pixels either way.
    """
    if not regions:
        raise ValueError(f"regions must be one or more of (top, left, bottom, right), received {regions!r}")
    parts = [images, *(_cut(images, region) for region in regions)]
    return layers.Concatenate()([_part_features(part, width) for part in parts])


def regions_of_landmarks(landmarks: np.ndarray, image_size: Sequence[int]) -> tuple[Region, ...]:
    """Regions of half the image's height and width around the mean position of every landmark, cut off at the image's edge.

    Args:
        landmarks: [n, P, 2], (x, y) in pixels of the images they were annotated on; CelebA has P = 5.
        image_size: (height, width) of those images; CelebA's aligned ones are 218 x 178.
    Returns:
        P regions, for `panda`.
    Raises:
        ValueError: landmarks of another shape, none at all, or with a mean outside the image.

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
