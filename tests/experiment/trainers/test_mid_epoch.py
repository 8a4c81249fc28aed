"""A training that is stopped within an epoch goes on from its last step checkpoint and ends as one that was never stopped."""

import csv
from functools import partial

import keras
import numpy as np
import pytest

from crl_tf.crl_model import CRLModel
from crl_tf.datasets.pipeline import EpochNumber, make_pipeline
from crl_tf.datasets.source import Split
from crl_tf.experiment.trainers import gradient
from crl_tf.imbalance import class_counts
from crl_tf.losses.crl.loss import CRL
from crl_tf.losses.cross_entropy import MultiLabelCrossEntropy
from crl_tf.losses.curriculum import CurriculumLoss
from crl_tf.losses.ldam import LDAMLoss
from crl_tf.models import build_network

SIZES = [3, 2]
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


@pytest.fixture
def start(task_in, toy):
    """Makes a task of 4 steps an epoch with everything that has a state within an epoch; a checkpoint every 2 steps."""
    counts = class_counts(toy.splits["train"].labels, SIZES)
    losses = {
        "ce": partial(MultiLabelCrossEntropy, SIZES),
        "class_rel": partial(CRL, SIZES, class_counts=counts, alpha=0.5, alpha_warmup_epochs=2),
        "ldam": partial(LDAMLoss, SIZES, counts, scale=10.0),
        "curriculum": partial(CurriculumLoss, SIZES, counts),
    }

    def make_model():
        keras.utils.set_random_seed(5)
        return CRLModel(build_network("cifarnet", image_size=(16, 16), num_classes=SIZES, width=0.1))

    def start(workdir, loss, kill=None, every=2, **options):
        class Progress:
            def callbacks(self):
                return [KillAt(*kill)] if kill else []

            def track(self, items, what, total=None):
                yield from items

        return task_in(
            workdir,
            epochs=EPOCHS,
            augment=("flip", "crop"),
            make_model=make_model,
            make_optimizer=lambda model, steps: keras.optimizers.AdamW(
                keras.optimizers.schedules.CosineDecay(0.003, EPOCHS * steps)
            ),
            make_loss=losses[loss],
            checkpoint_every=every,
            progress=Progress(),
            **options,
        )

    return start


def rows_of(workdir):
    with open(workdir / "history.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def assert_same(resumed, whole, tmp_path):
    for ours, theirs in zip(resumed.model.variables, whole.model.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)
    for ours, theirs in zip(resumed.model.optimizer.variables, whole.model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)
    assert rows_of(tmp_path / "stopped") == rows_of(tmp_path / "whole")
    assert resumed.facts == whole.facts


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
