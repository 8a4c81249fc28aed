"""Which epoch is kept, when a training ends early, and that a stopped one decides as one that was not."""

import math

import keras
import numpy as np
import pytest

from crl_tf.experiment.trainers import gradient
from crl_tf.experiment.trainers.best_epoch import SCORE, best, is_over, scores


@pytest.fixture
def trained(task_in, monkeypatch):
    """Trains in a folder, for as many epochs as there are scores, and returns what `train` does."""
    draws = gradient.Draws

    def trained(workdir, values, **options):
        class WithScores(draws):
            """Gives every epoch a validation score of its own, before anything records or uses it."""

            def on_epoch_end(self, epoch, logs=None):
                logs[SCORE] = values[epoch]

        keras.utils.set_random_seed(0)  # of the weights at the start
        monkeypatch.setattr(gradient, "Draws", WithScores)
        return gradient.train(task_in(workdir, epochs=len(values), **options))

    return trained


def checkpoints(workdir):
    return [int(path.stem.removeprefix("epoch-")) for path in sorted((workdir / "checkpoint").glob("epoch-*.keras"))]


def weights_of(model, workdir, epochs):
    """The weights in the checkpoint after so many epochs."""
    before = model.get_weights()
    model.load_weights(workdir / "checkpoint" / f"epoch-{epochs:06}.keras")
    loaded = model.get_weights()
    model.set_weights(before)
    return loaded


def same(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_best_epoch_is_kept_and_its_checkpoint_with_the_last_two(trained, tmp_path):
    result = trained(tmp_path, [0.5, 0.8, 0.6, 0.8, 0.7], keep="best")
    assert checkpoints(tmp_path) == [2, 4, 5]
    assert (result.facts["epochs_trained"], result.facts["epochs_kept"]) == (5, 2)  # of equal ones the first
    assert same(result.model.get_weights(), weights_of(result.model, tmp_path, 2))
    assert not same(result.model.get_weights(), weights_of(result.model, tmp_path, 5))


def test_without_it_the_last_epoch_is_kept(trained, tmp_path):
    result = trained(tmp_path, [0.5, 0.8, 0.6, 0.7])
    assert checkpoints(tmp_path) == [3, 4]
    assert (result.facts["epochs_trained"], result.facts["epochs_kept"]) == (4, 4)
    assert same(result.model.get_weights(), weights_of(result.model, tmp_path, 4))


def test_a_training_ends_when_its_score_has_not_risen(trained, tmp_path, log):
    values = [0.5, 0.6, 0.6, 0.4, 0.9, 0.9]
    result = trained(tmp_path, values, keep="best", patience=2)
    assert (result.facts["epochs_trained"], result.facts["epochs_kept"]) == (4, 2)
    assert "ended after 4 of 6 epochs: the validation score had not risen for 2" in log.messages
    # Called again, as by --resume after a stop while it was measured: nothing more is trained.
    again = trained(tmp_path, values, keep="best", patience=2)
    assert again.facts == result.facts and same(again.model.get_weights(), result.model.get_weights())
    assert len(scores(tmp_path / "history.csv")) == 4


def test_a_stopped_training_decides_as_one_that_is_not(trained, tmp_path, monkeypatch):
    values = [0.5, 0.7, 0.6, 0.6, 0.6, 0.9]
    whole = trained(tmp_path / "whole", values, keep="best", patience=3)
    original = gradient._Checkpoints.on_epoch_end

    def stopped(self, epoch, logs=None):
        original(self, epoch, logs)
        if epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gradient._Checkpoints, "on_epoch_end", stopped)
        trained(tmp_path / "stopped", values, keep="best", patience=3)
    resumed = trained(tmp_path / "stopped", values, keep="best", patience=3)
    assert resumed.facts == whole.facts and resumed.facts["epochs_trained"] == 5
    assert same(resumed.model.get_weights(), whole.model.get_weights())


def test_a_score_that_is_no_number_is_never_the_best(trained, tmp_path):
    result = trained(tmp_path, [math.nan, 0.4, math.nan], keep="best", patience=2)
    assert result.facts["epochs_kept"] == 2
    assert scores(tmp_path / "history.csv") == {2: 0.4}
    assert best({}) is None and not is_over({}, 5, patience=1)


def test_a_damaged_checkpoint_of_the_best_epoch_leaves_the_last(trained, tmp_path, log):
    values = [0.5, 0.8, 0.6, 0.7]
    trained(tmp_path, values, keep="best")
    (tmp_path / "checkpoint" / "epoch-000002.keras").write_bytes(b"nothing")
    result = trained(tmp_path, values, keep="best")
    assert result.facts["epochs_kept"] == 4 and "of the best epoch, is damaged" in log.text
