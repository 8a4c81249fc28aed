"""Files to pixels: where a reduced scale is taken, what it costs in pixels, and that bytes are the nearest to the outcome."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from dataset_files import write_image

from crl_tf.datasets.images.decode import SPARE, decode, read_images, resized


def photograph(height, width, seed=0):
    """Smooth shapes and some texture."""
    rng = np.random.default_rng(seed)
    image = 128 + rng.normal(0, 4, (height, width, 1))
    for size, strength in ((4, 50), (10, 20)):
        image = image + tf.image.resize(rng.normal(0, strength, (size, size, 3)), (height, width), "bicubic").numpy()
    return image.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "height, width, ratio",
    [
        (218, 178, 2),  # CelebA's: 109 x 89 from which 55 x 47 is resized
        (78, 64, 1),
        # 2 * 1.75 * 55 = 192.5 and 2 * 1.75 * 47 = 164.5: the shorter side decides.
        (193, 165, 2),
        (192, 1000, 1),
        (1000, 164, 1),
        (386, 330, 4),
        (770, 658, 8),
        (5000, 5000, 8),
    ],
)
def test_scale_follows_from_the_size_of_the_image(height, width, ratio):
    assert SPARE == 1.75
    content = tf.io.encode_jpeg(np.zeros((height, width, 3), np.uint8))
    assert decode(content, (55, 47)).shape == (-(-height // ratio), -(-width // ratio), 3)
    png = tf.io.encode_png(np.zeros((height, width, 3), np.uint8))
    assert decode(png, (55, 47)).shape == (height, width, 3)


def test_reduced_scale_is_near_to_the_full_one(tmp_path):
    paths = [tmp_path / f"{i}.jpg" for i in range(6)]
    for i, path in enumerate(paths):
        write_image(path, photograph(218, 178, i))
    images = read_images(tf.constant([str(path) for path in paths]), (55, 47)).numpy().astype(int)
    for image, path in zip(images, paths, strict=True):
        in_full = resized(tf.io.decode_jpeg(path.read_bytes()), (55, 47)).numpy()
        difference = np.abs(image - in_full)
        # Measured 0.6 on faces of this size; 0 would mean that nothing was reduced.
        assert 0 < difference.mean() < 1.5 and difference.max() < 30


def test_bytes_are_rounded_to_the_nearest(tmp_path):
    image = photograph(30, 40)
    write_image(tmp_path / "a.png", image)
    (read,) = read_images(tf.constant([str(tmp_path / "a.png")]), (20, 16)).numpy()
    exact = tf.image.resize(tf.cast(image, tf.float32), (20, 16), antialias=True).numpy()
    assert np.abs(read - exact).max() <= 0.5 and np.abs(read - exact).mean() > 0.1
    np.testing.assert_array_equal(resized(image, (20, 16)), read)
    # Serving is given floats: the same whole numbers come out.
    np.testing.assert_array_equal(resized(tf.cast(image, tf.float32), (20, 16)), read)


def test_an_image_of_the_wanted_size_is_not_changed(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 16, 3), dtype=np.uint8)
    write_image(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_images(tf.constant([str(tmp_path / "a.png")]), (20, 16))[0], image)


@pytest.mark.parametrize("place", [0, 2, 3])
def test_only_the_broken_one_of_a_batch_is_named(tmp_path, place):
    paths = [tmp_path / f"{i}.jpg" for i in range(4)]
    for path in paths:
        write_image(path, photograph(30, 30))
    paths[place].write_bytes(b"hello")
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"(?s)unreadable image: .*{place}\.jpg: not an image") as raised:
        read_images(tf.constant([str(path) for path in paths]), (8, 8))
    assert raised.value.message.count(".jpg") == 1


def test_real_faces_and_products_at_a_reduced_scale(real_data):
    """What the docstring says of pixels, at the proportion of CelebA's 178 x 218 to 55 x 47."""
    faces = sorted((real_data / "celeba" / "img_align_celeba").iterdir())[:200]
    products = sorted((real_data / "fashion_product" / "images").iterdir())[:200]
    for paths, size in ((faces, (22, 18)), (products, (22, 17))):
        images = read_images(tf.constant([str(path) for path in paths]), size).numpy().astype(int)
        in_full = [resized(tf.io.decode_jpeg(path.read_bytes(), channels=3), size).numpy() for path in paths]
        assert 0.1 < np.abs(images - np.stack(in_full)).mean() < 2


def test_no_files_are_no_images():
    images = tf.function(lambda paths: read_images(paths, (8, 6)))(tf.constant([], tf.string))
    assert images.shape == (0, 8, 6, 3) and images.dtype == tf.uint8
