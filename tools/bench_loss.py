"""Times the losses, beside cross-entropy, a training step, their readable form, naive loops and pytorch-metric-learning.

    python tools/bench_loss.py --json=bench.json                    everything, with every number written
    python tools/bench_loss.py --settings=celeba --only=loss       one setting; only rows that this regular expression finds
    python tools/bench_loss.py --markdown                          tables for docs/performance.md
    python tools/bench_loss.py --quick                             only checks that it works, in seconds; no figures to quote

Settings: celeba (40 binary labels, batch 256), xdomain (9 labels, 178 classes, batch 128), cifar (100 classes, batch 256);
synthetic batches with their imbalance. Rows:

    loss           value and gradient of the whole objective, cross-entropy included, in a loop inside one graph
    rectification  the same of L_crl alone, which is what `naive` and `pytorch-metric-learning` compute; "readable" is the form
                   with every triplet (`class_rectification_loss(..., form="readable")`), without suffix the fast form that runs
    step           a whole training step of the setting's network
    memory         the most that value and gradient of the objective hold at once (tools/measuring.py says how)
    first step     `train_on_batch` of a new model in a fresh process, with tracing, without imports and making the model

One process, interleaved rounds, medians with quartiles; "again" is a second copy of a program, and its ratio to the first is the
noise. Before anything is timed, naive loops and pytorch-metric-learning must give our values and our gradients.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import benchmark_tables
import keras
import loss_programs as programs
import measuring
import numpy as np
import tensorflow as tf
from absl import app, flags
from loss_programs import Batches, Setting
from measuring import Item
from naive_crl import NOT_INSTALLED, checked_metric_learning, checked_naive
from rich.console import Console

from crl_tf.files import write_json
from crl_tf.losses.crl.loss import CRL
from crl_tf.losses.cross_entropy import MultiLabelCrossEntropy

_SETTINGS = flags.DEFINE_list("settings", ["celeba", "xdomain", "cifar"], "which settings")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "visits of every row", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", None, "threads of TensorFlow and of torch; default: the machine's", lower_bound=1)
_ONLY = flags.DEFINE_list("only", [], "only rows whose name one of these finds, such as loss/class_relative$")
_QUICK = flags.DEFINE_bool("quick", False, "tiny sizes and few rows: that it works, not what it takes")
_MARKDOWN = flags.DEFINE_bool("markdown", False, "print tables as markdown")
_JSON = flags.DEFINE_string("json", None, "JSON file for every number")

# TensorFlow warns of many tf.functions; this program makes one for every row.
tf.get_logger().setLevel("ERROR")

Run = Callable[[int], Any]
LEVELS = ("class", "instance")
CONTROL = "control: a temporary of 100 MB"
STEP_BARS = {
    **{("class", comparison): bar for comparison, bar in (("relative", 0.8), ("absolute", 0.8), ("distribution", 1.0))},
    **{("instance", comparison): 10.0 for comparison in ("relative", "absolute", "distribution")},
}
"""At most so many % of a step, more than cross-entropy."""


class Plan(NamedTuple):
    """How much is run. batches: two larger batches; the first one is also run with both kappas.

    others: rows to run besides those that a ratio needs; None for all.
    """

    comparisons: tuple[str, ...] = ("relative", "absolute", "distribution")
    kappas: tuple[int, int] = (25, 175)
    batches: tuple[int, int] = (1024, 4096)
    seconds: float = 0.2
    fresh_processes: int = 3
    others: tuple[str, ...] | None = None


FULL = Plan()
QUICK = Plan(("relative",), (3, 6), (48, 96), 0.002, 1, ("celeba/loss/cross_entropy XLA", "cifar/loss/empty loop"))


class Ratio(NamedTuple):
    """(over - minus) / under, or `over` itself; bar: at most, or for "x faster" at least, in what it is shown in."""

    name: str
    over: str
    under: str | None
    bar: float | None = None
    form: str = "%"
    minus: str | None = None

    def shown(self, value: float) -> float:
        return {"%": 100 * value, "% more": 100 * (value - 1), "MB": value / 1e6}.get(self.form, value)

    def met(self, value: float) -> bool | None:
        if self.bar is None:
            return None
        return value >= self.bar if self.form == "x faster" else value <= self.bar


def ratios(plan: Plan) -> list[Ratio]:
    """The ratios that are shown, some of them with a bar."""
    kappa, (middle, large) = plan.kappas[1], plan.batches
    step, entropy = "celeba/step/cross_entropy", "celeba/loss/cross_entropy"
    listed = []
    for level, comparison in itertools.product(LEVELS, plan.comparisons):
        one = f"{level}_{comparison}"
        listed.append(Ratio(f"{one} over a training step", f"celeba/loss/{one}", step))
        for precision, under in (("", step), ("bfloat16 ", f"{step} bfloat16")):
            name = f"{one} over a {precision}training step, less cross-entropy"
            listed.append(Ratio(name, f"celeba/loss/{one}", under, STEP_BARS[level, comparison], minus=entropy))
    for one in (f"{level}_{comparison}" for level in LEVELS for comparison in plan.comparisons):
        fast = f"celeba/rectification/{one}"
        listed.append(Ratio(f"{one}: the readable form over the fast one", f"{fast} readable", fast, None, "x"))
        listed.append(Ratio(f"{one}: what the fast form saves of a training step", f"{fast} readable", step, minus=fast))
    every = "scope=all over minority"
    listed += [
        Ratio("cross-entropy over a training step", entropy, step),
        Ratio(f"{every}, training step", "celeba/step/class_relative scope=all", "celeba/step/class_relative", 1.0, "% more"),
        Ratio(
            f"{every}, in the graph, of a training step",
            "celeba/loss/class_relative scope=all",
            step,
            minus="celeba/loss/class_relative",
        ),
    ]
    for setting, bar in (("celeba", 15.0), ("xdomain", 12.0)):
        for one in (f"class_{comparison}" for comparison in plan.comparisons):
            held = bar if one == "class_relative" else None
            listed.append(
                Ratio(f"{setting}: naive {one}", f"{setting}/naive/{one}", f"{setting}/rectification/{one}", held, "x faster")
            )
        for mining, held in (("with top-k mining", 3.0), ("without mining", None)):
            over = f"{setting}/pytorch-metric-learning/{mining}"
            name = f"{setting}: pytorch-metric-learning, {mining}"
            listed.append(Ratio(name, over, f"{setting}/rectification/instance_relative", held, "x faster"))
    for one in (f"class_{comparison}" for comparison in plan.comparisons):
        base = f"celeba/loss/{one}"
        listed.append(Ratio(f"{one}, batch to {large}", f"{base} batch={large}", base, 8.0, "x"))
        wide = f"{base} batch={middle}"
        listed.append(Ratio(f"{one}, kappa to {kappa}, batch {middle}", f"{wide} kappa={kappa}", wide, 5.0, "x"))
    for level, bar in (("class", 6.0), ("instance", 36.0)):
        for one in (f"{level}_{comparison}" for comparison in plan.comparisons):
            listed.append(Ratio(f"{one}, peak memory", f"celeba/memory/{one}", None, bar, "MB"))
    listed += [Ratio(f"{level}, first step", f"xdomain/first step/{level}_relative", None, 5.0, "s") for level in LEVELS]
    for kind in ("loss", "step"):
        listed.append(
            Ratio(f"A/A: noise of {kind}", f"celeba/{kind}/class_relative again", f"celeba/{kind}/class_relative", None, "x")
        )
    return listed


def rows(setting: Setting, plan: Plan, threads: int) -> dict[str, Callable[[], Run]]:
    """Everything that is timed in this process: a function that builds the program, by name."""
    kappa, wide = plan.kappas
    batches = programs.make_batches(setting, setting.batch)
    variants = list(itertools.product(LEVELS, plan.comparisons))

    def looped(made: programs.Loss, needs_features: bool, on: Batches = batches, xla: bool = False) -> Run:
        step = programs.value_and_gradient(made, needs_features=needs_features, xla=xla)
        return programs.loss_loop(step, on, needs_features=needs_features)

    def loss(level: str, comparison: str, on: int = setting.batch, xla: bool = False, **parameters: Any) -> Run:
        made = programs.objective(setting, level, comparison, **{"kappa": kappa, **parameters})
        data = batches if on == setting.batch else programs.make_batches(setting, on)
        return looped(made, level == "instance", data, xla)

    def alone(level: str, comparison: str, form: str) -> Run:
        made = programs.rectification(setting, level, comparison, kappa=kappa, form=form)
        return looped(made, level == "instance")

    def naive(comparison: str) -> Run:
        return programs.loss_loop(checked_naive(setting, batches, comparison, kappa), batches, needs_features=False)

    def metric_learning(mining: bool) -> Run:
        return checked_metric_learning(setting, batches, kappa, threads).loop(mining=mining)

    def step(level: str, comparison: str, xla: bool = False, **parameters: Any) -> Run:
        made = CRL(setting.num_classes, level=level, comparison=comparison, alpha=0.5, **{"kappa": kappa, **parameters})
        return programs.training_loop(setting, made, batches, xla=xla)

    def entropy_step(xla: bool = False, precision: str = "float32") -> Run:
        made = MultiLabelCrossEntropy(setting.num_classes)
        return programs.training_loop(setting, made, batches, xla=xla, precision=precision)

    builders: dict[str, Callable[[], Run]] = {"loss/empty loop": partial(looped, programs.nothing, False)}
    for level, comparison in variants:
        for form, suffix in (("fast", ""), ("readable", " readable")):
            builders[f"rectification/{level}_{comparison}{suffix}"] = partial(alone, level, comparison, form)
    for xla, suffix in ((False, ""), (True, " XLA")):
        builders[f"loss/cross_entropy{suffix}"] = partial(looped, programs.cross_entropy(setting), False, xla=xla)
        builders[f"step/cross_entropy{suffix}"] = partial(entropy_step, xla)
        for level, comparison in variants:
            builders[f"loss/{level}_{comparison}{suffix}"] = partial(loss, level, comparison, xla=xla)
            # A compiled step takes long to compile, and the comparisons differ as they do without the network.
            if comparison == "relative" or (setting.name == "celeba" and not xla):
                builders[f"step/{level}_{comparison}{suffix}"] = partial(step, level, comparison, xla)
    for level, comparison in variants:
        builders[f"loss/{level}_{comparison} kappa={wide}"] = partial(loss, level, comparison, kappa=wide)
    for comparison in plan.comparisons:
        if comparison == "relative" or setting.name == "celeba":
            for size in plan.batches:
                builders[f"loss/class_{comparison} batch={size}"] = partial(loss, "class", comparison, size)
            size = plan.batches[0]
            builders[f"loss/class_{comparison} batch={size} kappa={wide}"] = partial(loss, "class", comparison, size, kappa=wide)
            if setting.name != "cifar":  # a minute of tracing; two settings show it
                builders[f"naive/class_{comparison}"] = partial(naive, comparison)
    builders[f"loss/instance_relative batch={plan.batches[0]}"] = partial(loss, "instance", "relative", plan.batches[0])
    builders["step/cross_entropy bfloat16"] = partial(entropy_step, precision="mixed_bfloat16")
    builders["loss/class_relative scope=all"] = partial(loss, "class", "relative", scope="all")
    builders["step/class_relative scope=all"] = partial(step, "class", "relative", scope="all")
    for name in ("loss/class_relative", "step/class_relative"):
        builders[f"{name} again"] = builders[name]
    for mining in (True, False):
        name = f"pytorch-metric-learning/{'with top-k' if mining else 'without'} mining"
        builders[name] = partial(metric_learning, mining)
    return {f"{setting.name}/{name}": build for name, build in builders.items()}


def first_step(setting: Setting, plan: Plan, level: str, threads: int) -> float:
    """Seconds of a new model's first training step; called in a fresh process."""
    measuring.set_threads(threads)
    model = programs.make_model(setting, CRL(setting.num_classes, level=level, alpha=0.5, kappa=plan.kappas[0]))
    images, labels = programs.make_images(setting)[0], programs.make_batches(setting, setting.batch).labels[0].numpy()
    started = time.perf_counter()
    model.train_on_batch(images, labels)
    return time.perf_counter() - started


