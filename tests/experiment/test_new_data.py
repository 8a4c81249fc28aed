"""A finished run measured on other data: labels and classes by name, rules as they were chosen, nothing written."""

import csv
import shutil

import numpy as np
import pytest
from finished_runs import run_on

from crl_tf.decision import BEST, rule_offsets
from crl_tf.experiment.finished import export_again, export_of, opened, run_folder
from crl_tf.experiment.new_data import evaluate_on
from crl_tf.experiment.predictions import load_predictions
from crl_tf.experiment.run import evaluate
from crl_tf.files import read_json
from crl_tf.ranking import label_columns
from crl_tf.serving.predict import predict_files
from crl_tf.serving.served import load_served


@pytest.fixture(scope="module")
def finished(shop, tmp_path_factory):
    """A finished run on the shop, and its result."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    return workdir, run_on(shop, workdir)


def write_table(folder, rows, columns):
    folder.mkdir(exist_ok=True)
    with open(folder / "attributes.csv", "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def rows_of_shop(shop, split=None):
    with open(shop / "attributes.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if split in (None, row["split"])]


@pytest.fixture
def test_rows(shop, tmp_path):
    """The shop's test images as a table of their own, with other columns in another order, and no splits."""
    folder = tmp_path / "new"
    rows = [
        [row["size"], shop / row["path"], row["colour"], "x" if i % 2 else "y"]
        for i, row in enumerate(rows_of_shop(shop, "test"))
    ]
    write_table(folder, rows, ["size", "path", "colour", "other"])
    return folder


OUTSIDE = {"data.allow_outside_root": True}


def test_the_test_images_as_new_data_have_the_numbers_of_the_test(finished, test_rows):
    workdir, result = finished
    before = sorted((path, path.stat().st_mtime_ns) for path in workdir.rglob("*"))
    (measured,) = evaluate_on(workdir, {"data.dir": str(test_rows), **OUTSIDE})
    for name, label in result["labels"].items():
        assert measured["labels"][name]["confusion"] == label["confusion"]
        assert measured["labels"][name]["train_counts"] == label["train_counts"]
    for name, rule in result["rules"].items():
        assert measured["rules"][name]["balanced_accuracy"] == pytest.approx(rule["balanced_accuracy"])
        assert measured["rules"][name]["strengths"] == rule["strengths"]
    assert measured["dataset"] == "attribute_csv in new"
    assert "validation" not in measured
    assert measured["decision"]["calibration"]["as_trained"] == pytest.approx(result["decision"]["calibration"]["as_trained"])
    assert sorted((path, path.stat().st_mtime_ns) for path in workdir.rglob("*")) == before


def test_the_runs_own_data_in_another_place_are_measured_on_their_test_split(finished, shop, tmp_path):
    workdir, result = finished
    shutil.copytree(shop, tmp_path / "moved")
    (measured,) = evaluate_on(workdir, {"data.dir": str(tmp_path / "moved")})
    assert measured["balanced_accuracy"] == pytest.approx(result["balanced_accuracy"])


def test_a_label_that_is_missing_is_not_measured_and_that_is_said(finished, shop, tmp_path, log):
    write_table(tmp_path / "new", [[shop / row["path"], row["colour"]] for row in rows_of_shop(shop, "test")], ["path", "colour"])
    (measured,) = evaluate_on(finished[0], {"data.dir": str(tmp_path / "new"), **OUTSIDE})
    assert measured["labels"]["size"]["balanced_accuracy"] is None
    assert measured["balanced_accuracy"] == measured["labels"]["colour"]["balanced_accuracy"]
    assert any("lack the labels: size" in message for message in log.messages)


@pytest.mark.parametrize(
    ("columns", "value", "words"),
    [
        (["path", "colour"], "Red", r"must spell classes as the run does: 'colour' has 'Red', and the run 'red'"),
        (["path", "taste"], "sweet", r"must hold the labels colour, size of the run, received taste"),
    ],
)
def test_what_the_run_does_not_know_is_refused(finished, shop, tmp_path, columns, value, words):
    rows = [[shop / row["path"], value if i == 3 else row["colour"]] for i, row in enumerate(rows_of_shop(shop, "test"))]
    write_table(tmp_path / "new", rows, columns)
    with pytest.raises(ValueError, match=words):
        evaluate_on(finished[0], {"data.dir": str(tmp_path / "new"), **OUTSIDE})


def test_few_images_with_classes_that_are_missing_or_new_are_measured_as_far_as_they_can_be(finished, shop, tmp_path, log):
    rows = [[shop / row["path"], row["colour"]] for row in rows_of_shop(shop, "test")]
    red = [[*row, "same"] for row in rows if row[1] == "red"][:2]
    other = next(row[0] for row in rows if row[1] != "red")
    write_table(tmp_path / "new", [*red, [other, "violet", "same"]], ["path", "colour", "batch"])
    (measured,) = evaluate_on(finished[0], {"data.dir": str(tmp_path / "new"), **OUTSIDE})
    assert np.sum(measured["labels"]["colour"]["confusion"]) == 2
    assert any("not measured: 1 image of 'colour', classes that the run does not know: 'violet'" in line for line in log.messages)


@pytest.mark.parametrize(
    ("columns", "cells", "count"),
    [(["path", "colour"], [], 1), (["path", "colour", "group"], ["a"], 9), (["path", "colour", "split"], ["test"], 9)],
)
def test_what_cannot_be_split_is_measured(finished, shop, tmp_path, columns, cells, count):
    rows = [[shop / row["path"], row["colour"], *cells] for row in rows_of_shop(shop, "test")][:count]
    write_table(tmp_path / "new", rows, columns)
    (measured,) = evaluate_on(finished[0], {"data.dir": str(tmp_path / "new"), **OUTSIDE})
    assert np.sum(measured["labels"]["colour"]["confusion"]) == count


