"""Converts a trained model to LiteRT and ONNX: a graph of fixed image size, with named outputs and the decision inside."""

from __future__ import annotations

import importlib
import io
import json
import logging
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from crl_tf.files import write_whole
from crl_tf.quiet import without_native_messages
from crl_tf.schema import AttributeSchema
from crl_tf.serving.export import CARD, description
from crl_tf.serving.quantize import quantized
from crl_tf.serving.scoring import DETECTED, INDEX, SCORES, Scoring
from crl_tf.text import shortened

SIGNATURE = "serving_default"
OPSET = 17
"""The version of ONNX's operators; onnxruntime 1.13 and later have it."""

Frozen = Any
"""A tf.function from images to outputs by name."""

Convert = Callable[[Frozen, Iterable[np.ndarray], str], bytes]


@dataclass(frozen=True)
class Conversion:
    """A row of `CONVERSIONS`.

    file: the name of what is written. extra: what has to be installed. modules: that must be importable. convert: from the frozen
    graph, calibration batches, each float32 [1, H, W, 3], and the text of the card, to the content of the file. calibrated:
    whether it needs these batches.
    """

    file: str
    extra: str
    modules: tuple[str, ...]
    convert: Convert
    calibrated: bool = False


def check_installed(kinds: Sequence[str]) -> None:
    """Refuses conversions whose libraries are missing, before anything is trained or read.

    Raises:
        ImportError: it names the extra.
    """
    for kind in kinds:
        row = CONVERSIONS[kind]
        for module in row.modules:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise ImportError(f"export={kind} needs {module}: pip install 'crl_tf[{row.extra}]'") from error


