"""Several methods on several seeds: what is run, what is taken, what the report is made from."""

import keras
import numpy as np
import pytest

from crl_tf.callbacks import Diverged
from crl_tf.datasets.resampling import MeaninglessForData
from crl_tf.experiment import assemble as assembling
from crl_tf.experiment import compare as comparing
from crl_tf.experiment.compare import Previous, compare, plan
from crl_tf.experiment.config import override
from crl_tf.experiment.methods import METHODS
from crl_tf.experiment.run import evaluate
from crl_tf.files import read_json

REPORT = {"report.md", "report.csv", "runs.csv", "labels.csv"}


@pytest.fixture
def quick(tiny_recipe):
    tiny_recipe.train.epochs = 1
    tiny_recipe.network.width = 0.25
    return tiny_recipe


def test_methods_on_seeds_and_what_is_missing_later(quick, tmp_path, log, monkeypatch):
    results = compare(quick, ["ce", "class_rel"], tmp_path / "many", seeds=[3, 4], export=False)
    assert [(r["seed"], r["method"]) for r in results] == [(3, "ce"), (3, "class_rel"), (4, "ce"), (4, "class_rel")]
    assert "\n[1/4] ce · seed 3" in log.messages
    assert REPORT <= {path.name for path in (tmp_path / "many").iterdir()}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "many").rglob("model.keras")}
    assert len(before) == 4
    again = compare(quick, ["ce", "focal"], tmp_path / "many", seeds=[3], resume=True, export=False)
    order = [(3, "ce"), (3, "class_rel"), (3, "focal"), (4, "ce"), (4, "class_rel")]
    assert [(r["seed"], r["method"]) for r in again] == order
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert [r for r in again if r["method"] != "focal"] == results
    assert "focal" in (tmp_path / "many" / "report.md").read_text()
    loaded = []
    load_data = assembling.load_data
    monkeypatch.setattr(assembling, "load_data", lambda *given, **options: loaded.append(options) or load_data(*given, **options))
    assert [(r["seed"], r["method"]) for r in evaluate(tmp_path / "many")] == order
    assert [options["seed"] for options in loaded] == [3, 4]  # once for all runs of a seed
    plan = read_json(tmp_path / "many" / "comparison.json")
    assert (plan["methods"], plan["seeds"]) == (["ce", "class_rel", "focal"], [3, 4])
    with pytest.raises(ValueError, match="was started with --seeds: do the same"):
        compare(quick, ["ce"], tmp_path / "many", resume=True)


def test_a_decision_rule_costs_no_training(quick, tmp_path, log):
    results = compare(quick, ["ce", "logit_adjustment"], tmp_path / "two", export=False)
    assert any("only the decision rule is another" in message for message in log.messages)
    assert not (tmp_path / "two/logit_adjustment/history.csv").exists()
    first, second = (keras.saving.load_model(tmp_path / "two" / r["method"] / "model.keras").get_weights() for r in results)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert results[1]["balanced_accuracy"] == results[0]["rules"]["logit_adjustment"]["balanced_accuracy"]
    assert results[0]["seconds"] == results[1]["seconds"]
    # Nor does going on for longer, which the other does from its checkpoint.
    quick.train.epochs = 2
    results = compare(quick, ["ce", "logit_adjustment"], tmp_path / "two", resume=True, export=False)
    assert [r["epochs"] for r in results] == [2, 2] and not (tmp_path / "two/logit_adjustment/history.csv").exists()
    rows = (tmp_path / "two/ce/history.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1"]


def test_one_that_diverges_does_not_take_the_others_along(quick, tmp_path, monkeypatch):
    run_parts = comparing.run_parts

    def fails_for_focal(parts, *rest, **options):
        if parts.names["method"] == "focal":
            raise Diverged("the loss became nan in epoch 1")
        return run_parts(parts, *rest, **options)

    monkeypatch.setattr(comparing, "run_parts", fails_for_focal)
    results = compare(quick, ["focal", "ce"], tmp_path / "two", export=False)
    assert [r["method"] for r in results] == ["ce"]
    assert read_json(tmp_path / "two/comparison.json")["failed"] == {"focal · seed 0": "the loss became nan in epoch 1"}
    assert "the loss became nan in epoch 1" in (tmp_path / "two/report.md").read_text()
    with pytest.raises(ValueError, match="no run came to an end: focal · seed 0: the loss became nan"):
        compare(quick, ["focal"], tmp_path / "none", export=False)


def refusing(monkeypatch, refuse):
    """Resampling finds that the data give a method no meaning where `refuse` (name, seed) says so."""
    resample = assembling.resample

    def refused(name, labels, schema, seed):
        if refuse(name, seed):
            raise MeaninglessForData("a class of one image")
        return resample(name, labels, schema, seed)

    monkeypatch.setattr(assembling, "resample", refused)


def test_all_is_every_row_that_has_a_meaning(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "METHODS", {name: METHODS[name] for name in ("ce", "down_sampling")})
    refusing(monkeypatch, lambda name, seed: name == "down_sampling")
    assert [r["method"] for r in compare(quick, "all", tmp_path / "all", export=False)] == ["ce"]
    assert "left out: down_sampling: a class of one image" in (tmp_path / "all/report.md").read_text()
    with pytest.raises(MeaninglessForData, match="down_sampling: a class of one image"):
        compare(quick, ["ce", "down_sampling"], tmp_path / "named", export=False)
    assert not (tmp_path / "named").exists()


