"""The benchmark of several replicas: that it works, and what it counts."""

import subprocess
import sys
from pathlib import Path

from crl_tf.files import read_json

TOOL = Path(__file__).parents[2] / "tools" / "bench_distribution.py"


def test_a_quick_run_measures_every_row(tmp_path):
    command = [sys.executable, str(TOOL), "--quick", f"--json={tmp_path / 'bench.json'}"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = read_json(tmp_path / "bench.json")
    (steps,) = found["steps"]
    assert [row["name"] for row in steps["rows"]] == [
        "one device",
        "replica mining",
        "replica mining, again (A/A)",
        "global mining",
    ]
    assert all(row["median"] > 0 and row["ratio"][0] > 0 for row in steps["rows"]) and steps["rows"][0]["ratio"][0] == 1
    shares = [found["rectified"][str(count)] for count in (1, 2, 4, 8)]
    assert shares == sorted(shares, reverse=True)
