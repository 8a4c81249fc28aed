"""What a SavedModel does with no image at all, and with one that is no number."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.serving.export import export_saved_model

SCHEMA = AttributeSchema((Attribute("a", ("x", "y")), Attribute("b", ("p", "q", "r"))))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A convolution, whose kernels refuse a batch of none, a ReLU, which makes a number of NaN, and its SavedModel."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x)))
    path = tmp_path_factory.mktemp("served") / "export"
    export_saved_model(model, SCHEMA, (8, 8), path)
    return tf.saved_model.load(path).signatures["serving_default"]


@pytest.mark.parametrize("side", [8, 11])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_batch_may_have_any_number_of_images(served, side, count):
    images = np.random.default_rng(0).uniform(0, 255, (count, side, side, 3)).astype(np.float32)
    probabilities = served(images=tf.constant(images))
    assert {name: value.shape for name, value in probabilities.items()} == {"a": (count, 2), "b": (count, 3)}
    for value in probabilities.values():
        np.testing.assert_allclose(value.numpy().sum(axis=1), np.ones(count), atol=1e-6)


@pytest.mark.parametrize("side", [8, 11])
def test_an_image_of_nan_has_nan_and_the_others_have_theirs(served, side):
    images = np.random.default_rng(0).uniform(0, 255, (3, side, side, 3)).astype(np.float32)
    whole = served(images=tf.constant(images))
    images[1, 2, 2, 0] = np.nan
    broken = served(images=tf.constant(images))
    for name, value in broken.items():
        assert np.isnan(value[1]).all()
        np.testing.assert_allclose(value.numpy()[[0, 2]], whole[name].numpy()[[0, 2]], atol=1e-6)
