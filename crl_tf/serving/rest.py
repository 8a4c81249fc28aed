"""TensorFlow Serving's REST contract as pure functions: from a request's JSON to arrays, and from arrays to the answer's JSON.

It is the contract of https://www.tensorflow.org/tfx/serving/api_rest, with four decisions of our own:

- A number that is not finite is `null` in an answer. TensorFlow Serving writes the bare word NaN, which is no JSON, and which
  browsers refuse. In a request NaN, Infinity and -Infinity are read, as TensorFlow Serving reads them.
- A signature that takes no inputs (class_names) is answered; TensorFlow Serving refuses it over REST.
- A request of too many images or pixels, or a body that is too large, has the status 413.
- A path that exists with another method has the status 405.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow.core.protobuf import saved_model_pb2

from crl_tf.serving.export import DEFAULT
from crl_tf.text import shortened

VERSION = "1"
"""The version number of the one model that is served."""

BYTES_SUFFIX = "_bytes"
"""An output of texts whose name ends so holds bytes, which are written as {"b64": ...}."""

_B64 = "b64"
_FLOATS, _INTEGERS = "fc", "iu"


class RestError(Exception):
    """What is wrong with a request, in one line, and the status that answers it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Predict(NamedTuple):
    """A request to predict.

    signature: its name. inputs: arrays by name. by_row: whether it came as `instances`, and is answered as `predictions`.
    """

    signature: str
    inputs: dict[str, np.ndarray]
    by_row: bool


Signatures = Mapping[str, Mapping[str, tf.TensorSpec]]
"""The inputs of every signature by name."""


def inputs_of(signatures: Mapping[str, Any]) -> dict[str, dict[str, tf.TensorSpec]]:
    """The inputs of the signatures of a loaded SavedModel."""
    return {name: dict(signature.structured_input_signature[1]) for name, signature in signatures.items()}


def read_predict(body: bytes, signatures: Signatures, most: int) -> Predict:
    """Reads the body of a request to predict.

    Args:
        signatures: the inputs of every signature.
        most: how many instances, or how long a first axis, are allowed.
    Raises:
        RestError: the body is not what the contract wants.
    """
    request = _json_object(body)
    name = request.get("signature_name", DEFAULT) or DEFAULT
    if not isinstance(name, str):
        raise RestError(f"signature_name must be a text, received {_described(name)}")
    if name not in signatures:
        raise RestError(f"signature_name must be one of {', '.join(sorted(signatures))}; received {shortened(repr(name))}")
    given = [key for key in ("instances", "inputs") if key in request]
    if len(given) != 1:
        raise RestError(f"a request must hold either instances or inputs, received {' and '.join(given) or 'neither'}")
    by_row = given == ["instances"]
    read = _columns_of_rows if by_row else _columns
    columns = read(request[given[0]], signatures[name], most)
    return Predict(name, {key: _array(key, value, signatures[name][key], most) for key, value in columns.items()}, by_row)


def write_answer(outputs: Mapping[str, np.ndarray], by_row: bool) -> bytes:
    """Writes the outputs of a signature: by row as `predictions`, otherwise as `outputs`; one output stands without its name.

    Raises:
        RestError: by row, outputs that are not one per instance.
    """
    plain = {name: _plain(name, values) for name, values in _shortened_floats(outputs).items()}
    if not by_row:
        whole = next(iter(plain.values())) if len(plain) == 1 else plain
        return to_json({"outputs": whole})
    counts = {len(values) if isinstance(values, list) else -1 for values in plain.values()}
    if len(counts) != 1 or -1 in counts:
        raise RestError("instances need outputs of one row per instance, which this signature has not; ask with inputs")
    if len(plain) == 1:
        return to_json({"predictions": next(iter(plain.values()))})
    rows = zip(*plain.values(), strict=True)
    return to_json({"predictions": [dict(zip(plain, row, strict=True)) for row in rows]})


def to_json(content: Any) -> bytes:
    """Strict JSON in UTF-8."""
    return json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def status_of_model(available: bool) -> dict[str, Any]:
    """What TensorFlow Serving says of a model: the state of its versions."""
    status = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": VERSION, "state": "AVAILABLE" if available else "LOADING", "status": status}]}


