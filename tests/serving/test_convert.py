"""LiteRT and ONNX: the same numbers as the model, names, the decision inside, and what is refused."""

import json
import sys
import zipfile

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from crl_tf.crl_model import CRLModel
from crl_tf.layers.nearest_neighbours import NearestNeighbours
from crl_tf.models import build_network
from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.serving import convert as converting
from crl_tf.serving.convert import CONVERSIONS, check_installed, convert, in_float32
from crl_tf.serving.converted import card_of, load_converted
from crl_tf.serving.scoring import Scoring, answers

SCHEMA = AttributeSchema((Attribute("5 o'clock/shadow", ("no", "yes")), Attribute("hue", ("red", "green", "blue"))))
SIZE = (36, 32)
ALLOWED = {"litert": 1e-5, "litert_float16": 5e-3, "litert_int8": 0.15, "onnx": 1e-5}
IMAGES = np.random.default_rng(0).integers(0, 256, (12, *SIZE, 3)).astype(np.uint8)
OFFSETS = np.array([0.3, -0.2, 1.0, -1.0, 0.5], np.float32)
SCORINGS = {
    "plain": Scoring(),
    "rule": Scoring(offsets=OFFSETS),
    "thresholds": Scoring(
        temperatures=np.array([2.0, 0.5]), decision_offsets=OFFSETS, thresholds=np.array([0.5, 0.5, 0.2, 0.3, 0.4])
    ),
}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return CRLModel(build_network("deepid2", image_size=SIZE, num_classes=SCHEMA.num_classes, width=0.25))


def expected(model, scoring):
    logits = model(IMAGES.astype(np.float32), training=False)
    of_all = answers(logits, SCHEMA, scoring, tf.ones(len(IMAGES), bool))
    return {name: value.numpy() for name, value in of_all.items() if not name.endswith("_name")}


@pytest.mark.parametrize("kind", CONVERSIONS)
@pytest.mark.parametrize("scoring", SCORINGS)
def test_a_file_answers_as_the_savedmodel_does(model, kind, scoring, tmp_path):
    path = tmp_path / CONVERSIONS[kind].file
    convert(model, SCHEMA, SIZE, path, kind, scoring=SCORINGS[scoring], calibration=IMAGES)
    run = load_converted(path)
    found, wanted = run(IMAGES), expected(model, SCORINGS[scoring])
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        if name.endswith("_scores"):
            np.testing.assert_allclose(found[name], value, atol=ALLOWED[kind])
        elif kind in ("litert", "onnx"):
            np.testing.assert_array_equal(found[name], value)
    for count in (1, 5):
        for name, value in run(IMAGES[:count]).items():
            np.testing.assert_allclose(value, found[name][:count], atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", CONVERSIONS)
@pytest.mark.parametrize("name", ["cifarnet", "keras:MobileNetV3Small"])
def test_networks_convert(name, kind, tmp_path):
    keras.utils.set_random_seed(0)
    network = CRLModel(build_network(name, image_size=SIZE, num_classes=SCHEMA.num_classes))
    path = tmp_path / CONVERSIONS[kind].file
    convert(network, SCHEMA, SIZE, path, kind, calibration=IMAGES)
    found, wanted = load_converted(path)(IMAGES), expected(network, Scoring())
    for name in ("hue_scores", "5 o'clock/shadow_scores"):
        np.testing.assert_allclose(found[name], wanted[name], atol=ALLOWED[kind])


@pytest.mark.parametrize("kind", CONVERSIONS)
def test_an_activation_with_a_gradient_of_its_own_converts(kind, tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((*SIZE, 3))
    features = keras.layers.Activation("silu")(keras.layers.Conv2D(4, 3, strides=4)(inputs / 255))
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(features)))
    path = tmp_path / CONVERSIONS[kind].file
    convert(model, SCHEMA, SIZE, path, kind, calibration=IMAGES)
    found = load_converted(path)(IMAGES)
    np.testing.assert_allclose(found["hue_scores"], expected(model, Scoring())["hue_scores"], atol=ALLOWED[kind])


@pytest.mark.parametrize("annotated", [0, -1])
def test_nearest_neighbours_convert_to_onnx_even_where_labels_are_incomplete(annotated, tmp_path):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(1)
    inputs = keras.Input((*SIZE, 3))
    features = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(inputs / 255))
    labels = rng.integers(annotated, 2, (30, 2))  # -1 is not annotated
    layer = NearestNeighbours.of(rng.normal(size=(30, 4)), labels, num_classes=SCHEMA.num_classes, neighbours=5)
    model = keras.Model(inputs, layer(features))
    path = tmp_path / "model.onnx"
    convert(model, SCHEMA, SIZE, path, "onnx")
    found, wanted = load_converted(path)(IMAGES), expected(model, Scoring())
    np.testing.assert_allclose(found["hue_scores"], wanted["hue_scores"], atol=1e-5)


