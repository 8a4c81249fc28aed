"""tools/readme_figure.py: which results it takes, the size of what it writes, and the line for what is wrong."""

import json

import numpy as np
import pytest
import readme_figure
from PIL import Image, ImageColor

from crl_tf.experiment.report.figures import COLOURS


def write_result(path, method, seed, rare=0.5):
    classes = {f"class {i}": 2**i for i in range(10)}
    label = {"balanced_accuracy": 0.5, "accuracy": 0.9, "train_counts": classes}
    label |= {"sensitivity": {name: min(1.0, rare + count / 1024) for name, count in classes.items()}}
    run = {"dataset": "digits", "model": "small", "method": method, "seed": seed, "epochs": 30, "seconds": 1.0}
    run |= {"balanced_accuracy": 0.5, "accuracy": 0.9, "rarest_third": 0.5, "labels": {"kind": label}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run), encoding="utf-8")
    return path


@pytest.fixture
def comparison(tmp_path):
    folder = tmp_path / "comparison"
    for seed in range(3):
        for place, method in enumerate(["ce", *(f"method_{i}" for i in range(6))]):
            write_result(folder / f"seed{seed}" / method / "result.json", method, seed, 0.4 + place / 20 + seed / 50)
    return folder


def test_a_comparison_is_a_small_png_that_reads_at_800_pixels(comparison, tmp_path, capsys):
    out = tmp_path / "docs" / "images" / "rare.png"
    readme_figure.main([f"--runs={comparison}", f"--out={out}"])
    assert capsys.readouterr().out.startswith(f"{out}: 21 runs, ")
    assert out.stat().st_size < 80_000 and list(out.parent.iterdir()) == [out]
    with Image.open(out) as image:
        assert image.format == "PNG" and 800 <= image.width <= 1000
        colours = [colour for _, colour in image.convert("RGB").getcolors()]
    # The few colours that are left still have those of the lines.
    for line in (*COLOURS[:6], "#FFFFFF"):
        assert min(np.abs(np.subtract(colours, ImageColor.getrgb(line))).max(axis=1)) < 10


def test_files_and_folders_are_taken_once_and_only_named_methods_are_drawn(comparison, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        readme_figure, "save_rare_classes", lambda *args: (drawn.append(args), Image.new("RGB", (9, 9)).save(args[1]))
    )
    file = comparison / "seed1" / "ce" / "result.json"
    other = write_result(tmp_path / "other.json", "ce", 9)
    flags = ["--methods=method_0,method_5", "--baseline=method_1", f"--out={tmp_path / 'rare.png'}"]
    readme_figure.main([f"--runs={file},{comparison / 'seed1'},{file.parent},{other}", *flags])
    ((results, _, methods, baseline),) = drawn
    assert [(run["method"], run["seed"]) for run in results] == [
        ("ce", 1), *((f"method_{i}", 1) for i in range(6)), ("ce", 9)
    ]  # fmt: skip
    assert (methods, baseline) == (["method_0", "method_5"], "method_1")


@pytest.mark.parametrize(
    ("runs", "flags", "said"),
    [
        ("nowhere", [], "readme_figure: runs must be result.json files or folders that hold one, received nowhere"),
        ("{comparison}", ["--methods=crl"], "methods must be 1 to 6 of"),
        ("{comparison}", ["--baseline=crl"], "baseline must be one of the methods"),
    ],
)
def test_a_mistake_gets_one_line_and_writes_nothing(runs, flags, said, comparison, tmp_path):
    out = tmp_path / "rare.png"
    with pytest.raises(SystemExit, match=said):
        readme_figure.main([f"--runs={runs.format(comparison=comparison)}", f"--out={out}", *flags])
    assert not out.exists()
