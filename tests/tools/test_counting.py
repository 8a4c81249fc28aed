"""FLOPs against arithmetic by hand."""

import keras
import pytest
import tensorflow as tf
from counting import flops

from crl_tf.models import build_network, find_network
from crl_tf.models.heads import branches, linear

DEEPID2_CONVOLUTIONS = ((4, 3, 20, 52, 44), (3, 20, 40, 24, 20), (3, 40, 60, 10, 8), (2, 60, 80, 4, 3))
"""Kernel, channels in and out, height and width out: 55 x 47, valid, halved (rounded up) after each of the first three."""


def by_hand(x, head, num_classes=(2, 3)):
    """A network whose backbone adds 1 to what it sees."""
    inside = keras.Input(x.shape[1:])
    backbone = keras.Model(inside, keras.layers.Rescaling(1.0, offset=1.0)(inside), name="backbone")
    return keras.Model(x, head(backbone(x), list(num_classes), 1.0))


def test_deepid2():
    row = find_network("deepid2")
    flat = 5 * 4 * 60 + 4 * 3 * 80
    products = sum(2 * k * k * i * o * h * w for k, i, o, h, w in DEEPID2_CONVOLUTIONS)
    products += 2 * flat * 160 + 2 * 160 * 40 * 64 + 2 * 40 * 64 * 2
    # A sum per bias, two operations per pixel and channel to [-1, 1], and 4 per 2 x 2 window, of which 26x22, 12x10 and 5x4.
    biases = sum(o * h * w for _, _, o, h, w in DEEPID2_CONVOLUTIONS) + 160 + 40 * 64 + 80
    pooled = 4 * (26 * 22 * 20 + 12 * 10 * 40 + 5 * 4 * 60)
    network = build_network("deepid2", image_size=row.image_size, num_classes=row.published_classes)
    assert flops(network) == products + biases + 2 * 55 * 47 * 3 + pooled


def test_heads():
    x = keras.Input((10,))
    two, adding = [2, 3], 2 * 10  # the backbone's product and sum
    assert flops(by_hand(x, linear, two)) == adding + 2 * 10 * 5 + 5
    # Layers of 4 and 6 units for each of two labels; the logits are padded to the largest label.
    units = 2 * 10 * 2 * 4 + 2 * 4
    deeper = 2 * 2 * 4 * 6 + 2 * 6
    assert flops(by_hand(x, branches(4), two)) == adding + units + 2 * 2 * 4 * 3 + 2 * 3
    assert flops(by_hand(x, branches(4, 6), two)) == adding + units + deeper + 2 * 2 * 6 * 3 + 2 * 3


def test_grouped_convolutions_count():
    # Keras makes them a function of their own on a CPU, into which the profiler does not look.
    x = keras.Input((8, 8, 6))
    grouped = keras.layers.Conv2D(9, 3, groups=3, use_bias=False, padding="same")(x)
    separable = keras.layers.DepthwiseConv2D(3, use_bias=False, padding="same")(x)
    assert flops(keras.Model(x, {"logits": grouped})) == 2 * 3 * 3 * (6 // 3) * 9 * 64
    assert flops(keras.Model(x, {"logits": separable})) == 2 * 3 * 3 * 6 * 64


def test_published_counts():
    # He et al., 2016: ResNet-32 has 0.46 M parameters with 10 classes; 0.07 G multiply-adds are 15 blocks' worth (Sec. 4.2).
    sides = [(32, 16)] * 10 + [(16, 32)] * 10 + [(8, 64)] * 10
    inner = sum(2 * 9 * f * f * s * s for s, f in sides)
    # The first convolution of a stage that halves sees half of the channels.
    halves = 2 * 9 * 16 * 32 * 16 * 16 + 2 * 9 * 32 * 64 * 8 * 8
    products = inner - halves + 2 * 9 * 3 * 16 * 32 * 32 + 2 * 64 * 100
    assert products < flops(build_network("resnet32", image_size=(32, 32), num_classes=[100])) < 1.03 * products


def test_what_cannot_be_counted_is_refused():
    x = keras.Input((4,))

    class Loop(keras.layers.Layer):
        def call(self, inputs):
            return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y @ tf.eye(4)), [0, inputs])[1]

    with pytest.raises(ValueError, match=r"network must be one graph of known shapes.*another graph"):
        flops(keras.Model(x, {"logits": Loop()(x)}))

    class Unknown(keras.layers.Layer):
        def call(self, inputs):
            return tf.boolean_mask(inputs, inputs[:, 0] > 0)

        def compute_output_shape(self, input_shape):
            return input_shape

    with pytest.raises(ValueError, match=r"network must be one graph of known shapes.*not known"):
        flops(keras.Model(x, {"logits": Unknown()(x)}))


def test_the_process_is_left_as_it_was(caplog):
    level = tf.get_logger().level
    flops(by_hand(keras.Input((10,)), linear))
    assert tf.get_logger().level == level and not tf.config.functions_run_eagerly()
    assert not caplog.records
