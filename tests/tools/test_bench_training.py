"""The bench of training, small: that every row is measured and that what it writes says what it measured."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

TOOL = str(Path(__file__).parents[2] / "tools" / "bench_training.py")


def bench(*flags, cwd):
    return subprocess.run([sys.executable, TOOL, *flags], capture_output=True, text=True, cwd=cwd)


def test_quick(tmp_path):
    ran = bench("--quick", "--json=found.json", "--loss=class_abs", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    result = json.loads((tmp_path / "found.json").read_text())
    assert list(result["rows"])[:2] == ["none of them", "none of them, again (A/A)"]
    assert {"steps_per_execution 2", "xla", "mixed_bfloat16"} <= set(result["rows"])
    baseline = result["rows"]["none of them"]["seconds"]["values"]
    for row in result["rows"].values():
        seconds = row["seconds"]
        assert len(seconds["values"]) == 2 and 0 < seconds["q1"] <= seconds["median"] <= seconds["q3"]
        # A ratio is taken within each round, not between the medians.
        np.testing.assert_allclose(row["ratio"]["values"], np.divide(seconds["values"], baseline))
    # Tracing and compiling takes longer than a step.
    assert result["rows"]["xla"]["first_seconds"] > result["rows"]["xla"]["seconds"]["median"]
    assert result["recipe"]["method"] == "class_abs" and result["machine"]["tensorflow"]


def test_mistakes_get_one_line(tmp_path):
    ran = bench("--model=deepid3", cwd=tmp_path)
    assert ran.returncode == 1 and "deepid3" in ran.stderr and "Traceback" not in ran.stderr
