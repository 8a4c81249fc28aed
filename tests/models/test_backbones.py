"""Every row of the table: shapes, types, gradients, parameters by arithmetic, and Keras's own networks where it has them."""

from __future__ import annotations

import functools
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf.models import build_network
from crl_tf.models.backbones import CELEBA, DEEPFASHION, NETWORKS, XDOMAIN, fashionnet, nin, resnet50

SIZES = [2, 5, 3]

BRANCHED = {"deepid2": 64, "mtct": 64, "darn": 64, "ddan": 64}
"""Features of each label where labels have branches."""

SHARED = {
    "cifarnet": 192,
    "resnet10": 128,
    "resnet32": 64,
    "densenet": 16 + 3 * 12 * 12,
    "resnet50": 4 * 512,
    "fashionnet": 4096,
    "anet": 160,
    "panda": 6 * 576,
}
"""Features of all labels where they have none; densenet's and resnet50's are sums and multiples of what width multiplies."""


def images(height, width, number=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, height, width, 3)).astype(np.float32)


@functools.cache
def quarter(name, policy="float32"):
    """The network for images of 32 x 32 at a quarter of its width, built once."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        keras.utils.set_random_seed(1)
        return build_network(name, image_size=(32, 32), num_classes=SIZES, width=0.25)
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_schema_gives_float32_features_and_logits_under_every_policy(name, policy):
    network = quarter(name, policy)
    assert network.get_layer("backbone").output.dtype == ("float32" if policy == "float32" else "bfloat16")
    outputs = network(images(32, 32))
    assert {key: value.dtype for key, value in outputs.items()} == {"features": "float32", "logits": "float32"}
    # At a quarter of its width a network has a quarter of its features.
    expected = (2, 3, BRANCHED[name] // 4) if name in BRANCHED else (2, SHARED[name] // 4)
    assert outputs["features"].shape == expected and outputs["logits"].shape == (2, 10)
    assert np.isfinite(outputs["logits"]).all()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", ["smallest", (37, 50)])
def test_networks_take_any_size(name, size):
    smallest = NETWORKS[name].smallest_side
    size = (smallest, smallest) if size == "smallest" else size
    assert smallest <= 32
    network = build_network(name, image_size=size, num_classes=SIZES, width=0.05)
    assert network(images(*size))["logits"].shape == (2, 10)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_reaches_every_variable(name):
    network = quarter(name)
    with tf.GradientTape() as tape:
        logits = network(images(32, 32, number=4), training=True)["logits"]
        loss = tf.reduce_sum(logits * np.random.default_rng(2).normal(size=logits.shape))
    variables = network.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert gradient is not None and np.isfinite(gradient).all() and np.any(gradient), variable.path


@pytest.mark.parametrize("name", NETWORKS)
def test_only_networks_with_dropout_draw_in_training(name):
    first, second = (quarter(name)(images(32, 32), training=True)["logits"].numpy() for _ in range(2))
    assert np.array_equal(first, second) == (name not in {"cifarnet", "mtct", "darn", "ddan", "fashionnet"})


def test_networks_refuse_what_is_too_small_or_unknown():
    with pytest.raises(ValueError, match=r"image_size must be .* 32 or more for deepid2"):
        build_network("deepid2", image_size=(16, 64), num_classes=[2])
    with pytest.raises(ValueError, match=r"model must be one of .*'vgg'"):
        build_network("vgg", image_size=(32, 32), num_classes=[2])


def conv(side, inputs, filters):
    """Parameters of a convolution with biases; one with side 1 is a fully connected layer."""
    return side * side * inputs * filters + filters


def chain(*sizes):
    """Parameters of fully connected layers from the first number of units to the last."""
    return sum(conv(1, inputs, outputs) for inputs, outputs in itertools.pairwise(sizes))


def branch(inputs, units, classes):
    """Parameters of a branch of every label; the last layer has as many columns for each label as the largest has classes."""
    return len(classes) * chain(inputs, *units, max(classes))


NIN = sum(
    conv(side, inputs, filters) + 2 * conv(1, filters, filters)
    for side, inputs, filters in ((11, 3, 96), (5, 96, 256), (3, 256, 384), (3, 384, 384), (3, 384, 1024))
)
PANDA_PART = conv(5, 3, 64) + conv(5, 64, 64) + 2 * conv(3, 64, 64)


def resnet32_parameters(classes):
    """No biases; batch normalisation's scale and shift. Stages begin with a block that doubles the filters."""
    same = sum(10 * (9 * f * f + 2 * f) for f in (16, 32, 64))
    doubled = sum(9 * f * f // 2 for f in (32, 64))
    return 9 * 3 * 16 + 2 * 16 + same - doubled + conv(1, 64, classes)


def resnet10_parameters():
    """No biases; batch normalisation's scale and shift. Every stage but the first has a 1x1 convolution for its shortcut."""
    total = 9 * 3 * 16 + 2 * 16 + 2 * (9 * 16 * 16 + 2 * 16)
    for inputs, filters in ((16, 32), (32, 64), (64, 128)):
        total += 9 * inputs * filters + 9 * filters * filters + inputs * filters + 3 * 2 * filters
    return total


def densenet_parameters(classes):
    """No biases; each layer normalises all filters before it (scale, shift) and adds 12; blocks end with a 1x1 or the mean."""
    total, filters = 9 * 3 * 16, 16
    for ends_with in ("1x1", "1x1", "mean"):
        for _ in range(12):
            total, filters = total + 2 * filters + 9 * filters * 12, filters + 12
        total += 2 * filters + (filters * filters if ends_with == "1x1" else 0)
    return total + conv(1, filters, classes)


def resnet50_parameters(statistics):
    """Biases; `statistics` numbers per filter in batch normalisation: 2 are trained, 4 are kept."""
    total, inputs = conv(7, 3, 64) + statistics * 64, 64
    for filters, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        total += conv(1, inputs, 4 * filters) + statistics * 4 * filters
        for _ in range(blocks):
            total += conv(1, inputs, filters) + conv(3, filters, filters) + conv(1, filters, 4 * filters)
            total += statistics * 6 * filters
            inputs = 4 * filters
    return total


VGG16 = (
    *(conv(3, 3, 64), conv(3, 64, 64), conv(3, 64, 128), conv(3, 128, 128), conv(3, 128, 256), 2 * conv(3, 256, 256)),
    *(conv(3, 256, 512), 5 * conv(3, 512, 512)),
)


def test_the_arithmetic_comes_to_the_published_numbers():
    assert resnet32_parameters(10) == 464_154
    assert densenet_parameters(10) == 1_019_722
    assert resnet50_parameters(4) == 23_587_712
    assert sum(VGG16) == 14_714_688


PARAMETERS = {
    # 55 x 47 becomes 52 x 44, 26 x 22, 24 x 20, 12 x 10, 10 x 8, 5 x 4 and, for the fourth convolution, 4 x 3. The third has
    # filters for each of 5 x 4 regions of 2 x 2 of its 10 x 8 positions, the fourth for each of its 4 x 3 positions.
    "deepid2": (
        (55, 47),
        conv(4, 3, 20)
        + conv(3, 20, 40)
        + 5 * 4 * conv(3, 40, 60)
        + 4 * 3 * conv(2, 60, 80)
        + conv(1, 5 * 4 * 60 + 4 * 3 * 80, 160),
        branch(160, [64], CELEBA),
    ),
    "mtct": ((227, 227), NIN, branch(1024, [256, 64], XDOMAIN)),
    "cifarnet": ((32, 32), conv(5, 3, 64) + conv(5, 64, 64) + chain(8 * 8 * 64, 384, 192), conv(1, 192, 100)),
    "resnet10": ((64, 64), resnet10_parameters(), conv(1, 128, 100)),
    "resnet32": ((32, 32), resnet32_parameters(0), conv(1, 64, 100)),
    "densenet": ((32, 32), densenet_parameters(0), conv(1, 448, 100)),
    "resnet50": ((224, 224), resnet50_parameters(2), conv(1, 2048, 2000)),
    # 55 x 47, halved upward three times, is 7 x 6.
    "anet": (
        (55, 47),
        conv(4, 3, 20) + conv(3, 20, 40) + conv(3, 40, 60) + conv(2, 60, 80) + conv(1, 7 * 6 * 80, 160),
        conv(1, 160, 80),
    ),
    # The whole is 112 x 92, halved upward four times 7 x 6. Parts of three fifths are 68 x 56 (0 to 67.2 and 0 to 55.2, outward):
    # 5 x 4; the centre is 68 x 56 too (22.4 to 89.6, 18.4 to 73.6), and so are those that begin at 44.8 and 36.8.
    "panda": (
        (112, 92),
        6 * PANDA_PART + conv(1, 7 * 6 * 64, 576) + 5 * conv(1, 5 * 4 * 64, 576),
        conv(1, 6 * 576, 80),
    ),
    "darn": ((227, 227), NIN + chain(1024, 4096, 4096), branch(4096, [64], XDOMAIN)),
    "ddan": ((227, 227), NIN + chain(1024, 4096), branch(4096, [64], XDOMAIN)),
    # Not 224 x 224, where the first fully connected layer would have 103 million: 64 x 64 leaves 2 x 2 positions.
    "fashionnet": ((64, 64), sum(VGG16) + chain(2 * 2 * 512, 4096, 4096), conv(1, 4096, 178)),
}


def parameters(layer):
    return sum(math.prod(weight.shape) for weight in layer.trainable_weights)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_at_its_published_width_has_as_many_parameters_as_arithmetic_says(name):
    size, in_backbone, in_head = PARAMETERS[name]
    row = NETWORKS[name]
    assert size == row.image_size or name == "fashionnet"
    network = build_network(name, image_size=size, num_classes=row.published_classes)
    backbone = network.get_layer("backbone")
    assert parameters(backbone) == in_backbone
    assert parameters(network) - parameters(backbone) == in_head
    half = build_network(name, image_size=size, num_classes=row.published_classes, width=0.5).get_layer("backbone")
    for kind in ("filters", "units"):
        widths, halved = ([getattr(x, kind) for x in b.layers if hasattr(x, kind)] for b in (backbone, half))
        assert [2 * w for w in halved] == widths


def test_deepfashion_has_a_thousand_attributes_of_two_classes_each():
    assert NETWORKS["resnet50"].published_classes == DEEPFASHION == (2,) * 1000 and sum(XDOMAIN) == 178


def jittered(model, seed=0):
    """The weights with noise, so that biases and the statistics of batch normalisation are not at their start."""
    rng = np.random.default_rng(seed)
    return [w + 0.1 * np.abs(rng.normal(size=w.shape)) if w.ndim == 1 else w for w in model.get_weights()]


def keras_resnet50(size):
    return keras.applications.ResNet50(weights=None, include_top=False, pooling="avg", input_shape=(*size, 3))


def keras_vgg16(size):
    """All but the classifier."""
    whole = keras.applications.VGG16(weights=None, input_shape=(*size, 3), classes=2)
    return keras.Model(whole.input, whole.layers[-2].output)


@pytest.mark.parametrize(
    "function, oracle, size", [(resnet50.resnet50, keras_resnet50, (64, 64)), (fashionnet.fashionnet, keras_vgg16, (32, 40))]
)
def test_with_the_weights_of_keras_own_network_the_features_are_its_features(function, oracle, size):
    keras.utils.set_random_seed(0)
    published = oracle(size)
    inputs = keras.Input((*size, 3))
    network = keras.Model(inputs, function(inputs))
    weights = jittered(published)
    published.set_weights(weights)
    network.set_weights(weights)
    seen = images(*size) / 127.5 - 1
    expected = published(seen).numpy()
    assert np.ptp(expected) > 0.01 * np.abs(expected).max() > 0
    np.testing.assert_allclose(network(seen), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_nin_halves_after_the_first_second_and_fourth_unit_and_ends_with_the_mean():
    model = keras.Model(inputs := keras.Input((227, 227, 3)), nin.nin_units(inputs, 0.05))
    sides = [tuple(x.output.shape[1:3]) for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    # ceil(227 / 4) = 57, then halved upward: 29, 15, 8.
    assert sides == [(57, 57)] * 3 + [(29, 29)] * 3 + [(15, 15)] * 6 + [(8, 8)] * 3
    last = keras.Model(inputs, [model.layers[-2].output, model.output])
    before, after = last(images(227, 227))
    assert np.any(after)
    np.testing.assert_allclose(after, np.mean(before, axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_strided_1x1_convolution_has_few_channels(name):
    """The gradient of one corrupts memory in TensorFlow 2.21 (oneDNN): 16 -> 8 pixels, 4 -> 8 channels, 39 images, float32."""
    side = max(NETWORKS[name].smallest_side, 32)
    backbone = build_network(name, image_size=(side, side), num_classes=[2], width=0.25).get_layer("backbone")
    convolutions = [layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)]
    assert all(one.strides == (1, 1) or one.input.shape[-1] >= 16 for one in convolutions if one.kernel_size == (1, 1))
