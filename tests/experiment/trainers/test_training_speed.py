"""steps_per_execution, XLA and mixed precision: they change how a run computes, and only that; a step is traced once."""

import csv
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tasks import task_of

from crl_tf import CRL, CRLModel
from crl_tf.experiment import run as experiment
from crl_tf.experiment.config import base_config, from_json
from crl_tf.experiment.trainers.gradient import compiled, fit, restore
from crl_tf.files import read_json
from crl_tf.imbalance import class_counts
from crl_tf.layers.logits import LabelLogits
from crl_tf.layout import Layout
from crl_tf.losses.table import Problem, make_loss
from crl_tf.models.build import PRECISIONS, dtype_policy
from crl_tf.models.heads import branches

SIZES = [2, 3]


def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(8, activation="tanh")(inputs)
    return keras.Model(inputs, branches(4)(hidden, SIZES))


def samples(n):
    rng = np.random.default_rng(0)
    labels = np.stack([rng.random(n) < 0.3, rng.choice(3, n, p=[0.6, 0.25, 0.15])], axis=1).astype(np.int32)
    return rng.normal(size=(n, 6)).astype(np.float32), labels


def assembled(recipe):
    """36 training images in batches of 16, 16 and 4; 12 to validate on."""
    keras.utils.set_random_seed(recipe.seed)
    task = task_of(recipe)
    model, _, batches = compiled(task)
    return model, batches, task.data.batches("validation")


def rows(path):
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def events(folder):
    """Every scalar of TensorBoard's logs: (tag, step) to value."""
    scalars = {}
    for path in sorted(folder.rglob("events.*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.HasField("tensor") and value.tensor.dtype == tf.float32.as_datatype_enum:
                    scalars[path.parent.name, value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    return {key: value for key, value in scalars.items() if "seconds" not in key[1]}


def test_steps_per_execution_changes_no_result(tiny_recipe, tmp_path):
    # 3 steps an epoch: 2 do not divide them, 5 are more than there are.
    for steps in (1, 2, 5):
        tiny_recipe.train.steps_per_execution = steps
        model, *batches = assembled(tiny_recipe)
        fit(model, *batches, epochs=2, workdir=tmp_path / str(steps))
        assert int(model.optimizer.iterations) == 6 and model.steps_per_execution == steps
        if steps == 1:
            expected = model.get_weights(), rows(tmp_path / "1/history.csv"), events(tmp_path / "1/logs")
            assert [row["epoch"] for row in expected[1]] == [0, 1] and ("train", "epoch_loss", 1) in expected[2]
            continue
        for a, b in zip(expected[0], model.get_weights(), strict=True):
            np.testing.assert_allclose(b, a, atol=1e-6)
        for a, b in zip(expected[1], rows(tmp_path / f"{steps}/history.csv"), strict=True):
            assert b == pytest.approx(a, rel=1e-5)
        assert events(tmp_path / f"{steps}/logs") == pytest.approx(expected[2], rel=1e-5)


def test_a_diverged_loss_stops_long_executions_too(tiny_recipe, tmp_path):
    tiny_recipe.train.learning_rate, tiny_recipe.train.steps_per_execution = 1e30, 2
    with pytest.raises(ValueError, match="lower learning_rate"):
        experiment.run(tiny_recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint").exists()


@pytest.fixture
def traces(monkeypatch):
    """How often Python has run through the step: {training: times}."""
    counted = {True: 0, False: 0}
    step = CRLModel._loss_and_logits

    def counting(self, x, y, sample_weight, training):
        counted[training] += 1
        return step(self, x, y, sample_weight, training)

    monkeypatch.setattr(CRLModel, "_loss_and_logits", counting)
    return counted


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("loss", ["class_rel", "instance_rel"])
def test_a_step_is_traced_once(tiny_recipe, tmp_path, traces, loss, steps):
    tiny_recipe.method, tiny_recipe.train.steps_per_execution = loss, steps
    tiny_recipe.train.batch_size = 8  # 5 steps, the last of 4
    model, *batches = assembled(tiny_recipe)
    fit(model, *batches, epochs=1, workdir=tmp_path)
    assert traces == {True: 1, False: 1}
    fit(model, *batches, epochs=3, workdir=tmp_path)
    assert traces == {True: 1, False: 1} and int(model.optimizer.iterations) == 3 * 5


@pytest.mark.parametrize("steps", [1, 3])
def test_a_plain_keras_model_on_arrays_is_not_traced_again(monkeypatch, steps):
    traced, call = [], CRL.call
    monkeypatch.setattr(CRL, "call", lambda self, *args: (traced.append(1), call(self, *args))[1])
    x, y = samples(20)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)])
    model.compile(loss=CRL(SIZES, alpha=0.4), steps_per_execution=steps)
    counts = []
    spy = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: counts.append(len(traced)))
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[spy])  # 8, 8 and 4
    assert 1 <= counts[0] == counts[2]


