"""The bench of serving, small: that every row is measured, and that nothing is lost."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TOOL = str(Path(__file__).parents[2] / "tools" / "bench_serving.py")


def bench(*flags, cwd):
    return subprocess.run([sys.executable, TOOL, *flags], capture_output=True, text=True, cwd=cwd)


def test_quick(tmp_path):
    ran = bench("--quick", "--clients=1,8", "--json=found.json", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    keras, control = "Keras model", "Keras model, again (A/A)"
    assert [name.rpartition(", ")[2] for name in found["calls"]][2:] == ["serving_default", "uint8_images", "image_bytes"]
    for row in found["calls"].values():
        np.testing.assert_allclose(row["ratio"]["values"], np.divide(row["values"], found["calls"][keras]["values"]))
    assert control in ran.stdout and found["network"] == "cifarnet" and found["batch"] == 64
    for row in found["load"]["clients"].values():
        assert row["requests"] > 10 and row["refused"] == row["wrong"] == row["lost"] == 0
        assert 0 < row["p50_seconds"] <= row["p99_seconds"] and len(row["per_second"]["values"]) == 2
    assert len(found["load"]["memory_bytes"]) == 3 and found["load"]["exit_code"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


@pytest.mark.parametrize(
    "flags, complaint",
    [(["--network=nothing"], "nothing"), (["--clients=0"], "clients must be whole numbers > 0, received 0")],
)
def test_mistakes_get_one_line(tmp_path, flags, complaint):
    ran = bench(*flags, cwd=tmp_path)
    assert ran.returncode == 1 and complaint in ran.stderr and "Traceback" not in ran.stderr