def peaks(setting: Setting, plan: Plan, threads: int) -> dict[str, list[int]]:
    """Bytes that value and gradient of every loss hold at their worst, by name; called in a fresh process."""
    measuring.set_threads(threads)
    first = [x[0] for x in programs.make_batches(setting, setting.batch)]
    losses = {"cross_entropy": programs.cross_entropy(setting)}
    for level, comparison in itertools.product(LEVELS, plan.comparisons):
        losses[f"{level}_{comparison}"] = programs.objective(setting, level, comparison, kappa=plan.kappas[0])
    by_name = {}
    for name, loss in losses.items():
        program = programs.value_and_gradient(loss, needs_features=name.startswith("instance"))
        by_name[name] = measuring.peak_bytes(partial(program, *first))
    control = tf.function(lambda: tf.reduce_max(tf.random.uniform([25_000_000])))
    return {**by_name, CONTROL: measuring.peak_bytes(control)}


def wanted(name: str, only: Sequence[str]) -> bool:
    """Whether --only selects this row."""
    return not only or any(re.search(part, name) for part in only)


def fresh_items(chosen: Sequence[Setting], plan: Plan, threads: int, only: Sequence[str]) -> list[Item]:
    """The rows that need a fresh process."""
    items = []
    for setting in chosen:
        for level in LEVELS if setting.name == "xdomain" else ():
            item = Item(f"{setting.name}/first step/{level}_relative")
            if wanted(item.name, only):
                again = range(plan.fresh_processes)
                item.by_round = {n: measuring.in_fresh_process(first_step, setting, plan, level, threads) for n in again}
                items.append(item)
        names = ["cross_entropy", *(f"{level}_{c}" for level, c in itertools.product(LEVELS, plan.comparisons)), CONTROL]
        if any(wanted(f"{setting.name}/memory/{name}", only) for name in names):
            by_name = measuring.in_fresh_process(peaks, setting, plan, threads, environment=measuring.FREED_AT_ONCE)
            for name, values in by_name.items():
                note = "" if values else "needs Linux: /proc/self/clear_refs"
                items.append(Item(f"{setting.name}/memory/{name}", unit="B", note=note, by_round=dict(enumerate(values))))
    return [item for item in items if wanted(item.name, only)]