RECTIFICATIONS = [f"{level}_{comparison}" for level in ("class", "instance") for comparison in ("rel", "abs", "dis")]


@pytest.mark.parametrize("name", ["ce", *RECTIFICATIONS])
def test_xla_trains_the_same_in_long_executions_too(name):
    x, y = samples(20)
    histories = {}
    for jit in (False, True):
        model = CRLModel(network())
        loss = make_loss(name, {"crl": {"alpha": 0.4, "kappa": 3}}, Problem(SIZES, class_counts(y, SIZES)))
        model.compile(keras.optimizers.SGD(0.1), loss=loss, jit_compile=jit, steps_per_execution=2 if jit else 1)
        assert model.jit_compile is jit
        histories[jit] = model.fit(x, y, batch_size=14, epochs=2, shuffle=False, verbose=0).history["loss"]  # 14 and 6
    assert histories[False][1] < histories[False][0]
    np.testing.assert_allclose(histories[True], histories[False], rtol=1e-4)


def test_the_setting_of_xla_reaches_keras(tiny_recipe):
    chosen = {}
    for xla in ("auto", "on", "off"):
        tiny_recipe.train.xla = xla
        chosen[xla] = assembled(tiny_recipe)[0].jit_compile
    on_an_accelerator = any(device.device_type != "CPU" for device in tf.config.list_physical_devices())
    assert chosen == {"auto": on_an_accelerator, "on": True, "off": False}


def test_a_policy_does_not_leak():
    before = keras.config.dtype_policy()
    for name in PRECISIONS:
        with dtype_policy(name):
            assert keras.config.dtype_policy().name == name
        assert keras.config.dtype_policy() == before
    with pytest.raises(RuntimeError), dtype_policy("mixed_float16"):
        raise RuntimeError
    assert keras.config.dtype_policy() == before


@pytest.mark.parametrize("name", PRECISIONS[1:])
def test_a_run_in_mixed_precision(tiny_recipe, tmp_path, shop, name):
    tiny_recipe.train.precision = name
    result = experiment.run(tiny_recipe, tmp_path / "run")
    assert keras.config.dtype_policy().name == "float32"
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    half = name.removeprefix("mixed_")
    assert model.dtype_policy.name == name and model.network.get_layer("backbone").layers[1].compute_dtype == half
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (name == "mixed_float16") and int(model.optimizer.iterations) == 6
    assert json.loads(json.dumps(experiment.evaluate(tmp_path / "run"))) == [json.loads(json.dumps(result))]
    images = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), np.uint8)
    logits, features = model(images), model.features(images)
    assert logits.dtype == features.dtype == tf.float32
    # Not the compute type's few values: the head itself is float32, and so are probabilities that are served.
    assert (tf.cast(tf.cast(logits, half), tf.float32).numpy() != logits.numpy()).any()
    served = tf.saved_model.load(tmp_path / "run" / "export").signatures["serving_default"](images=images.astype(np.float32))
    assert served["colour_scores"].dtype == tf.float32
    # A graph fuses what runs one by one here, and rounds less often to the compute type's 8 to 11 bits.
    np.testing.assert_allclose(served["colour_scores"], tf.nn.softmax(logits[:, :3]), atol=0.01)
    # One more epoch goes on from the second checkpoint, and only in the same precision.
    tiny_recipe.train.epochs, tiny_recipe.train.precision = 3, "float32"
    with pytest.raises(ValueError, match=rf"train\.precision: '{name}' there, 'float32' now"):
        experiment.run(tiny_recipe, tmp_path / "run", resume=True, export=False)
    tiny_recipe.train.precision = name
    experiment.run(tiny_recipe, tmp_path / "run", resume=True, export=False)
    assert int(keras.saving.load_model(tmp_path / "run" / "model.keras").optimizer.iterations) == 9


