"""Batch normalisation: Keras's values, weights and gradients, in training and inference, under every policy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf.layers.batch_normalization import BatchNormalization
from crl_tf.models.build import dtype_policy

RNG = np.random.default_rng(0)


def both(policy="float32", channels=3, **arguments):
    with dtype_policy(policy):
        layers = [cls(name="bn", **arguments) for cls in (keras.layers.BatchNormalization, BatchNormalization)]
    for layer in layers:
        layer.build((None, 4, 5, channels))
    start = [RNG.uniform(0.5, 2.0, np.shape(weight)).astype(np.float32) for weight in layers[0].weights]
    for layer in layers:
        layer.set_weights(start)
    return layers


def trained(layer, images, coefficients, compiled=None):
    """Output, gradients and weights after one step in training."""

    @tf.function(jit_compile=compiled)
    def step():
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=True)
            total = tf.reduce_sum(tf.cast(outputs, tf.float32) * coefficients)
        return outputs, tape.gradient(total, [images, layer.gamma, layer.beta])

    outputs, gradients = step()
    return outputs, [*gradients, *layer.weights]


@pytest.mark.parametrize("compiled", [None, True], ids=["graph", "xla"])
@pytest.mark.parametrize("policy, tolerance", [("float32", 5e-5), ("mixed_bfloat16", 0.02), ("mixed_float16", 3e-3)])
@pytest.mark.parametrize("shape", [(6, 4, 5, 3), (1, 1, 2, 3)])
def test_a_step_is_keras(shape, policy, tolerance, compiled):
    images = tf.constant(RNG.normal(3.0, 2.0, shape).astype(np.float32))
    if policy != "float32":  # values that the policy's type has, so that both see the same
        images = tf.cast(tf.cast(images, policy.removeprefix("mixed_")), tf.float32)
    coefficients = tf.constant(RNG.normal(size=shape).astype(np.float32))
    (outputs, expected), (ours, found) = (
        trained(layer, images, coefficients, compiled) for layer in both(policy, momentum=0.7, epsilon=0.01)
    )
    assert ours.dtype == outputs.dtype
    np.testing.assert_allclose(tf.cast(ours, tf.float32), tf.cast(outputs, tf.float32), atol=tolerance * 4)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, atol=tolerance * max(1.0, float(np.abs(a).max())))


def test_inference_frozen_layers_and_other_shapes_are_keras():
    images = RNG.normal(3.0, 2.0, (6, 4, 5, 3)).astype(np.float32)
    for layer in (plain_and_ours := both()):
        layer.trainable = False
    np.testing.assert_array_equal(*(layer(images, training=True) for layer in plain_and_ours))
    np.testing.assert_array_equal(*(layer(images, training=False) for layer in both()))
    plain, ours = (cls(axis=1) for cls in (keras.layers.BatchNormalization, BatchNormalization))
    np.testing.assert_array_equal(plain(images[:, 0, :, 0], training=True), ours(images[:, 0, :, 0], training=True))


def test_it_is_called_and_saved_like_keras(tmp_path):
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, BatchNormalization(momentum=0.9)(inputs))
    assert model.layers[1].name.startswith("batch_normalization")
    model.save(tmp_path / "model.keras")
    layer = keras.saving.load_model(tmp_path / "model.keras").layers[1]
    assert type(layer) is BatchNormalization and layer.momentum == 0.9


def test_no_image_leaves_the_averages_as_they_are():
    layer = BatchNormalization()
    layer.build((None, 4, 4, 16))
    layer.moving_mean.assign(np.arange(16, dtype="float32"))
    images = tf.Variable(np.zeros((0, 4, 4, 16), "float32"))
    with tf.GradientTape() as tape:
        outputs = layer(images, training=True)
        total = tf.reduce_sum(outputs)
    assert outputs.shape == (0, 4, 4, 16)
    np.testing.assert_allclose(layer.moving_mean, np.arange(16), rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, np.ones(16), rtol=1e-6)
    gradients = tape.gradient(total, layer.trainable_variables)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
