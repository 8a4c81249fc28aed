"""Local response normalisation against loops and TensorFlow's operation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf.layers import LocalResponseNormalization
from crl_tf.models.build import dtype_policy

SETTINGS = [(0, 0.5), (1, 0.5), (4, 0.001 / 9), (4, 2.0), (20, 0.1)]
"""depth_radius and alpha; the largest radius sees all channels."""


def values(channels=7, scale=3.0):
    return (scale * np.random.default_rng(0).normal(size=(2, 3, 4, channels))).astype(np.float32)


@pytest.mark.parametrize("radius, alpha", SETTINGS)
def test_values_are_those_of_loops(radius, alpha):
    x = values().astype(np.float64)
    wanted = np.zeros(x.shape)
    for n, i, j, c in np.ndindex(x.shape):
        near = [x[n, i, j, d] ** 2 for d in range(x.shape[-1]) if abs(d - c) <= radius]
        wanted[n, i, j, c] = x[n, i, j, c] / (1 + alpha * sum(near)) ** 0.75
    np.testing.assert_allclose(LocalResponseNormalization(radius, alpha)(x.astype(np.float32)), wanted, rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("radius, alpha", SETTINGS)
def test_values_and_gradients_are_those_of_tensorflows_operation(radius, alpha, jit_compile):
    layer, upstream = LocalResponseNormalization(radius, alpha), values(scale=1.0)[::-1].copy()

    def both(function, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = function(x)
            total = tf.reduce_sum(outputs * upstream)
        return outputs, tape.gradient(total, x)

    x = tf.constant(values())
    got = tf.function(lambda x: both(layer, x), jit_compile=jit_compile)(x)
    wanted = both(lambda x: tf.nn.local_response_normalization(x, radius, bias=1.0, alpha=alpha, beta=0.75), x)
    for mine, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_under_bfloat16_only_the_output_is_rounded():
    x = tf.cast(values(scale=30.0), tf.bfloat16)
    with dtype_policy("mixed_bfloat16"):
        layer = LocalResponseNormalization()
    wanted = LocalResponseNormalization(dtype="float32")(tf.cast(x, tf.float32))
    outputs = layer(x)
    assert outputs.dtype == tf.bfloat16
    np.testing.assert_array_equal(outputs, tf.cast(wanted, tf.bfloat16))
    # Sums in bfloat16 would be 1, and the layer would do nothing.
    assert np.any(outputs.numpy() != x.numpy())


def test_a_model_with_it_is_saved_loaded_and_exported(tmp_path):
    inputs = keras.Input((3, 4, 7))
    model = keras.Model(inputs, LocalResponseNormalization(2, 0.3)(inputs))
    assert model.output.shape == (None, 3, 4, 7)
    x = values()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert (loaded.layers[1].depth_radius, loaded.layers[1].alpha) == (2, 0.3)
    model.export(tmp_path / "export", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "export"))
    np.testing.assert_allclose(exported.serve(x), model(x), rtol=1e-6)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="depth_radius must be a whole number of 0 or more, received -1"):
        LocalResponseNormalization(-1)
    with pytest.raises(ValueError, match="alpha must be 0 or more, received nan"):
        LocalResponseNormalization(alpha=float("nan"))
