"""Folders and settings from elsewhere: files that name others, broken results, many classes, texts that are formulas."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from crl_tf.datasets.source import Dataset, Split, file_paths
from crl_tf.datasets.sources.records import load_records
from crl_tf.experiment.config import base_config, load_recipe, override
from crl_tf.experiment.data import load_source
from crl_tf.experiment.inspect import inspect_dataset, save_co_occurrence
from crl_tf.experiment.report.write import _csv
from crl_tf.experiment.run import evaluate, run
from crl_tf.experiment.trainers.gradient import keep_epochs
from crl_tf.experiment.workdir import FREE_ON_RESUME, clean_folder, held, read_search, started_with
from crl_tf.schema import Attribute, AttributeSchema


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "", 3])
def test_a_comparison_and_records_name_nothing_outside_of_their_folder(tmp_path, name):
    (tmp_path / "comparison.json").write_text(json.dumps({"methods": [name], "seeds": None}))
    with pytest.raises(ValueError, match=r"comparison\.json must name what lies in"):
        evaluate(tmp_path)
    part = {"shards": [{"file": name, "bytes": 1}], "index": {"file": name}}
    schema = [{"name": "a", "classes": ["x", "y"]}]
    content = {"format": 1, "schema": schema, "splits": dict.fromkeys(("train", "validation", "test"), part)}
    (tmp_path / "crl_tf.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"crl_tf\.json must name what lies in"):
        load_records(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        '{"method": "ce"}',
        '{"method": "ce", "rules": [1], "labels": {}}',
        '{"method": "ce", "labels": {"a": 5}, "rules": {}}',
    ],
)
def test_a_broken_result_is_named(tiny_recipe, tmp_path, content):
    run(override(tiny_recipe, {"train.epochs": 1}), tmp_path / "run", export=False)
    (tmp_path / "run" / "result.json").write_text(content)
    for use in (
        lambda: evaluate(tmp_path / "run"),
        lambda: run(override(tiny_recipe, {"train.epochs": 1}), tmp_path / "run", resume=True),
    ):
        with pytest.raises(ValueError, match=r"result\.json must be the result of a run, and lacks"):
            use()


@pytest.fixture(scope="session")
def finished(tmp_path_factory, shop):
    folder = tmp_path_factory.mktemp("finished") / "run"
    recipe = {"dataset": "attribute_csv", "data.dir": str(shop), "data.image_size": (16, 16), "train.epochs": 1}
    run(override(base_config(), recipe | {"model": "cifarnet", "train.batch_size": 16, "method": "ce"}), folder, export=False)
    return folder


def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize("key, value", [("schema", 5), ("schema", [{"name": 3}]), ("images", [1]), ("digests", {"train": 1})])
def test_a_changed_description_of_the_data_is_named(finished, tmp_path, key, value):
    folder = copied(finished, tmp_path)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=rf"config\.json must say which data a run had, and its '{key}' was changed"):
        evaluate(folder)


def test_a_file_that_is_no_utf8_is_named(finished, tmp_path):
    folder = copied(finished, tmp_path)
    (folder / "config.json").write_bytes(b'{"recipe": "\xe9"}')
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON: 'utf-8' codec"):
        evaluate(folder)


@pytest.mark.parametrize("change", ["flipped", "cut", "empty"])
def test_a_damaged_model_is_named_with_what_to_do_and_made_anew(finished, tmp_path, change):
    folder = copied(finished, tmp_path)
    path = folder / "model.keras"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    path.write_bytes({"flipped": bytes(flipped), "cut": whole[: len(whole) // 2], "empty": b""}[change])
    with pytest.raises(ValueError, match=r"model\.keras is damaged \(.*\): delete it and the results beside it, and --resume"):
        evaluate(folder)
    before = json.loads((folder / "result.json").read_text())
    path.unlink()
    (folder / "result.json").unlink()
    again = run(started_with(folder)[0], folder, resume=True, export=False)
    assert again["balanced_accuracy"] == before["balanced_accuracy"]
    assert evaluate(folder)[0]["balanced_accuracy"] == before["balanced_accuracy"]


@pytest.mark.parametrize("config", [{}, {"module": "os", "class_name": "system", "config": {"command": "true"}}])
def test_a_model_of_another_kind_is_named(finished, tmp_path, config):
    folder = copied(finished, tmp_path)
    path = folder / "model.keras"
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    with pytest.raises(ValueError, match=r"model\.keras holds no model that can be read"):
        evaluate(folder)


def test_a_history_without_seconds_is_refused_before_it_trains(finished, tmp_path):
    folder = copied(finished, tmp_path)
    (folder / "history.csv").write_text("epoch,loss\n0,1.0\n")
    more = override(started_with(folder)[0], {"train.epochs": 2})
    with pytest.raises(ValueError, match=r"history\.csv must have the column 'seconds', received \['epoch', 'loss'\]: delete it"):
        run(more, folder, resume=True, export=False)
    (folder / "history.csv").unlink()
    run(more, folder, resume=True, export=False)
    with open(folder / "history.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]


def test_what_a_live_run_of_a_comparison_is_writing_is_left_alone(tmp_path):
    for name in ("live", "dead"):
        (tmp_path / name / "checkpoint").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "checkpoint" / ".partial-1-epoch.keras").write_text("half")
    with held(tmp_path / "live"):
        assert clean_folder(tmp_path, resume=True)
    assert [path.parent.parent.name for path in tmp_path.rglob(".partial-*")] == ["live"]


@pytest.mark.parametrize("target", ["gone", "run"])
def test_a_folder_that_is_a_link_to_nothing_is_named(tmp_path, target):
    (tmp_path / "run").symlink_to(tmp_path / target)
    with pytest.raises(ValueError, match=r"workdir must be a folder, but .*/run is a link to nothing"):
        with held(tmp_path / "run"):
            pass


SEARCH = {"finished": False, "budget": 60.0, "seconds": 1.0, "named": [], "not_tried": {}, "rungs": []}


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        SEARCH | {"rungs": [{"epochs": 1}]},
        SEARCH | {"finished": True},
        SEARCH | {"finished": True, "finalists": ["ce"]},
        SEARCH | {"budget": "60"},
    ],
)
def test_a_search_that_was_changed_is_named(tmp_path, content):
    (tmp_path / "auto.json").write_text(json.dumps(content))
    for use in (lambda: evaluate(tmp_path), lambda: read_search(tmp_path)):
        with pytest.raises(ValueError, match=r"auto\.json must be what a search keeps, and was changed"):
            use()


def test_a_comparison_whose_failures_were_changed_is_named(tmp_path):
    (tmp_path / "comparison.json").write_text(json.dumps({"methods": ["ce"], "seeds": None, "failed": [1]}))
    with pytest.raises(ValueError, match=r"comparison\.json must hold the methods and seeds"):
        evaluate(tmp_path)


@pytest.mark.parametrize(
    "key, value", [("train.batch_size", 10**20), ("data.image_size", (99_999_999, 99_999_999)), ("train.epochs", 10**400)]
)
def test_a_number_beyond_all_sense_is_refused(key, value):
    with pytest.raises(ValueError, match=f"{key} must be"):
        override(base_config(), {key: value})


@pytest.mark.parametrize("content", ["", "epoch,balanced_accuracy,lo", "epoch,loss,seconds\n", "epoch,loss,seconds\n0,1.0"])
def test_a_history_of_a_training_that_was_stopped_at_once_is_begun_anew(tmp_path, content):
    path = tmp_path / "history.csv"
    path.write_text(content)
    keep_epochs(path, 1)
    assert not path.exists()


def test_what_the_advice_names_is_allowed_on_resume():
    assert "data.skip_unreadable" in FREE_ON_RESUME


@pytest.mark.parametrize(
    "dataset, key, value",
    [("celeba", "data.gamma", 2.0), ("handwriting", "data.schema", "a.yaml"), ("records", "data.download", True)],
)
def test_a_setting_without_meaning_for_the_dataset_is_refused(dataset, key, value):
    recipe = override(load_recipe(dataset), {key: value})
    with pytest.raises(ValueError, match=f"{key} has no meaning for {dataset}: leave it out, received"):
        load_source(dataset, recipe.data, seed=0, check_images=False)


def many_classes(count):
    labels = np.arange(2 * count, dtype=np.int32)[:, np.newaxis] % count
    split = Split(np.zeros((len(labels), 1, 1, 3), np.uint8), labels)
    schema = AttributeSchema((Attribute("a", tuple(map(str, range(count)))),))
    return Dataset("own", schema, dict.fromkeys(("train", "validation", "test"), split))


def test_pairs_of_very_many_classes_are_not_counted(monkeypatch):
    monkeypatch.setattr("crl_tf.experiment.inspect.SIMULATED_BATCHES", 2)
    facts = inspect_dataset(many_classes(65_000), batch_size=8, eta=0.1)
    assert facts["co_occurrence"] == []
    assert any("pairs of classes were not counted: 65,000 classes are more than 5,000" in line for line in facts["findings"])
    assert len(facts["labels"]["a"]["classes"]) == 65_000


FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1")


def test_texts_that_are_formulas_begin_with_an_apostrophe_in_csv_files(tmp_path):
    rows = list(csv.DictReader(io.StringIO(_csv([{"label": text, "value": -0.5} for text in FORMULAS]))))
    assert [row["label"] for row in rows] == [f"'{text}" for text in FORMULAS]
    assert {row["value"] for row in rows} == {"-0.5"}
    schema = AttributeSchema((Attribute("=1+1", ("a", "b")),))
    save_co_occurrence(np.eye(2, dtype=int), schema, tmp_path / "pairs.csv")
    assert (tmp_path / "pairs.csv").read_text().splitlines()[0] == ",'=1+1=a,'=1+1=b"


def test_a_file_name_that_is_not_utf_8_is_named():
    with pytest.raises(ValueError, match=r"file names must be UTF-8, received b'a\\xff\.png': rename the file"):
        file_paths([os.fsdecode(b"b.png"), os.fsdecode(b"a\xff.png")])


def test_a_closed_output_ends_the_command_quietly():
    command = f"{sys.executable} -m crl_tf.main --method=list | head -c 1; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert "Traceback" not in ran.stderr and "Broken" not in ran.stderr, ran.stderr
    assert ran.returncode in (0, 141)
