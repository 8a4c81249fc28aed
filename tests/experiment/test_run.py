"""The one way through, on a folder of tiny images: what a run leaves, and that it can be resumed and measured again."""

import csv
import json
import subprocess
import sys
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf.experiment import compare as comparing
from crl_tf.experiment import run as experiment
from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.config import from_json
from crl_tf.experiment.intervals import paired_difference
from crl_tf.experiment.predictions import PREDICTIONS, load_predictions
from crl_tf.files import read_json


@pytest.fixture(scope="module")
def finished(shop, tmp_path_factory):
    """A finished comparison of two losses, and its results."""
    recipe = from_json(
        {
            "dataset": "attribute_csv",
            "model": "cifarnet",
            "data": {"dir": str(shop), "image_size": [16, 16]},
            "train": {"epochs": 2, "batch_size": 16, "learning_rate": 0.001},
            "crl": {"eta": 0.5},
        }
    )
    workdir = tmp_path_factory.mktemp("runs") / "both"
    return workdir, comparing.compare(recipe, ["ce", "class_rel"], workdir)


def test_a_run_leaves_everything(finished):
    workdir, results = finished
    for folder in (workdir / "ce", workdir / "class_rel"):
        for name in ("config.json", "result.json", "history.csv", "model.keras", "export/saved_model.pb"):
            assert (folder / name).stat().st_size > 0, name
        assert list((folder / "logs").rglob("events.*")) and list((folder / "checkpoint").iterdir())
        assert {p.name for p in (folder / "figures").iterdir()} == {
            *("class_distributions.png", "sensitivity_by_frequency.png"),
            *("confusions.png", "precision_recall.png", "reliability.png"),
        }
        assert not list(folder.glob(".partial*"))
        predictions, result = load_predictions(folder / PREDICTIONS), read_json(folder / "result.json")
        for index, (name, label) in enumerate(result["labels"].items()):
            known = predictions.labels[:, index] >= 0
            pairs = zip(predictions.labels[known, index], predictions.decided["argmax"][known, index], strict=True)
            assert sorted(Counter(pairs).values()) == sorted(filter(None, np.ravel(label["confusion"]))), name
    ce, class_rel = (load_predictions(workdir / method / PREDICTIONS) for method in ("ce", "class_rel"))
    gain = results[1]["balanced_accuracy"] - results[0]["balanced_accuracy"]
    assert paired_difference(class_rel, ce).difference == pytest.approx(gain, abs=1e-6)
    assert read_json(workdir / "comparison.json")["results"] == json.loads(json.dumps(results))
    assert (workdir / "figures" / "sensitivity_by_frequency.png").stat().st_size > 0


def test_result_says_what_it_should(finished):
    _, (result, _) = finished
    assert {k: result[k] for k in ("dataset", "model", "method", "loss", "seed", "epochs", "rule")} == {
        "dataset": "attribute_csv",
        "model": "cifarnet",
        "method": "ce",
        "loss": "ce",
        "seed": 0,
        "epochs": 2,
        "rule": "argmax",
    }
    assert result["seconds"] > 0
    colour = result["labels"]["colour"]
    # 36 training images, of every 6 in a row 4 red, 1 green, 1 blue.
    assert colour["train_counts"] == {"blue": 6, "green": 6, "red": 24}
    # 12 test images.
    assert np.sum(colour["confusion"]) == 12 and np.sum(colour["confusion"], axis=1).tolist() == [2, 2, 8]
    sensitivity = np.diag(colour["confusion"]) / np.sum(colour["confusion"], axis=1)
    assert list(colour["sensitivity"]) == ["blue", "green", "red"]
    np.testing.assert_allclose(list(colour["sensitivity"].values()), sensitivity)
    assert colour["balanced_accuracy"] == pytest.approx(sensitivity.mean())
    assert colour["accuracy"] == pytest.approx(np.trace(colour["confusion"]) / 12)
    both = [label["balanced_accuracy"] for label in result["labels"].values()]
    assert result["balanced_accuracy"] == pytest.approx(np.mean(both))


def test_evaluate_gives_the_same_numbers(finished):
    workdir, results = finished
    assert json.loads(json.dumps(experiment.evaluate(workdir))) == json.loads(json.dumps(results))


