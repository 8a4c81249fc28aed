"""How the benchmarks measure: interleaved rounds in one process, spread, peak memory in a fresh process, and the machine.

Times. Every round visits every program once, in an order drawn anew, so that a slow minute of the machine falls on all of them
alike; garbage is collected between rounds only. Ratios are taken round by round before their median, for the same reason.

Memory. What the kernel counts: the peak of the resident set (VmHWM, set back to the present by writing 5 to
/proc/self/clear_refs) over the resident set just before the call. Three things make that sound. The program has run before, so
that neither tracing nor the stacks of thread pools count. glibc hands every buffer from 16 KB on back to the kernel once it is
freed (MALLOC_MMAP_THRESHOLD_). And oneDNN is off in that process: its allocator, which TensorFlow then takes for all its
tensors on a CPU, keeps what is freed and hands it out again, so that the next call would look as if it took nothing. (That
allocator's own statistics, `tf.config.experimental.get_memory_info`, count its blocks: 134 MB for a tensor of 100.) The control
shows it: exact but for some 0.2 MB that the kernel does not see, however many buffers there are.
"""

from __future__ import annotations

import gc
import importlib.metadata
import multiprocessing
import os
import platform
import random
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "16384", "TF_ENABLE_ONEDNN_OPTS": "0"}
SLOW_ITEM_EVERY = 5


@dataclass
class Item:
    """One row: `run(n)` does n iterations and returns when they are done. by_round: seconds per iteration, or bytes."""

    name: str
    run: Callable[[int], Any] | None = None
    unit: str = "s"
    note: str = ""
    iterations: int = 1
    by_round: dict[int, float] = field(default_factory=dict)

    def statistics(self) -> dict[str, Any]:
        """The row as JSON: median and quartiles are None where nothing was measured, and `note` says why."""
        found = quartiles(list(self.by_round.values()))
        return {
            "name": self.name,
            "unit": self.unit,
            **{key: found[key] for key in ("median", "q1", "q3")},
            "iterations": self.iterations,
            "note": self.note,
            "by_round": {str(r): v for r, v in self.by_round.items()},
        }


def calibrate(item: Item, seconds: float) -> None:
    """Sets the iterations of one measurement to take about `seconds`; the first call, which traces, is not counted."""
    item.run(1)
    item.iterations = 1
    while (elapsed := timed(item.run, item.iterations)) < seconds / 4:
        item.iterations *= 4
    item.iterations = max(1, round(item.iterations * seconds / elapsed))


def repeated(program: Callable[[], Any]) -> Callable[[int], None]:
    """`Item.run` of a TensorFlow program: it calls it n times and waits for what the last call gives."""
    import tensorflow as tf

    def run(n: int) -> None:
        for _ in range(n):
            outputs = program()
        # An accelerator computes nothing before it is asked for.
        tf.nest.map_structure(lambda value: value.numpy(), outputs)

    return run


def timed(run: Callable[[int], Any], iterations: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call."""
    started = clock()
    run(iterations)
    return clock() - started


def measure(
    items: Sequence[Item],
    *,
    rounds: int,
    seconds: float,
    seed: int,
    report: Callable[[int], None],
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Runs interleaved rounds over calibrated items; an item that takes far longer than `seconds` sits most rounds out."""
    order = random.Random(seed)
    with no_collection():
        # Preparing many programs may have evicted the compiled form of the first ones.
        for item in items:
            item.run(1)
        for number in range(rounds):
            due = list(items)
            order.shuffle(due)
            for item in due:
                slow = item.iterations == 1 and min(item.by_round.values(), default=0.0) > 5 * seconds
                if slow and number % SLOW_ITEM_EVERY:
                    continue
                # Threads of the item before may still spin, and its data fill the caches; this matters for short runs only.
                if item.iterations > 1:
                    item.run(1)
                item.by_round[number] = timed(item.run, item.iterations, clock) / item.iterations
            gc.collect()
            report(number + 1)


@contextmanager
def no_collection() -> Iterator[None]:
    """Collects garbage once and then only on request, new objects only: graphs are very many objects."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def quotient(over: Item, under: Item, minus: Item | None = None) -> list[float]:
    """(over - minus) / under of every round that has all of them; of the medians if no round has."""
    involved = [item for item in (over, under, minus) if item is not None]
    if not all(item.by_round for item in involved):
        return []
    shared = sorted(set.intersection(*(set(item.by_round) for item in involved)))
    if not shared:
        value = [float(np.median(list(item.by_round.values()))) for item in involved]
        return [(value[0] - (value[2] if minus else 0.0)) / value[1]]
    return [(over.by_round[r] - (minus.by_round[r] if minus else 0.0)) / under.by_round[r] for r in shared]


def quartiles(values: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles with the values, as JSON; None where there are none."""
    q1, median, q3 = (float(q) for q in np.percentile(values, [25, 50, 75])) if len(values) else (None,) * 3
    return {"median": median, "q1": q1, "q3": q3, "values": [float(value) for value in values]}


def in_fresh_process(function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Runs function(*arguments) in a new process, with these environment variables added."""
    before = dict(os.environ)
    os.environ.update(environment or {})
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(function, arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)


def peak_bytes(call: Callable[[], Any], repeats: int = 3) -> list[int]:
    """The peak memory of `call` above the memory before it, of each repeat; empty where the kernel does not report it.

    Meant for `in_fresh_process` with the environment FREED_AT_ONCE.
    """
    if not os.access("/proc/self/clear_refs", os.W_OK):
        return []
    for _ in range(2):
        call()
    peaks = []
    for _ in range(repeats):
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        before = _status_bytes("VmRSS")
        call()
        peaks.append(_status_bytes("VmHWM") - before)
    return peaks


def _status_bytes(name: str) -> int:
    return 1024 * int(re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)[1])


def set_threads(threads: int) -> None:
    """Sets the threads of TensorFlow; call before it has done anything."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def facts(threads: int, started: float) -> dict[str, Any]:
    """What every benchmark writes beside its numbers: the command, the day, how long it took, and the machine.

    Args:
        started: `time.perf_counter()` at its start.
    """
    # Where the numbers go is no part of what was measured.
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--json")]
    return {
        "command": shlex.join(["python", f"tools/{Path(sys.argv[0]).name}", *arguments]),
        "date": date.today().isoformat(),
        "seconds": time.perf_counter() - started,
        "machine": machine(threads),
    }


def cores() -> int:
    """The number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(threads: int) -> dict[str, Any]:
    """A description of this machine."""
    cpuinfo, meminfo = (p.read_text() if p.exists() else "" for p in (Path("/proc/cpuinfo"), Path("/proc/meminfo")))
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.M)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.M)
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": cores(),
        "threads": threads,
        "memory_gb": round(int(memory[1]) / 2**20, 1) if memory else None,
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("tensorflow", "keras", "numpy", "torch", "pytorch-metric-learning")},
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
