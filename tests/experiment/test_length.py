"""How long a training is: schedules in proportion to it, and enough steps for few images."""

import pytest

from crl_tf.experiment.config import at_length, base_config, long_enough, override, recipe
from crl_tf.experiment.run import run
from crl_tf.experiment.workdir import CONFIG, config_in


def test_schedules_end_where_the_training_ends():
    settings = {"train.epochs": 100, "train.schedule": "step", "train.step_epochs": (50, 75), "train.warmup_epochs": 5.0}
    recipe = override(base_config(), {**settings, "crl.alpha_warmup_epochs": 10})
    short = at_length(recipe, 12)
    # 50 and 75 of 100 are 6 and 9 of 12; 5 are 0.6; 10 are 1.2, which are two whole epochs.
    assert (short.train.epochs, short.train.schedule, short.train.step_epochs) == (12, "step", (6, 9))
    assert short.train.warmup_epochs == pytest.approx(0.6) and short.crl.alpha_warmup_epochs == 2
    longer = at_length(recipe, 200)
    assert (longer.train.step_epochs, longer.train.warmup_epochs, longer.crl.alpha_warmup_epochs) == ((100, 150), 10.0, 20)
    # No step fits into one epoch.
    assert (at_length(recipe, 1).train.schedule, at_length(recipe, 1).train.step_epochs) == ("constant", ())
    assert at_length(recipe, 2).train.step_epochs == (1,)
    assert at_length(base_config(), 3).crl.alpha_warmup_epochs == 0
    assert recipe.train.epochs == 100


def test_few_images_get_as_many_epochs_as_the_least_steps_need(tiny_recipe, tmp_path, log):
    # 36 training images are 3 steps of 16; 10 steps need 4 epochs.
    recipe = override(tiny_recipe, {"train.least_steps": 10, "crl.alpha_warmup_epochs": 1})
    result = run(recipe, tmp_path / "run", export=False)
    assert result["epochs"] == result["epochs_trained"] == 4
    assert "4 epochs in place of 2, for 10 steps (train.least_steps)" in log.messages
    assert config_in(tmp_path / "run", CONFIG).train.epochs == 2
    assert run(recipe, tmp_path / "run", resume=True) == result
    # Warm-ups move with the length; enough steps change nothing.
    assert long_enough(recipe, 36).crl.alpha_warmup_epochs == 2
    assert long_enough(recipe, 36 * 16) is recipe


def test_epochs_that_are_given_are_not_added_to():
    assert recipe({}, base="attribute_csv").train.least_steps == 2000
    train = recipe({"train.epochs": 3}, base="attribute_csv").train
    assert (train.epochs, train.least_steps) == (3, 0)
    assert recipe({"train.epochs": 3, "train.least_steps": 9}, base="attribute_csv").train.least_steps == 9