@pytest.mark.parametrize("settings", [{"train.batch_size": 15}, {"data.open_shards": 2}], ids=str)
def test_all_leaves_pairs_out_where_they_have_no_meaning(quick, settings):
    config = override(quick, settings)
    left_out = plan(config, "all").left_out
    assert next(iter(settings)) in left_out["pairs"] and set(left_out) <= {"pairs", "ldam"}
    with pytest.raises(MeaninglessForData, match=r"for pairs"):
        plan(config, ["class_rel+pairs"])


def test_any_other_error_is_an_error_and_keeps_its_type(quick, tmp_path, monkeypatch):
    """Not swallowed by --compare=all, and not turned into an error of another type."""
    monkeypatch.setattr(comparing, "METHODS", {name: METHODS[name] for name in ("ce", "class_rel")})
    quick.crl.rho = 2.0
    for methods in ("all", ["ce", "class_rel"]):
        with pytest.raises(ValueError, match=r"crl\.rho must be a number in \(0, 1\], received 2\.0"):
            compare(quick, methods, tmp_path / "rho", export=False)
    quick.crl.rho = 0.5

    def broken(*_, **__):
        b"\xff".decode("utf-8")

    monkeypatch.setattr(assembling, "load_data", broken)
    for methods in ("all", ["ce", "class_rel"]):
        with pytest.raises(UnicodeDecodeError):
            compare(quick, methods, tmp_path / "broken", export=False)
    monkeypatch.setattr(assembling, "checked", broken)
    for methods in ("all", ["ce", "class_rel"]):
        with pytest.raises(UnicodeDecodeError):
            compare(quick, methods, tmp_path / "broken", export=False)
    assert not list(tmp_path.iterdir())


def test_a_plan_is_pure_and_says_what_will_run(quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick.data.dir = "nowhere"  # nothing is read
    quick.network.width = 1.0
    quick.model = "anet"
    quick.data.image_size = (32, 32)
    planned = plan(quick, "all", seeds=[3, 4])
    assert not list(tmp_path.iterdir())
    # Cosine logits cannot become an SVM; every other method has a meaning as far as the configuration tells.
    assert planned.left_out == {"ldam": "left out: network.cosine_scale must be none for anet, which ends in a linear SVM"}
    # Nor can rows run by themselves that only set settings of a loss.
    names = [name for name in METHODS if name not in ("ldam", "gated", "per_anchor", "logit_adjusted_base")]
    assert [run.method for run in planned.runs] == 2 * names
    assert [run.seed for run in planned.runs] == [3] * len(names) + [4] * len(names)
    assert {run.parts.recipe["crl"]["rho"] for run in planned.runs if run.method == "class_rel_rho_10"} == {0.1}
    assert [run.method for run in plan(quick, ["logit_adjustment+ce"]).runs] == ["logit_adjustment"]
    later = plan(quick, ["ce"], [4], previous=Previous(["focal"], [3]))
    assert (later.methods, later.seeds, len(later.runs)) == (("focal", "ce"), (3, 4), 1)


@pytest.mark.parametrize(
    "methods, given, complaint",
    [
        (["ce", "ce"], {}, "compare must name each method once"),
        ([], {}, "compare must name a method or more"),
        (["ce", "smote"], {}, "method must be one of .*received 'smote'"),
        (["ce"], {"seeds": [1, 1]}, r"seeds must name each seed once, and one or more, received \[1, 1\]"),
        (["ce"], {"seeds": []}, "seeds must name each seed once"),
        (["ce"], {"seeds": [0, 2**32]}, r"seed must be an int in \[0, 4294967295\], received 4294967296"),
        (["class_rel", "class_rel_all"], {"scope": "all"}, "class_rel_all: with this configuration it is the same as class_rel"),
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
    quick.crl.eta = 0.5
    quick.crl.scope = "all"  # a setting that some method sets
    with pytest.raises(ValueError, match=r"crl\.scope: 'minority' there, 'all' now"):
        compare(quick, ["focal"], tmp_path / "run", resume=True)
    quick.crl.scope = "minority"
    assert (tmp_path / "run" / "comparison.json").read_bytes() == plan
    with pytest.raises(ValueError, match="was started without --seeds: do the same"):
        quick.crl.eta = 0.5
        compare(quick, ["ce"], tmp_path / "run", resume=True, seeds=[0])


def test_a_seed_that_gives_a_method_no_meaning_is_told_and_left(quick, tmp_path, monkeypatch):
    refusing(monkeypatch, lambda name, seed: seed == 1)
    results = compare(quick, ["class_balanced_sampling"], tmp_path / "run", seeds=[0, 1], export=False)
    assert [r["seed"] for r in results] == [0]
    failed = read_json(tmp_path / "run/comparison.json")["failed"]
    assert failed == {"class_balanced_sampling · seed 1": "a class of one image"}


def test_a_training_of_its_own_that_diverges_is_one_of_them(quick, tmp_path):
    quick.train.learning_rate = 1e30
    results = compare(quick, ["triplet_knn", "lmle", "hog_knn"], tmp_path / "run", export=False)
    assert [r["method"] for r in results] == ["hog_knn"]
    assert set(read_json(tmp_path / "run/comparison.json")["failed"]) == {"triplet_knn · seed 0", "lmle · seed 0"}
    assert not (tmp_path / "run/lmle/embedding/start.npz").exists()