def linear(bias):
    """Logits of which those of the images are small, so that the bias decides how rare a class is."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((*SIZE, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, activation="relu")(inputs / 255))
    logits = keras.layers.Dense(5, bias_initializer=lambda shape, dtype: tf.constant(bias, dtype))(features)
    return keras.Model(inputs, logits)


@pytest.mark.parametrize("kind", CONVERSIONS)
def test_scores_and_thresholds_of_rare_classes_are_fine_in_every_format(kind, tmp_path):
    model = linear([4.0, -4.0, 0.0, 4.0, -5.0])  # the rare classes score about 3e-4 and 1e-4
    scores = expected(model, Scoring())
    rare = np.concatenate([scores["5 o'clock/shadow_scores"], scores["hue_scores"]], axis=1)
    # Far from every score, by a factor, not by a difference.
    thresholds = np.array([0.5, rare[:, 1].min() / 4, rare[:, 2].max() * 4, 0.5, rare[:, 4].max() * 4], np.float32)
    assert thresholds[1] < 1 / 1024 and thresholds[4] < 1 / 256
    scoring = Scoring(thresholds=thresholds)
    path = tmp_path / CONVERSIONS[kind].file
    convert(model, SCHEMA, SIZE, path, kind, scoring=scoring, calibration=IMAGES)
    found, wanted = load_converted(path)(IMAGES), expected(model, scoring)
    for name, value in wanted.items():
        if name.endswith("_scores"):
            np.testing.assert_allclose(found[name], value, rtol={"litert_int8": 0.3, "litert_float16": 0.02}.get(kind, 1e-4))
        else:
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("kind", CONVERSIONS)
def test_a_file_holds_the_names_of_its_classes(model, kind, tmp_path):
    path = tmp_path / CONVERSIONS[kind].file
    convert(model, SCHEMA, SIZE, path, kind, scoring=SCORINGS["rule"], calibration=IMAGES, card={"seed": 3})
    card = card_of(path)
    assert AttributeSchema.from_config(card["schema"]) == SCHEMA
    assert card["image_size"] == list(SIZE) and card["seed"] == 3
    np.testing.assert_allclose(Scoring.from_config(card["scoring"]).offsets, OFFSETS)
    # As docs say for programs without this package.
    if path.suffix == ".tflite":
        assert json.loads(zipfile.ZipFile(path).read("model.json")) == card
    else:
        assert json.loads(onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["model.json"]) == card


def test_a_model_of_another_program_has_no_card(model, tmp_path):
    path = tmp_path / "model.tflite"
    convert(model, SCHEMA, SIZE, path, "litert")
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"PK\x03\x04")])
    assert load_converted(path)(IMAGES)["hue_scores"].shape == (12, 3)
    with pytest.raises(ValueError, match=r"holds no model\.json"):
        card_of(path)


@pytest.mark.parametrize("kind", CONVERSIONS)
def test_an_operation_that_the_format_lacks_is_refused_and_nothing_is_written(kind, tmp_path):
    inputs = keras.Input((*SIZE, 3))
    resized = keras.layers.Lambda(lambda images: tf.image.resize(images, (8, 8), antialias=True))(inputs)
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(resized)))
    with pytest.raises(ValueError, match=r"(LiteRT|ONNX) cannot hold this model: .*ScaleAndTranslate"):
        convert(model, SCHEMA, SIZE, tmp_path / CONVERSIONS[kind].file, kind, calibration=IMAGES)
    assert not list(tmp_path.iterdir())


def test_every_operation_that_onnx_lacks_is_named_those_in_loops_too(tmp_path):
    def resized(images):
        return tf.map_fn(lambda image: tf.image.resize(image, (4, 4), antialias=True), images)

    inputs = keras.Input((*SIZE, 3))
    exact = keras.layers.Lambda(lambda x: tf.math.erfc(resized(x)), output_shape=(4, 4, 3))(inputs)
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(exact)))
    with pytest.raises(ValueError, match="operations without a form in ONNX: Erfc, ScaleAndTranslate"):
        convert(model, SCHEMA, SIZE, tmp_path / "model.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_named(model, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="calibration must hold images for litert_int8, received none"):
        convert(model, SCHEMA, SIZE, tmp_path / "x.tflite", "litert_int8")
    with pytest.raises(ValueError, match="kind must be one of"):
        convert(model, SCHEMA, SIZE, tmp_path / "x.tflite", "coreml")
    gone = CONVERSIONS["onnx"]
    gone = type(gone)(gone.file, gone.extra, ("no_such_module",), gone.convert)
    monkeypatch.setitem(converting.CONVERSIONS, "onnx", gone)
    with pytest.raises(ImportError, match=r"export=onnx needs no_such_module: pip install 'crl_tf\[onnx\]'"):
        check_installed(["litert", "onnx"])


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("m.tflite", "ai_edge_litert", "litert"), ("m.onnx", "onnxruntime", "onnx")]
)
def test_a_file_whose_library_is_missing_names_the_extra(name, module, extra, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(b"")
    for known in [known for known in sys.modules if known.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install 'crl_tf\[{extra}\]'"):
        load_converted(tmp_path / name)


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx", "model.txt"])
def test_a_file_that_is_none_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"is no (LiteRT|ONNX) model|path must end in .tflite or .onnx"):
        load_converted(tmp_path / name)


@pytest.mark.parametrize("kind", ["litert", "onnx"])
def test_a_model_that_computes_in_bfloat16_is_converted_in_float32(kind, tmp_path):
    network = build_network("deepid2", image_size=SIZE, num_classes=SCHEMA.num_classes, width=0.25, precision="mixed_bfloat16")
    model = CRLModel(network, dtype="mixed_bfloat16")
    assert in_float32(in_float32(model)).dtype_policy.name == "float32"
    path = tmp_path / CONVERSIONS[kind].file
    convert(model, SCHEMA, SIZE, path, kind)
    found, wanted = load_converted(path)(IMAGES), expected(model, Scoring())
    exact = expected(in_float32(model), Scoring())
    for name in (name for name in wanted if name.endswith("_scores")):
        np.testing.assert_allclose(found[name], exact[name], atol=ALLOWED[kind])
        np.testing.assert_allclose(found[name], wanted[name], atol=0.03)
