"""Folders and settings from elsewhere: files that name others, broken results, many classes, texts that are formulas."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from crl_tf.datasets.source import Dataset, Split, file_paths
from crl_tf.datasets.sources.records import load_records
from crl_tf.experiment.config import load_recipe, override
from crl_tf.experiment.data import load_source
from crl_tf.experiment.inspect import inspect_dataset, save_co_occurrence
from crl_tf.experiment.report.write import _csv
from crl_tf.experiment.run import evaluate, run
from crl_tf.experiment.workdir import FREE_ON_RESUME
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


@pytest.mark.parametrize("content", ["{}", "[]", '{"method": "ce"}'])
def test_a_broken_result_is_named(tiny_recipe, tmp_path, content):
    run(override(tiny_recipe, {"train.epochs": 1}), tmp_path / "run", export=False)
    (tmp_path / "run" / "result.json").write_text(content)
    for use in (
        lambda: evaluate(tmp_path / "run"),
        lambda: run(override(tiny_recipe, {"train.epochs": 1}), tmp_path / "run", resume=True),
    ):
        with pytest.raises(ValueError, match=r"result\.json must be the result of a run, and lacks"):
            use()


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
