"""The bench of the networks, small: that every network is measured and that what it writes says what it measured."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmark_tables import three_digits

TOOL = str(Path(__file__).parents[2] / "tools" / "bench_networks.py")


def bench(*flags, cwd):
    return subprocess.run([sys.executable, TOOL, *flags], capture_output=True, text=True, cwd=cwd)


def test_quick(tmp_path):
    ran = bench("--quick", "--markdown", "--json=found.json", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    result = json.loads((tmp_path / "found.json").read_text())
    rows = result["networks"]
    assert list(rows) == ["deepid2", "deepid2, again (A/A)", "cifarnet"] and result["rounds"] == 2
    for row in rows.values():
        for what in ("forward", "step"):
            seconds, base = (r[f"{what}_seconds"]["values"] for r in (row, rows["deepid2"]))
            assert 0 < min(seconds) <= row[f"{what}_seconds"]["median"] <= max(seconds)
            # A ratio is taken within each round, not between the medians; a slow row sits some out.
            ratios = row[f"{what}_ratio"]["values"]
            np.testing.assert_allclose(ratios, np.divide(seconds[: len(ratios)], base[: len(ratios)]))
    # Two convolutions of 5 x 5, layers of 384 and 192 units on 8 x 8 x 64, and 100 classes.
    convolutions, layers = (75 * 64 + 64) + (1600 * 64 + 64), (4096 * 384 + 384) + (384 * 192 + 192)
    assert rows["cifarnet"]["parameters"] == convolutions + layers + 192 * 100 + 100
    assert rows["deepid2"]["image_size"] == [55, 47] and rows["deepid2"]["flops"] > 1e7
    lines = [line for line in ran.stdout.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(rows) and len({line.count("|") for line in lines}) == 1


def test_mistakes_get_one_line(tmp_path):
    ran = bench("--networks=deepid3", cwd=tmp_path)
    assert ran.returncode == 1 and "model must be one of" in ran.stderr and "'deepid3'" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (9_996, "10.0 k"), (999_499, "999 k"), (999_500, "1.00 M"), (2.5e12, "2500 G")],
)
def test_three_digits(count, shown):
    assert three_digits(count) == shown


def test_quick_beside_plain_keras(tmp_path):
    ran = bench("--quick", "--peer=keras", "--markdown", "--json=found.json", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    rows = json.loads((tmp_path / "found.json").read_text())["networks"]
    assert list(rows) == ["cifarnet/float32", "cifarnet/mixed_bfloat16"]
    for row in rows.values():
        assert list(row["seconds"]) == ["ours", "ours, again (A/A)", "plain Keras"] and len(row["ours_over"]) == 2
        assert min(of["median"] for of in [*row["seconds"].values(), *row["ours_over"].values()]) > 0
    assert "| cifarnet | mixed_bfloat16 |" in ran.stdout
    assert "peer must be" in bench("--quick", "--peer=jax", cwd=tmp_path).stderr
