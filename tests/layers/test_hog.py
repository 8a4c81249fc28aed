"""The layer against scikit-image's HOG."""

import numpy as np
import pytest
from scikit_hog import hog_of_images

from crl_tf.layers.hog import HOG


@pytest.mark.parametrize("size", [(16, 16), (32, 40), (37, 50), (64, 23)])
def test_the_layer_is_scikit_images(size):
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(size[0]) * 3.0, np.arange(size[1]) * -2.0)[..., np.newaxis] % 256
    images = np.stack(
        [
            rng.integers(0, 256, (*size, 3)),
            np.broadcast_to(smooth, (*size, 3)),  # one direction, and edges where it wraps
            np.full((*size, 3), 128),  # no gradient at all
            rng.integers(0, 2, (*size, 3)) * 255,  # gradients of exactly 0, 45, 90, 135 and 180 degrees
        ]
    ).astype(np.uint8)
    expected = hog_of_images(images)
    assert expected[0].any() and not expected[2].any()
    np.testing.assert_allclose(HOG()(images), expected, atol=1e-5)


def test_images_without_a_whole_block_are_refused():
    with pytest.raises(ValueError, match=r"image_size must be 16 x 16 or more for HOG, received \(15, 30\)"):
        HOG()(np.zeros((1, 15, 30, 3), np.float32))
