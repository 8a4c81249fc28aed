"""What stands on a backbone: a label sees its own branch only, and every branch starts as a network of its own would."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf.layers.logits import CosineLogits
from crl_tf.models import build_network
from crl_tf.models.heads import branches, linear

SIZES = [2, 4, 3]
COLUMNS = [slice(0, 2), slice(2, 6), slice(6, 9)]


def head_model(head, features=8, width=1.0):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((features,))
    return keras.Model(inputs, head(inputs, SIZES, width))


def test_a_label_of_the_head_sees_only_its_own_features():
    net = build_network("deepid2", image_size=(32, 32), num_classes=[2, 3], width=0.25)
    head = net.get_layer("logits")
    features = tf.random.normal([4, 2, 16])
    changed = tf.concat([features[:, :1], features[:, 1:] + 1.0], axis=1)
    np.testing.assert_array_equal(head(features)[:, :2], head(changed)[:, :2])
    assert np.abs(head(features)[:, 2:] - head(changed)[:, 2:]).min() > 0


@pytest.mark.parametrize("label", range(3))
def test_a_branch_is_the_three_layers_of_its_label_and_nothing_else(label):
    model = head_model(branches(6, 5))
    x = np.random.default_rng(1).normal(size=(7, 8)).astype(np.float32)
    first, second, last = (model.get_layer(n).get_weights() for n in ("label_features", "label_features_2", "logits"))
    own = slice(6 * label, 6 * label + 6)
    features = np.maximum(x @ first[0][:, own] + first[1][own], 0)
    features = np.maximum(features @ second[0][label] + second[1][label], 0)
    logits = features @ last[0][label] + last[1][label]
    outputs = model(x)
    np.testing.assert_allclose(outputs["features"][:, label], features, atol=1e-5)
    np.testing.assert_allclose(outputs["logits"][:, COLUMNS[label]], logits[:, : SIZES[label]], atol=1e-5)


def test_layers_of_a_branch_start_by_he_rule_for_one_label():
    model = head_model(branches(512, 256, 128), features=300)
    first, second, third = (model.get_layer(f"label_features{n}").get_weights()[0] for n in ("", "_2", "_3"))
    # A normal of variance 2 / inputs; the sample's deviation is within 1 % at this many numbers.
    assert first.std() == pytest.approx((2 / 300) ** 0.5, rel=0.01)
    for label in range(3):
        assert second[label].std() == pytest.approx((2 / 512) ** 0.5, rel=0.01)
        assert third[label].std() == pytest.approx((2 / 256) ** 0.5, rel=0.02)


def test_width_multiplies_the_units_of_branches():
    outputs = head_model(branches(64, 20), width=0.3).output
    assert outputs["features"].shape == (None, 3, 6) and outputs["logits"].shape == (None, 9)


def test_the_linear_head_hands_features_on_and_is_linear():
    model = head_model(linear, width=0.5)
    x = np.random.default_rng(1).normal(size=(7, 8)).astype(np.float32)
    kernel, bias = model.get_layer("logits").get_weights()
    outputs = model(x)
    np.testing.assert_array_equal(outputs["features"], x)
    np.testing.assert_allclose(outputs["logits"], x @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize("by_label", [False, True])
def test_cosine_logits_are_scaled_cosines(by_label):
    rng = np.random.default_rng(0)
    sizes, depth = [2, 3], 4
    features = rng.normal(size=(5, 2, depth) if by_label else (5, depth)).astype(np.float32)
    features[0] = 0.0
    layer = CosineLogits(sizes, scale=30.0)
    logits = layer(features).numpy()
    kernel = layer.kernel.numpy()
    for i, j in np.ndindex(5, 5):
        f = features[i, 0 if j < 2 else 1] if by_label else features[i]
        norm = np.linalg.norm(f)
        expected = 30 * f @ kernel[:, j] / (norm * np.linalg.norm(kernel[:, j])) if norm else 0.0
        assert logits[i, j] == pytest.approx(expected, abs=1e-4)
    again = CosineLogits.from_config(layer.get_config())
    assert again.scale == 30.0 and again.num_classes == sizes
    with tf.GradientTape() as tape:
        variable = tf.Variable(features)
        total = tf.reduce_sum(CosineLogits(sizes, scale=2.0)(variable) ** 2)
        tape.watch(variable)
    assert np.isfinite(tape.gradient(total, variable)).all()
    with pytest.raises(ValueError, match="scale must be > 0, received 0"):
        CosineLogits(sizes, scale=0)


def test_a_network_with_a_cosine_head():
    network = build_network("cifarnet", image_size=(16, 16), num_classes=[2, 3], width=0.1, cosine_scale=30.0)
    logits = network(np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)))["logits"].numpy()
    assert logits.shape == (4, 5) and np.abs(logits).max() <= 30.0
    with pytest.raises(ValueError, match=r"cosine_scale must be none for a network that ends in a linear SVM, received 30\.0"):
        build_network("anet", image_size=(55, 47), num_classes=[2], cosine_scale=30.0)
    with pytest.raises(ValueError, match=r"cosine_scale must be > 0 or none, received 0\.0 for cifarnet"):
        build_network("cifarnet", image_size=(16, 16), num_classes=[2], cosine_scale=0.0)
