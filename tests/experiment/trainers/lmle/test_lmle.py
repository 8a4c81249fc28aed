import csv

import numpy as np
import pytest
from trainer_contract import balanced_accuracy, check_decision_model

from crl_tf.datasets.source import Dataset, Split
from crl_tf.experiment.trainers import lmle
from crl_tf.experiment.trainers.lmle.trainer import learn_lmle


def history(folder):
    with open(folder / "embedding" / "history.csv", newline="") as file:
        return [(row["learned"], int(row["iterations"]), float(row["seconds"])) for row in csv.DictReader(file)]


def test_a_run_that_is_stopped_between_labels_ends_as_one_that_is_not(given_for, toy, tmp_path, monkeypatch, capsys):
    images = toy.splits["test"].images.astype(np.float32)
    whole, seconds = learn_lmle(given_for(tmp_path / "whole"))
    logits = whole(images).numpy()
    said = capsys.readouterr().out
    assert "lmle 1/2 colour" in said and "min left" in said and "lmle 2/2 light" in said
    rows = history(tmp_path / "whole")
    assert [row[:2] for row in rows] == [("pretraining", 4), ("colour", 8), ("light", 8)]
    assert sum(row[2] for row in rows) == pytest.approx(seconds, rel=0.5) and sum(row[2] for row in rows) <= seconds + 0.01

    learned, learn_label = [], lmle.learn_label

    def killed(given, label, start, iterations):
        if label == 1 and not learned.count(1):
            learned.append(label)
            raise KeyboardInterrupt
        learned.append(label)
        return learn_label(given, label, start, iterations)

    monkeypatch.setattr(lmle, "learn_label", killed)
    with pytest.raises(KeyboardInterrupt):
        learn_lmle(given_for(tmp_path / "stopped"))
    first = [row[2] for row in history(tmp_path / "stopped")]
    resumed, total = learn_lmle(given_for(tmp_path / "stopped"))
    assert learned == [0, 1, 1]  # neither pre-training nor the first label again
    np.testing.assert_array_equal(resumed(images), logits)
    assert [row[2] for row in history(tmp_path / "stopped")][:2] == first and total > sum(first)
    assert not list((tmp_path / "stopped" / "embedding").glob(".partial-*"))


def test_it_decides_and_its_model_lasts(given_for, toy, settings, tmp_path):
    settings.pretraining_epochs, settings.cluster_every = 20, 20
    model, _ = learn_lmle(given_for(tmp_path, epochs=10))
    logits = check_decision_model(model, toy, tmp_path)
    labels = toy.splits["test"].labels
    assert balanced_accuracy(logits[:, :3], labels[:, 0]) > 0.6  # a third by chance
    assert balanced_accuracy(logits[:, 3:], labels[:, 1]) > 0.6


def test_other_epochs_start_the_labels_anew_but_not_what_they_start_from(given_for, settings, tmp_path, capsys):
    settings.pretraining_epochs = 0
    learn_lmle(given_for(tmp_path, epochs=1))
    start = (tmp_path / "embedding" / "start.npz").stat().st_mtime_ns
    learn_lmle(given_for(tmp_path, epochs=2))
    assert [row[1] for row in history(tmp_path)] == [0, 8, 8]
    assert (tmp_path / "embedding" / "start.npz").stat().st_mtime_ns == start


def test_a_label_that_nobody_annotated_is_refused(given_for, toy, tmp_path):
    labels = toy.splits["train"].labels.copy()
    labels[:, 1] = -1
    split = Split(toy.splits["train"].images, labels)
    dataset = Dataset("toy", toy.schema, {name: split for name in toy.splits})
    with pytest.raises(ValueError, match="every label must have an annotated training image, received none for light"):
        learn_lmle(given_for(tmp_path, dataset=dataset))
