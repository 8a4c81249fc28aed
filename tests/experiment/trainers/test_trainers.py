"""What holds for every trainer of the table."""

import pytest
from trainer_contract import check_decision_model

from crl_tf.experiment.trainers import TRAINERS


def test_the_table_names_every_trainer():
    assert list(TRAINERS) == ["gradient", "lmle", "triplet_knn", "hog_knn"]
    assert [name for name, row in TRAINERS.items() if row.resampling] == ["gradient"]
    assert TRAINERS["hog_knn"].smallest_side == 16


def test_steps_count_the_last_and_smaller_batch(task_in, tmp_path):
    assert task_in(tmp_path).steps_per_epoch == 4  # 60 images in 16s


@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_begins_once_and_leaves_a_model_that_lasts(task_in, toy, tmp_path, name, capfd):
    begun = []
    trained = TRAINERS[name].train(task_in(tmp_path, epochs=1, begin=lambda model=None: begun.append(model)))
    assert len(begun) == 1 and trained.seconds > 0
    check_decision_model(trained.model, toy, tmp_path)
    assert not capfd.readouterr().out
