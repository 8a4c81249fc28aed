"""The bench of operations, small: that every row is measured, against its own control."""

import json
import subprocess
import sys
from pathlib import Path

TOOL = str(Path(__file__).parents[2] / "tools" / "bench_operations.py")


def test_quick(tmp_path):
    ran = subprocess.run([sys.executable, TOOL, "--quick", "--json=found.json"], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    result = json.loads((tmp_path / "found.json").read_text())
    assert len(result["rows"]) == 5 and "product of anchors and features" in ran.stdout
    for row in result["rows"].values():
        assert all(0 < row[key]["q1"] <= row[key]["median"] <= row[key]["q3"] for key in ("seconds", "bfloat16", "control"))


def test_words_are_refused(tmp_path):
    ran = subprocess.run([sys.executable, TOOL, "quick"], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 1 and "takes flags only, received 'quick'" in ran.stderr and "Traceback" not in ran.stderr
