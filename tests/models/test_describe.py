"""Parameters by arithmetic, and the seed's part against what the network does with it."""

import keras
import numpy as np
import pytest

from crl_tf.models import NETWORKS, build_network, describe
from crl_tf.models.describe import drawn_by_seed, parameters
from crl_tf.models.heads import linear


def test_deepid2():
    facts = describe("deepid2")
    # Kernel, channels in and out of each convolution, and for how many places of the image it has filters.
    convolutions = ((4, 3, 20, 1), (3, 20, 40, 1), (3, 40, 60, 5 * 4), (2, 60, 80, 4 * 3))
    weights = sum(places * (k * k * i * o + o) for k, i, o, places in convolutions)
    flat = 5 * 4 * 60 + 4 * 3 * 80
    dense = (flat * 160 + 160) + (160 * 40 * 64 + 40 * 64)
    logits = 40 * (64 * 2 + 2)
    assert facts.parameters == (weights + dense + logits, weights + dense + logits, 160 * 40 * 64 + 40 * 64 + logits)
    assert (facts.image_size, facts.features, len(facts.num_classes)) == ((55, 47), (40, 64), 40)


def test_the_head_is_counted_apart():
    x = keras.Input((10,))
    inside = keras.Input((10,))
    backbone = keras.Model(inside, keras.layers.Rescaling(1.0, offset=1.0)(inside), name="backbone")
    assert parameters(keras.Model(x, linear(backbone(x), [2, 3]))) == (55, 55, 55)


def test_trainable():
    network = build_network("deepid2", image_size=(32, 32), num_classes=[2], width=0.1, freeze="all")
    counted = parameters(network)
    assert 0 < counted.trainable == counted.head < counted.total


@pytest.mark.parametrize("name", NETWORKS)
def test_what_the_seed_draws(name):
    row = NETWORKS[name]
    size = (max(32, row.smallest_side),) * 2

    def built(seed):
        keras.utils.set_random_seed(seed)
        return build_network(name, image_size=size, num_classes=[2, 3], width=0.1)

    one, other = built(1), built(2)
    drawn = [weight.name == "kernel" for weight in one.weights]
    differ = [(a.numpy() != b.numpy()).any() for a, b in zip(one.weights, other.weights, strict=True)]
    assert differ == drawn
    # Twice the same images, as in training: another outcome if something is dropped, the same if nothing is.
    images = np.random.default_rng(0).integers(0, 256, (8, *size, 3)).astype(np.float32)
    first, second = (one(images, training=True)["logits"].numpy() for _ in range(2))
    drops = not np.allclose(first, second, rtol=1e-4, atol=1e-5)
    assert drawn_by_seed(one) == (("weights", "dropout") if drops else ("weights",))
    assert drawn_by_seed(one, pretrained=True)[0] == "the head's weights"
    # The same seed, once more: one of the cheap networks stands for all, which draw through the same initializers.
    if name in ("deepid2", "panda"):
        for a, b in zip(one.weights, built(1).weights, strict=True):
            np.testing.assert_array_equal(a, b)
