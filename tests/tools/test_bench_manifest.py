"""The bench of the manifest, on 500 rows: that all is measured, on the rows it says, and that nothing is left behind."""

import json
import subprocess
import sys
from pathlib import Path

TOOL = str(Path(__file__).parents[2] / "tools" / "bench_manifest.py")


def bench(*flags, cwd):
    return subprocess.run([sys.executable, TOOL, *flags], capture_output=True, text=True, cwd=cwd)


def test_small(tmp_path):
    # Two of the rows of the table: each is a process that imports TensorFlow.
    names = ["csv, seeded split", "parquet, images not looked for"]
    flags = ["--rows=500", "--labels=3", "--images=5", "--rounds=1", "--cores=64", f"--folder={tmp_path}", "--json=found.json"]
    ran = bench(*flags, *(f"--only={name}" for name in names), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["rows"], found["labels"], found["cores"]) == (500, 3, 64)
    assert list(found["rounds"]) == names and "500 rows x 3 labels" in ran.stdout
    for name, (row,) in found["rounds"].items():
        assert sum(row["splits"].values()) == 500 and row["batch"] == [256, 64, 48, 3]
        assert 0 < row["imports_mb"] <= row["open_mb"] <= row["batch_mb"]
        assert row["open_seconds"] > 0 and row["batch_seconds"] > 0 and found["file_mb"][name] > 0
    # Shares of 0.8, within a sample or two per class.
    assert abs(found["rounds"][names[0]][0]["splits"]["train"] - 400) <= 4
    assert [p.name for p in tmp_path.iterdir()] == ["found.json"]


def test_mistakes_get_one_line(tmp_path):
    ran = bench("--rows=5", cwd=tmp_path)
    assert ran.returncode == 1 and "flag --rows=5: 5 is not integer >= 100" in ran.stderr
    ran = bench("--rows=100", "--folder=nowhere", cwd=tmp_path)
    assert (
        ran.returncode == 1 and ran.stderr.strip() == "bench_manifest: folder must be a folder that is there, received 'nowhere'"
    )
