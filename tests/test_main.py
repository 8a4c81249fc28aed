"""The command line: recipes, flags and their errors, in a process of its own as users run it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import command

from crl_tf.experiment.config import base_config, from_json, load_recipe, override, recipe_folder, recipe_names


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
    assert again == {**recipe, "method": "class_abs"}
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


def test_a_loss_takes_the_place_of_that_of_the_method(on_shop, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from crl_tf.experiment.config import recipe\n"
        "def get_config():\n"
        "    return recipe({'method': 'over_sampling+logit_adjustment'}, base='attribute_csv')\n"
    )
    flags = [*on_shop, "--config=mine.py", "--epochs=1", "--noexport", "--loss=focal", "--workdir=run"]
    code, out, err = command(*flags, cwd=tmp_path)
    assert code == 0, err
    config = json.loads((tmp_path / "run/config.json").read_text())["recipe"]
    assert config["method"] == "focal+over_sampling+logit_adjustment"
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["method"] == config["method"] and result["method"] in out
    assert (result["loss"], result["rule"]) == ("focal", "logit_adjustment")
    code, out, _ = command("--method=list", cwd=tmp_path)
    assert code == 0 and "class_balanced_sampling" in out and "Kang" in out


def flagged(*words):
    """The configuration that a command line describes, without running it."""
    code = (
        "import json, sys; from absl import flags; from crl_tf import main;"
        "flags.FLAGS(sys.argv); print(json.dumps(main.configuration().to_dict()))"
    )
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_the_last_of_repeated_flags_counts_and_flags_override_settings_override_the_recipe():
    config = flagged(
        "--dataset=celeba",
        "--dataset=xdomain",
        "--epochs=3",
        "--config.train.epochs=4",
        "--config.train.batch_size=32",
        "--config.train.batch_size=64",
        "--config.data.augment=flip,crop",
        "--method=logit_adjustment+class_rel",
        "--kappa=none",
        "--freeze=all",
        "--nodownload",
    )
    # Not X-Domain under CelebA's recipe.
    assert (config["dataset"], config["model"], config["data"]["image_size"]) == ("xdomain", "mtct", [96, 72])
    assert (config["train"]["epochs"], config["train"]["batch_size"]) == (3, 64)
    assert config["train"]["schedule"] == "cosine" and config["train"]["momentum"] == 0.9  # the recipe's, and the default
    assert config["data"]["augment"] == ["flip", "crop"] and config["data"]["download"] is False
    assert config["method"] == "class_rel+logit_adjustment"  # the one spelling
    assert config["crl"]["kappa"] is None and config["network"]["freeze"] == "all"


def test_a_recipe_is_chosen_before_the_dataset():
    config = flagged("--config=celeba_paper", "--dataset=handwriting", "--config=celeba")
    assert (config["dataset"], config["train"]["epochs"]) == ("handwriting", 20)


@pytest.mark.parametrize(
    "flags, complaint",
    [
        (["--dataset=imagenet"], "dataset must be one of ['attribute_csv', 'celeba', 'cifar100'"),
        (["--loss=smote"], "value should be one of <ce|class_rel"),
        (["--method=smote"], "method must be one of ['ce', 'class_rel'"),
        (["--compare=ce,smote"], "method must be one of ['ce', 'class_rel'"),
        (["--compare=ce,ce"], "compare must name each method once"),
        (["--compare=ce,class_rel+focal"], "method 'class_rel+focal' sets loss twice"),
        (["--compare=ce", "--seeds=0,x"], "seeds must be integers >= 0 of up to 9 digits, received '0,x'"),
        (["--compare=ce", "--loss=focal"], "compare names the methods; --method and --loss are for one run"),
        (["--compare="], "compare must name a method or more"),
        (["--seeds=0,1"], "seeds are for --compare; one run takes --seed"),
        (["--budget=30m"], "budget is for --compare=auto: leave it out, received '30m'"),
        (["--compare=all", "--budget=30m"], "budget is for --compare=auto"),
        (["--compare=auto", "--budget=soon"], "budget must be a duration above 0 such as 90s, 30m or 2h, received 'soon'"),
        (["--compare=auto", "--budget="], "budget must be a duration above 0"),
        (["--compare=auto", "--seeds=0,1"], "seeds must not be given with --compare=auto"),
        (["--compare=auto", "--method=ce"], "compare names the methods; --method and --loss are for one run"),
        (["--compare=auto,logit_adjustment"], "auto measures every method under every decision rule: name 'logit_adjustment'"),
        (["--compare=auto,smote"], "method must be one of ['ce', 'class_rel'"),
        (["--compare=auto", "--resume"], "workdir must be given: the folder of the search to resume"),
        (["--compare=auto", "--resume", "--workdir=nowhere"], "nowhere holds no run to resume"),
        (["--method=focal", "--loss=ce"], "method and loss must not be given both, received 'focal' and 'ce'"),
        (["--method=class_rel_rho_10", "--rho=0.5"], "crl.rho is set by the method class_rel_rho_10: leave it out, received 0.5"),
        (["--method=class_rel_rho_10", "--rho=0.3"], "crl.rho is set by the method class_rel_rho_10: leave it out"),
        (["--kappa=-3"], "crl.kappa must be an int >= 1, or none, received -3"),
        (["--rho=1.5"], "crl.rho must be a number in (0, 1], received 1.5"),
        (["--method=ce", "--config.focal.gamma=-1"], "focal.gamma must be a number >= 0, received -1.0"),
        (["--config.crl.base=instance_rel"], "crl.base must be a loss of logits alone, such as 'focal', received 'instance_rel'"),
        (["--learing_rate=1"], "Did you mean: learning_rate"),
        (["--config=nonsense"], "config must be a file (.py, or a run's config.json) or one of"),
        (["--config.train.epoch=3"], "Unknown command line flag 'config.train.epoch'. Did you mean: config.train.epochs"),
        (["--config.optimiser=adamw"], "Unknown command line flag 'config.optimiser'"),
        (["--config=clash.py"], "crl.rho is set by the method class_rel_rho_10: leave it out, received 0.3"),
        (["--config=unknown.py"], "config has no setting 'train.epoch'; did you mean 'train.epochs'?"),
        (["--config=broken.py"], "config broken.py: SyntaxError: invalid syntax (broken.py, line 1)"),
        (["--seed=-1"], "seed must be an int in [0, 4294967295], received -1"),
        (["--workdir=broken.py/run"], "workdir must be a folder, but broken.py is a file"),
        (["--cache="], "data.cache must be 'none', 'memory' or a folder, received ''"),
        (["--cache=broken.py/kept", "--config.data.image_size=(40, 40)"], "broken.py/kept must be writable"),
        (["--config.train.optimizer=lion"], "train.optimizer must be one of ['sgd', 'adamw'], received 'lion'"),
        (["--mode=evaluate"], "workdir must be given"),
        (["--config="], "config must be a file (.py, or a run's config.json) or one of"),
        (["--seeds="], "seeds are for --compare; one run takes --seed"),
        (["--config=list.json"], "config: a run's config.json holds its configuration under 'recipe', received [1] there"),
        (["--config=cut.json"], "cut.json is not valid JSON"),
        (["--config=bug.py"], "config bug.py: NameError: name 'epohs' is not defined"),
        (["--config=rho.py", "--method=class_rel_rho_10"], "crl.rho is set by the method class_rel_rho_10: leave it out"),
        (["--compare=ce", "--config.method=focal"], "compare names the methods; --method and --loss are for one run"),
        (["--resume", "--workdir=somewhere", "--config=celeba"], "config must not be given with --resume"),
        (
            ["--mode=evaluate", "--workdir=nowhere", "--threshold=balanced"],
            "--threshold has no effect with --mode=evaluate, which takes the settings of the run: leave it out",
        ),
        (["--mode=evaluate", "--workdir=nowhere", "--data_dir=somewhere"], "nowhere lacks config.json, model.keras, result.json"),
        (["--threshold=best"], "decision.threshold must be balanced (the largest mean of sensitivity and specificity), recall:R"),
        (["--mode=inspect", "--seeds=0,1"], "--seeds has no effect with --mode=inspect: leave it out"),
        (["--mode=evaluate", "--workdir=nowhere"], "nowhere lacks config.json, model.keras, result.json"),
        (["--resume", "--workdir=nowhere"], "nowhere holds no run to resume"),
        (["--dataset=celeba", "--data_dir=nowhere"], "nowhere"),
        (["--data_dir=somewhere"], "data_dir"),
        (["train"], "flags only, received 'train'"),
    ],
)
def test_every_mistake_gets_one_clear_line(flags, complaint, tmp_path):
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    unknown = "from crl_tf.experiment.config import recipe\ndef get_config():\n    return recipe({'train.epoch': 3})\n"
    (tmp_path / "unknown.py").write_text(unknown)
    (tmp_path / "rho.py").write_text(unknown.replace("train.epoch", "crl.rho").replace("3", "0.3"))
    (tmp_path / "bug.py").write_text(unknown.replace("3", "epohs"))
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "cut.json").write_text('{"recipe": {"data')
    (tmp_path / "clash.py").write_text(unknown.replace("{'train.epoch': 3}", "{'method': 'class_rel_rho_10', 'crl.rho': 0.3}"))
    code, out, err = command(*flags, cwd=tmp_path)
    assert code != 0 and complaint in err + out
    assert "Traceback" not in err + out
    assert not list(tmp_path.rglob("result.json"))


def test_help_is_worth_reading(tmp_path):
    # No TensorFlow in its way, which takes seconds to load.
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('the help loads TensorFlow')")
    ran = subprocess.run([sys.executable, "-m", "crl_tf.main", "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert ran.stderr == ""
    out = " ".join(ran.stdout.split())
    for word in ("python -m crl_tf.main --compare=ce,class_rel", "--kappa", "eq. 8", "--resume", "--cache", "configs/"):
        assert word in out


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_states_its_command_and_survives_json(name):
    recipe = load_recipe(name)
    assert f"--dataset={recipe.dataset}" in _source(name) or f"--config={name}" in _source(name) or name == "handwriting"
    assert "python -m crl_tf.main" in _source(name)
    assert set(recipe.to_dict()) == set(base_config().to_dict())
    assert from_json(json.loads(json.dumps(recipe.to_dict()))).to_json() == recipe.to_json()


def _source(name):
    return (recipe_folder() / f"{name}.py").read_text()


def test_unknown_keys_and_wrong_types_are_refused():
    for values in ({"train.epoch": 3}, {"train.epochs": "many"}, {"crl.kapa": 5}):
        with pytest.raises(ValueError, match=next(iter(values))):
            override(base_config(), values)
    with pytest.raises(ValueError, match=r"'crl\.kapa'; did you mean 'crl\.kappa'"):
        from_json({"crl": {"kapa": 5}})
