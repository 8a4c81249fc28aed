"""What the table of settings refuses of the sections "train", "network" and "embedding", before anything is written."""

import math

import pytest

from crl_tf.datasets.resampling import MeaninglessForData
from crl_tf.experiment import run as experiment
from crl_tf.experiment.config import checked, override
from crl_tf.experiment.settings import check_setting


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("train.optimizer", "adam", r"one of \['sgd', 'adamw'\]"),
        ("train.schedule", "linear", r"one of \['constant', 'cosine', 'step'\]"),
        ("train.learning_rate", 0.0, "a number > 0"),
        ("train.learning_rate", math.nan, "a number > 0"),
        ("train.learning_rate", math.inf, "a number > 0"),
        ("train.momentum", 1.0, r"a number in \[0, 1\)"),
        ("train.momentum", -0.1, r"a number in \[0, 1\)"),
        ("train.weight_decay", -1e-4, "a number >= 0"),
        ("train.step_factor", 0.0, "a number > 0"),
        ("train.step_epochs", (0, 3), "ints >= 1"),
        ("train.step_epochs", (1.5,), "ints >= 1"),
        ("train.warmup_epochs", -1.0, "a number >= 0"),
        ("train.steps_per_execution", 0, "an int >= 1"),
        ("train.xla", "maybe", r"one of \['auto', 'on', 'off'\]"),
        ("train.precision", "float16", r"one of \['auto', 'float32', 'mixed_bfloat16', 'mixed_float16'\]"),
        ("network.backbone_rate", 0.0, "a number > 0"),
        ("network.backbone_rate", -1.0, "a number > 0"),
        ("network.backbone_rate", math.nan, "a number > 0"),
        ("embedding.cluster_every", 0, "an int >= 1"),
        ("embedding.cluster_size", 0, "an int >= 1"),
        ("embedding.neighbours", 0, "an int >= 1"),
        ("embedding.references", 0, "an int >= 1"),
        ("embedding.pretraining_epochs", -1, "an int >= 0"),
        ("embedding.margin", -0.1, "a number >= 0"),
        ("embedding.margin", math.nan, "a number >= 0"),
        ("embedding.margins", (0.1, 0.2), "three numbers >= 0, or none"),
        ("embedding.margins", (0.1, 0.2, math.inf), "three numbers >= 0, or none"),
        ("embedding.occupied_share", 0.0, r"a number in \(0, 1\]"),
        ("embedding.occupied_share", 1.1, r"a number in \(0, 1\]"),
    ],
)
def test_what_cannot_be_is_refused_by_name(key, value, rule):
    with pytest.raises(ValueError, match=rf"^{key} must be {rule}, received"):
        check_setting(key, value)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"network.backbone_rate": 0.0}, "network.backbone_rate must be a number > 0, received 0.0"),
        (
            {"train.steps_per_execution": 4, "crl.alpha_warmup_epochs": 1},
            r"steps_per_execution must be 1 with crl.alpha_warmup_epochs = 1, .* received 4: --alpha_warmup_epochs=0 turns",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tiny_recipe, tmp_path, settings, complaint):
    tiny_recipe.update_from_flattened_dict(settings)
    with pytest.raises(ValueError, match=complaint):
        experiment.run(tiny_recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["lmle", "triplet_knn", "hog_knn"])
def test_several_devices_have_no_meaning_for_what_trains_on_one_so_that_a_comparison_of_all_leaves_it_out(tiny_recipe, method):
    recipe = override(tiny_recipe, {"method": method, "train.distribute": "mirrored:2"})
    with pytest.raises(MeaninglessForData, match=f"train.distribute must be none for {method}, which trains on one device"):
        checked(recipe)
