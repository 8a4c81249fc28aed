"""LiteRT and ONNX: the same numbers as the model, names, the decision inside, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf.crl_model import CRLModel
from crl_tf.models import build_network
from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.serving import convert as converting
from crl_tf.serving.convert import CONVERSIONS, check_installed, convert
from crl_tf.serving.converted import load_converted
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
def test_an_operation_that_the_format_lacks_is_refused_and_nothing_is_written(kind, tmp_path):
    inputs = keras.Input((*SIZE, 3))
    resized = keras.layers.Lambda(lambda images: tf.image.resize(images, (8, 8), antialias=True))(inputs)
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(resized)))
    with pytest.raises(ValueError, match=r"(LiteRT|ONNX) cannot hold this model: .*ScaleAndTranslate"):
        convert(model, SCHEMA, SIZE, tmp_path / CONVERSIONS[kind].file, kind, calibration=IMAGES)
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


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx", "model.txt"])
def test_a_file_that_is_none_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"is no (LiteRT|ONNX) model|path must end in .tflite or .onnx"):
        load_converted(tmp_path / name)
