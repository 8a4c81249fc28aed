"""Times the operations that the losses consist of in bfloat16 beside float32, on one thread.

    python tools/bench_operations.py --json=bench.json
    python tools/bench_operations.py --quick                only that it works: no figures to quote

Sizes are those of the instance level on celeba: 40 labels, 60 anchors of each, 256 images, 64 features. An operation is repeated
in a loop inside one graph, on operands that change with each turn, so that none of them is computed once for all.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import benchmark_tables
import measuring
import numpy as np
import tensorflow as tf
from absl import app, flags
from measuring import Item

from crl_tf.files import write_json

_ROUNDS = flags.DEFINE_integer("rounds", 15, "visits of every row", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 0.2, "a row is repeated for so long", lower_bound=0.0)
_QUICK = flags.DEFINE_bool("quick", False, "tiny sizes, 2 rounds: that it works, not what it takes")
_JSON = flags.DEFINE_string("json", None, "JSON file for every number")

LABELS, ANCHORS, IMAGES, FEATURES, KAPPA = 40, 60, 256, 64, 25
SINGLE, HALF, CONTROL = "float32", "bfloat16", "float32, again"
RATIOS = {"bfloat16": HALF, "control": CONTROL}


def operations(size: int, dtype: str) -> dict[str, Callable[[tf.Tensor], tf.Tensor]]:
    """Each operation of a number that changes; `size` labels."""
    rng = np.random.default_rng(0)
    shapes = ((size, ANCHORS, IMAGES), (size, ANCHORS, IMAGES), (size, ANCHORS, FEATURES), (size, IMAGES, FEATURES))
    scores, others, anchors, features = (tf.cast(rng.normal(size=shape), dtype) for shape in shapes)
    return {
        "difference, then ReLU": lambda number: tf.nn.relu(scores - others + number),
        "sum over images": lambda number: tf.reduce_sum(scores + number, axis=-1),
        "choice by a condition": lambda number: tf.where(scores > number, scores, others),
        "product of anchors and features": lambda number: tf.matmul(anchors + number, features, transpose_b=True),
        f"top_k, {KAPPA} of {IMAGES}": lambda number: tf.math.top_k(scores + number, KAPPA)[0],
    }


def repeated_in_a_graph(operation: Callable[[tf.Tensor], tf.Tensor], dtype: str) -> Callable[[int], None]:
    """`Item.run` of an operation."""

    @tf.function
    def loop(times: tf.Tensor) -> tf.Tensor:
        total = tf.constant(0.0)
        for turn in tf.range(times):
            found = operation(tf.cast(turn, dtype))
            total += tf.cast(tf.reshape(found, [-1])[0], tf.float32)
        return total

    return lambda times: loop(tf.constant(times)).numpy()


def main(argv: Sequence[str]) -> None:
    """Measures, prints the table and writes --json."""
    if len(argv) > 1:
        sys.exit(f"bench_operations: takes flags only, received {argv[1]!r}")
    size, rounds, seconds = (2, 2, 0.005) if _QUICK.value else (LABELS, _ROUNDS.value, _SECONDS.value)
    started = time.perf_counter()
    measuring.set_threads(1)
    items = {
        (operation, name): Item(f"{operation}, {name}", repeated_in_a_graph(program, dtype))
        for name, dtype in ((SINGLE, "float32"), (HALF, "bfloat16"), (CONTROL, "float32"))
        for operation, program in operations(size, dtype).items()
    }
    for item in items.values():
        measuring.calibrate(item, seconds)
    measuring.measure(
        list(items.values()), rounds=rounds, seconds=seconds, seed=0, report=lambda _: None, clock=time.process_time
    )
    rows = {}
    for operation in operations(1, "float32"):
        single = items[operation, SINGLE]
        ratios = {key: measuring.quotient(items[operation, name], single) for key, name in RATIOS.items()}
        found = {"seconds": list(single.by_round.values()), **ratios}
        rows[operation] = {key: measuring.quartiles(values) for key, values in found.items()}
    result = {**measuring.facts(1, started), "rounds": rounds, "rows": rows}
    benchmark_tables.show(result, benchmark_tables.operations(result))
    if _JSON.value:
        write_json(Path(_JSON.value), result)


if __name__ == "__main__":
    app.run(main)
