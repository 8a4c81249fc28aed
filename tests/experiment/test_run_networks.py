"""Runs whose network is more than a row: parts by landmarks, an SVM at the end, a backbone from another run."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.svm import LinearSVC

from crl_tf.datasets.source import SPLITS, Dataset, Split
from crl_tf.experiment import run as experiment
from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.data import Data
from crl_tf.imbalance import class_counts
from crl_tf.schema import Attribute, AttributeSchema


def backbone_weights(path):
    return keras.saving.load_model(path).network.get_layer("backbone").get_weights()


def test_anet_ends_in_the_svm_that_scikit_learn_fits_on_its_features(tiny_recipe, tmp_path):
    tiny_recipe.model, tiny_recipe.network.width, tiny_recipe.train.epochs = "anet", 0.25, 1
    tiny_recipe.data.image_size = (32, 32)
    result = experiment.run(tiny_recipe, tmp_path / "run")
    assert json.loads(json.dumps(experiment.evaluate(tmp_path / "run"))) == [json.loads(json.dumps(result))]
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    dataset = assemble(tiny_recipe).load().dataset
    images = np.stack([keras.utils.img_to_array(keras.utils.load_img(path)) for path in dataset.splits["train"].images])
    images = tf.image.resize(images, (32, 32), antialias=True).numpy().round()
    colours = dataset.splits["train"].labels[:, 0]
    features = model.features(images).numpy().astype(np.float64)
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    expected = LinearSVC(dual="auto", random_state=0).fit(scaled, colours)
    logits = model(images).numpy()[:, :3]
    np.testing.assert_allclose(logits, expected.decision_function(scaled), atol=0.05)
    served = tf.saved_model.load(tmp_path / "run" / "export").signatures["serving_default"](images=images)["colour_scores"]
    np.testing.assert_array_equal(served.numpy().argmax(axis=1), logits.argmax(axis=1))
    # Killed after the last epoch, before the SVM was fitted.
    for left in ("model.keras", "result.json"):
        (tmp_path / "run" / left).unlink()
    experiment.run(tiny_recipe, tmp_path / "run", resume=True, export=False)
    np.testing.assert_allclose(
        keras.saving.load_model(tmp_path / "run" / "model.keras")(images).numpy()[:, :3], logits, atol=1e-4
    )


def test_panda_finds_its_parts_by_the_mean_landmarks(tiny_recipe, tmp_path, log):
    # Five landmarks in pixels of CelebA's aligned images, 218 high and 178 wide, around the same five points in each image.
    rng = np.random.default_rng(0)
    means = np.array([[69, 111], [108, 111], [88, 135], [72, 152], [106, 152]])
    splits = {}
    for name in SPLITS:
        landmarks = (means + rng.integers(-1, 2, (20, 5, 2))).reshape(20, 10).astype(np.int16)
        images = rng.integers(0, 256, (20, 48, 40, 3), np.uint8)
        splits[name] = Split(images, rng.integers(0, 2, (20, 1)).astype(np.int8), {"landmarks": landmarks})
    dataset = Dataset("faces", AttributeSchema((Attribute("smiling", ("absent", "present")),)), splits)
    tiny_recipe.model, tiny_recipe.network.width, tiny_recipe.data.image_size = "panda", 0.1, (48, 40)
    data = Data(dataset, class_counts(splits["train"].labels, [2]), (48, 40), 16, 0)
    model = experiment.prepare(experiment.Context(assemble(tiny_recipe), data, tmp_path)).make_model()
    assert "panda: parts around the mean landmarks of 20 training images" in log.messages
    crops = [layer for layer in model.network.get_layer("backbone").layers if isinstance(layer, keras.layers.Cropping2D)]
    assert len(crops) == 5
    for crop, (x, y) in zip(crops, means, strict=True):
        (top, bottom), (left, right) = crop.cropping
        assert top < y / 218 * 48 < 48 - bottom and left < x / 178 * 40 < 40 - right
    # The eyes lie above the corners of the mouth, the left ones left of the right ones.
    assert crops[0].cropping[0][0] < crops[3].cropping[0][0] and crops[0].cropping[1][0] < crops[1].cropping[1][0]


@pytest.fixture(scope="module")
def command(shop, tmp_path_factory):
    """Runs the command on the shop, and where it leaves its runs."""
    folder = tmp_path_factory.mktemp("runs")
    size = ["--config.data.image_size=(16, 16)", "--batch_size=16", "--learning_rate=0.001", "--epochs=1", "--noexport"]

    def run(*flags):
        words = [sys.executable, "-m", "crl_tf.main", "--dataset=attribute_csv", f"--data_dir={shop}", "--model=cifarnet"]
        return subprocess.run([*words, *size, *flags], capture_output=True, text=True, cwd=folder)

    return run, folder


def test_a_run_starts_from_the_backbone_of_another(command):
    run, folder = command
    assert run("--workdir=first").returncode == 0
    ran = run("--workdir=frozen", "--pretrained=first/model.keras", "--freeze=all")
    assert ran.returncode == 0, ran.stderr
    # The head alone: 3 and 2 classes on 192 features.
    head = (3 + 2) * (192 + 1)
    assert f"cifarnet at 16 x 16 (height, width): {head:,} of " in ran.stdout and "4 of its 4 layers frozen" in ran.stdout
    first, frozen = (backbone_weights(folder / name / "model.keras") for name in ("first", "frozen"))
    for a, b in zip(first, frozen, strict=True):
        np.testing.assert_array_equal(a, b)
    recorded = json.loads((folder / "frozen/config.json").read_text())["recipe"]["network"]
    expected = {"width": 1.0, "pretrained": str(folder / "first/model.keras"), "freeze": "all", "backbone_rate": 1.0}
    assert recorded == {**expected, "cosine_scale": None, "synchronized": False}
    ran = run("--workdir=slow", "--pretrained=first/model.keras", "--freeze=1", "--backbone_rate=0.01", "--loss=ce")
    assert ran.returncode == 0, ran.stderr
    assert "backbone from " in ran.stdout and "1 of its 4 layers frozen; it learns at 0.01 of the rate" in ran.stdout
    slow = backbone_weights(folder / "slow/model.keras")
    moved = [np.abs(a - b).max() for a, b in zip(first, slow, strict=True)]
    # Two convolutions and two layers, kernel and bias each, of which the first stays.
    assert len(moved) == 8 and moved[:2] == [0, 0] and 0 < max(moved[2:]) < 1e-3


def test_what_cannot_be_started_from_gets_one_clear_line(command):
    run, _ = command
    for flags, complaint in (
        (["--pretrained=nowhere.h5"], "nowhere.h5"),
        (["--pretrained=first"], "did you mean"),
        (["--pretrained=imagenet"], "pretrained"),
        (["--freeze=some"], "network.freeze must be none, all, or an int >= 0, received 'some'"),
        (["--freeze=5"], "received 5"),
        (["--model=resnet23"], "did you mean resnet32"),
        (["--model=keras:ResNet50", "--width=0.5", "--config.data.image_size=(32, 32)"], "width must be 1 for keras:ResNet50"),
    ):
        ran = run("--workdir=refused", *flags)
        assert ran.returncode != 0 and complaint in ran.stderr, (flags, ran.stderr)
        assert "Traceback" not in ran.stderr
