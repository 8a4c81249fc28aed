"""A training that is stopped and resumed ends as one that is not, bit for bit; and checkpoints and histories that are damaged."""

import zipfile

import keras
import numpy as np
import pytest
from resumed import assert_same, rows_of

from crl_tf.crl_model import CRLModel
from crl_tf.experiment.trainers import gradient
from crl_tf.experiment.trainers.archive import damage_of
from crl_tf.models import build_network

SIZES = [3, 2]
EPOCHS = 4


class Killed(Exception):
    pass


@pytest.fixture
def start(stateful):
    return stateful(EPOCHS)


def kill_at(monkeypatch, epoch, place):
    """Lets the next training end in this epoch: in a step, before its checkpoint, or just after it."""
    if place == "step":

        def stopped(self, number, logs=None):
            original(self, number, logs)
            if number == epoch:
                self.model.train_function = self.model.make_train_function()
                raise Killed

        original = gradient.Draws.on_epoch_begin
        monkeypatch.setattr(gradient.Draws, "on_epoch_begin", stopped)
        return
    original = gradient._Checkpoints.on_epoch_end

    def stopped(self, number, logs=None):
        if number == epoch and place == "before":
            raise Killed
        original(self, number, logs)
        if number == epoch:
            raise Killed

    monkeypatch.setattr(gradient._Checkpoints, "on_epoch_end", stopped)


@pytest.mark.parametrize("loss", ["ce", "class_rel", "ldam", "curriculum"])
def test_a_stopped_training_ends_as_one_that_is_not(start, tmp_path, monkeypatch, loss):
    whole = gradient.train(start(tmp_path / "whole", loss))
    for number, place in enumerate(("before", "after", "step")):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_at(patch, number + 1, place)
            gradient.train(start(tmp_path / "stopped", loss))
    resumed = gradient.train(start(tmp_path / "stopped", loss))
    assert_same(resumed, whole, tmp_path)
    assert [row["epoch"] for row in rows_of(tmp_path / "whole")] == ["0", "1", "2", "3"]


def test_a_damaged_checkpoint_is_set_aside_and_does_not_count(start, tmp_path, caplog):
    gradient.train(start(tmp_path, "ce"))
    folder = tmp_path / "checkpoint"
    newest = folder / "epoch-000004.keras"
    newest.write_bytes(newest.read_bytes()[:5000])
    gradient.train(start(tmp_path, "ce"))
    assert "epoch-000004.keras is damaged" in caplog.text
    assert sorted(path.name for path in folder.iterdir()) == [
        "damaged-epoch-000004.keras", "epoch-000003.keras", "epoch-000004.keras"
    ]  # fmt: skip
    assert [row["epoch"] for row in rows_of(tmp_path)] == ["0", "1", "2", "3"]


def test_a_flipped_bit_of_a_checkpoint_is_damage_too(start, tmp_path, caplog):
    gradient.train(start(tmp_path, "ce"))
    newest = tmp_path / "checkpoint" / "epoch-000004.keras"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert gradient.restore(gradient.compiled(start(tmp_path, "ce"))[0], newest.parent) == 3
    assert "is damaged" in caplog.text


def test_every_kind_of_damage_is_found_by_its_message(tmp_path):
    """A cut file, a part that is missing, and thousands of flipped bits: never an error of its own, never an empty message."""
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.save(tmp_path / "whole.keras")
    whole, path, draw = (tmp_path / "whole.keras").read_bytes(), tmp_path / "other.keras", np.random.default_rng(0)
    assert damage_of(tmp_path / "whole.keras") is None
    directory = whole.find(b"PK\x01\x02")
    found = 0
    for number in range(1500):
        content = bytearray(whole)
        # Half of them in the directory at the end, which has most of the ways to be wrong.
        content[draw.integers(directory if number % 2 else 0, len(whole))] ^= 1 << draw.integers(8)
        path.write_bytes(content)
        damage = damage_of(path)
        assert damage is None or damage.strip()
        found += damage is not None
    assert found > 1000  # times and attributes of the parts may differ
    path.write_bytes(whole[: len(whole) // 2])
    assert damage_of(path)
    with zipfile.ZipFile(path, "w") as content:
        content.writestr("config.json", "{}")
    assert damage_of(path) == "it lacks metadata.json, model.weights.h5"


def test_a_checkpoint_of_another_network_is_refused_before_anything_is_overwritten(start, tmp_path):
    gradient.train(start(tmp_path, "ce"))
    begun = []

    def wider():
        return CRLModel(build_network("cifarnet", image_size=(16, 16), num_classes=SIZES, width=0.2))

    task = start(tmp_path, "ce")
    task = type(task)(**{**vars(task), "make_model": wider, "begin": begun.append})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"resume: the checkpoint .*epoch-000004.keras is whole and does not fit the network"):
        gradient.train(task)
    assert not begun and {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_history_loses_half_rows_and_rows_without_a_checkpoint(tmp_path):
    history = tmp_path / "history.csv"
    history.write_text("epoch,loss,seconds\n0,3.5,1.0\n2,2.0,1.0\n1,3.0,1.0\n2,2.5,1.0\n2,2.2,1.03,9,9\n3,1.0,1.0\n4,0.")
    gradient.keep_epochs(history, 3)
    assert history.read_text().split() == ["epoch,loss,seconds", "0,3.5,1.0", "1,3.0,1.0", "2,2.5,1.0"]
    gradient.keep_epochs(history, 0)
    assert not history.exists()
