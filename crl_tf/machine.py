"""What this process may use of the machine."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16")
"""What Linux calls the instructions of a processor that multiply bfloat16, the faster ones first."""

BFLOAT16_CAPABILITY = (8, 0)
"""The compute capability from which on NVIDIA's GPUs multiply bfloat16."""


class Bfloat16(NamedTuple):
    """Whether this machine multiplies bfloat16 by instructions of its own, and by which, or what it lacks, in words."""

    fast: bool
    why: str


def usable_cores() -> int:
    """Processor cores that this process may use; in a container they can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def bfloat16() -> Bfloat16:
    """Says whether what TensorFlow will compute on, its GPUs or else the processor, multiplies bfloat16 itself."""
    if capabilities := gpu_capabilities():
        # The slowest one decides: a batch is shared among them.
        version = min(capabilities)
        words = "the GPU has compute capability " + ".".join(map(str, version))
        fast = version >= BFLOAT16_CAPABILITY
        return Bfloat16(fast, words if fast else f"{words}, less than {'.'.join(map(str, BFLOAT16_CAPABILITY))}")
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        return Bfloat16(False, "oneDNN, whose bfloat16 is fast, is off (TF_ENABLE_ONEDNN_OPTS=0)")
    own = processor_flags()
    found = next((flag for flag in BFLOAT16_FLAGS if flag in own), None)
    return Bfloat16(found is not None, "the processor has " + (found or "neither " + " nor ".join(BFLOAT16_FLAGS)))


def gpu_capabilities() -> list[tuple[int, ...]]:
    """The compute capability of every GPU that TensorFlow sees; (0, 0) for one that has none."""
    # Not above: what counts cores need not load TensorFlow.
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    return [tuple(tf.config.experimental.get_device_details(gpu).get("compute_capability") or (0, 0)) for gpu in gpus]


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The instruction sets of the processor, as Linux calls them; none on other systems."""
    try:
        found = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.M)
    except OSError:
        found = None
    return frozenset(found[1].split()) if found else frozenset()