def test_a_checkpoint_keeps_the_loss_scale(tmp_path):
    x, y = samples(24)
    for learning_rate in (0.1, 0.0):
        with dtype_policy("mixed_float16"):
            model = CRLModel(network())
        model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), loss=CRL(SIZES, alpha=0.4))
        if learning_rate:
            model.train_on_batch(x, y)
            model.optimizer.dynamic_scale.assign(256.0)
            (tmp_path / "checkpoint").mkdir()
            model.save(tmp_path / "checkpoint" / "epoch-000001.keras")
            expected = [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]
    # Built already, as `fit` does it: built twice, it would silently keep its own state.
    model.optimizer.build(model.trainable_variables)
    assert restore(model, tmp_path / "checkpoint") == 1
    restored = [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]
    assert float(model.optimizer.dynamic_scale) == 256.0
    for a, b in zip(expected, restored, strict=True):
        # The learning rate is one of the variables, and comes back as well.
        np.testing.assert_array_equal(a, b)


def test_the_loss_scale_cancels_and_falls_where_gradients_overflow():
    x, y = samples(24)
    steps = {}
    for name in ("float32", "mixed_float16"):
        with dtype_policy(name):
            model = CRLModel(network())
        model.compile(keras.optimizers.SGD(0.1), loss=CRL(SIZES, alpha=0.4))
        start = model.get_weights()
        model.train_on_batch(x, y)
        steps[name] = [b - a for a, b in zip(start, model.get_weights()[: len(start)], strict=True)]
    for exact, half in zip(steps["float32"], steps["mixed_float16"], strict=True):
        np.testing.assert_allclose(half, exact, atol=0.01 * np.abs(exact).max())
    # The traced step follows the variable: with a scale of 1 compiled in as 2^15, this one would be 32,768 times too long.
    model.set_weights(start)
    model.optimizer.dynamic_scale.assign(1.0)
    model.train_on_batch(x, y)
    for exact, a, b in zip(steps["float32"], start, model.get_weights(), strict=False):
        np.testing.assert_allclose(b - a, exact, atol=0.02 * np.abs(exact).max())
    before = [variable.numpy() for variable in model.trainable_variables]
    model.optimizer.dynamic_scale.assign(2.0**120)
    loss = model.train_on_batch(x, y, return_dict=True)["loss"]
    assert np.isfinite(loss) and float(model.optimizer.dynamic_scale) == 2.0**119
    for a, b in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_the_layers_of_labels_are_float32_under_every_policy():
    for name in PRECISIONS:
        with dtype_policy(name):
            assert LabelLogits(SIZES)(tf.zeros([2, 2, 4], tf.bfloat16)).dtype == tf.float32
            assert {output.dtype for output in network().output.values()} == {"float32"}
    assert LabelLogits(SIZES, dtype="float16").compute_dtype == "float16"
    assert Layout.of(SIZES).width == network().output["logits"].shape[1]


def test_resume_may_change_what_only_speed_depends_on(tiny_recipe, tmp_path):
    tiny_recipe.train.epochs = 1
    experiment.run(tiny_recipe, tmp_path / "run", export=False)
    tiny_recipe.train.epochs, tiny_recipe.train.steps_per_execution, tiny_recipe.train.xla = 2, 2, "off"
    assert experiment.run(tiny_recipe, tmp_path / "run", resume=True, export=False)["epochs"] == 2
    recorded = read_json(tmp_path / "run" / "config.json")["recipe"]["train"]
    assert (recorded["steps_per_execution"], recorded["xla"]) == (2, "off")


def test_a_recipe_written_before_these_settings_means_what_it_meant():
    written = json.loads(json.dumps(base_config().to_dict()))
    for name in ("steps_per_execution", "xla", "precision"):
        del written["train"][name]
    train = from_json(written).train
    assert (train.steps_per_execution, train.xla, train.precision) == (1, "auto", "float32")
