"""Times CRL on small models, where a step is the cost of its operations, against Keras's sparse cross-entropy.

    python tools/bench_small.py --json=small.json     everything, with every number written
    python tools/bench_small.py --only=fit            only cases with this in their name
    python tools/bench_small.py --clock=processor --threads=1   where others use the machine too
    python tools/bench_small.py --quick               only checks that it works, in seconds; no figures to quote

Networks of dense layers on 20 numbers, with a label of 10 classes from common to rare: one layer of 16 units, three of 256, and
one of 16 in front of 1,000 and 10,000 classes. Rows:

    fit          a step of `model.fit`, with all that Keras does beside the step
    step         the bare training step, in a loop inside one graph
    first step   `train_on_batch` of a new model in a fresh process, with tracing, without imports and making the model

One process, interleaved rounds, medians with quartiles; ratios to cross-entropy are taken round by round. "again" is a copy
of the first row, and its ratio to that is the noise. Prints Markdown.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import benchmark_tables
import keras
import measuring
import numpy as np
import tensorflow as tf
from absl import app, flags
from measuring import Item
from rich.console import Console

from crl_tf.crl_model import CRLModel
from crl_tf.files import write_json
from crl_tf.losses.crl.loss import CRL
from crl_tf.losses.cross_entropy import MultiLabelCrossEntropy

_ROUNDS = flags.DEFINE_integer("rounds", 15, "visits of every row", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", None, "threads of TensorFlow; default: the machine's", lower_bound=1)
_ONLY = flags.DEFINE_list("only", [], "only cases with one of these in their name, such as fit or step")
_CLOCK = flags.DEFINE_enum(
    "clock", "wall", ["wall", "processor"], "the time that passes, or the processor's, all threads together"
)
_QUICK = flags.DEFINE_bool("quick", False, "tiny sizes and few rows: that it works, not what it takes")
_JSON = flags.DEFINE_string("json", None, "JSON file for every number")

# TensorFlow warns of many tf.functions; this program makes one for every row.
tf.get_logger().setLevel("ERROR")

INPUTS, BATCHES = 20, 4
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
BASELINE, CONTROL = "sparse cross-entropy", "sparse cross-entropy, again"


class Case(NamedTuple):
    """What the rows of one comparison share. units: of each hidden layer."""

    kind: str
    units: tuple[int, ...]
    batch: int
    classes: int = 10

    @property
    def name(self) -> str:
        width = f"{len(self.units)} x {self.units[0]}" if len(self.units) > 1 else self.units[0]
        return f"{self.kind}, {width} units, {self.classes:,} classes, batch {self.batch}"


TINY, SMALL = (16,), (256, 256, 256)
FULL = (
    *(Case("fit", TINY, batch) for batch in (32, 256, 1024)),
    *(Case("fit", SMALL, batch) for batch in (32, 256)),
    *(Case("step", TINY, batch) for batch in (32, 256, 1024)),
    *(Case("step", TINY, 256, classes) for classes in (1_000, 10_000)),
    Case("first step", TINY, 32),
)
QUICK = (Case("fit", (4,), 8, 3), Case("step", (4,), 8, 3), Case("first step", (4,), 8, 3))


def losses(case: Case) -> dict[str, Callable[[], keras.losses.Loss]]:
    """What is compared, by the name of its row."""
    sparse = partial(keras.losses.SparseCategoricalCrossentropy, from_logits=True)
    found: dict[str, Callable[[], keras.losses.Loss]] = {BASELINE: sparse, CONTROL: sparse}
    comparisons = {"class_rel": "relative", "class_abs": "absolute", "class_dis": "distribution"}
    if case.kind == "first step":  # a fresh process for each
        comparisons = {"class_rel": "relative"}
    else:
        found["MultiLabelCrossEntropy"] = partial(MultiLabelCrossEntropy, case.classes)
    for name, comparison in comparisons.items():
        found[name] = partial(CRL, case.classes, comparison=comparison, alpha=0.5)
    found["class_rel in a CRLModel"] = found["class_rel"]
    return found


def make_model(case: Case, row: str) -> keras.Model:
    """A new, compiled model."""
    inputs = hidden = keras.Input((INPUTS,))
    for units in case.units:
        hidden = keras.layers.Dense(units, "relu")(hidden)
    logits = keras.layers.Dense(case.classes)(hidden)
    if row.endswith("CRLModel"):
        model = CRLModel(keras.Model(inputs, {"features": hidden, "logits": logits}))
    else:
        model = keras.Model(inputs, logits)
    # So small a rate that the thousandth step is the same work as the first.
    model.compile(keras.optimizers.SGD(1e-6), loss=losses(case)[row]())
    return model


def make_batches(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Noise float32 [BATCHES B, inputs], and labels [BATCHES B] whose frequencies fall to a twentieth."""
    rng = np.random.default_rng(0)
    frequency = np.geomspace(1.0, 0.05, case.classes)
    labels = rng.choice(case.classes, BATCHES * case.batch, p=frequency / frequency.sum())
    return rng.normal(size=(len(labels), INPUTS)).astype(np.float32), labels.astype(np.int32)


