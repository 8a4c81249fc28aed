"""Exports of a finished run: measured on the test images, and not called good where they lose."""

import shutil

import numpy as np
import pytest
from finished_runs import run_on

from crl_tf.datasets.ordering import by_rarest_class, rarest_class
from crl_tf.experiment import exporting
from crl_tf.experiment.exporting import export_finished
from crl_tf.experiment.finished import export_again, opened
from crl_tf.experiment.report import exports_tables
from crl_tf.files import read_json
from crl_tf.serving.converted import card_of, load_converted


@pytest.fixture(scope="module")
def finished(shop, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    return workdir, run_on(shop, workdir, export=False)


def converted(workdir, kinds):
    with opened(workdir) as run:
        return export_finished(run, kinds)


def test_exact_exports_have_the_numbers_of_the_run(finished):
    workdir, result = finished
    rows = converted(workdir, ["litert", "onnx"])
    for row in rows:
        assert row["good"] and row["same_decisions"] == 1.0
        assert row["before"] == row["after"]
        assert row["before"]["balanced_accuracy"] == pytest.approx(result["balanced_accuracy"])
        assert row["before"]["rarest_third"] == pytest.approx(result["rarest_third"])
        for name, label in result["labels"].items():
            assert row["after"]["labels"][name]["balanced_accuracy"] == pytest.approx(label["balanced_accuracy"])
        assert (workdir / "exports" / row["file"]).stat().st_size == row["bytes"]
    assert read_json(workdir / "exports" / "exports.json") == rows
    assert len(exports_tables(rows)) == 2


def test_an_export_that_loses_is_not_called_good(finished, monkeypatch):
    workdir, result = finished

    def ruined(path):
        run = load_converted(path)
        worst = {name: int(np.argmin(list(label["sensitivity"].values()))) for name, label in result["labels"].items()}
        return lambda images: {
            name: np.full_like(value, worst[name.removesuffix("_index")]) if name.endswith("_index") else value
            for name, value in run(images).items()
        }

    monkeypatch.setattr(exporting, "load_converted", ruined)
    (row,) = converted(workdir, ["onnx"])
    assert not row["good"] and row["file"] == "not_good-model.onnx"
    assert (workdir / "exports" / "not_good-model.onnx").is_file() and not (workdir / "exports" / "model.onnx").exists()
    assert any(not row["good"] for row in read_json(workdir / "exports" / "exports.json"))
    monkeypatch.undo()
    (row,) = converted(workdir, ["onnx"])
    assert row["good"] and not (workdir / "exports" / "not_good-model.onnx").exists()


def test_what_was_exported_before_stays_described_while_its_file_is_there(finished):
    workdir, _ = finished
    folder = workdir / "exports"
    rows = converted(workdir, ["onnx"]) + converted(workdir, ["litert"])
    assert read_json(folder / "exports.json") == rows[::-1]
    (folder / "model.onnx").unlink()
    rows = converted(workdir, ["litert"])
    assert read_json(folder / "exports.json") == rows


def test_a_file_that_was_not_measured_has_no_name_that_calls_it_good(finished, monkeypatch):
    workdir, _ = finished
    folder = workdir / "exports"
    converted(workdir, ["onnx"])
    before = (folder / "model.onnx").stat().st_mtime_ns

    def stopped(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "load_converted", stopped)
    with pytest.raises(KeyboardInterrupt):
        converted(workdir, ["onnx"])
    assert (folder / "model.onnx").stat().st_mtime_ns == before and (folder / "unmeasured-model.onnx").is_file()
    monkeypatch.undo()
    converted(workdir, ["onnx"])
    assert not (folder / "unmeasured-model.onnx").exists()


def test_with_thresholds_detections_are_measured_and_a_file_that_ruins_them_is_not_good(finished, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    with opened(workdir, {"decision.threshold": "recall:0.8"}) as run:
        export_again(run)
    rows = converted(workdir, ["litert_int8", "onnx"])
    exact = rows[1]
    assert exact["good"] and exact["same_detections"] == 1.0 and exact["before"] == exact["after"]
    assert all(0 <= exact["before"][share] <= 1 for share in exporting.DETECTIONS)
    assert len(exports_tables(rows)) == 3
    card = card_of(workdir / "exports" / "model.onnx")
    assert card["decision"]["goal"] == "recall:0.8" and card["method"] == "ce+logit_adjustment"

    def ruined(path):
        run = load_converted(path)
        return lambda images: {name: ~value if name.endswith("_detected") else value for name, value in run(images).items()}

    monkeypatch.setattr(exporting, "load_converted", ruined)
    (row,) = converted(workdir, ["onnx"])
    assert row["same_decisions"] == 1.0 and row["same_detections"] == 0.0
    assert not row["good"] and row["file"] == "not_good-model.onnx"


def test_calibration_images_begin_with_one_of_every_class():
    rng = np.random.default_rng(0)
    labels = np.stack([rng.choice(5, 2000, p=[0.9, 0.05, 0.03, 0.015, 0.005]), rng.choice([-1, 0, 1], 2000)], axis=1)
    order = by_rarest_class(labels, [5, 2], seed=3)
    assert sorted(order.tolist()) == list(range(2000))
    group = rarest_class(labels, [5, 2])
    kinds = len(np.unique(group))
    assert len(np.unique(group[order[:kinds]])) == kinds
    # The four rare classes of the first label are all in the first rounds, though the first has 90 % of the images.
    assert {1, 2, 3, 4} <= set(labels[order[: 2 * kinds], 0].tolist())
    assert (by_rarest_class(labels, [5, 2], seed=3) == order).all() and (by_rarest_class(labels, [5, 2], seed=4) != order).any()