def convert(
    model: keras.Model,
    schema: AttributeSchema,
    image_size: Sequence[int],
    path: Path,
    kind: str,
    *,
    scoring: Scoring | None = None,
    calibration: np.ndarray | None = None,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Converts a model and writes the file.

    Its input: `images`, float32 [B, H, W, 3] in [0, 255], of the size that the model was trained with. Its outputs, by label:
    LABEL_scores float32 [B, C], LABEL_index int32 [B]; with thresholds LABEL_detected bool [B, C]. Unlike a SavedModel it does
    not look for NaN among the pixels. The names of the classes are in the file: `crl_tf.serving.converted.card_of`.

    Args:
        model: maps images to concatenated logits.
        path: of the file, which is replaced.
        kind: a row of `CONVERSIONS`.
        scoring: how scores and decisions are made of logits; None: softmax, and the largest.
        calibration: images, uint8 or float [n, H, W, 3], for a kind that is calibrated.
        card: JSON-ready, added to the labels, the image size and the scoring, as in `export_saved_model`.
    Raises:
        ImportError: the libraries are missing. ValueError: the model has an operation that the format lacks.
    """
    if kind not in CONVERSIONS:
        raise ValueError(f"kind must be one of {list(CONVERSIONS)}, received {kind!r}")
    row = CONVERSIONS[kind]
    if row.calibrated and (calibration is None or not len(calibration)):
        raise ValueError(f"calibration must hold images for {kind}, received none")
    check_installed([kind])
    size, scoring = (int(image_size[0]), int(image_size[1])), scoring or Scoring()
    text = json.dumps(description(schema, size, scoring, card), allow_nan=False)
    frozen = frozen_graph(in_float32(model), schema, size, scoring)
    images = np.zeros((0, *size, 3)) if calibration is None else calibration
    content = row.convert(frozen, (np.asarray(images[i : i + 1], np.float32) for i in range(len(images))), text)
    write_whole(path, lambda partial: partial.write_bytes(content))


def in_float32(model: keras.Model) -> keras.Model:
    """A model with the same weights, which are float32, that computes in float32 too: the formats have no bfloat16."""
    if not _halves(model):
        return model
    described = json.dumps(keras.saving.serialize_keras_object(model))
    copy = keras.saving.deserialize_keras_object(json.loads(re.sub(r'"mixed_b?float16"', '"float32"', described)))
    copy.set_weights(model.get_weights())
    return copy


def _halves(layer: keras.layers.Layer) -> bool:
    """Whether a layer, or one inside it, computes in 16 bits."""
    return "float16" in layer.compute_dtype or any(_halves(inner) for inner in getattr(layer, "layers", ()))


def frozen_graph(model: keras.Model, schema: AttributeSchema, size: tuple[int, int], scoring: Scoring) -> Frozen:
    """A tf.function from images [B, *size, 3] to the outputs by name, whose weights are constants."""

    @tf.function(input_signature=[tf.TensorSpec([None, *size, 3], tf.float32, name="images")], autograph=False)
    def outputs(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return _plain_answers(tf.cast(model(images, training=False), tf.float32), schema, scoring)

    concrete = outputs.get_concrete_function()
    # Nothing else makes constants of Keras's variables, which the converters do not find. Functions are inlined: within the body
    # of a loop ONNX has none.
    constant = convert_variables_to_constants_v2(concrete, lower_control_flow=False, aggressive_inlining=True)
    names = sorted(concrete.structured_outputs)

    @tf.function(input_signature=outputs.input_signature, autograph=False)
    def frozen(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(names, constant(images), strict=True))

    return frozen


def _plain_answers(logits: tf.Tensor, schema: AttributeSchema, scoring: Scoring) -> dict[str, tf.Tensor]:
    """As `crl_tf.serving.scoring.answers`, of operations that every format has: a softmax for each label by itself, no texts."""
    found = {}
    for place, attribute in enumerate(schema.attributes):
        columns = schema.columns(attribute.name)
        of_label = logits[:, columns]
        if scoring.temperatures is not None:
            of_label = of_label / float(scoring.temperatures[place])
        if scoring.offsets is not None:
            of_label = of_label + np.asarray(scoring.offsets, np.float32)[columns]
        scores = tf.nn.softmax(of_label)
        deciding = of_label
        if scoring.decision_offsets is not None:
            deciding = of_label + np.asarray(scoring.decision_offsets, np.float32)[columns]
        found[attribute.name + SCORES] = scores
        found[attribute.name + INDEX] = tf.argmax(deciding, axis=-1, output_type=tf.int32)
        if scoring.thresholds is not None:
            found[attribute.name + DETECTED] = scores >= np.asarray(scoring.thresholds, np.float32)[columns]
    return found


def _litert(*, float16: bool = False, int8: bool = False) -> Convert:
    def convert_to(frozen: Frozen, batches: Iterable[np.ndarray], card: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            # A SavedModel keeps the names of inputs and outputs, which a function alone loses.
            # Gradients, which nobody asks for here, cannot be saved of a frozen graph: silu has one of its own.
            plain = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
            tf.saved_model.save(tf.Module(), folder, signatures={SIGNATURE: frozen}, options=plain)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
            converter.optimizations = [tf.lite.Optimize.DEFAULT] if float16 or int8 else []
            if float16:
                converter.target_spec.supported_types = [tf.float16]
            if int8:
                converter.representative_dataset = lambda: ({"images": batch} for batch in batches)
                # What has no form in int8 stays in float32.
                builtins = (tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS)
                converter.target_spec.supported_ops = list(builtins)
                converter._experimental_calibrate_only = True
            try:
                # It calibrates by TensorFlow's own interpreter, which announces that it will go.
                with warnings.catch_warnings(), without_native_messages():
                    warnings.simplefilter("ignore")
                    content = converter.convert()
                    content = quantized(content) if int8 else content
            # The converter has a type of its own; all say which operations are missing.
            except Exception as error:
                raise ValueError(f"LiteRT cannot hold this model: {shortened(str(error), 400)}") from error
        return content + _attached(card)

    return convert_to


def _attached(card: str) -> bytes:
    """A ZIP with the card, which follows a LiteRT model as files that belong to one do; an interpreter does not see it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        # With a date of its own, so that the same model gives the same file.
        archive.writestr(zipfile.ZipInfo(CARD), card, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _onnx(frozen: Frozen, batches: Iterable[np.ndarray], card: str) -> bytes:
    import onnx
    import tf2onnx

    # It logs what it does as warnings, and what fails as errors; what fails is raised here.
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL + 1)
    try:
        proto, _ = tf2onnx.convert.from_function(frozen, input_signature=frozen.input_signature, opset=OPSET)
        # It calls a graph converted whose operations it does not know, and leaves them in.
        known = {"", "ai.onnx"}
        nodes = _nodes(proto.graph)
        foreign = sorted({n.op_type for n in nodes if n.domain not in known or not onnx.defs.has(n.op_type, n.domain)})
        if foreign:
            raise ValueError(f"operations without a form in ONNX: {', '.join(foreign)}")
        for value in (*proto.graph.input, *proto.graph.output):
            # Else each has an unknown size of its own.
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
        onnx.helper.set_model_props(proto, {CARD: card})
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise ValueError(f"ONNX cannot hold this model: {shortened(str(error), 400)}") from error
    return proto.SerializeToString()


def _nodes(graph: Any) -> Iterator[Any]:
    """The operations of an ONNX graph and of the graphs in it, the bodies of loops."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


_LITERT = ("ai_edge_litert.interpreter",)
CONVERSIONS: dict[str, Conversion] = {
    "litert": Conversion("model.tflite", "litert", _LITERT, _litert()),
    "litert_float16": Conversion("model_float16.tflite", "litert", _LITERT, _litert(float16=True)),
    "litert_int8": Conversion("model_int8.tflite", "litert", _LITERT, _litert(int8=True), calibrated=True),
    "onnx": Conversion("model.onnx", "onnx", ("tf2onnx", "onnx", "onnxruntime"), _onnx),
}
"""The formats. A new one is a row here."""
