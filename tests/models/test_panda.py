"""PANDA's parts: where they are cut, what is refused, and where landmarks put them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from crl_tf.models import build_network
from crl_tf.models.backbones import panda

REGIONS = [(0.0, 0.0, 0.5, 0.5), (0.26, 0.05, 0.8, 0.1 + 0.2), (0.0, 0.0, 1.0, 1.0)]
PIXELS = [(0, 0, 16, 20), (8, 2, 26, 12), (0, 0, 32, 40)]
"""The same in images of 32 x 40, outward: 0.26 * 32 = 8.32, 0.8 * 32 = 25.6; (0.1 + 0.2) * 40 is 12, though not in floats."""


@pytest.fixture(scope="module")
def features_of():
    """From images [n, 32, 40, 3] to features [n, 4, 144]: the whole and three parts, at a quarter of the width."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 40, 3))
    model = keras.Model(inputs, panda.panda(inputs, 0.25, REGIONS))
    return lambda images: np.reshape(model(images), (len(images), 4, 144))


@pytest.mark.parametrize("part", range(3))
def test_a_part_sees_its_region_and_nothing_else(features_of, part):
    top, left, bottom, right = PIXELS[part]
    image = np.random.default_rng(0).uniform(-1, 1, (32, 40, 3)).astype(np.float32)
    inside = np.zeros((32, 40, 1), bool)
    inside[top:bottom, left:right] = True
    changed = [np.where(inside, image, -image)]
    for rows, columns in (
        (slice(top, top + 1), slice(left, right)),
        (slice(bottom - 1, bottom), slice(left, right)),
        (slice(top, bottom), slice(left, left + 1)),
        (slice(top, bottom), slice(right - 1, right)),
    ):
        edge = image.copy()
        edge[rows, columns] *= -3
        changed.append(edge)
    before, outside, *edges = features_of(np.stack([image, *changed]))[:, 1 + part]
    np.testing.assert_array_equal(before, outside)
    for edge in edges:
        assert np.abs(before - edge).max() > 1e-3


def test_the_whole_image_comes_first(features_of):
    image = np.random.default_rng(0).uniform(-1, 1, (32, 40, 3)).astype(np.float32)
    corner = image.copy()
    # Of the parts, only the whole as a third one has this corner.
    corner[30:, :2] *= -3
    moved = np.abs(np.subtract(*features_of(np.stack([image, corner])))).max(axis=1)
    assert (moved > 1e-4).tolist() == [True, False, False, True]


def test_build_network_hands_the_regions_on():
    networks = [build_network("panda", image_size=(32, 40), num_classes=[2], width=0.25, regions=r) for r in (REGIONS[:2], None)]
    assert [n.output["features"].shape[1] for n in networks] == [3 * 144, 6 * 144]


@pytest.mark.parametrize(
    "regions, message",
    [
        ([], r"regions must be one or more of \(top, left, bottom, right\), received \[\]"),
        ([(0, 0, 1)], r"top < bottom <= 1 .* received \(0, 0, 1\)"),
        ([(0.5, 0, 0.5, 1)], r"top < bottom <= 1 .* received \(0.5, 0, 0.5, 1\)"),
        ([(0, -0.1, 1, 1)], r"0 <= left < right <= 1, received \(0, -0.1, 1, 1\)"),
        ([(0, 0, 1, 1.1)], r"0 <= left < right <= 1, received \(0, 0, 1, 1.1\)"),
        ([(0, 0, 1, float("nan"))], r"0 <= left < right <= 1, received \(0, 0, 1, nan\)"),
        # 0.2 * 40 is 8 pixels, 0.2 * 32 no more than 7.
        ([(0, 0, 0.2, 0.2)], r"8 pixels or more each way, received \(0, 0, 0.2, 0.2\), of which 7 are left in images of 32 x 40"),
    ],
)
def test_regions_that_cannot_be_cut_are_refused(regions, message):
    with pytest.raises(ValueError, match=message):
        panda.panda(keras.Input((32, 40, 3)), 0.25, regions)


def test_the_smallest_part_is_enough():
    assert panda.panda(keras.Input((32, 40, 3)), 0.25, [(0, 0, 0.25, 0.2)]).shape == (None, 2 * 144)


def test_landmarks_put_half_of_the_image_around_their_mean():
    # Means (x, y) of two images of 200 x 100: (50, 100), (30, 100), (70, 180), (10, 20), (50, 140).
    offset = np.array([4.0, -6.0])
    means = np.array([[50, 100], [30, 100], [70, 180], [10, 20], [50, 140]], np.float64)
    regions = panda.regions_of_landmarks(np.stack([means - offset, means + offset]), (200, 100))
    expected = [
        (0.25, 0.25, 0.75, 0.75),
        (0.25, 0.05, 0.75, 0.55),
        (0.65, 0.45, 1.0, 0.95),
        (0.0, 0.0, 0.35, 0.35),
        (0.45, 0.25, 0.95, 0.75),
    ]
    np.testing.assert_allclose(regions, expected, atol=1e-12)
    # What it gives is what the network takes.
    assert panda.panda(keras.Input((32, 32, 3)), 0.25, regions).shape == (None, 6 * 144)


@pytest.mark.parametrize(
    "landmarks, message",
    [
        (np.zeros((5, 2)), r"landmarks must be \[n, P, 2\] .*received \[5, 2\]"),
        (np.zeros((0, 5, 2)), r"landmarks must be \[n, P, 2\] with n and P 1 or more, received \[0, 5, 2\]"),
        # x and y the wrong way round: y up to 218 in a width of 178.
        (np.full((3, 5, 2), [200.0, 90.0]), r"landmarks must be within images of 218 x 178, received means"),
        (np.full((3, 5, 2), np.nan), r"landmarks must be within images of 218 x 178, received means"),
    ],
)
def test_landmarks_that_cannot_be_averaged_are_refused(landmarks, message):
    with pytest.raises(ValueError, match=message):
        panda.regions_of_landmarks(landmarks, (218, 178))
