"""What version 0.1 wrote still loads: models, exports, configurations, comparisons (fixtures made by 0.1 before the move)."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import crl_tf
from crl_tf.experiment.compare import compare
from crl_tf.experiment.config import checked, load_recipe
from crl_tf.experiment.run import evaluate
from crl_tf.experiment.settings import SETTINGS
from crl_tf.experiment.workdir import config_in, open_run

FIXTURES = Path(__file__).parent / "fixtures" / "version_0_1"
MODELS = ["class_rel", "instance_dis", "ldam", "curriculum", "lmle", "triplet_knn", "hog_knn"]
CONFIGS = [*MODELS, "class_rel_logit_adjusted", "over_sampling+logit_adjustment", "class_rel_rho_10"]
IMAGES = tf.constant(np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8), tf.float32)
SCORES = np.load(FIXTURES / "scores.npz")
"""What 0.1 computed for these images."""


@pytest.mark.parametrize("name", MODELS)
def test_a_model_loads_and_scores_as_it_did(name):
    model = keras.saving.load_model(FIXTURES / name / "model.keras")
    np.testing.assert_allclose(model(IMAGES, training=False), SCORES[name], rtol=1e-4, atol=1e-5)
    loss = getattr(model, "loss", None)
    if name in ("class_rel", "instance_dis", "ldam", "curriculum"):
        assert isinstance(loss, crl_tf.losses.base.Loss)
        labels = np.zeros((8, 5), np.int32)
        assert np.isfinite(model.evaluate(IMAGES, labels, verbose=0)).all()


def test_an_export_serves_as_it_did():
    served = tf.saved_model.load(FIXTURES / "class_rel" / "export").signatures["serving_default"](images=IMAGES)
    for name, probabilities in served.items():
        np.testing.assert_allclose(probabilities, SCORES[f"export/{name}"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_is_read_as_the_method_it_was(name):
    path = FIXTURES / name / "config.json"
    config, old = load_recipe(str(path)), json.loads(path.read_text())["recipe"]
    assert config.method == name
    train = {k: tuple(v) if isinstance(v, list) else v for k, v in old["train"].items()}
    assert {key: config.train[key] for key in train} == train
    assert config.to_dict()["embedding"]["references"] == 200 == old["embedding"]["references"]
    # The method sets what the old configuration said.
    crl = checked(config)[0].to_dict()["crl"]
    assert {key: crl[key] for key in old["crl"]} == old["crl"]
    # What is new since then is as it was: off.
    assert all(crl[key] == SETTINGS[f"crl.{key}"].default for key in crl.keys() - old["crl"].keys())
    assert config.train.clip_norm is None


def test_a_finished_run_is_known_as_finished_and_measured_to_the_same_numbers(tmp_path):
    shutil.copytree(FIXTURES / "class_rel", tmp_path / "run")
    before = json.loads((tmp_path / "run" / "result.json").read_text())
    assert open_run(config_in(tmp_path / "run", "config.json").to_dict(), tmp_path / "run", resume=True) == before
    (after,) = evaluate(tmp_path / "run")
    for label, numbers in before["labels"].items():
        moved = np.abs(np.array(numbers["confusion"]) - np.array(after["labels"][label]["confusion"])).sum()
        # A logit may move by a rounding on another processor: at most one image in a thousand changes its class.
        assert moved <= 2 * np.sum(numbers["confusion"]) / 1000


def test_a_comparison_is_continued_where_nothing_is_missing(tmp_path):
    shutil.copytree(FIXTURES / "comparison", tmp_path / "both")
    config = config_in(tmp_path / "both", "comparison.json")
    results = compare(config, ["ce", "class_rel"], tmp_path / "both", seeds=[0, 1], resume=True)
    assert results == json.loads((FIXTURES / "comparison" / "comparison.json").read_text())["results"]
