"""tools/study.py: what runs in which order, that a stop is resumed, and what is kept of finished runs. No training here."""

import json
import subprocess

import numpy as np
import pytest
import study
import study_recipe
from study import Run

from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.config import load_recipe
from crl_tf.experiment.predictions import PREDICTIONS, Predictions, save_predictions

SMALL = study_recipe.Study("two methods", "cifar100_imb", {"train.epochs": 3}, "there", ("ce", "logit_adjusted", "class_rel"))
NUMBERS = {"balanced_accuracy": 0.5, "rarest_third": 0.25, "most_frequent_third": 0.75}
RANKED = dict.fromkeys(("auroc", "average_precision", "rarest_third_auroc", "rarest_third_average_precision"), 0.6)


@pytest.fixture(autouse=True)
def one_study(monkeypatch, tmp_path):
    monkeypatch.setattr(study, "STUDIES", {"small": SMALL})
    monkeypatch.setattr(study, "RESULTS", tmp_path / "study_results.json")


def finish(run, runs, decided, *, best="argmax"):
    """Leaves what a finished run leaves. `decided`: by rule, the decisions on the test images [N]."""
    folder = run.folder(runs)
    folder.mkdir(parents=True, exist_ok=True)
    rules = {rule: {**NUMBERS, "balanced_accuracy": 0.9 if rule == best else 0.4} for rule in decided}
    result = {"seconds": 1.0, "rules": rules, "validation": {"rules": rules, **RANKED}, **RANKED, "intervals": {}}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.json").write_text(json.dumps({"recipe": {}, "versions": {"keras": "3"}}))
    labels = np.array([[0], [0], [1], [1]])
    columns = {rule: np.array(of_rule, np.uint16)[:, None] for rule, of_rule in decided.items()}
    save_predictions(Predictions(labels, columns, "argmax", (2,), (np.array([9, 1]),)), folder / PREDICTIONS)


def test_every_run_of_the_recipe_can_be_run():
    """Each method of each data set is a configuration that passes every check; references and form are among them."""
    for name, of_study in study_recipe.STUDIES.items():
        references = study_recipe.STUDIES[of_study.compared_with or name].methods[: len(study_recipe.REFERENCES)]
        assert references == study_recipe.REFERENCES
        assert not set(references) & set(of_study.methods) or not of_study.compared_with
        for method in of_study.methods:
            config = study.override(load_recipe(of_study.base), {**of_study.settings, "method": method})
            assert assemble(config).names["method"] == method, name


def test_all_data_sets_of_a_seed_come_before_the_next_seed(monkeypatch):
    monkeypatch.setattr(study, "STUDIES", {"a": SMALL, "b": SMALL})
    order = list(study.planned(["a", "b"], [0, 1], ["class_rel", "ce"]))
    assert [(run.study, run.method, run.seed) for run in order] == [
        (name, method, seed) for seed in (0, 1) for name in "ab" for method in ("ce", "class_rel")
    ]  # fmt: skip


def test_finished_runs_are_kept_unfinished_ones_resumed_and_a_failed_one_is_named(tmp_path, monkeypatch, capsys):
    runs, todo = tmp_path / "runs", [Run("small", method, 0) for method in SMALL.methods]
    finish(todo[0], runs, {"argmax": [0, 0, 1, 1]})
    todo[1].folder(runs).mkdir(parents=True)
    called = []

    def run(arguments, **_):
        called.append(arguments)
        return subprocess.CompletedProcess(arguments, returncode=len(called) - 1)

    monkeypatch.setattr(study.subprocess, "run", run)
    failed = study.run_all(todo, tmp_path / "data", runs)
    assert ["--resume" in arguments for arguments in called] == [True, False]
    assert all(f"--workdir={one.folder(runs)}" in arguments for one, arguments in zip(todo[1:], called, strict=True))
    assert failed == ["[2/2] small · class_rel · seed 0: code 1"] and "1 of 3 runs are finished" in capsys.readouterr().out
    recipe = json.loads((runs / "small" / "seed0" / "class_rel.json").read_text())["recipe"]
    assert (recipe["method"], recipe["train"]["epochs"]) == ("class_rel", 3)
    assert recipe["data"]["dir"] == str(tmp_path / "data" / "there")


