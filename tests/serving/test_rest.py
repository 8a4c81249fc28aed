"""TensorFlow Serving's contract without a server: what a request's JSON becomes, and what the answer's JSON is."""

import base64
import json

import numpy as np
import pytest
import tensorflow as tf

from crl_tf.serving.rest import RestError, metadata_of_model, read_predict, shortest, status_of_model, write_answer

IMAGES = tf.TensorSpec([None, None, None, 3], tf.float32)
SIGNATURES = {
    "serving_default": {"images": IMAGES},
    "uint8_images": {"images": tf.TensorSpec([None, None, None, 3], tf.uint8)},
    "image_bytes": {"image_bytes": tf.TensorSpec([None], tf.string)},
    "two": {"a": tf.TensorSpec([None], tf.int64), "b": tf.TensorSpec([None, 2], tf.float32)},
    "one_text": {"text": tf.TensorSpec([], tf.string)},
    "flags": {"on": tf.TensorSpec([None], tf.bool)},
    "words": {"words": tf.TensorSpec([None, None], tf.string)},
    "class_names": {},
}
ONE = [[[1, 2.5, 3], [4, 5, 6]]]
"""One image of 1 x 2 pixels."""


def read(request, most=64):
    return read_predict(request if isinstance(request, bytes) else json.dumps(request).encode(), SIGNATURES, most)


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


@pytest.mark.parametrize("key", ["instances", "inputs"])
@pytest.mark.parametrize("named", [False, True])
def test_images_by_row_and_by_column_named_or_not(key, named):
    value = {("instances", True): [{"images": ONE}, {"images": ONE}], ("inputs", True): {"images": [ONE, ONE]}}
    found = read({key: value.get((key, named), [ONE, ONE])})
    assert found.signature == "serving_default" and found.by_row == (key == "instances")
    np.testing.assert_array_equal(found.inputs["images"], np.array([ONE, ONE], np.float32))
    assert found.inputs["images"].dtype == np.float32


def test_several_inputs_by_row_and_by_column():
    rows = read({"signature_name": "two", "instances": [{"a": 1, "b": [1, 2]}, {"b": [3, 4], "a": 2**40}]})
    columns = read({"signature_name": "two", "inputs": {"a": [1, 2**40], "b": [[1, 2], [3, 4]]}})
    for name in ("a", "b"):
        np.testing.assert_array_equal(rows.inputs[name], columns.inputs[name])
    assert rows.inputs["a"].dtype == np.int64 and rows.inputs["a"].tolist() == [1, 2**40]


@pytest.mark.parametrize(
    "value", [[b64(b"\xff\xd8")], [{"image_bytes": b64(b"\xff\xd8")}], [{"b64": "/9g"}]], ids=["plain", "named", "unpadded"]
)
def test_bytes_come_as_base64(value):
    found = read({"signature_name": "image_bytes", "instances": value})
    assert found.inputs["image_bytes"].tolist() == [b"\xff\xd8"] and found.inputs["image_bytes"].dtype == object


def test_texts_come_as_text_and_need_not_be_ascii():
    assert read({"signature_name": "image_bytes", "inputs": ["é"]}).inputs["image_bytes"].tolist() == ["é".encode()]
    assert read({"signature_name": "one_text", "inputs": "a"}).inputs["text"].item() == b"a"
    assert read({"signature_name": "one_text", "inputs": b64(b"\x00")}).inputs["text"].item() == b"\x00"
    words = read({"signature_name": "words", "inputs": [["a", b64(b"b")], ["c", "d"]]}).inputs["words"]
    assert words.tolist() == [[b"a", b"b"], [b"c", b"d"]]


def test_the_default_signature_is_meant_by_none_and_by_an_empty_name():
    assert read({"instances": [ONE], "signature_name": ""}).signature == "serving_default"


def test_nan_and_infinity_are_read_as_tensorflow_serving_reads_them():
    found = read(b'{"instances": [[[[NaN, Infinity, -Infinity]]]]}').inputs["images"]
    assert np.isnan(found[0, 0, 0, 0]) and found[0, 0, 0, 1:].tolist() == [np.inf, -np.inf]


def test_a_signature_without_inputs_is_asked_by_column():
    assert read({"signature_name": "class_names", "inputs": {}}).inputs == {}


