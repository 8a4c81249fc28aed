"""Warm-up requests, which TensorFlow Serving sends to a model before it takes others: the first request is not slow then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

FILE = "tf_serving_warmup_requests"
"""Its name in `assets.extra/`, as TensorFlow Serving wants it."""

_PREDICT_LOG, _REQUEST, _MODEL, _INPUTS, _SIGNATURE = 6, 1, 1, 2, 3
"""Numbers of fields in tensorflow_serving.apis: PredictionLog.predict_log, PredictLog.request, PredictRequest.model_spec and
.inputs, ModelSpec.signature_name."""


def write_warmup(path: Path, requests: Sequence[tuple[str, Mapping[str, tf.Tensor]]]) -> None:
    """Writes the requests, each a signature's name and its inputs by name.

    The messages are put together here, because the package that defines them needs gRPC.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            writer.write(prediction_log(signature, inputs))


def prediction_log(signature: str, inputs: Mapping[str, tf.Tensor]) -> bytes:
    """A serialized tensorflow_serving.apis.PredictionLog of one request."""
    request = _field(_MODEL, _field(_SIGNATURE, signature.encode()))
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(_INPUTS, _field(1, name.encode()) + _field(2, tensor))
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """A field of Protocol Buffers that holds bytes: its tag, the length as a varint, the bytes."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    low = number & 0x7F
    return bytes([low]) if number < 0x80 else bytes([low | 0x80]) + _varint(number >> 7)
