"""Several methods on several seeds: what is run, what is taken, what the report is made from."""

import keras
import numpy as np
import pytest

from crl_tf.callbacks import Diverged
from crl_tf.experiment import compare as comparing
from crl_tf.experiment.compare import compare
from crl_tf.experiment.methods import METHODS
from crl_tf.experiment.run import evaluate
from crl_tf.files import read_json

REPORT = {"report.txt", "report.md", "report.csv", "runs.csv", "labels.csv"}


@pytest.fixture
def quick(tiny_recipe):
    tiny_recipe.train.epochs = 1
    tiny_recipe.network.width = 0.25
    return tiny_recipe


def test_methods_on_seeds_and_what_is_missing_later(quick, tmp_path, capsys):
    results = compare(quick, ["ce", "class_rel"], tmp_path / "many", seeds=[3, 4], export=False)
    assert [(r["seed"], r["method"]) for r in results] == [(3, "ce"), (3, "class_rel"), (4, "ce"), (4, "class_rel")]
    assert "[1/4] ce · seed 3\n" in capsys.readouterr().out
    assert REPORT <= {path.name for path in (tmp_path / "many").iterdir()}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "many").rglob("model.keras")}
    assert len(before) == 4
    again = compare(quick, ["ce", "focal"], tmp_path / "many", seeds=[3], resume=True, export=False)
    order = [(3, "ce"), (3, "class_rel"), (3, "focal"), (4, "ce"), (4, "class_rel")]
    assert [(r["seed"], r["method"]) for r in again] == order
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert [r for r in again if r["method"] != "focal"] == results
    assert "focal" in (tmp_path / "many" / "report.md").read_text()
    assert [(r["seed"], r["method"]) for r in evaluate(tmp_path / "many")] == order
    plan = read_json(tmp_path / "many" / "comparison.json")
    assert (plan["methods"], plan["seeds"]) == (["ce", "class_rel", "focal"], [3, 4])
    with pytest.raises(ValueError, match="was started with --seeds: do the same"):
        compare(quick, ["ce"], tmp_path / "many", resume=True)


def test_a_decision_rule_costs_no_training(quick, tmp_path, capsys):
    results = compare(quick, ["ce", "logit_adjustment"], tmp_path / "two", export=False)
    said = capsys.readouterr().out
    assert "only the decision rule is another" in said and not (tmp_path / "two/logit_adjustment/history.csv").exists()
    first, second = (keras.saving.load_model(tmp_path / "two" / r["method"] / "model.keras").get_weights() for r in results)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert results[1]["balanced_accuracy"] == results[0]["rules"]["logit_adjustment"]["balanced_accuracy"]
    assert results[0]["seconds"] == results[1]["seconds"]
    # Nor does going on for longer, which the other does from its checkpoint.
    quick.train.epochs = 2
    results = compare(quick, ["ce", "logit_adjustment"], tmp_path / "two", resume=True, export=False)
    assert [r["epochs"] for r in results] == [2, 2] and not (tmp_path / "two/logit_adjustment/history.csv").exists()
    assert "Epoch 1/2" not in capsys.readouterr().out


def test_one_that_diverges_does_not_take_the_others_along(quick, tmp_path, monkeypatch):
    run = comparing.run

    def fails_for_focal(config, *rest, **given):
        if config.loss == "focal":
            raise Diverged("the loss became nan in epoch 1")
        return run(config, *rest, **given)

    monkeypatch.setattr(comparing, "run", fails_for_focal)
    results = compare(quick, ["focal", "ce"], tmp_path / "two", export=False)
    assert [r["method"] for r in results] == ["ce"]
    assert read_json(tmp_path / "two/comparison.json")["failed"] == {"focal · seed 0": "the loss became nan in epoch 1"}
    assert "the loss became nan in epoch 1" in (tmp_path / "two/report.md").read_text()
    with pytest.raises(ValueError, match="no run came to an end: focal · seed 0: the loss became nan"):
        compare(quick, ["focal"], tmp_path / "none", export=False)