def test_each_run_counts_under_the_rule_that_was_best_on_its_validation_images(tmp_path):
    """By hand: the method decides 3 of 4 right under its best rule (recalls 1 and 1/2), the reference 2 of 4 (1 and 0)."""
    for seed in (0, 1):
        decided = {"argmax": [0, 0, 0, 0], "logit_adjustment": [0, 0, 0, 1]}
        finish(Run("small", "class_rel", seed), tmp_path, decided, best="logit_adjustment")
        finish(Run("small", "logit_adjusted", seed), tmp_path, {"argmax": [0, 0, 0, 0], "logit_adjustment": [1, 1, 1, 1]})
    finish(Run("small", "logit_adjusted", 2), tmp_path, {"argmax": [0, 0, 1, 1]})
    assert study.collect(tmp_path) == 5
    kept = json.loads(study.RESULTS.read_text())
    assert kept["studies"]["small"]["form"] == "class_rel"
    ours = [run for run in kept["runs"] if run["method"] == "class_rel"]
    assert [(run["seed"], run["rule"], run["test"]["best"]["balanced_accuracy"]) for run in ours] == [
        (seed, "logit_adjustment", 0.9) for seed in (0, 1)
    ]  # fmt: skip
    (difference,) = kept["differences"]
    assert (difference["method"], difference["against"], difference["seeds"]) == ("class_rel", "logit_adjusted", [0, 1])
    assert difference["balanced_accuracy"]["difference"] == pytest.approx(0.25)
    assert difference["rarest_third"]["difference"] == pytest.approx(0.5)  # 1 of 2 classes: the rare one, 1/2 against 0
    assert difference["balanced_accuracy"]["low"] <= 0.25 <= difference["balanced_accuracy"]["high"]


def test_a_study_of_other_settings_is_compared_with_the_references_of_its_data_set(tmp_path, monkeypatch):
    other = SMALL._replace(methods=("class_rel",), compared_with="small")
    monkeypatch.setattr(study, "STUDIES", {"small": SMALL, "other": other})
    assert [run.method for run in study.planned(["other"], [0], None)] == ["class_rel"]
    finish(Run("small", "logit_adjusted", 0), tmp_path, {"argmax": [0, 0, 0, 0]})
    finish(Run("other", "class_rel", 0), tmp_path, {"argmax": [0, 0, 0, 1]})
    study.collect(tmp_path)
    kept = json.loads(study.RESULTS.read_text())
    assert [kept["studies"][name]["form"] for name in ("small", "other")] == ["class_rel", "class_rel"]
    (difference,) = kept["differences"]
    assert (difference["study"], difference["against"], difference["seeds"]) == ("other", "logit_adjusted", [0])
    assert difference["balanced_accuracy"]["difference"] == pytest.approx(0.25)  # recalls 1 and 1/2 against 1 and 0


def test_runs_of_an_earlier_sitting_are_kept_although_their_folders_are_gone(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for method in ("class_rel", "logit_adjusted"):
        for seed in (0, 1):
            finish(Run("small", method, seed), first, {"argmax": [0, 0, 1, 1]})
    finish(Run("small", "class_rel", 2), second, {"argmax": [0, 0, 0, 0]})
    finish(Run("small", "logit_adjusted", 2), second, {"argmax": [0, 0, 1, 1]})
    assert (study.collect(first), study.collect(second)) == (4, 6)
    (difference,) = json.loads(study.RESULTS.read_text())["differences"]
    assert difference["seeds"] == [0, 1] and difference["balanced_accuracy"]["difference"] == 0


def test_data_must_be_named(capsys):
    with pytest.raises(SystemExit):
        study.main(["--only=small"])
    assert "--data must name the folder of all data" in capsys.readouterr().err
