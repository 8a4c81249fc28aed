"""keras:NAME: every network of keras.applications with its own preprocessing, its own sizes, and a head for every label."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf.crl_model import CRLModel
from crl_tf.layers.preprocessing import ApplicationInput
from crl_tf.models import build_network, find_network, network_names
from crl_tf.models.build import dtype_policy
from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.serving.export import export_saved_model

# Image sizes as keras.io/api/applications and the functions' docstrings tell them, by module and network.
PUBLISHED = {
    "convnext": {"ConvNeXtTiny": 224, "ConvNeXtSmall": 224, "ConvNeXtBase": 224, "ConvNeXtLarge": 224, "ConvNeXtXLarge": 224},
    "densenet": {"DenseNet121": 224, "DenseNet169": 224, "DenseNet201": 224},
    "efficientnet": {f"EfficientNetB{i}": side for i, side in enumerate((224, 240, 260, 300, 380, 456, 528, 600))},
    "efficientnet_v2": {f"EfficientNetV2B{i}": side for i, side in enumerate((224, 240, 260, 300))}
    | {"EfficientNetV2S": 384, "EfficientNetV2M": 480, "EfficientNetV2L": 480},
    "inception_resnet_v2": {"InceptionResNetV2": 299},
    "inception_v3": {"InceptionV3": 299},
    "mobilenet": {"MobileNet": 224},
    "mobilenet_v2": {"MobileNetV2": 224},
    "mobilenet_v3": {"MobileNetV3Small": 224, "MobileNetV3Large": 224},
    "nasnet": {"NASNetMobile": 224, "NASNetLarge": 331},
    "resnet": {"ResNet50": 224, "ResNet101": 224, "ResNet152": 224},
    "resnet_v2": {"ResNet50V2": 224, "ResNet101V2": 224, "ResNet152V2": 224},
    "vgg16": {"VGG16": 224},
    "vgg19": {"VGG19": 224},
    "xception": {"Xception": 299},
}
SMALLEST = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}

# One pixel, R, G, B = 10, 100, 200, by the three published ways.
PIXEL = np.array([[[[10, 100, 200]]]], np.uint8)
CAFFE = [200 - 103.939, 100 - 116.779, 10 - 123.68]
TF = [10 / 127.5 - 1, 100 / 127.5 - 1, 200 / 127.5 - 1]
TORCH = [(10 / 255 - 0.485) / 0.229, (100 / 255 - 0.456) / 0.224, (200 / 255 - 0.406) / 0.225]
SAME = [10, 100, 200]
WAYS = {
    **dict.fromkeys(("resnet", "vgg16", "vgg19"), CAFFE),
    **dict.fromkeys(("inception_resnet_v2", "inception_v3", "mobilenet", "mobilenet_v2", "nasnet", "resnet_v2", "xception"), TF),
    "densenet": TORCH,
    **dict.fromkeys(("convnext", "efficientnet", "efficientnet_v2", "mobilenet_v3"), SAME),
}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 32, 40, 3), np.uint8)


def with_random_statistics(model):
    """Weights and moving statistics, so that a layer out of place shows; a fresh BatchNormalization does nothing."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for weight in layer.weights:
                weight.assign(rng.uniform(0.5, 1.5, weight.shape))


def test_all_of_keras_is_there_with_its_sizes_and_its_module():
    names = {f"keras:{name}" for networks in PUBLISHED.values() for name in networks}
    assert len(names) == 40 and names == {name for name in network_names() if name.startswith("keras:")}
    for module, networks in PUBLISHED.items():
        for name, side in networks.items():
            row = find_network(f"keras:{name}")
            assert (row.image_size, row.smallest_side) == ((side, side), SMALLEST.get(name, 32)), name
            assert (
                row.preprocess(keras.Input((None, None, 3)))._keras_history.operation.module == module
                and row.published_classes == (1000,)
                and not row.widths
            )


@pytest.mark.parametrize("module", PUBLISHED)
def test_preprocessing_is_that_of_the_module_in_float32(module):
    with dtype_policy("mixed_bfloat16"):
        layer = ApplicationInput(module)
    seen = layer(PIXEL)
    assert seen.dtype == tf.float32
    np.testing.assert_allclose(seen[0, 0, 0], WAYS[module], rtol=1e-5)
    images = np.random.default_rng(0).uniform(0, 255, (2, 5, 4, 3)).astype(np.float32)
    expected = getattr(keras.applications, module).preprocess_input(images.copy())
    np.testing.assert_allclose(layer(images), expected, atol=2e-5)
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer)).module == module


