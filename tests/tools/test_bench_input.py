"""The bench of the input, on 64 generated images: that every row is measured and that what it writes says what it measured."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TOOL = str(Path(__file__).parents[2] / "tools" / "bench_input.py")


def bench(*flags, cwd):
    return subprocess.run([sys.executable, TOOL, *flags], capture_output=True, text=True, cwd=cwd)


def test_quick(tmp_path):
    ran = bench("--quick", "--json=found.json", "--loss=class_abs", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    rows, ratios = found["images_per_second"], found["ratios"]
    sources = ["JPEG files", "the memory cache", "the disk cache", "an array in memory"]
    for name in [*(f"pipeline, from {s}" for s in sources), *(f"training, from {s}" for s in sources), "augment: flip"]:
        assert name in rows and name in ran.stdout
    for row in [*rows.values(), *ratios.values()]:
        assert len(row["rounds"]) == 2 and 0 < row["smallest"] <= row["median"] <= row["largest"]
    # A ratio is taken within each round, not between the medians.
    disk, memory = (rows[f"training, from {source}"]["rounds"] for source in ("the disk cache", "an array in memory"))
    np.testing.assert_allclose(ratios["training: disk cache / memory"]["rounds"], np.divide(disk, memory))
    assert found["images"]["count"] == 64 and found["images"]["of"] == "generated"
    assert found["recipe"]["method"] == "class_abs" and found["recipe"]["data"]["image_size"] == [55, 47]
    assert found["machine"]["cores"] >= 1 and found["machine"]["tensorflow"]
    # Images and caches go with the program.
    assert [p.name for p in tmp_path.iterdir()] == ["found.json"]


@pytest.mark.parametrize(
    "flags, complaint",
    [
        (["--data_dir=nowhere"], "nowhere"),
        (["--dataset=handwriting", "--quick"], "dataset must be one of image files, such as celeba, received 'handwriting'"),
    ],
)
def test_mistakes_get_one_line(tmp_path, flags, complaint):
    ran = bench(*flags, cwd=tmp_path)
    assert ran.returncode == 1 and complaint in ran.stderr and "Traceback" not in ran.stderr
