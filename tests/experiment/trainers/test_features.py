import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf.callbacks import Diverged
from crl_tf.crl_model import CRLModel
from crl_tf.experiment.trainers.features import extract_features, feature_model, freeze_beside, inference, warn_if_collapsed
from crl_tf.layers.unit_features import UnitFeatures


@pytest.fixture(scope="module")
def by_label():
    inputs = keras.Input((6,))
    features = keras.layers.Reshape((2, 3))(keras.layers.Dense(6, name="inside")(inputs))
    logits = keras.layers.Dense(5, name="logits")(keras.layers.Flatten(name="flat")(features))
    return CRLModel(keras.Model(inputs, {"features": features, "logits": logits}))


def test_features_of_a_label_have_length_one(by_label):
    points = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
    raw = by_label.features(points).numpy()
    for label in (0, 1):
        expected = raw[:, label] / np.sqrt((raw[:, label] ** 2).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(feature_model(by_label, label)(points), expected, rtol=1e-5, atol=1e-6)
    assert feature_model(by_label)(points).shape == (7, 2, 3)


def test_shared_features_are_every_labels():
    np.testing.assert_allclose(UnitFeatures(label=3)(tf.constant([[0.0, 2.0], [0.0, 0.0]])), [[0, 1], [0, 0]])


def test_what_leads_nowhere_is_frozen(by_label):
    freeze_beside(by_label, feature_model(by_label))
    assert by_label.network.get_layer("inside").trainable
    assert not by_label.network.get_layer("logits").trainable


def test_extraction_keeps_the_order_and_refuses_what_diverged(by_label):
    points = np.random.default_rng(1).normal(size=(7, 6)).astype(np.float32)
    model = feature_model(by_label, 1)
    data = tf.data.Dataset.from_tensor_slices((points, np.zeros((7, 2), np.int32))).batch(3)
    # A number near 0 has few right digits.
    np.testing.assert_allclose(extract_features(inference(model), data), model(points), rtol=1e-5, atol=1e-6)
    points[4] = np.nan
    data = tf.data.Dataset.from_tensor_slices((points, np.zeros((7, 2), np.int32))).batch(3)
    with pytest.raises(Diverged, match="features must be finite, received NaN"):
        extract_features(inference(model), data)


def test_a_collapse_of_any_label_is_said_and_nothing_else(recwarn):
    apart = np.eye(3, dtype=np.float32)[np.arange(12) % 3]
    warn_if_collapsed(apart, "x")
    warn_if_collapsed(np.stack([apart, apart], axis=1), "x")
    warn_if_collapsed(apart[:1], "x")
    assert not recwarn.list
    for features in (np.ones((12, 3)), np.stack([apart, np.ones_like(apart)], axis=1)):
        with pytest.warns(UserWarning, match="x: the features of all images are alike, training has collapsed"):
            warn_if_collapsed(features, "x")


def test_the_layer_comes_back_from_its_config():
    layer = UnitFeatures(2)
    assert UnitFeatures.from_config(layer.get_config()).label == 2
