"""The bench of small models, at tiny sizes: that every row is measured and that what it writes says what it measured."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

TOOL = str(Path(__file__).parents[2] / "tools" / "bench_small.py")


def bench(*flags, cwd):
    return subprocess.run([sys.executable, TOOL, *flags], capture_output=True, text=True, cwd=cwd)


def test_quick(tmp_path):
    ran = bench("--quick", "--clock=processor", "--threads=1", "--json=found.json", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    result = json.loads((tmp_path / "found.json").read_text())
    assert result["machine"]["threads"] == 1 and result["clock"] == "processor" and result["rounds"] == 2
    assert list(result["cases"]) == [f"{kind}, 4 units, 3 classes, batch 8" for kind in ("fit", "step", "first step")]
    first = ["sparse cross-entropy", "sparse cross-entropy, again", "class_rel", "class_rel in a CRLModel"]
    names = [*first[:2], "MultiLabelCrossEntropy", "class_rel", "class_abs", "class_dis", first[-1]]
    for case, rows in result["cases"].items():
        assert [row["name"] for row in rows] == (first if case.startswith("first") else names)
        baseline = rows[0]["by_round"]
        for row in rows:
            assert 0 < row["q1"] <= row["median"] <= row["q3"]
            # A ratio is taken within each round, not between the medians; a slow row sits some out.
            ratios = [value / baseline[number] for number, value in row["by_round"].items() if number in baseline]
            np.testing.assert_allclose(row["ratio"]["values"], ratios)
    # Two lines of a heading, and one for the case.
    lines = [line for line in ran.stdout.splitlines() if line.startswith("| ")]
    assert [line.count("|") - 2 for line in lines] == 6 * [len(names)] + 3 * [len(first)]


def test_mistakes_get_one_line(tmp_path):
    ran = bench("--only=nothing", cwd=tmp_path)
    assert ran.returncode == 1 and "--only='nothing' is in no case's name" in ran.stderr
    assert "Traceback" not in ran.stderr
