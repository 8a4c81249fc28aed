"""The table of methods: names to settings and back."""

import numpy as np
import pytest

from crl_tf import LogitAdjustedLoss
from crl_tf.experiment.config import base_recipe, flattened, override
from crl_tf.experiment.methods import METHODS, check_method, method_name, settings_of
from crl_tf.experiment.trainers import STAGES as TRAINED_OTHERWISE
from crl_tf.losses.table import LOSSES, STAGES, make_loss

COUNTS = [np.array([9, 1]), np.array([5, 5, 2])]


def test_every_loss_and_stage_is_a_method_of_its_name():
    assert {*LOSSES, *STAGES} <= set(METHODS)
    assert all(METHODS[name].settings["loss"] == name for name in (*LOSSES, *STAGES))
    assert set(TRAINED_OTHERWISE) == set(STAGES)


@pytest.mark.parametrize("name", METHODS)
def test_a_row_sets_what_a_recipe_has_and_is_found_again(name):
    row = METHODS[name]
    assert row.source and row.cost
    assert set(row.settings) <= set(flattened(base_recipe().to_dict()))
    assert method_name(override(base_recipe(), settings_of(name))) == name


def test_methods_are_joined_and_found_again():
    settings = settings_of("class_rel_rho_10+class_balanced_sampling+logit_adjustment")
    assert settings == {
        "loss": "class_rel",
        "crl.rho": 0.1,
        "resampling": "class_balanced_sampling",
        "rule": "logit_adjustment",
    }
    assert method_name(override(base_recipe(), settings)) == "class_rel_rho_10+class_balanced_sampling+logit_adjustment"
    assert method_name(override(base_recipe(), settings_of("over_sampling+logit_adjustment"))) == "over_sampling+logit_adjustment"


def test_what_cannot_be_joined_is_refused():
    with pytest.raises(ValueError, match=r"'class_rel\+focal' gives loss twice"):
        settings_of("class_rel+focal")
    with pytest.raises(ValueError, match=r"method must be one of .*received 'smote'"):
        check_method("smote")


def test_a_recipe_can_say_what_no_row_does():
    recipe = base_recipe()
    recipe.crl.kappa = 7
    assert method_name(recipe) == "class_rel"
    recipe.crl.base = "logit_adjusted"
    assert method_name(recipe) == "class_rel_logit_adjusted"
    recipe.crl.base, recipe.loss = "focal", "class_abs"
    assert method_name(recipe) == "class_abs_on_focal"
    recipe.loss = "ce"
    assert method_name(recipe) == "ce"
    recipe.network.cosine_scale = 10.0
    assert method_name(recipe) == "ce_cosine"


def test_what_stands_beside_a_rectification_must_be_a_loss_of_logits():
    recipe = base_recipe()
    recipe.crl.base = "logit_adjusted"
    loss = make_loss(recipe, num_classes=[2, 3], class_counts=COUNTS)
    assert isinstance(loss.base, LogitAdjustedLoss)
    for base in ("curriculum", "instance_rel", "smote"):
        recipe.crl.base = base
        with pytest.raises(ValueError, match=f"crl.base must be a loss of logits alone, .*received '{base}'"):
            make_loss(recipe, num_classes=[2, 3], class_counts=COUNTS)


def test_ldam_wants_cosines():
    recipe = base_recipe()
    recipe.loss = "ldam"
    with pytest.raises(ValueError, match=r"network.cosine_scale must be > 0 for ldam, .*received 0.0"):
        make_loss(recipe, num_classes=[2, 3], class_counts=COUNTS)