def test_a_module_that_does_not_preprocess_is_refused():
    for module in ("ResNet50", "os", "imagenet"):
        with pytest.raises(ValueError, match=f"module must be one of keras.applications, received '{module}'"):
            ApplicationInput(module)


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV3Small", "ResNet50"])
def test_outputs_are_those_of_the_application_called_by_hand(name, images):
    network = build_network(f"keras:{name}", image_size=(32, 40), num_classes=[2, 3])
    backbone = network.get_layer("backbone")
    with_random_statistics(backbone)
    by_hand = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(32, 40, 3), pooling="avg")
    by_hand.set_weights(backbone.get_weights())
    module = {"MobileNet": "mobilenet", "MobileNetV3Small": "mobilenet_v3", "ResNet50": "resnet"}[name]
    features = by_hand(getattr(keras.applications, module).preprocess_input(images.astype(np.float32))).numpy()
    assert features.std() > 0
    outputs = network(images)
    kernel, bias = network.get_layer("logits").get_weights()
    scale = abs(features).max()
    np.testing.assert_allclose(outputs["features"], features, atol=1e-5 * scale)
    np.testing.assert_allclose(outputs["logits"], features @ kernel + bias, atol=1e-4 * scale)
    assert outputs["logits"].shape == (2, 5)
    np.testing.assert_array_equal(network(images.astype(np.float32))["logits"], outputs["logits"])


def test_under_a_mixed_policy_and_through_a_file(images, tmp_path):
    network = build_network("keras:MobileNet", image_size=(32, 40), num_classes=[2, 3], precision="mixed_bfloat16")
    model = CRLModel(network, dtype="mixed_bfloat16")
    conv = model.network.get_layer("backbone").get_layer("conv1")
    assert (conv.compute_dtype, conv.kernel.dtype) == ("bfloat16", "float32")
    assert {output.dtype for output in model.network.output.values()} == {"float32"}
    expected = model(images)
    assert expected.dtype == tf.float32
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(images), expected)


def test_served(images, tmp_path):
    # A network of one pooling, so that what is served is the preprocessing: a whole one takes seconds to export.
    pixels = keras.Input((32, 40, 3))
    features = keras.layers.GlobalAveragePooling2D()(ApplicationInput("resnet")(pixels))
    logits = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant([[0.1, 0], [0, 0.1], [0, 0]]))(features)
    model = CRLModel(keras.Model(pixels, {"features": features, "logits": logits}))
    schema = AttributeSchema((Attribute("size", ("small", "large")),))
    export_saved_model(model, schema, (32, 40), tmp_path / "export")
    served = tf.saved_model.load(tmp_path / "export").signatures["serving_default"](images=images.astype(np.float32))
    blue, green = images.mean(axis=(1, 2))[:, 2] - 103.939, images.mean(axis=(1, 2))[:, 1] - 116.779
    np.testing.assert_allclose(served["size_scores"][:, 0], 1 / (1 + np.exp(0.1 * (green - blue))), atol=1e-5)


@pytest.mark.parametrize(("name", "size"), [("MobileNet", (31, 40)), ("InceptionV3", (75, 74)), ("Xception", (70, 71))])
def test_images_that_are_too_small_are_refused_in_our_words(name, size):
    smallest = SMALLEST.get(name, 32)
    with pytest.raises(ValueError, match=rf"^image_size must be .* {smallest} or more for keras:{name}, received \({size[0]}, "):
        build_network(f"keras:{name}", image_size=size, num_classes=[2])


def test_width_is_refused():
    with pytest.raises(ValueError, match=r"width must be 1 for keras:MobileNet, received 0\.5"):
        build_network("keras:MobileNet", image_size=(32, 32), num_classes=[2], width=0.5)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("keras:resnet50", "keras:ResNet50"),
        ("MobileNetV2", "keras:MobileNetV2"),
        ("keras:EfficientNetB8", "keras:EfficientNetB7"),
        ("cifernet", "cifarnet"),
        ("deepid", "deepid2"),
        ("resnet_32", "resnet32"),
    ],
)
def test_an_unknown_name_is_answered_by_close_ones(typed, meant):
    with pytest.raises(ValueError, match=f"model must be one of deepid2, .*received '{typed}'; did you mean .*{meant}[,?]"):
        find_network(typed)


def test_a_name_that_is_close_to_none_is_answered_by_none():
    with pytest.raises(ValueError, match=r"received 'qqqq'$"):
        build_network("qqqq", image_size=(32, 32), num_classes=[2])


@pytest.mark.parametrize("name", ["keras:MobileNetV3Small", "keras:ResNet50"])
def test_averages_of_normalisation_follow_within_tens_of_steps(name):
    network = build_network(name, image_size=(32, 32), num_classes=[2])
    momenta = [x.momentum for x in network.get_layer("backbone").layers if isinstance(x, keras.layers.BatchNormalization)]
    # Of what the averages were, 0.9^50 = 0.5 % are left after 50 steps; of MobileNetV3's own 0.999 it would be 95 %.
    assert momenta and max(momenta) <= 0.9


@pytest.mark.parametrize(
    "name", ["MobileNetV3Small", "EfficientNetB0", "NASNetMobile", "ConvNeXtTiny", "ResNet50", "DenseNet121"]
)
def test_the_row_says_whether_a_network_has_depthwise_convolutions(name):
    layers = getattr(keras.applications, name)(weights=None, include_top=False).layers
    kinds = (keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    found = any(isinstance(layer, kinds) or getattr(layer, "groups", 1) > 1 for layer in layers)
    assert find_network(f"keras:{name}").depthwise == found
