"""Preprocessing layers. Those of keras.applications are tested with its networks (tests/models/test_applications.py)."""

import keras
import numpy as np
import tensorflow as tf

from crl_tf.layers import StandardizedImages


def images():
    batch = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3)).astype(np.uint8)
    batch[1] = 77  # one colour
    batch[2] = 0
    batch[2, 0, 0] = 1  # a deviation below the least one
    return batch


def test_each_image_gets_mean_0_and_deviation_1():
    x = images()
    got = StandardizedImages()(x).numpy()
    for image, standardized in zip(x.astype(np.float64), got, strict=True):
        deviation = max(image.std(), 1 / image.size**0.5)
        np.testing.assert_allclose(standardized, (image - image.mean()) / deviation, rtol=1e-4, atol=1e-4)
    assert not got[1].any()
    np.testing.assert_allclose(got, tf.image.per_image_standardization(x), rtol=1e-4, atol=1e-4)


def test_it_is_float32_under_every_policy_and_saved(tmp_path):
    inputs = keras.Input((6, 5, 3))
    layer = StandardizedImages()
    model = keras.Model(inputs, layer(inputs))
    assert layer.compute_dtype == "float32" and model.output.shape == (None, 6, 5, 3)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(images()), model(images()))
