"""The locally shared convolution against loops, and against Keras's convolution where the two are the same."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf.layers import LocallySharedConv2D
from crl_tf.models.build import dtype_policy

CASES = [((6, 5), 3, 2), ((7, 8), 3, 2), ((5, 4), 2, 1), ((6, 9), 1, 3), ((4, 4), 4, 2), ((7, 6), 2, 4)]
"""Height and width, kernel_size, region: regions that fill the output, regions cut off at the edge, one position in all."""


def built(size, kernel_size, region, filters=3, channels=2, **settings):
    layer = LocallySharedConv2D(filters, kernel_size, region, **settings)
    layer.build((None, *size, channels))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def by_loops(x, kernel, bias, region):
    size = kernel.shape[2]
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    out = np.zeros((len(x), height, width, kernel.shape[-1]))
    for n, i, j, f in np.ndindex(out.shape):
        row, column = i // region, j // region
        out[n, i, j, f] = bias[row, column, f]
        for p, q, c in np.ndindex(kernel.shape[2:5]):
            out[n, i, j, f] += x[n, i + p, j + q, c] * kernel[row, column, p, q, c, f]
    return out


def gradients_by_loops(x, kernel, region, upstream):
    """Of the sum of outputs times `upstream`, with respect to inputs, kernel and bias."""
    size = kernel.shape[2]
    of_x, of_kernel = np.zeros(x.shape), np.zeros(kernel.shape)
    of_bias = np.zeros((*kernel.shape[:2], kernel.shape[-1]))
    for n, i, j, f in np.ndindex(upstream.shape):
        place, g = (i // region, j // region), upstream[n, i, j, f]
        of_x[n, i : i + size, j : j + size] += g * kernel[place][..., f]
        of_kernel[place][..., f] += g * x[n, i : i + size, j : j + size]
        of_bias[place][f] += g
    return of_x, of_kernel, of_bias


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("size, kernel_size, region", CASES)
def test_outputs_and_gradients_are_those_of_loops(size, kernel_size, region, jit_compile):
    layer = built(size, kernel_size, region)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 2)).astype(np.float32)
    upstream = rng.normal(size=layer.compute_output_shape(x.shape)).astype(np.float32)

    @tf.function(jit_compile=jit_compile)
    def both(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x)
            total = tf.reduce_sum(outputs * upstream)
        return outputs, tape.gradient(total, [x, *layer.trainable_variables])

    outputs, gradients = both(tf.constant(x))
    kernel, bias = layer.kernel.numpy(), layer.bias.numpy()
    np.testing.assert_allclose(outputs, by_loops(x, kernel, bias, region), rtol=1e-5, atol=1e-5)
    for got, wanted in zip(gradients, gradients_by_loops(x, kernel, region, upstream), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_one_region_is_an_ordinary_convolution():
    layer = built((9, 8), 3, region=7, activation="relu")
    plain = keras.layers.Conv2D(3, 3, activation="relu")
    plain.build((None, 9, 8, 2))
    plain.set_weights([layer.kernel.numpy()[0, 0], layer.bias.numpy()[0, 0]])
    x = np.random.default_rng(0).normal(size=(4, 9, 8, 2)).astype(np.float32)
    np.testing.assert_allclose(layer(x), plain(x), rtol=1e-5, atol=1e-5)


def test_a_change_of_one_region_stays_in_it():
    layer = built((6, 5), 3, region=2)
    x = np.random.default_rng(0).normal(size=(1, 6, 5, 2)).astype(np.float32)
    before, kernel = layer(x).numpy(), layer.kernel.numpy()
    kernel[1, 0] += 1.0
    layer.kernel.assign(kernel)
    changed = np.any(layer(x).numpy() != before, axis=(0, 3))
    for i, j in itertools.product(range(4), range(3)):
        assert changed[i, j] == (i >= 2 and j < 2)


def test_the_kernel_starts_by_hes_rule_of_one_region():
    layer = LocallySharedConv2D(40, 3, region=2)
    layer.build((None, 12, 10, 30))
    assert layer.kernel.numpy().std() == pytest.approx((2 / (3 * 3 * 30)) ** 0.5, rel=0.02)
    assert not layer.bias.numpy().any()


def test_under_bfloat16_it_computes_in_bfloat16_from_weights_in_float32():
    with dtype_policy("mixed_bfloat16"):
        layer = built((6, 5), 3, region=2)
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 2)).astype(np.float32)
    outputs = layer(x)
    assert outputs.dtype == tf.bfloat16 and {weight.dtype for weight in layer.weights} == {"float32"}
    wanted = by_loops(x, layer.kernel.numpy(), layer.bias.numpy(), 2)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), wanted, atol=0.02 * np.abs(wanted).max())


@pytest.mark.parametrize("region", [1, 2])
def test_a_model_with_it_is_saved_loaded_and_exported(tmp_path, region):
    inputs = keras.Input((7, 5, 3))
    model = keras.Model(inputs, LocallySharedConv2D(4, 3, region, activation="relu")(inputs))
    assert model.output.shape == (None, 5, 3, 4)
    x = np.random.default_rng(0).normal(size=(3, 7, 5, 3)).astype(np.float32)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.layers[1].get_config() == model.layers[1].get_config()
    model.export(tmp_path / "export", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "export"))
    np.testing.assert_allclose(exported.serve(x), model(x), rtol=1e-5, atol=1e-6)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="region must be a whole number of 1 or more, received 0"):
        LocallySharedConv2D(3, 2, region=0)
    with pytest.raises(ValueError, match=r"kernel_size must be a whole number of 1 or more, received \(2, 2\)"):
        LocallySharedConv2D(3, (2, 2))
    with pytest.raises(ValueError, match=r"height and width must be known, and kernel_size \(4\) or more, received \(5, 3\)"):
        LocallySharedConv2D(3, 4)(np.zeros((1, 5, 3, 2), np.float32))
    with pytest.raises(ValueError, match="height and width must be known"):
        LocallySharedConv2D(3, 4)(keras.Input((None, 8, 3)))