def metadata_of_model(name: str, folder: Path) -> dict[str, Any]:
    """The signatures of a SavedModel, as TensorFlow Serving describes them.

    Args:
        name: of the model.
        folder: of the SavedModel.
    """
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    signatures = {key: _with_defaults(value) for key, value in saved.meta_graphs[0].signature_def.items()}
    spec = {"name": name, "signature_name": "", "version": VERSION}
    return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}}


def _with_defaults(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except RecursionError:
        raise RestError("the body must be JSON of nested lists; received one that is nested too deeply") from None
    # Among them: bytes that are no UTF-8, and an integer of thousands of digits.
    except ValueError as error:
        raise RestError(f"the body must be JSON, received {len(body)} bytes that are not: {shortened(str(error), 120)}") from None
    if not isinstance(request, dict):
        raise RestError(f"the body must be a JSON object, received {_described(request)}")
    return request


def _columns_of_rows(rows: Any, specs: Mapping[str, tf.TensorSpec], most: int) -> dict[str, Any]:
    """The values of each input, from a list of values or of objects."""
    if not isinstance(rows, list) or not rows:
        raise RestError(f"instances must be a list of at least one value, received {_described(rows)}")
    _at_most("instances", len(rows), most)
    named = [isinstance(row, dict) and not _is_b64(row) for row in rows]
    if not any(named):
        if len(specs) != 1:
            raise RestError(f"instances must be objects with {_names(specs)}, received {_described(rows[0])}")
        return {next(iter(specs)): rows}
    for place, (row, is_named) in enumerate(zip(rows, named, strict=True)):
        if not is_named or set(row) != set(specs):
            received = f"one with {_names(row)}" if is_named else _described(row)
            raise RestError(f"instances[{place}] must be an object with {_names(specs)}, as the others; received {received}")
    return {name: [row[name] for row in rows] for name in specs}


def _columns(value: Any, specs: Mapping[str, tf.TensorSpec], most: int) -> dict[str, Any]:
    """The values of each input, from one value or from an object of named ones."""
    if not isinstance(value, dict) or _is_b64(value):
        if len(specs) != 1:
            raise RestError(f"inputs must be an object with {_names(specs)}, received {_described(value)}")
        value = {next(iter(specs)): value}
    if set(value) != set(specs):
        raise RestError(f"inputs must be an object with {_names(specs)}; received one with {_names(value)}")
    return value


def _array(name: str, value: Any, spec: tf.TensorSpec, most: int) -> np.ndarray:
    """One input as an array of its type and shape."""
    rank = spec.shape.rank
    if isinstance(value, list) and rank:
        _at_most(name, len(value), most)
    array = _texts(name, value, rank) if spec.dtype == tf.string else _numbers(name, value, spec.dtype, rank)
    if not spec.shape.is_compatible_with(array.shape):
        raise RestError(f"{name} must have the shape {_shape(spec.shape)}, received {_shape(array.shape)}")
    return array


def _numbers(name: str, value: Any, dtype: tf.DType, rank: int) -> np.ndarray:
    kind = np.dtype(dtype.as_numpy_dtype)
    allowed: set[type] = {bool} if kind.kind == "b" else {int} if kind.kind in _INTEGERS else {int, float}
    wanted = f"{name} must hold {'booleans' if bool in allowed else 'whole numbers' if float not in allowed else 'numbers'}"
    # One pass in C: a list of 150,000 numbers takes milliseconds.
    innermost: Iterable[Any] = [value]
    for _ in range(rank):
        innermost = chain.from_iterable(innermost)
    try:
        kinds = set(map(type, innermost))
    except TypeError:
        raise RestError(f"{wanted} in lists nested {rank} deep; one is not so deep") from None
    if not kinds <= allowed:
        other = sorted(_KINDS.get(item, item.__name__) for item in kinds - allowed)
        raise RestError(f"{wanted} in lists nested {rank} deep; received {', '.join(other)} among them")
    try:
        array = np.array(value, np.float64 if kind.kind in _FLOATS else kind)
    except OverflowError:
        raise RestError(f"{wanted} {_range(kind)}; one is not") from None
    except (ValueError, TypeError):
        raise RestError(f"{wanted} in lists of equal lengths, nested {rank} deep; some differ") from None
    if kind.kind in _FLOATS and (np.isfinite(array) & (np.abs(array) > np.finfo(kind).max)).any():
        raise RestError(f"{wanted} {_range(kind)}; one is not")
    return array.astype(kind)


def _range(kind: np.dtype) -> str:
    limits = np.finfo(kind) if kind.kind in _FLOATS else np.iinfo(kind)
    return f"between {limits.min} and {limits.max}"


def _texts(name: str, value: Any, rank: int) -> np.ndarray:
    """Texts and {"b64": ...} as bytes, in an array of objects."""
    if rank == 0:
        return np.array(_bytes(name, value), object)
    if not isinstance(value, list):
        raise RestError(f"{name} must be a list of texts or of {{'b64': ...}}, received {_described(value)}")
    items = [_texts(f"{name}[{place}]", item, rank - 1) for place, item in enumerate(value)]
    if len({item.shape for item in items}) > 1:
        raise RestError(f"{name} must hold lists of equal lengths; some differ")
    array = np.empty((len(items), *(items[0].shape if items else (0,) * (rank - 1))), object)
    for place, item in enumerate(items):
        array[place] = item if rank > 1 else item.item()
    return array


def _bytes(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise RestError(f"{name} must be a text of whole characters, or {{'b64': ...}} for bytes") from None
    if not _is_b64(value):
        raise RestError(f"{name} must be a text or {{'b64': ...}}, received {_described(value)}")
    text = value[_B64].rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise RestError(f"{name} must hold base64, received {len(value[_B64])} characters that are not") from None


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {_B64} and isinstance(value[_B64], str)


def _at_most(name: str, count: int, most: int) -> None:
    if count > most:
        raise RestError(f"{name} must hold at most {most} images in one request, received {count}", 413)


def _shortened_floats(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by name, sorted, with `shortest` of the float32 ones: of all at once, because there are many small ones."""
    arrays = {name: np.asarray(values) for name, values in sorted(outputs.items())}
    floats = [array for array in arrays.values() if array.dtype == np.float32]
    if floats:
        flat, start = shortest(np.concatenate([array.ravel() for array in floats])), 0
        for name, array in arrays.items():
            if array.dtype == np.float32:
                arrays[name] = flat[start : start + array.size].reshape(array.shape)
                start += array.size
    return arrays


def _plain(name: str, values: np.ndarray) -> Any:
    """An array as lists of what JSON knows; a number that is not finite as None."""
    if values.dtype.kind in "OSU":
        as_bytes = name.endswith(BYTES_SUFFIX)
        written = [_text(item, as_bytes) for item in values.ravel().tolist()]
        flat = np.empty(len(written), object)
        flat[:] = written
        return flat.reshape(values.shape).tolist()
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        return values.tolist() if finite.all() else np.where(finite, values.astype(np.float64), None).tolist()
    return values.tolist()


def _text(item: bytes | str, as_bytes: bool) -> Any:
    content = item.encode() if isinstance(item, str) else item
    return {_B64: base64.b64encode(content).decode()} if as_bytes else content.decode("utf-8", "replace")


def shortest(values: np.ndarray) -> np.ndarray:
    """float32 as float64 with the fewest digits that give the same float32, as TensorFlow Serving writes them.

    >>> shortest(np.array([0.2, 1 / 3, 5e-9, 0], np.float32)).tolist()
    [0.2, 0.33333334, 5e-09, 0.0]
    """
    wide = values.astype(np.float64)
    if values.dtype != np.float32:
        return wide
    with np.errstate(all="ignore"):
        exponent = np.floor(np.log10(np.abs(wide)))
        found = wide
        for digits in (9, 8, 7, 6):
            scale = 10.0 ** (digits - 1 - exponent)
            rounded = np.round(wide * scale) / scale
            found = np.where(rounded.astype(np.float32) == values, rounded, found)
    return found


_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "a boolean",
    int: "a number",
    float: "a number with a fraction",
    type(None): "null",
}
"""How a value of JSON is called."""


def _described(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{_KINDS[type(value)]} of {len(value)}"
    return f"{_KINDS[type(value)]} ({shortened(json.dumps(value), 40)})"


def _names(names: Iterable[str]) -> str:
    return shortened(", ".join(sorted(names)), 200) or "no inputs"


def _shape(shape: Iterable[int | None]) -> str:
    return "[" + ", ".join("any" if side is None else str(side) for side in shape) + "]"
