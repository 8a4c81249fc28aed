"""tools/kill_and_resume.py: what it compares, on folders made here; it kills a stand-in for the training."""

import json
import shutil
import sys

import keras
import kill_and_resume
import numpy as np
import pytest


@pytest.fixture
def finished(tmp_path):
    """A folder of a finished run."""
    folder = tmp_path / "whole"
    folder.mkdir()
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss="mse")
    model.fit(np.ones((4, 2)), np.ones(4), verbose=0)
    model.save(folder / "model.keras")
    (folder / "result.json").write_text(json.dumps({"seconds": 1.5, "labels": {"hat": {"accuracy": 0.5}}}))
    (folder / "history.csv").write_text("epoch,loss,seconds\n0,1.0,3.5\n")
    np.savez(folder / "predictions.npz", decided=np.arange(3))
    return folder


def change_optimizer(folder):
    model = keras.saving.load_model(folder / "model.keras")
    model.optimizer.variables[-1].assign_add(model.optimizer.variables[-1] * 0 + 1e-7)
    model.save(folder / "model.keras")


CHANGES = {
    "nothing": (lambda folder: None, []),
    "other seconds": (
        lambda folder: (
            (folder / "result.json").write_text('{"seconds": 9, "labels": {"hat": {"accuracy": 0.5}}}'),
            (folder / "history.csv").write_text("epoch,loss,seconds\n0,1.0,7.0\n"),
        ),
        [],
    ),
    "a number": (lambda f: (f / "result.json").write_text('{"labels": {"hat": {"accuracy": 0.25}}}'), ["result.json"]),
    "an epoch twice": (lambda f: (f / "history.csv").write_text("epoch,loss,seconds\n0,1.0,1\n0,1.0,1\n"), ["history.csv"]),
    "a decision": (lambda f: np.savez(f / "predictions.npz", decided=np.array([0, 1, 1])), ["predictions.npz"]),
    "momentum": (change_optimizer, ["model.keras"]),
    "a model that is not there": (lambda f: (f / "model.keras").unlink(), ["model.keras"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_everything_but_times_is_compared(finished, tmp_path, change):
    edit, expected = CHANGES[change]
    shutil.copytree(finished, tmp_path / "stopped")
    edit(tmp_path / "stopped")
    assert kill_and_resume.differences(finished, tmp_path / "stopped") == expected


def test_a_killed_training_is_told_from_one_that_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(kill_and_resume, "command", lambda name, workdir: [sys.executable, "-c", name])
    seconds, ended = kill_and_resume.train("import time; time.sleep(60)", tmp_path / "run", 0.3)
    assert 0.3 <= seconds < 30 and not ended
    assert kill_and_resume.train("pass", tmp_path / "run", 60)[1]
    with pytest.raises(SystemExit, match="ended with code 3"):
        kill_and_resume.train("raise SystemExit(3)", tmp_path / "run")


def test_what_has_begun_is_resumed_and_what_has_not_starts_anew(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".partial-1-config.json").touch()
    assert "--compare=ce,ldam" in kill_and_resume.command("[ce,ldam]", folder) and not folder.exists()
    folder.mkdir()
    (folder / "config.json").touch()
    assert "--resume" in kill_and_resume.command("ce", folder) and not any(
        "method" in w for w in kill_and_resume.command("ce", folder)
    )
    assert kill_and_resume.names_of("ce,[ce,class_rel],ldam") == ["ce", "[ce,class_rel]", "ldam"]
