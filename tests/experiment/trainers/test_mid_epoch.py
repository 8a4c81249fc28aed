"""A training that is stopped within an epoch goes on from its last step checkpoint and ends as one that was never stopped."""

import keras
import numpy as np
import pytest
from resumed import assert_same, rows_of

from crl_tf.datasets.pipeline import EpochNumber, make_pipeline
from crl_tf.datasets.source import Split
from crl_tf.experiment.trainers import gradient
from crl_tf.progress import Progress

EPOCHS = 3


class Killed(Exception):
    pass


class KillAt(keras.callbacks.Callback):
    """Ends the process at a step, after everything else of the step."""

    def __init__(self, epoch, batch):
        super().__init__()
        self._at = epoch, batch

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self._epoch, batch) == self._at:
            raise Killed


class KilledAt(Progress):
    """Shows nothing, and ends the training at a place, if one is given."""

    def __init__(self, place):
        self._place = place

    def callbacks(self):
        return [KillAt(*self._place)] if self._place else []


@pytest.fixture
def start(stateful):
    """Makes a task of 4 steps an epoch; a checkpoint every 2 steps."""
    make = stateful(EPOCHS)

    def start(workdir, loss, kill=None, every=2, **options):
        return make(workdir, loss, checkpoint_every=every, progress=KilledAt(kill), **options)

    return start


@pytest.mark.parametrize("loss", ["ce", "class_rel", "ldam", "curriculum"])
def test_a_training_that_is_stopped_within_an_epoch_ends_as_one_that_is_not(start, tmp_path, loss, log):
    whole = gradient.train(start(tmp_path / "whole", loss, every=None))
    # In the first epoch, before there is any checkpoint of an epoch, and in the second.
    for kill in ((0, 2), (1, 1)):
        with pytest.raises(Killed):
            gradient.train(start(tmp_path / "stopped", loss, kill))
    names = sorted(path.name for path in (tmp_path / "stopped" / "checkpoint").iterdir())
    assert names == ["epoch-000001.keras", "step-000001-000000002.keras", "step-000001-000000002.npz"]
    resumed = gradient.train(start(tmp_path / "stopped", loss))
    assert [m for m in log.messages if m.startswith("on from")] == ["on from step 2 of epoch 1", "on from step 2 of epoch 2"]
    assert_same(resumed, whole, tmp_path)
    assert not list((tmp_path / "stopped" / "checkpoint").glob("step-*"))


def test_executions_of_several_steps_are_saved_at_their_ends(start, tmp_path):
    options = {"compile_options": {"steps_per_execution": 2, "jit_compile": False}}
    whole = gradient.train(start(tmp_path / "whole", "ce", every=None, **options))
    with pytest.raises(Killed):
        gradient.train(start(tmp_path / "stopped", "ce", (1, 1), every=1, **options))
    assert list((tmp_path / "stopped" / "checkpoint").glob("step-000001-000000002.keras"))
    resumed = gradient.train(start(tmp_path / "stopped", "ce", **options))
    for ours, theirs in zip(resumed.model.variables, whole.model.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)
    # The sums of metrics are added to those of a whole execution, which rounds otherwise.
    for ours, theirs in zip(rows_of(tmp_path / "stopped"), rows_of(tmp_path / "whole"), strict=True):
        assert {key: float(value) for key, value in ours.items()} == pytest.approx(
            {key: float(value) for key, value in theirs.items()}, rel=1e-6
        )


@pytest.mark.parametrize("ending", [".keras", ".npz"])
def test_a_damaged_one_is_set_aside_and_the_epoch_begins_anew(start, tmp_path, ending, caplog):
    whole = gradient.train(start(tmp_path / "whole", "ce", every=None))
    with pytest.raises(Killed):
        gradient.train(start(tmp_path / "stopped", "ce", (1, 2)))
    path = tmp_path / "stopped" / "checkpoint" / f"step-000001-000000002{ending}"
    path.write_bytes(path.read_bytes()[:300])
    resumed = gradient.train(start(tmp_path / "stopped", "ce"))
    assert "is damaged" in caplog.text and "the epoch begins anew" in caplog.text
    assert_same(resumed, whole, tmp_path)


def test_the_rest_of_an_epoch_is_the_rest_of_its_batches():
    images = np.random.default_rng(0).integers(0, 256, (23, 4, 4, 3), np.uint8)
    split = Split(images, np.arange(23, dtype=np.int32)[:, np.newaxis] % 2)

    def batches(**options):
        options = {"image_size": (4, 4), "batch_size": 5, "training": True, "augment": ("flip", "crop"), **options}
        return list(make_pipeline(split, seed=3, epoch=EpochNumber(2), **options).as_numpy_iterator())

    whole = batches()
    assert len(whole) == 5
    for first in range(5):
        rest = batches(first_batch=first)
        assert len(rest) == 5 - first
        for (a, b), (c, d) in zip(rest, whole[first:], strict=True):
            np.testing.assert_array_equal(a, c)
            np.testing.assert_array_equal(b, d)
    with pytest.raises(ValueError, match="first_batch must be less than the 5 of an epoch, received 5"):
        batches(first_batch=5)
