"""The command line: recipes, flags and their errors, in a process of its own as users run it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crl_tf.experiment.config import base_recipe, from_json, load_recipe, override, recipe_names


def command(*flags, cwd):
    ran = subprocess.run([sys.executable, "-m", "crl_tf.main", *flags], capture_output=True, text=True, cwd=cwd)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.fixture
def on_shop(shop):
    return [
        "--dataset=attribute_csv",
        f"--data_dir={shop}",
        "--model=cifarnet",
        "--config.data.image_size=(16, 16)",
        "--batch_size=16",
        "--learning_rate=0.001",
    ]


def test_train_compare_evaluate_resume(on_shop, tmp_path):
    run = "--workdir=run"
    code, out, err = command(*on_shop, "--compare=ce,class_rel", "--epochs=1", "--kappa=none", "--noexport", run, cwd=tmp_path)
    assert code == 0, err
    assert "class_rel" in out and "attribute_csv · cifarnet · 1 epoch · seed 0" in out
    recipe = json.loads((tmp_path / "run/class_rel/config.json").read_text())["recipe"]
    assert recipe["crl"]["kappa"] is None and recipe["data"]["image_size"] == [16, 16] and recipe["train"]["epochs"] == 1
    table = out[out.index("attribute_csv · cifarnet · 1 epoch") : out.index("models, SavedModels, figures, logs: run")]
    code, out, err = command("--mode=evaluate", run, cwd=tmp_path)
    assert code == 0, err
    assert out.strip() == table.strip()
    code, out, err = command("--config=run/ce/config.json", "--loss=class_abs", "--noexport", "--workdir=again", cwd=tmp_path)
    assert code == 0, err
    again = json.loads((tmp_path / "again/config.json").read_text())["recipe"]
    assert again == {**recipe, "loss": "class_abs"}
    code, out, err = command("--resume", run, "--epochs=2", "--noexport", cwd=tmp_path)
    assert code == 0, err
    results = [json.loads((tmp_path / f"run/{loss}/result.json").read_text()) for loss in ("ce", "class_rel")]
    assert [result["epochs"] for result in results] == [2, 2]
    # The seconds are those of both sittings.
    rows = (tmp_path / "run/ce/history.csv").read_text().splitlines()
    at = rows[0].split(",").index("seconds")
    assert results[0]["seconds"] == pytest.approx(sum(float(row.split(",")[at]) for row in rows[1:]), abs=0.05)


def test_inspect(on_shop, shop, tmp_path):
    (tmp_path / "copy").mkdir()
    for path in shop.iterdir():
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    copy = tmp_path / "copy"
    (copy / "3.png").write_bytes(b"hello")
    (copy / "50.png").write_bytes((copy / "0.png").read_bytes())
    flags = ["--dataset=attribute_csv", f"--data_dir={copy}", "--mode=inspect", "--batch_size=8", "--workdir=seen"]
    code, out, err = command(*flags, cwd=tmp_path)
    assert code == 0, err
    found = json.loads((tmp_path / "seen/inspection.json").read_text())
    # The shop: of 36 training images every sixth is green and every sixth blue, and three have no size.
    colours = found["labels"]["colour"]["classes"]
    assert [colours[name]["train"] for name in ("red", "green", "blue")] == [24, 6, 6]
    assert found["labels"]["size"]["missing"]["train"] == pytest.approx(4 / 36)
    assert [image["image"].endswith("/3.png") for image in found["images"]["unreadable"]] == [True]
    assert [[Path(name).name for name in names] for names in found["images"]["repeated"]] == [["0.png", "50.png"]]
    out = " ".join(out.split())
    for said in ("1 of 60 images cannot be read", "1 picture stands in several splits", "Omega", "colour = green"):
        assert said in out, said
    written = {path.relative_to(tmp_path / "seen").as_posix() for path in (tmp_path / "seen").rglob("*") if path.is_file()}
    figures = {f"figures/{name}.png" for name in ("class_sizes", "class_distributions", "co_occurrence")}
    assert written == {"inspection.json", "co_occurrence.csv", *figures}
    code, out, err = command(*flags[:2], "--skip_unreadable", "--workdir=run", cwd=tmp_path)
    # One of 60 is more than 1 %.
    assert code != 0 and "1 of 60" in err and "Traceback" not in err


def test_methods_on_seeds(on_shop, tmp_path):
    flags = [*on_shop, "--epochs=1", "--noexport", "--compare=ce,logit_adjustment", "--seeds=3,4", "--workdir=many"]
    code, out, err = command(*flags, cwd=tmp_path)
    assert code == 0, err
    results = json.loads((tmp_path / "many/comparison.json").read_text())["results"]
    assert [(r["seed"], r["method"]) for r in results] == [(s, m) for s in (3, 4) for m in ("ce", "logit_adjustment")]
    mean = 50 * (results[0]["balanced_accuracy"] + results[2]["balanced_accuracy"])
    assert f"{mean:.1f} ±" in out and f"{mean:.1f} ±" in (tmp_path / "many/report.md").read_text()
    code, again, err = command("--mode=evaluate", "--workdir=many", cwd=tmp_path)
    assert code == 0 and f"{mean:.1f} ±" in again, err


def test_a_method_sets_its_part_of_the_recipe(on_shop, tmp_path):
    flags = [*on_shop, "--epochs=1", "--noexport", "--method=over_sampling+logit_adjustment", "--loss=focal", "--workdir=run"]
    code, out, err = command(*flags, cwd=tmp_path)
    assert code == 0, err
    recipe = json.loads((tmp_path / "run/config.json").read_text())["recipe"]
    assert [recipe[key] for key in ("loss", "resampling", "rule")] == ["focal", "over_sampling", "logit_adjustment"]
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["method"] == "focal+over_sampling+logit_adjustment" and result["method"] in out
    code, out, _ = command("--method=list", cwd=tmp_path)
    assert code == 0 and "class_balanced_sampling" in out and "Kang" in out


@pytest.mark.parametrize(
    "flags, complaint",
    [
        (["--dataset=imagenet"], "value should be one of <attribute_csv|celeba|cifar100"),
        (["--loss=smote"], "value should be one of <ce|class_rel"),
        (["--method=smote"], "method must be one of ['ce', 'class_rel'"),
        (["--compare=ce,smote"], "method must be one of ['ce', 'class_rel'"),
        (["--compare=ce,ce"], "compare must name each method once"),
        (["--compare=ce,class_rel+focal"], "method 'class_rel+focal' gives loss twice"),
        (["--compare=ce", "--seeds=0,x"], "seeds must be integers >= 0, received '0,x'"),
        (["--compare=ce", "--loss=focal"], "compare names the methods; --method and --loss are for one run"),
        (["--compare="], "compare must name a method or more"),
        (["--seeds=0,1"], "seeds are for --compare; one run takes --seed"),
        (["--config.rule=median"], "rule must be one of ['argmax', 'threshold_adjustment', 'logit_adjustment']"),
        (["--config.resampling=smote"], "resampling must be one of ['none', 'over_sampling'"),
        (["--kappa=-3"], "kappa must be an integer >= 1, or none, received '-3'"),
        (["--rho=1.5"], "rho must lie in (0, 1], received 1.5"),
        (["--learing_rate=1"], "Did you mean: learning_rate"),
        (["--config=nonsense"], "config must be a file (.py, or a run's config.json) or one of"),
        (["--config.train.epoch=3"], "config has no setting 'epoch'; did you mean 'epochs'?"),
        (["--config.optimiser=adamw"], "config has no setting 'optimiser'"),
        (["--config=broken.py"], "config: invalid syntax (broken.py, line 1)"),
        (["--seed=-1"], "seed must lie in [0, 2^32 - 1], received -1"),
        (["--workdir=broken.py/run"], "workdir must be a folder, but broken.py is a file"),
        (["--cache="], "cache must be 'none', 'memory' or a folder, received ''"),
        (["--cache=broken.py/kept", "--config.data.image_size=(40, 40)"], "broken.py/kept must be writable"),
        (["--config.train.optimizer=lion"], "train.optimizer must be one of ('sgd', 'adamw'), received 'lion'"),
        (["--mode=evaluate"], "workdir must be given"),
        (["--mode=evaluate", "--workdir=nowhere"], "nowhere lacks config.json, model.keras, result.json"),
        (["--resume", "--workdir=nowhere"], "nowhere holds no run to resume"),
        (["--dataset=celeba", "--data_dir=nowhere"], "nowhere"),
        (["--data_dir=somewhere"], "data_dir"),
        (["train"], "flags only, received ['train']"),
    ],
)
def test_every_mistake_gets_one_clear_line(flags, complaint, tmp_path):
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    code, out, err = command(*flags, cwd=tmp_path)
    assert code != 0 and complaint in err + out
    assert "Traceback" not in err + out
    assert not list(tmp_path.rglob("result.json"))


def test_help_is_worth_reading(tmp_path):
    _, out, _ = command("--help", cwd=tmp_path)
    out = " ".join(out.split())
    for word in ("python -m crl_tf.main --compare=ce,class_rel", "--kappa", "eq. 8", "--resume", "--cache", "configs/"):
        assert word in out


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_states_its_command_and_survives_json(name):
    recipe = load_recipe(name)
    assert f"--dataset={recipe.dataset}" in _source(name) or f"--config={name}" in _source(name) or name == "handwriting"
    assert "python -m crl_tf.main" in _source(name)
    assert set(recipe.to_dict()) == set(base_recipe().to_dict())
    assert from_json(json.loads(json.dumps(recipe.to_dict()))).to_json() == recipe.to_json()


def _source(name):
    from crl_tf.experiment.config import recipe_path

    return recipe_path(name).read_text()


def test_unknown_keys_and_wrong_types_are_refused():
    for values in ({"train.epoch": 3}, {"train.epochs": "many"}, {"crl.kapa": 5}):
        with pytest.raises(ValueError, match=next(iter(values))):
            override(base_recipe(), values)
    with pytest.raises(ValueError, match="kapa"):
        from_json({"crl": {"kapa": 5}})