def test_thresholds_are_measured_on_new_data_as_they_were_chosen(finished, test_rows, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    with opened(workdir, {"decision.threshold": "recall:0.9", "decision.calibrate": True}) as run_with_thresholds:
        chosen = export_again(run_with_thresholds)["decision"]
    (again,) = evaluate(workdir)
    (measured,) = evaluate_on(workdir, {"data.dir": str(test_rows), **OUTSIDE})
    for decision in (again["decision"], measured["decision"]):
        assert decision["thresholds"] == chosen["thresholds"] and decision["temperatures"] == chosen["temperatures"]
        assert decision["rarest_third"] == chosen["rarest_third"]


@pytest.mark.parametrize("rule", ["argmax", "threshold_adjustment", BEST])
def test_an_export_with_another_rule_decides_by_it_and_is_measured_by_it(finished, test_rows, tmp_path, rule):
    workdir, before = tmp_path / "run", finished[1]
    shutil.copytree(finished[0], workdir)
    with opened(workdir, {"decision.rule": rule}) as run_with_rule:
        result = export_again(run_with_rule)
    on_validation = {name: of["balanced_accuracy"] for name, of in before["validation"]["rules"].items()}
    assert result["rule"] == (max(on_validation, key=on_validation.__getitem__) if rule == BEST else rule)
    assert result["balanced_accuracy"] == before["rules"][result["rule"]]["balanced_accuracy"]
    assert result["rules"] == before["rules"] and load_predictions(workdir / "predictions.npz").rule == result["rule"]
    (again,), (measured,) = evaluate(workdir), evaluate_on(workdir, {"data.dir": str(test_rows), **OUTSIDE})
    assert again["rule"] == measured["rule"] == result["rule"]
    data = run_with_rule.context.data
    images = next(iter(data.batches("test")))[0]
    strengths = list(result["rules"][result["rule"]]["strengths"].values())
    scores = run_with_rule.model(images).numpy() + rule_offsets(result["rule"], data.counts, strengths)
    served = load_served(export_of(workdir)).answer("uint8_images", images=images)
    for name, columns in zip(result["labels"], label_columns(data.dataset.schema.num_classes), strict=True):
        assert served[f"{name}_index"].tolist() == scores[:, columns].argmax(axis=1).tolist()


def test_unreadable_images_are_refused_or_left_out(finished, test_rows, log):
    with open(test_rows / "attributes.csv", "a") as file:
        file.write("small,broken.png,red,x\n")
    (test_rows / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"unreadable images: 1 in test: .*broken.png"):
        evaluate_on(finished[0], {"data.dir": str(test_rows), **OUTSIDE})
    (measured,) = evaluate_on(finished[0], {"data.dir": str(test_rows), "data.skip_unreadable": True, **OUTSIDE})
    assert np.sum(measured["labels"]["colour"]["confusion"]) == 12
    assert any("left out 1 unreadable" in message for message in log.messages)


def test_predictions_of_the_test_images_are_those_that_were_measured(finished, shop, tmp_path):
    workdir, result = finished
    rows = rows_of_shop(shop, "test")
    predict_files(load_served(export_of(workdir)), [str(shop / row["path"]) for row in rows], tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="") as file:
        predicted = list(csv.DictReader(file))
    for name, label in result["labels"].items():
        classes = list(label["train_counts"])
        matrix = np.zeros((len(classes), len(classes)), int)
        for row, of_row in zip(rows, predicted, strict=True):
            if row[name]:
                matrix[classes.index(row[name]), classes.index(of_row[name])] += 1
        assert matrix.tolist() == label["confusion"]


def test_an_export_with_thresholds_replaces_the_other_and_the_run_keeps_its_numbers(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    with opened(workdir, {"decision.threshold": "recall:0.9", "decision.calibrate": True}) as run_with_thresholds:
        result = export_again(run_with_thresholds)
    assert {**finished[1], "decision": None} == {**result, "decision": None}
    assert read_json(workdir / "result.json") == result
    assert read_json(workdir / "config.json")["recipe"]["decision"] == {
        "rule": "method",
        "threshold": "recall:0.9",
        "calibrate": True,
    }
    served = load_served(workdir / "export")
    of_classes = [
        of_class["threshold"] for of_label in result["decision"]["thresholds"].values() for of_class in of_label.values()
    ]
    np.testing.assert_allclose(served.scoring.thresholds, of_classes, rtol=1e-6)
    np.testing.assert_allclose(served.scoring.temperatures, list(result["decision"]["temperatures"].values()), rtol=1e-6)
    assert served.card["decision"] == result["decision"]
    # Without a word of them the next export keeps them.
    with opened(workdir) as same:
        assert export_again(same)["decision"]["goal"] == "recall:0.9"


def test_a_folder_without_one_finished_run_is_refused(finished, tmp_path):
    with pytest.raises(ValueError, match=r"must hold a finished run; .* lacks config.json, model.keras, result.json"):
        export_of(tmp_path)
    shutil.copytree(finished[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "export")
    assert run_folder(tmp_path / "run") == tmp_path / "run"
    with pytest.raises(ValueError, match=r"has no export/: make it with --mode=export"):
        export_of(tmp_path / "run")
