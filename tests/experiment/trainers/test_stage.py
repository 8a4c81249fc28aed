import math

import pytest

from crl_tf.experiment.trainers import STAGES
from crl_tf.experiment.trainers.base import check_settings


def test_the_table_names_every_stage():
    assert list(STAGES) == ["lmle", "triplet_knn", "hog_knn"]


def test_good_settings_pass(settings):
    check_settings(settings)


@pytest.mark.parametrize(
    "name, value",
    [
        ("cluster_every", 0),
        ("cluster_size", 0),
        ("neighbours", 0),
        ("references", 0),
        ("pretraining_epochs", -1),
        ("margin", -0.1),
        ("margin", math.nan),
        ("margins", (0.1, 0.2)),
        ("margins", (0.1, 0.2, math.inf)),
    ],
)
def test_what_cannot_be_is_refused_by_name(settings, name, value):
    settings[name] = value
    with pytest.raises(ValueError, match=rf"embedding\.{name} must be .* received"):
        check_settings(settings)


def test_steps_count_the_last_and_smaller_batch(given_for, tmp_path):
    assert given_for(tmp_path).steps_per_epoch == 4  # 60 images in 16s


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_checks_its_settings(given_for, settings, tmp_path, stage):
    settings.neighbours = 0
    with pytest.raises(ValueError, match=r"embedding\.neighbours must be an int >= 1, received 0"):
        STAGES[stage](given_for(tmp_path))
