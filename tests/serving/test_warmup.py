"""Warm-up requests are read by the package that defines them as they were meant."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from crl_tf.serving.warmup import FILE, prediction_log, write_warmup

INPUTS = {
    "floats": tf.constant(np.random.default_rng(0).normal(size=(2, 3, 4, 3)), tf.float32),
    "bytes": tf.constant(np.arange(48).reshape(1, 4, 4, 3), tf.uint8),
    "texts": tf.constant([b"", b"\xff\xd8 no text \x00", "ü".encode()]),
    "none": tf.zeros([0, 2], tf.float32),
}


def check(log, signature, inputs):
    assert log.WhichOneof("log_type") == "predict_log"
    request = log.predict_log.request
    assert request.model_spec.signature_name == signature and set(request.inputs) == set(inputs)
    for name, value in inputs.items():
        np.testing.assert_array_equal(tf.make_ndarray(request.inputs[name]), value.numpy())
        assert request.inputs[name].dtype == value.dtype.as_datatype_enum


@pytest.mark.parametrize("names", [(), *((name,) for name in INPUTS), tuple(INPUTS)], ids="+".join)
def test_a_request_is_read_as_it_was_meant(names):
    inputs = {name: INPUTS[name] for name in names}
    for signature in ("serving_default", "", "a signature with ä name" * 20):
        check(PredictionLog.FromString(prediction_log(signature, inputs)), signature, inputs)


@pytest.mark.parametrize("length", [0, 1, 100, 127, 128, 16_383, 16_384, 2**21, 2**21 + 1])
def test_contents_of_any_length_are_read(length):
    inputs = {"image_bytes": tf.constant([b"x" * length])}
    check(PredictionLog.FromString(prediction_log("image_bytes", inputs)), "image_bytes", inputs)


def test_a_file_holds_the_requests_in_their_order(tmp_path):
    requests = [(name, {name: value}) for name, value in INPUTS.items()]
    write_warmup(tmp_path / FILE, requests)
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / FILE))]
    for record, (signature, inputs) in zip(records, requests, strict=True):
        check(PredictionLog.FromString(record), signature, inputs)