def test_all_is_every_row_that_has_a_meaning(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "METHODS", {name: METHODS[name] for name in ("ce", "down_sampling")})

    def refuses(config, dataset):
        if config.resampling == "down_sampling":
            raise ValueError("a class of one image")

    monkeypatch.setattr(comparing, "check_data", refuses)
    assert [r["method"] for r in compare(quick, "all", tmp_path / "all", export=False)] == ["ce"]
    assert "left out: a class of one image" in (tmp_path / "all/report.md").read_text()
    with pytest.raises(ValueError, match="down_sampling: a class of one image"):
        compare(quick, ["ce", "down_sampling"], tmp_path / "named", export=False)
    assert not (tmp_path / "named").exists()


@pytest.mark.parametrize(
    "methods, given, complaint",
    [
        (["ce", "ce"], {}, "compare must name each method once"),
        ([], {}, "compare must name a method or more"),
        (["ce", "smote"], {}, "method must be one of .*received 'smote'"),
        (["ce"], {"seeds": [1, 1]}, r"seeds must name each seed once, and one or more, received \[1, 1\]"),
        (["ce"], {"seeds": []}, "seeds must name each seed once"),
        (["ce"], {"seeds": [0, 2**32]}, r"seed must lie in \[0, 2\^32 - 1\], received 4294967296"),
        (["class_rel", "class_rel_all"], {"scope": "all"}, "class_rel_all: with this recipe it is class_rel_all, which another"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_read(quick, tmp_path, methods, given, complaint):
    quick.data.dir = "nowhere"
    quick.crl.scope = given.get("scope", "minority")
    given = {name: value for name, value in given.items() if name != "scope"}
    with pytest.raises(ValueError, match=complaint):
        compare(quick, methods, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_another_recipe_does_not_mix_in(quick, tmp_path):
    compare(quick, ["ce"], tmp_path / "run", export=False)
    with pytest.raises(ValueError, match="is not empty: pass --resume"):
        compare(quick, ["ce"], tmp_path / "run")
    with pytest.raises(ValueError, match="holds no comparison"):
        compare(quick, ["ce"], tmp_path / "run" / "ce", resume=True)
    quick.model, quick.network.width = "resnet32", 1.0
    with pytest.raises(ValueError, match="model: 'cifarnet' there, 'resnet32' now"):
        compare(quick, ["ce"], tmp_path / "run", resume=True)
    quick.model, quick.network.width, quick.crl.eta = "cifarnet", 0.25, 0.3
    plan = (tmp_path / "run" / "comparison.json").read_bytes()
    for methods in (["ce"], ["focal"]):
        with pytest.raises(ValueError, match=r"crl\.eta: 0\.5 there, 0\.3 now"):
            compare(quick, methods, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "comparison.json").read_bytes() == plan
    with pytest.raises(ValueError, match="was started without --seeds: do the same"):
        quick.crl.eta = 0.5
        compare(quick, ["ce"], tmp_path / "run", resume=True, seeds=[0])


def test_a_seed_that_gives_a_method_no_meaning_is_told_and_left(quick, tmp_path, monkeypatch):
    check = comparing.check_data

    def refuses(config, dataset):
        if config.seed == 1:
            raise comparing.MeaninglessData("a class of one image")
        check(config, dataset)

    monkeypatch.setattr(comparing, "check_data", refuses)
    results = compare(quick, ["ce"], tmp_path / "run", seeds=[0, 1], export=False)
    assert [r["seed"] for r in results] == [0]
    assert read_json(tmp_path / "run/comparison.json")["failed"] == {"ce · seed 1": "a class of one image"}


def test_a_training_of_its_own_that_diverges_is_one_of_them(quick, tmp_path):
    quick.train.learning_rate = 1e30
    results = compare(quick, ["triplet_knn", "lmle", "hog_knn"], tmp_path / "run", export=False)
    assert [r["method"] for r in results] == ["hog_knn"]
    assert set(read_json(tmp_path / "run/comparison.json")["failed"]) == {"triplet_knn · seed 0", "lmle · seed 0"}
    assert not (tmp_path / "run/lmle/embedding/start.npz").exists()