def test_config_runs_it_again_to_the_same_weights(finished, tmp_path):
    workdir, _ = finished
    recipe = from_json(read_json(workdir / "class_rel" / "config.json")["recipe"])
    experiment.run(recipe, tmp_path / "again", export=False)
    first, again = (keras.saving.load_model(p / "model.keras") for p in (workdir / "class_rel", tmp_path / "again"))
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_saved_model_serves_without_our_code(finished, shop, tmp_path):
    workdir, _ = finished
    images = np.random.default_rng(1).uniform(0, 255, (3, 16, 16, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    script = f"""
import sys
sys.modules["crl_tf"] = None  # importing it now fails
import json, numpy as np, tensorflow as tf
served = tf.saved_model.load({str(workdir / "class_rel" / "export")!r})
out = served.signatures["serving_default"](images=tf.constant(np.load({str(tmp_path / "images.npy")!r})))
names = served.signatures["class_names"]()
print(json.dumps([{{k: v.numpy().tolist() for k, v in out.items() if not k.endswith("_name")}},
                  {{k: [n.decode() for n in v.numpy()] for k, v in names.items()}}]))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    served, names = json.loads(ran.stdout.splitlines()[-1])
    assert names == {"colour": ["blue", "green", "red"], "size": ["large", "small"]}
    logits = keras.saving.load_model(workdir / "class_rel" / "model.keras").predict(images, verbose=0)
    np.testing.assert_allclose(served["colour_scores"], tf.nn.softmax(logits[:, :3]), atol=1e-6)
    np.testing.assert_allclose(served["size_scores"], tf.nn.softmax(logits[:, 3:]), atol=1e-6)


def test_resume_goes_on_from_the_checkpoint(tiny_recipe, tmp_path):
    experiment.run(tiny_recipe, tmp_path / "run")
    before = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert experiment.run(tiny_recipe, tmp_path / "run", resume=True)["epochs"] == 2  # nothing to do
    tiny_recipe.train.epochs = 3
    result = experiment.run(tiny_recipe, tmp_path / "run", resume=True, export=False)
    assert not (tmp_path / "run" / "export").exists()  # that of two epochs does not stay beside a model of three
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert result["epochs"] == 3 and len(rows) == 1 + 3  # a header, epochs 1 and 2, and one more
    after = keras.saving.load_model(tmp_path / "run" / "model.keras")
    # 36 images in batches of 16 are 3 steps an epoch: the optimizer has gone on, not begun again.
    assert int(before.optimizer.iterations) == 6 and int(after.optimizer.iterations) == 9


def test_a_checkpoint_cut_short_costs_one_epoch(tiny_recipe, tmp_path):
    experiment.run(tiny_recipe, tmp_path / "run", export=False)
    newest, older = sorted((tmp_path / "run" / "checkpoint").iterdir(), reverse=True)
    assert (newest.name, older.name) == ("epoch-000002.keras", "epoch-000001.keras")
    whole = keras.saving.load_model(tmp_path / "run" / "model.keras").get_weights()
    newest.write_bytes(newest.read_bytes()[:5000])
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / ".partial-1-model.keras").write_text("half a mod")
    experiment.run(tiny_recipe, tmp_path / "run", resume=True, export=False)
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1"]  # epoch 2 (from 0: 1) again, and once
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert int(model.optimizer.iterations) == 6
    for ours, theirs in zip(model.get_weights(), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not list((tmp_path / "run").glob(".partial-*"))


def test_what_stands_is_not_lost_when_resuming_fails(tiny_recipe, tmp_path, shop):
    experiment.run(tiny_recipe, tmp_path / "run", export=False)
    tiny_recipe.train.epochs = 3
    shop.rename(shop.with_name("moved"))
    try:
        with pytest.raises(FileNotFoundError):
            experiment.run(tiny_recipe, tmp_path / "run", resume=True)
    finally:
        shop.with_name("moved").rename(shop)
    assert read_json(tmp_path / "run" / "result.json")["epochs"] == 2


def test_resume_refuses_another_recipe(tiny_recipe, tmp_path):
    experiment.run(tiny_recipe, tmp_path / "run", export=False)
    tiny_recipe.crl.kappa = 7
    with pytest.raises(ValueError, match=r"crl\.kappa: 25 there, 7 now"):
        experiment.run(tiny_recipe, tmp_path / "run", resume=True)


def test_a_folder_with_something_in_it_is_not_written_to(tiny_recipe, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        experiment.run(tiny_recipe, tmp_path)
    with pytest.raises(ValueError, match="no run to resume"):
        experiment.run(tiny_recipe, tmp_path, resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_a_diverged_loss_stops_with_a_reason_and_keeps_no_result(tiny_recipe, tmp_path):
    tiny_recipe.train.learning_rate = 1e30
    with pytest.raises(ValueError, match="lower learning_rate"):
        experiment.run(tiny_recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists() and not (tmp_path / "run" / "model.keras").exists()


def test_class_counts_of_the_loss_are_the_training_split(tiny_recipe, tmp_path):
    parts = assemble(tiny_recipe)
    loss = experiment.prepare(experiment.Context(parts, parts.load(), tmp_path)).make_loss()
    # colour: h = (6, 6, 24), Omega = (18 + 18 + 0) / (3 * 24) = 0.5; size, where i % 10 = 3 is empty: large at i % 5 = 0.
    large = sum(1 for i in range(36) if i % 5 == 0)
    small = 36 - large - sum(1 for i in range(36) if i % 10 == 3)
    np.testing.assert_allclose(loss.alpha, [0.5 * 0.5, 0.5 * (small - large) / (2 * small)], rtol=1e-6)


def test_labels_nobody_annotated_are_named_before_training(tiny_recipe, tmp_path, shop):
    with open(shop / "attributes.csv", newline="") as file:
        header, *rows = csv.reader(file)
    # Emptied from this column on: the second label of the training images, both labels of the test images.
    for split, column, complaint in (("train", 3, "no training image is annotated for 'size'"), ("test", 2, "no test image")):
        table = tmp_path / f"{split}.csv"
        with open(table, "w", newline="") as file:
            csv.writer(file).writerow(header)
            for path, *cells in rows:
                cells = [path, *cells]
                cells = [*cells[:column], *[""] * (4 - column)] if cells[1] == split else cells
                csv.writer(file).writerow([shop / path, *cells[1:]])
        tiny_recipe.data.dir, tiny_recipe.data.allow_outside_root = str(table), True
        with pytest.raises(ValueError, match=complaint):
            experiment.run(tiny_recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


BAD = {"train.epochs": 0, "train.batch_size": 0, "method": "nonsense", "train.schedule": "median", "model": "vgg"}


@pytest.mark.parametrize("name, value", BAD.items())
def test_bad_settings_name_themselves(tiny_recipe, tmp_path, name, value):
    tiny_recipe.update_from_flattened_dict({name: value})
    with pytest.raises(ValueError, match=name.split(".")[-1]):
        experiment.run(tiny_recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()
