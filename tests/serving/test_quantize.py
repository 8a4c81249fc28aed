"""Int8: the end of a model stays in float32, so that rare classes are told apart."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools.flatbuffer_utils import convert_bytearray_to_object

from crl_tf.layers.local_response_normalization import LocalResponseNormalization
from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.serving import quantize
from crl_tf.serving.convert import convert
from crl_tf.serving.converted import load_converted

SCHEMA = AttributeSchema((Attribute("loud", ("a", "b")), Attribute("soft", ("usual", "rare"))))
SIZE = (8, 8)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SIZE, 3)).astype(np.uint8)


def model_with(last):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((*SIZE, 3))
    wide = keras.layers.Dense(64, activation="relu")(keras.layers.Flatten()(inputs / 255))
    return keras.Model(inputs, last(wide))


def dense(features):
    # The logits of the second label differ by 0.1, which is less than a step of the first one's -60 to 60.
    bias = keras.initializers.Constant(0.0)
    kernel = np.zeros((64, 4), np.float32)
    kernel[:, 0], kernel[:, 1] = 2.0, -2.0
    layer = keras.layers.Dense(4, bias_initializer=bias)
    logits = layer(features)
    layer.set_weights([kernel, np.array([0, 0, 0, 0.1], np.float32)])
    return logits


def kinds_of(path):
    interpreter = Interpreter(model_path=str(path))
    return {np.dtype(tensor["dtype"]).name for tensor in interpreter.get_tensor_details()}


def test_logits_that_are_close_are_told_apart(tmp_path):
    path = tmp_path / "model.tflite"
    convert(model_with(dense), SCHEMA, SIZE, path, "litert_int8", calibration=IMAGES)
    found = load_converted(path)(IMAGES)
    assert (found["soft_index"] == 1).all()
    np.testing.assert_allclose(found["soft_scores"][:, 1], 1 / (1 + np.exp(-0.1)), atol=1e-4)
    assert "int8" in kinds_of(path)


def test_a_last_layer_that_is_most_of_the_model_is_in_int8_too_but_not_what_follows(tmp_path, monkeypatch):
    path = tmp_path / "model.tflite"
    sizes = {}
    for most in (0.0, 1.0):
        monkeypatch.setattr(quantize, "MOST_KEPT", most)
        convert(model_with(dense), SCHEMA, SIZE, path, "litert_int8", calibration=IMAGES)
        found, sizes[most] = load_converted(path)(IMAGES), path.stat().st_size
        # In steps of 1/256 the score of a class that is never decided on would be 0.
        assert (found["loud_scores"] > 0).all()
    assert sizes[0.0] < sizes[1.0]


def test_roots_stay_in_float32(tmp_path):
    def normalised(wide):
        normalise = LocalResponseNormalization()
        return keras.layers.Dense(4)(keras.layers.Dense(64, activation="relu")(normalise(wide)))

    path = tmp_path / "model.tflite"
    convert(model_with(normalised), SCHEMA, SIZE, path, "litert_int8", calibration=IMAGES)
    model = convert_bytearray_to_object(path.read_bytes())
    (graph,) = model.subgraphs
    roots = (schema.BuiltinOperator.RSQRT, schema.BuiltinOperator.SQRT)
    of_roots = [step for step in graph.operators if model.operatorCodes[step.opcodeIndex].builtinCode in roots]
    assert len(of_roots) == 2
    assert {graph.tensors[place].type for step in of_roots for place in step.outputs} == {schema.TensorType.FLOAT32}
    assert "int8" in kinds_of(path)


def test_a_model_without_weights_stays_as_it_is(tmp_path):
    inputs = keras.Input((*SIZE, 3))
    means = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: tf.concat([x, -x[:, :1]], axis=1))(means))
    path = tmp_path / "model.tflite"
    convert(model, SCHEMA, SIZE, path, "litert_int8", calibration=IMAGES)
    wanted = tf.nn.softmax(model(IMAGES.astype(np.float32))[:, :2]).numpy()
    np.testing.assert_allclose(load_converted(path)(IMAGES)["loud_scores"], wanted, atol=1e-4)
    with pytest.raises(ValueError, match="must hold images"):
        convert(model, SCHEMA, SIZE, path, "litert_int8")