def test_booleans_are_read():
    assert read({"signature_name": "flags", "inputs": [True, False]}).inputs["on"].tolist() == [True, False]


MISTAKES = {
    "no JSON": (b"{", "the body must be JSON, received 1 bytes that are not"),
    "empty": (b"", "the body must be JSON"),
    "no UTF-8": (b'{"\xff": 1}', "the body must be JSON"),
    "a list": ([1], "the body must be a JSON object, received a list of 1"),
    "too deep": (b"[" * 100_000, "nested too deeply"),
    "deep inside": (b'{"instances":' + b"[" * 100_000, "nested too deeply"),
    "a number of many digits": (b'{"instances": [' + b"9" * 5000 + b"]}", "the body must be JSON"),
    "neither": ({}, "either instances or inputs, received neither"),
    "both": ({"instances": [], "inputs": []}, "received instances and inputs"),
    "no instances": ({"instances": []}, "a list of at least one value, received a list of 0"),
    "instances of another kind": ({"instances": "a"}, "received a text"),
    "null": ({"instances": None}, "received null"),
    "a name that is no text": ({"instances": [ONE], "signature_name": 1}, "signature_name must be a text"),
    "an unknown signature": ({"instances": [ONE], "signature_name": "x"}, "must be one of class_names, .*; received 'x'"),
    "an unknown input": ({"instances": [{"image": ONE}]}, "an object with images, as the others; received one with image"),
    "one of another kind": ({"instances": [{"images": ONE}, ONE]}, r"instances\[1\] must be an object"),
    "a missing input": ({"signature_name": "two", "inputs": {"a": [1]}}, "with a, b; received one with a"),
    "a plain value for two inputs": ({"signature_name": "two", "instances": [1]}, "objects with a, b"),
    "a plain column for two inputs": ({"signature_name": "two", "inputs": [1]}, "an object with a, b"),
    "inputs for none": ({"signature_name": "class_names", "inputs": {"a": 1}}, "no inputs; received one with a"),
    "too flat": ({"instances": [1, 2]}, "numbers in lists nested 4 deep; one is not so deep"),
    "too deep a value": ({"instances": [[ONE]]}, "received a list among them"),
    "ragged": ({"instances": [[[[1, 2, 3]], [[1, 2, 3], [1, 2, 3]]]]}, "lists of equal lengths"),
    "ragged images": ({"instances": [ONE, [[[1, 2, 3]]]]}, "lists of equal lengths"),
    "two channels": ({"instances": [[[[1, 2]]]]}, r"images must have the shape \[any, any, any, 3\], received \[1, 1, 1, 2\]"),
    "no pixels": ({"instances": [[[]]]}, "the shape|nested 4 deep"),
    "texts for numbers": ({"instances": [[[["a", "b", "c"]]]]}, "received a text among them"),
    "objects for numbers": ({"instances": [[[[{}, 1, 2]]]]}, "received an object among them"),
    "null among numbers": ({"instances": [[[[None, 1, 2]]]]}, "received null among them"),
    "booleans among numbers": ({"instances": [[[[True, 1, 2]]]]}, "received a boolean among them"),
    "base64 for numbers": ({"instances": [b64(b"a")]}, "numbers in lists nested 4 deep"),
    "too large for float32": ({"instances": [[[[1e39, 1, 2]]]]}, "between -3.4.* and 3.4.*; one is not"),
    "far too large": (b'{"instances": [[[[' + b"9" * 400 + b", 1, 2]]]]}", "between .*; one is not"),
    "fractions for uint8": ({"signature_name": "uint8_images", "instances": [ONE]}, "whole numbers .*received a number with a"),
    "too large for uint8": ({"signature_name": "uint8_images", "instances": [[[[256, 1, 2]]]]}, "between 0 and 255; one is not"),
    "negative for uint8": ({"signature_name": "uint8_images", "instances": [[[[-1, 1, 2]]]]}, "between 0 and 255; one is not"),
    "numbers for bytes": ({"signature_name": "image_bytes", "instances": [1]}, r"image_bytes\[0\] must be a text or"),
    "lists for bytes": ({"signature_name": "image_bytes", "instances": [["a"]]}, "received a list of 1"),
    "no list of bytes": ({"signature_name": "image_bytes", "inputs": b64(b"a")}, "a list of texts or of"),
    "bad base64": ({"signature_name": "image_bytes", "instances": [{"b64": "a$b"}]}, "base64, received 3 characters"),
    "short base64": ({"signature_name": "image_bytes", "instances": [{"b64": "a"}]}, "base64, received 1 characters"),
    "base64 of another kind": ({"signature_name": "image_bytes", "instances": [{"b64": 1}]}, "with image_bytes"),
    "half a character": (b'{"signature_name": "image_bytes", "instances": ["\\ud800"]}', "a text of whole characters"),
    "ragged texts": ({"signature_name": "words", "inputs": [["a"], ["a", "b"]]}, "equal lengths"),
    "numbers for booleans": ({"signature_name": "flags", "inputs": [1]}, "booleans .*received a number"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name):
    request, message = MISTAKES[name]
    with pytest.raises(RestError, match=message) as caught:
        read(request)
    assert caught.value.status == 400 and len(str(caught.value)) < 400


@pytest.mark.parametrize("request_", [{"instances": [ONE] * 3}, {"inputs": [ONE] * 3}, {"inputs": {"images": [ONE] * 3}}])
def test_too_many_images_are_refused(request_):
    with pytest.raises(RestError, match="at most 2 images in one request, received 3") as caught:
        read(request_, most=2)
    assert caught.value.status == 413


def answer(outputs, by_row):
    return json.loads(write_answer(outputs, by_row), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_one_output_stands_alone_and_several_are_named():
    scores, index = np.array([[0.25, 0.75], [1, 0]], np.float32), np.array([1, 0])
    assert answer({"s": scores}, True) == {"predictions": [[0.25, 0.75], [1.0, 0.0]]}
    assert answer({"s": scores}, False) == {"outputs": [[0.25, 0.75], [1.0, 0.0]]}
    assert answer({"s": scores, "i": index}, True) == {"predictions": [{"i": 1, "s": [0.25, 0.75]}, {"i": 0, "s": [1.0, 0.0]}]}
    assert answer({"s": scores, "i": index}, False) == {"outputs": {"i": [1, 0], "s": [[0.25, 0.75], [1.0, 0.0]]}}


def test_texts_are_text_and_bytes_by_their_name():
    texts = np.array(["é".encode(), b"\xff"], object)
    assert answer({"name": texts}, True) == {"predictions": ["é", "\ufffd"]}
    assert answer({"image_bytes": texts}, True) == {"predictions": [b64("é".encode()), b64(b"\xff")]}
    assert answer({"ok": np.array([True, False])}, False) == {"outputs": [True, False]}


def test_what_is_not_finite_is_null():
    assert answer({"s": np.array([[np.nan, 0.5], [np.inf, -np.inf]], np.float32)}, True) == {
        "predictions": [[None, 0.5], [None, None]]
    }


def test_float32_are_written_with_the_digits_they_have():
    values = np.array([0.2, 1 / 3, 1e-7, 123456.7, 0, -0.1, 3.4e38, 1.1754944e-38, 16777216], np.float32)
    assert b"0.2," in write_answer({"s": values}, True) and b"0.33333334," in write_answer({"s": values}, True)
    np.testing.assert_array_equal(shortest(values).astype(np.float32), values)
    many = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    np.testing.assert_array_equal(shortest(many).astype(np.float32), many)
    assert max(len(repr(value)) for value in shortest(many).tolist()) <= 15


@pytest.mark.parametrize("outputs", [{"a": np.zeros(2), "b": np.zeros(3)}, {"a": np.zeros(())}])
def test_by_row_every_output_has_a_row_per_instance(outputs):
    with pytest.raises(RestError, match="one row per instance"):
        write_answer(outputs, True)
    write_answer(outputs, False)


def test_the_state_of_the_model():
    (version,) = status_of_model(True)["model_version_status"]
    assert version == {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert status_of_model(False)["model_version_status"][0]["state"] == "LOADING"


def test_the_signatures_are_described(tmp_path):
    module = tf.Module()
    double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": double})
    described = metadata_of_model("m", tmp_path)
    assert described["model_spec"] == {"name": "m", "signature_name": "", "version": "1"}
    signature = described["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    shape = {"dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}], "unknown_rank": False}
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT" and signature["inputs"]["x"]["tensor_shape"] == shape
