"""The bench of the losses, at tiny sizes: that every row is measured, that what others compute is our loss, and that nothing is
skipped inside the graph. What it takes is not asserted."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("../tools", "cases"))

import benchmark_tables
import loss_programs as programs
import measuring
from measuring import Item
from naive_crl import NOT_INSTALLED, MetricLearning, check_same, naive_class_level
from oracle import oracle_crl

from crl_tf import class_rectification_loss

TOOL = Path(__file__).parents[2] / "tools" / "bench_loss.py"
CONTROL = "control: a temporary of 100 MB"
COMPARISONS = ["relative", "absolute", "distribution"]
SIZES = [2, 3, 5]


def bench(*flags, cwd):
    return subprocess.run([sys.executable, TOOL, *flags], capture_output=True, text=True, cwd=cwd)


def installed():
    try:
        import pytorch_metric_learning  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A quick run of all that the ratios of celeba need, and what it wrote."""
    folder = tmp_path_factory.mktemp("bench")
    flags = ["--quick", "--settings=celeba,xdomain", "--only=celeba,first step/class", "--threads=1", "--json=found.json"]
    ran = bench(*flags, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout, json.loads((folder / "found.json").read_text())


def test_every_row_is_measured_and_shown(quick):
    shown, found = quick
    assert found["settings"] == ["celeba", "xdomain"] and found["rounds"] == 2
    assert found["machine"]["threads"] == 1 and found["machine"]["tensorflow"] == tf.__version__
    items = {item["name"]: item for item in found["items"]}
    two = ["class_relative", "instance_relative"]
    wanted = [f"{kind}/{one}" for kind in ("loss", "memory", "rectification") for one in two] + ["naive/class_relative"]
    wanted += [f"rectification/{one} readable" for one in two]
    wanted += ["loss/cross_entropy", "loss/cross_entropy XLA", "memory/cross_entropy"]
    wanted += ["step/cross_entropy", "step/cross_entropy bfloat16"]
    wanted += ["loss/class_relative batch=96", "loss/class_relative batch=48", "loss/class_relative batch=48 kappa=6"]
    wanted += [f"{kind}/class_relative{kin}" for kind in ("loss", "step") for kin in ("", " again", " scope=all")]
    wanted += [f"pytorch-metric-learning/{how} mining" for how in ("with top-k", "without")] + ["memory/" + CONTROL]
    assert set(items) == {f"celeba/{name}" for name in wanted} | {"xdomain/first step/class_relative"}
    for name, item in items.items():
        assert name.partition("/")[2] in shown
        if not item["note"]:
            assert 0 <= item["q1"] <= item["median"] <= item["q3"] and item["iterations"] >= 1, name
            assert item["median"] > 0 or item["unit"] == "B", name


def test_metric_learning_is_measured_or_said_to_be_missing(quick):
    shown, found = quick
    peers = [item for item in found["items"] if "pytorch-metric-learning" in item["name"]]
    assert len(peers) == 2
    for item in peers:
        assert (item["median"] is not None, item["note"]) == ((True, "") if installed() else (False, NOT_INSTALLED))
    assert shown.count(NOT_INSTALLED) == (0 if installed() else 2)


def test_every_ratio_has_its_bar(quick):
    _, found = quick
    ratios = {ratio["name"]: ratio for ratio in found["ratios"]}
    bars = {
        "class_relative over a training step, less cross-entropy": 0.8,
        "class_relative over a bfloat16 training step, less cross-entropy": 0.8,
        "instance_relative over a training step, less cross-entropy": 10.0,
        "instance_relative over a bfloat16 training step, less cross-entropy": 10.0,
        "scope=all over minority, training step": 1.0,
        "celeba: naive class_relative": 15.0,
        "celeba: pytorch-metric-learning, with top-k mining": 3.0,
        "class_relative, batch to 96": 8.0,
        "class_relative, kappa to 6, batch 48": 5.0,
        "class_relative, peak memory": 6.0,
        "instance_relative, peak memory": 36.0,
        "class, first step": 5.0,
    }
    assert {name: ratio["bar"] for name, ratio in ratios.items() if ratio["bar"] is not None} == bars
    for name, ratio in ratios.items():
        if ratio["bar"] is None or ratio["median"] is None:
            assert ratio["met"] is None, name
        else:
            least = ratio["form"] == "x faster"
            assert ratio["met"] == (ratio["median"] >= ratio["bar"] if least else ratio["median"] <= ratio["bar"]), name
    items = {item["name"]: item["by_round"] for item in found["items"]}
    ratio = ratios["class_relative, batch to 96"]
    over, under = items[ratio["over"]], items[ratio["under"]]
    by_round = [over[r] / under[r] for r in over.keys() & under.keys()]  # what is slow sits rounds out
    assert ratio["median"] == pytest.approx(np.median(by_round))


def test_the_tables_of_the_document_are_made_of_it(quick):
    _, found = quick
    shown, _, forms, aims = benchmark_tables.loss(found)
    row = dict(zip(shown.header, next(line for line in shown.lines if line[0] == "`class_rel`"), strict=True))
    assert all(row[name] for name in ("ms", "% of a step", "% of a bfloat16 step"))
    assert all(next(line for line in forms.lines if line[0] == "`class_rel`")) and len(aims.lines) > 5


def test_peak_memory_sees_a_temporary(quick):
    if sys.platform != "linux":
        pytest.skip("peak memory is read from /proc")
    _, found = quick
    control = next(item for item in found["items"] if item["name"] == f"celeba/memory/{CONTROL}")
    assert len(control["by_round"]) == 3
    # Every time, not only at the first: what is freed goes back to the kernel.
    assert all(99e6 < value < 101e6 for value in control["by_round"].values()), control


def test_markdown(tmp_path):
    ran = bench("--quick", "--settings=cifar", "--only=loss/empty", "--markdown", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    table = ran.stdout.partition("**cifar**\n\n")[2].splitlines()
    assert table[:2] == ["|  | median (quartiles) |  | measured |", "| --- | --- | --- | --- |"]
    assert table[2].startswith("| loss/empty loop | ") and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "flag, message", [("--settings=celeb", "--settings must name some of celeba,xdomain,cifar"), ("--only=nix", "is in no row")]
)
def test_a_wrong_flag_is_one_line(flag, message, tmp_path):
    ran = bench("--quick", flag, cwd=tmp_path)
    *_, last = ran.stderr.splitlines()
    assert ran.returncode == 1 and last.startswith("bench_loss: ") and message in last and "Traceback" not in ran.stderr


def random_case(seed, batch=19):
    """Labels [B, 3], some not annotated, logits and features that know something of them."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.choice(size, batch, p=np.arange(size, 0, -1) / (size * (size + 1) / 2)) for size in SIZES], axis=1)
    logits = np.concatenate([np.eye(size)[column] for size, column in zip(SIZES, labels.T, strict=True)], axis=1)
    logits = 2.0 * logits + rng.normal(0, 1.5, logits.shape)
    features = rng.normal(0, 0.5, (batch, 3, 4)) + labels[..., None]
    labels[rng.random(labels.shape) < 0.15] = -1
    return labels.astype(np.int32), logits.astype(np.float32), features.astype(np.float32)


@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("kappa", [1, 3, 40])
def test_naive_loops_are_the_loss(comparison, kappa):
    for seed in range(5):
        labels, logits, _ = random_case(seed)
        naive = naive_class_level(labels, logits, SIZES, comparison, kappa).numpy()
        assert naive.any()
        np.testing.assert_allclose(naive, oracle_crl(labels, logits, SIZES, "class", comparison, kappa), rtol=1e-5, atol=1e-6)
        ours = class_rectification_loss(labels, logits, num_classes=SIZES, comparison=comparison, kappa=kappa)
        np.testing.assert_allclose(naive, ours, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kappa", [1, 3, 40])
def test_metric_learning_is_the_loss(kappa):
    pytest.importorskip("pytorch_metric_learning", reason=f"the bench extra is {NOT_INSTALLED}")
    for seed in range(5):
        labels, _, features = random_case(seed)
        theirs = MetricLearning(labels, features, SIZES, kappa=kappa, threads=1)
        value, gradients = theirs.value_and_gradient(theirs.mine())
        assert value == pytest.approx(oracle_crl(labels, features, SIZES, "instance", "relative", kappa).sum(), rel=1e-5)
        inputs = tf.constant(features)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = class_rectification_loss(labels, inputs, num_classes=SIZES, level="instance", kappa=kappa)
        expected = tape.gradient(loss, inputs).numpy()
        np.testing.assert_allclose(np.stack(gradients, axis=1), expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_another_loss_is_refused():
    value, gradient = np.float32(2.0), np.float32([1.0, -4.0])
    check_same("peer", (value, gradient), (value * (1 + 5e-6), gradient))
    for wrong, what in (((value * 1.0001, gradient), "value"), ((value, gradient + np.float32([0.001, 0.0])), "gradient")):
        with pytest.raises(SystemExit, match=f"bench_loss: peer does not compute our loss: its {what} is off"):
            check_same("peer", wrong, (value, gradient))
    with pytest.raises(SystemExit, match="its value is off by nan"):
        check_same("peer", (np.float32("nan"), gradient), (value, gradient))


@pytest.mark.parametrize("level", ["class", "instance"])
def test_every_iteration_computes_the_loss_of_its_own_batch(level):
    setting = programs.settings(quick=True)["xdomain"]
    batches = programs.make_batches(setting, setting.batch)
    step = programs.value_and_gradient(
        programs.objective(setting, level, "relative", kappa=3), needs_features=level == "instance"
    )
    values = [float(step(*(x[i] for x in batches))[0]) for i in range(programs.BATCHES)]
    assert len(set(values)) == programs.BATCHES
    run = programs.loss_loop(step, batches, needs_features=level == "instance")
    for iterations in (1, 3, 10):
        expected = np.mean([values[i % programs.BATCHES] for i in range(iterations)])
        assert run(iterations) == pytest.approx(expected, rel=1e-5)


def test_batches_are_as_imbalanced_as_the_settings_say():
    settings = programs.settings(quick=False)
    assert {name: s.batch for name, s in settings.items()} == {"celeba": 256, "xdomain": 128, "cifar": 256}
    assert settings["celeba"].num_classes == (2,) * 40 and settings["cifar"].num_classes == (100,)
    sizes = settings["xdomain"].num_classes
    assert (len(sizes), sum(sizes), min(sizes), max(sizes)) == (9, 178, 6, 55)
    rates = sorted(frequency[1] for frequency in settings["celeba"].frequencies)
    assert rates[0] == pytest.approx(0.02) and rates[-1] == pytest.approx(0.5)
    ratio = {name: max(f.max() / f.min() for f in s.frequencies) for name, s in settings.items()}
    assert ratio["xdomain"] == pytest.approx(4000) and ratio["cifar"] == pytest.approx(20)
    labels = programs.make_batches(settings["celeba"], 4096).labels.numpy().reshape(-1, 40)
    np.testing.assert_allclose(labels.mean(axis=0), [f[1] for f in settings["celeba"].frequencies], atol=0.02)


def test_rounds_are_interleaved_and_ratios_taken_within_them():
    visits = []
    items = [Item(name, run=lambda n, name=name: visits.append((name, n)), iterations=k) for name, k in (("a", 2), ("b", 3))]
    measuring.measure(items, rounds=6, seconds=10.0, seed=0, report=lambda number: visits.append(number))
    assert visits[:2] == [("a", 1), ("b", 1)]
    for number in range(6):
        # One iteration to settle, then the measurement, for each.
        begin = 2 + 5 * number
        assert sorted(visits[begin : begin + 4]) == [("a", 1), ("a", 2), ("b", 1), ("b", 3)] and visits[begin + 4] == number + 1
    assert {tuple(visits[i : i + 4]) for i in range(2, 32, 5)} > {tuple(visits[2:6])}  # not one order throughout

    over, under, minus = (
        Item("", by_round={0: 3.0, 1: 8.0, 5: 99.0}),
        Item("", by_round={0: 2.0, 1: 4.0}),
        Item("", by_round={1: 6.0}),
    )
    assert measuring.quotient(over, under) == [1.5, 2.0]
    assert measuring.quotient(over, under, minus) == [0.5]
    assert measuring.quotient(over, Item("")) == []


def test_what_is_slow_sits_most_rounds_out():
    items = [Item("once", run=lambda n: None, iterations=1), Item("often", run=lambda n: None, iterations=2)]
    measuring.measure(items, rounds=7, seconds=0.0, seed=0, report=lambda number: None)
    assert sorted(items[0].by_round) == [0, 5] and sorted(items[1].by_round) == list(range(7))