def timed_items(chosen: Sequence[Setting], plan: Plan, threads: int, only: Sequence[str], console: Console) -> list[Item]:
    """The rows that are timed in this process: builds, checks and calibrates them."""
    items, needed = [], {name for ratio in ratios(plan) for name in (ratio.over, ratio.under, ratio.minus)}
    for setting in chosen:
        for name, build in rows(setting, plan, threads).items():
            if not wanted(name, only) or (plan.others is not None and name not in needed and name not in plan.others):
                continue
            console.print(f"preparing {name}", highlight=False)
            item = Item(name)
            try:
                item.run = build()
                measuring.calibrate(item, plan.seconds)
            except ImportError:
                item.note = NOT_INSTALLED
            except tf.errors.ResourceExhaustedError:
                item.note = "out of memory"
            items.append(item)
    return items


def ratio_rows(items: Sequence[Item], plan: Plan) -> list[dict[str, Any]]:
    """The ratios whose rows were run, as JSON."""
    by_name, shown = {item.name: item for item in items}, []
    for ratio in ratios(plan):
        names = [name for name in (ratio.over, ratio.under, ratio.minus) if name]
        if not all(name in by_name for name in names):
            continue
        over, *others = (by_name[name] for name in names)
        values = measuring.quotient(over, *others) if others else list(over.by_round.values())
        row = {"name": ratio.name, "form": ratio.form, "bar": ratio.bar, "over": ratio.over, "under": ratio.under}
        row |= {"minus": ratio.minus, "median": None, "q1": None, "q3": None, "met": None}
        if values:
            q1, median, q3 = (ratio.shown(float(q)) for q in np.percentile(values, [25, 50, 75]))
            row |= {"q1": q1, "median": median, "q3": q3, "met": ratio.met(median)}
        shown.append(row)
    return shown


