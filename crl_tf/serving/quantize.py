"""Quantizes a LiteRT model to int8, all but its end, where rare classes would be lost."""

from __future__ import annotations

from typing import Any

from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.python.convert import mlir_quantize
from tensorflow.lite.tools.flatbuffer_utils import convert_bytearray_to_object

MOST_KEPT = 0.1
"""The layers that give the logits stay in float32 where their weights are at most this share of the model."""

SLOW = ("RSQRT", "SQRT")
"""Operations that stay in float32: with them in int8, a network with local response normalisation is slower than in float32."""

_WEIGHTED = frozenset(
    getattr(schema.BuiltinOperator, name)
    for name in ("FULLY_CONNECTED", "BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
)


def quantized(calibrated: bytes) -> bytes:
    """The model in int8, with float32 inputs and outputs, and from its last layer on in float32.

    A score in int8 has steps of 1/256, and so has a threshold: a rare class whose threshold lies below is detected everywhere.
    Logits of all labels in int8 share 256 steps: where two are equal the first class is decided on, which is often the frequent
    one.

    Args:
        calibrated: a LiteRT model with the ranges of its tensors.
    """
    return mlir_quantize(calibrated, denylisted_nodes=_names_of_end(calibrated), denylisted_ops=list(SLOW))


def _names_of_end(content: bytes) -> list[str]:
    """The tensors between the last layers with weights and the outputs, and those that these layers give if they are small."""
    model = convert_bytearray_to_object(content)
    graph = model.subgraphs[0]
    maker = {output: operation for operation in graph.operators for output in operation.outputs}
    answer: set[int] = set()
    layers: set[int] = set()
    waiting = list(graph.outputs)
    while waiting:
        tensor = waiting.pop()
        if tensor not in maker or tensor in answer or tensor in layers:
            continue
        if model.operatorCodes[maker[tensor].opcodeIndex].builtinCode in _WEIGHTED:
            layers.add(tensor)
        else:
            answer.update(maker[tensor].outputs)
            waiting.extend(maker[tensor].inputs)
    weights = {place for tensor in layers for place in maker[tensor].inputs}
    small = sum(_bytes_of(model, graph, place) for place in weights) <= MOST_KEPT * len(content)
    return [graph.tensors[tensor].name.decode() for tensor in sorted(answer | layers if small else answer)]


def _bytes_of(model: Any, graph: Any, tensor: int) -> int:
    """Of the constant in a tensor; -1 is an input that an operation goes without."""
    data = None if tensor < 0 else model.buffers[graph.tensors[tensor].buffer].data
    return 0 if data is None else len(data)