def fit(case: Case, row: str) -> Callable[[int], None]:
    """run(n): n steps of one `fit`."""
    model = make_model(case, row)
    batches = tf.data.Dataset.from_tensor_slices(make_batches(case)).batch(case.batch).repeat().prefetch(2)
    options = tf.data.Options()
    # Autotuning makes the end of an iterator wait, by up to seconds.
    options.autotune.enabled = False
    batches = batches.with_options(options)
    return lambda steps: model.fit(batches, steps_per_epoch=steps, verbose=0)


def bare_step(case: Case, row: str) -> Callable[[int], float]:
    """run(n): n training steps in one graph."""
    model = make_model(case, row)
    inputs, labels = (tf.constant(part.reshape(BATCHES, case.batch, *part.shape[1:])) for part in make_batches(case))
    # Builds what the step keeps (slots of the optimizer, metrics).
    model.train_step((inputs[0], labels[0]))
    step = tf.function(lambda x, y: model.train_step((x, y))["loss"])

    @tf.function
    def loop(steps: tf.Tensor) -> tf.Tensor:
        def body(i: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return i + 1, step(tf.gather(inputs, i % BATCHES), tf.gather(labels, i % BATCHES))

        return tf.while_loop(lambda i, _: i < steps, body, (tf.constant(0), tf.constant(0.0)), parallel_iterations=1)[1]

    return lambda steps: float(loop(tf.constant(steps)))


def first_step(case: Case, row: str, threads: int, clock: str) -> float:
    """Seconds of a new model's first training step; called in a fresh process."""
    measuring.set_threads(threads)
    model = make_model(case, row)
    inputs, labels = (part[: case.batch] for part in make_batches(case))
    started = CLOCKS[clock]()
    model.train_on_batch(inputs, labels)
    return CLOCKS[clock]() - started


PROGRAMS: dict[str, Callable[[Case, str], Callable[[int], Any]]] = {"fit": fit, "step": bare_step}


def items_of(case: Case, rounds: int, seconds: float, threads: int, clock: str) -> dict[str, Item]:
    """The measured rows of a case."""
    items = {row: Item(row) for row in losses(case)}
    if case.kind == "first step":
        for number in range(max(1, rounds // 3)):
            for row, item in items.items():
                item.by_round[number] = measuring.in_fresh_process(first_step, case, row, threads, clock)
        return items
    if case.kind == "fit":
        seconds *= 5  # or what `fit` does before its first step would show
    for row, item in items.items():
        item.run = PROGRAMS[case.kind](case, row)
        measuring.calibrate(item, seconds)
    measuring.measure(list(items.values()), rounds=rounds, seconds=seconds, seed=0, report=lambda _: None, clock=CLOCKS[clock])
    return items


def result_of(items: dict[str, Item]) -> list[dict[str, Any]]:
    """Medians and quartiles of a case, as JSON, with ratios to the baseline."""
    shown = []
    for row, item in items.items():
        shown.append({**item.statistics(), "name": row, "ratio": measuring.quartiles(measuring.quotient(item, items[BASELINE]))})
    return shown


def run(argv: Sequence[str]) -> None:
    """Measures what the flags say, prints the tables and writes --json."""
    if len(argv) > 1:
        sys.exit(f"bench_small: takes flags only, received {argv[1]!r}")
    known, rounds, seconds = (QUICK, 2, 0.002) if _QUICK.value else (FULL, _ROUNDS.value, 0.2)
    cases = [case for case in known if not _ONLY.value or any(part in case.name for part in _ONLY.value)]
    if not cases:
        sys.exit(f"bench_small: --only={','.join(_ONLY.value)!r} is in no case's name")
    threads = _THREADS.value or measuring.cores()
    measuring.set_threads(threads)
    keras.utils.set_random_seed(0)
    started, found, progress = time.perf_counter(), {}, Console(stderr=True)
    for case in cases:
        progress.print(f"measuring {case.name}", highlight=False)
        found[case.name] = result_of(items_of(case, rounds, seconds, threads, _CLOCK.value))
        keras.backend.clear_session()
    result = {**measuring.facts(threads, started), "clock": _CLOCK.value, "rounds": rounds, "cases": found}
    benchmark_tables.show(result, benchmark_tables.small(result), in_markdown=True)
    if _JSON.value:
        write_json(Path(_JSON.value), result)


if __name__ == "__main__":
    app.run(run)
