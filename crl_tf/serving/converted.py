"""Runs converted files: LiteRT and ONNX behind one interface."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from crl_tf.machine import usable_cores
from crl_tf.quiet import without_native_messages
from crl_tf.serving.export import CARD

Run = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From images, uint8 or float [B, H, W, 3] in [0, 255], to outputs by their names."""


def load_converted(path: Path, *, threads: int | None = None) -> Run:
    """Loads a file that `crl_tf.serving.convert` wrote.

    Args:
        path: ends in .tflite or .onnx. threads: that compute; None: one per core.
    Raises:
        ImportError: its library is missing. ValueError: another file, or a damaged one.
    """
    path = _checked(path)
    run = _LOADERS[path.suffix](path, threads or usable_cores())
    return lambda images: run(np.asarray(images, np.float32))


def card_of(path: Path) -> dict[str, Any]:
    """What a converted file says of itself: labels and classes, image size, scoring, and what is known of the model.

    Without this package: of LiteRT `zipfile.ZipFile(path).read("model.json")`, of ONNX "model.json" among the session's
    `get_modelmeta().custom_metadata_map`.

    Raises:
        ImportError: its library is missing. ValueError: another file, or a damaged one.
    """
    path = _checked(path)
    try:
        return json.loads(_CARDS[path.suffix](path))
    except (KeyError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise ValueError(f"{path} holds no {CARD}, which this program puts into every file that it converts") from error


def _checked(path: Path) -> Path:
    path = Path(path)
    if path.suffix not in _LOADERS:
        raise ValueError(f"path must end in {' or '.join(_LOADERS)}, received {str(path)!r}")
    return path


def _litert(path: Path, threads: int) -> Run:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError(f"{path} needs ai-edge-litert: pip install 'crl_tf[litert]'") from error
    try:
        # From its content: a file that is replaced while it is mapped ends the process.
        # It announces its delegate.
        with without_native_messages():
            interpreter = Interpreter(model_content=path.read_bytes(), num_threads=threads)
            interpreter.allocate_tensors()
        signature = interpreter.get_signature_runner()
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is no LiteRT model: {error}") from error

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        # Copies: the next call overwrites the buffers.
        return {name: np.array(value) for name, value in signature(images=images).items()}

    # The runner refers to the interpreter weakly.
    run.interpreter = interpreter  # type: ignore[attr-defined]
    return run


def _onnx(path: Path, threads: int) -> Run:
    session = _session(path, threads)
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"{path} needs onnxruntime: pip install 'crl_tf[onnx]'") from error
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    # Its errors have types of their own below Exception.
    except Exception as error:
        raise ValueError(f"{path} is no ONNX model: {error}") from error


def _card_of_litert(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(CARD)


def _card_of_onnx(path: Path) -> str:
    return _session(path, 1).get_modelmeta().custom_metadata_map[CARD]


_LOADERS = {".tflite": _litert, ".onnx": _onnx}
_CARDS: dict[str, Callable[[Path], bytes | str]] = {".tflite": _card_of_litert, ".onnx": _card_of_onnx}