def run(argv: Sequence[str]) -> None:
    """Measures what the flags say, prints the tables and writes --json."""
    plan, known, threads = QUICK if _QUICK.value else FULL, programs.settings(_QUICK.value), _THREADS.value or measuring.cores()
    if len(argv) > 1:
        sys.exit(f"bench_loss: takes flags only, received {argv[1]!r}")
    if not _SETTINGS.value or set(_SETTINGS.value) - set(known):
        sys.exit(f"bench_loss: --settings must name some of {','.join(known)}, received {','.join(_SETTINGS.value)!r}")
    measuring.set_threads(threads)
    keras.utils.set_random_seed(0)
    progress, started = Console(stderr=True), time.perf_counter()
    chosen = [known[name] for name in known if name in _SETTINGS.value]
    items = timed_items(chosen, plan, threads, _ONLY.value, progress)
    rounds = 2 if _QUICK.value else _ROUNDS.value
    runnable = [item for item in items if item.run and not item.note]
    measuring.measure(
        runnable, rounds=rounds, seconds=plan.seconds, seed=0, report=lambda n: progress.print(f"round {n} of {rounds}")
    )
    # After the rounds: a second process beside them would be noise.
    items += fresh_items(chosen, plan, threads, _ONLY.value)
    if not items:
        sys.exit(f"bench_loss: --only={','.join(_ONLY.value)!r} is in no row's name")
    results = {
        **measuring.facts(threads, started),
        "settings": [setting.name for setting in chosen],
        "rounds": rounds,
        "items": [item.statistics() for item in items],
        "ratios": ratio_rows(items, plan),
    }
    benchmark_tables.show(results, benchmark_tables.loss_listing(results), _MARKDOWN.value)
    if _JSON.value:
        write_json(Path(_JSON.value), results)


if __name__ == "__main__":
    app.run(run)
