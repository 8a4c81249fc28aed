"""`CRL` in the places where Keras puts a loss: one value per sample, config and files, training, two replicas."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from objective_cases import TOLERANCE, batch_of, probabilities_of
from oracle import oracle_alpha, oracle_objective
from variants import every_variant

import crl_tf
from crl_tf import CRL


@pytest.fixture(autouse=True)
def default_policy():
    """Whatever a test sets, the next one starts from float32."""
    yield
    keras.config.set_dtype_policy("float32")
    keras.config.set_floatx("float32")


@every_variant
def test_the_mean_of_the_values_per_sample_is_the_loss(level, comparison):
    num_classes = [3, 2]
    labels, logits, features = batch_of(16, 18, num_classes, unannotated=0.2)
    y_pred = np.concatenate([features.reshape(18, 10), logits], axis=1) if level == "instance" else logits
    options = {"level": level, "comparison": comparison, "alpha": 0.6, "feature_shape": (2, 5) if level == "instance" else None}
    expected = oracle_objective(labels, logits, num_classes, [0.6, 0.6], features, level, comparison=comparison)
    per_sample = CRL(num_classes, **options).call(tf.constant(labels), tf.constant(y_pred))
    assert per_sample.shape == (18,)
    np.testing.assert_allclose(np.mean(per_sample), expected, **TOLERANCE)
    assert np.std(per_sample) > 1e-3  # not one number 18 times
    unreduced = CRL(num_classes, reduction="none", **options)(labels, y_pred)
    np.testing.assert_allclose(unreduced, per_sample, rtol=1e-5)
    np.testing.assert_allclose(CRL(num_classes, reduction="sum", **options)(labels, y_pred), 18 * expected, rtol=1e-5)


def test_sample_weights():
    labels, logits, _ = batch_of(17, 16, [3, 2])
    loss = CRL([3, 2], alpha=0.6)
    per_sample = loss.call(tf.constant(labels), tf.constant(logits)).numpy()
    np.testing.assert_allclose(loss(labels, logits, sample_weight=np.ones(16)), loss(labels, logits), rtol=1e-6)
    weights = np.random.default_rng(17).uniform(0, 3, 16).astype(np.float32)
    np.testing.assert_allclose(loss(labels, logits, sample_weight=weights), np.mean(weights * per_sample), rtol=1e-5)


CONFIGS = {
    "counts": {"num_classes": [3, 2], "class_counts": [[9, 3, 1], [8, 2]], "eta": 0.5},
    "numpy-counts": {"num_classes": np.array([3, 2]), "class_counts": [np.array([9, 3, 1]), np.array([8, 2])], "eta": 0.5},
    "alpha": {"num_classes": [3, 2], "alpha": [0.2, 0.9], "kappa": None, "rho": 0.7, "margin": 0.3, "scope": "all"},
    "distribution": {"num_classes": (3, 2), "alpha": 0.5, "comparison": "distribution", "num_bins": 7, "kappa": 2},
    "instance": {"num_classes": [3, 2], "alpha": 0.5, "level": "instance", "comparison": "absolute", "feature_shape": (2, 5)},
    "probabilities": {"num_classes": [3, 2], "alpha": 0.5, "from_logits": False, "reduction": "sum", "name": "rectified"},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_config_round_trips(name):
    labels, logits, features = batch_of(18, 16, [3, 2])
    y_pred = logits
    if name == "instance":
        y_pred = np.concatenate([features.reshape(16, 10), logits], axis=1)
    elif name == "probabilities":
        y_pred = probabilities_of(logits, [3, 2])
    loss = CRL(**CONFIGS[name])
    config = json.loads(json.dumps(loss.get_config()))
    assert set(CONFIGS[name]) <= set(config)
    for again in (CRL.from_config(config), keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(loss))))):
        assert type(again) is CRL and again.name == loss.name and again.reduction == loss.reduction
        assert json.loads(json.dumps(again.get_config())) == config
        np.testing.assert_allclose(again(labels, y_pred), loss(labels, y_pred), rtol=1e-6)


def python(code, *arguments):
    """Run code in a process of its own, with crl_tf on the path."""
    root = Path(crl_tf.__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests" / "cases")]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_a_saved_model_loads_with_the_import_alone(tmp_path):
    labels, logits, _ = batch_of(19, 32, [3, 2])
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5)])
    model.compile("sgd", CRL([3, 2], class_counts=[[9, 3, 1], [8, 2]], eta=0.5))
    model.fit(logits, labels, batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "batch.npz", labels=labels, logits=logits)
    expected = model.evaluate(logits, labels, batch_size=16, verbose=0)
    out = python(
        """
        import sys
        import keras
        import numpy as np
        import crl_tf
        model = keras.models.load_model(sys.argv[1])
        assert type(model.loss) is crl_tf.CRL, model.loss
        batch = np.load(sys.argv[2])
        print("value", model.evaluate(batch["logits"], batch["labels"], batch_size=16, verbose=0))
        """,
        tmp_path / "model.keras",
        tmp_path / "batch.npz",
    )
    assert float(out.split("value")[1]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_fit(policy, jit_compile):
    """An epoch with a smaller last batch (14 of 16 + 14 samples), features and logits in the policy's own precision."""
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    labels, x, _ = batch_of(20, 30, [3, 2])
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5)])
    loss = CRL([3, 2], alpha=[0.3, 0.6], comparison="absolute", kappa=4)
    model.compile(keras.optimizers.SGD(0.0), loss, jit_compile=jit_compile)
    history = model.fit(x, labels, batch_size=16, shuffle=False, verbose=0).history["loss"]
    # The learning rate is 0: the epoch's loss is the mean over its two batches, weighted with their samples.
    y = keras.ops.convert_to_numpy(keras.ops.cast(model(x), "float32"))
    expected = sum(
        len(labels[part]) * oracle_objective(labels[part], y[part], [3, 2], [0.3, 0.6], comparison="absolute", kappa=4)
        for part in (slice(0, 16), slice(16, 30))
    )
    # Half precision: XLA may keep more digits of the logits than the eager forward pass does; 2^-8 of logits of a few units.
    assert history[0] == pytest.approx(expected / 30, rel=1e-5 if policy == "float32" else 2e-2)

    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=jit_compile)
    before = model.get_weights()[0].copy()
    losses = model.fit(x, labels, batch_size=16, epochs=12, shuffle=False, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert np.isfinite(model.get_weights()[0]).all() and np.abs(model.get_weights()[0] - before).max() > 1e-3


def test_fit_at_the_instance_level():
    labels, x, _ = batch_of(21, 26, [3, 2])
    inputs = keras.Input((5,))
    features = keras.layers.Dense(8)(inputs)
    output = keras.layers.Concatenate()([features, keras.layers.Dense(5)(features)])
    model = keras.Model(inputs, output)
    model.compile(keras.optimizers.SGD(0.05), CRL([3, 2], level="instance", alpha=0.5, feature_shape=(2, 4)), jit_compile=True)
    losses = model.fit(x, labels, batch_size=16, epochs=8, shuffle=False, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_fit_from_a_dataset_with_integer_labels_of_one_label():
    labels, x, _ = batch_of(22, 20, [4])
    data = tf.data.Dataset.from_tensor_slices((x, labels[:, 0])).batch(8)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    model.compile(keras.optimizers.SGD(0.0), CRL(4, class_counts=[50, 20, 10, 5], eta=1.0))
    history = model.fit(data, verbose=0).history["loss"]
    y = model.predict(x, verbose=0)
    alpha = oracle_alpha([[50, 20, 10, 5]], 1.0)
    expected = sum(
        len(labels[part]) * oracle_objective(labels[part], y[part], [4], alpha)
        for part in (slice(0, 8), slice(8, 16), slice(16, 20))
    )
    assert history[0] == pytest.approx(expected / 20, rel=1e-5)


@pytest.mark.parametrize("setting", ["policy-mixed_bfloat16", "policy-bfloat16", "floatx-bfloat16", "floatx-float16"])
def test_labels_above_256_survive_half_precision(setting):
    """bfloat16 knows no 257: a label cast to it would become 256, and 299 would become 300."""
    kind, name = setting.split("-")
    labels = np.array([257, 257, 299, 299, 299, 299, 298, 261, 261, 3, 3, 3])[:, None]
    logits = np.random.default_rng(23).standard_normal((12, 300)).astype(np.float32)
    expected = oracle_objective(labels, logits, [300], [0.5])
    if kind == "policy":
        keras.config.set_dtype_policy(name)
    else:
        keras.config.set_floatx(name)
    loss = CRL(300, alpha=0.5)
    for y_true in (labels, labels[:, 0], tf.constant(labels, tf.int64)):
        value = tf.cast(loss(y_true, logits), tf.float32)
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_fit_with_labels_above_256_in_mixed_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    labels = np.array([257, 257, 299, 299, 299, 299, 298, 261, 261, 3, 3, 3])
    x = 30 * np.random.default_rng(26).standard_normal((12, 6)).astype(np.float32)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(300), keras.layers.Activation("linear", dtype="float32")])
    model.compile(keras.optimizers.SGD(0.0), CRL(300, alpha=0.5), jit_compile=False)
    loss = model.fit(x, labels, batch_size=12, shuffle=False, verbose=0).history["loss"][0]
    y = np.asarray(model(x))
    expected = oracle_objective(labels[:, None], y, [300], [0.5])
    assert loss == pytest.approx(expected, rel=1e-3)
    # What a cast to bfloat16 would give is far enough away to be seen.
    cast = np.array([256, 256, 300, 300, 300, 300, 298, 260, 260, 3, 3, 3])[:, None].clip(0, 299)
    assert abs(oracle_objective(cast, y, [300], [0.5]) - expected) > 1e-2


def test_two_replicas_step_like_the_mean_of_their_losses():
    """MirroredStrategy on two logical CPUs: one step of SGD from the mean of the two halves' losses, not from their sum."""
    out = python(
        """
        import numpy as np
        import tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        import keras
        from crl_tf import CRL
        from oracle import finite_difference_gradient, oracle_objective

        rng = np.random.default_rng(25)
        x = rng.standard_normal((24, 3)).astype(np.float32)
        labels = np.stack([rng.choice(3, 24, p=[0.6, 0.25, 0.15]), rng.choice(2, 24, p=[0.7, 0.3])], axis=1)
        kernel = rng.standard_normal((3, 5)).astype(np.float32)

        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        assert strategy.num_replicas_in_sync == 2
        with strategy.scope():
            model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5, use_bias=False)])
            model.compile(keras.optimizers.SGD(0.1), CRL([3, 2], alpha=0.5, kappa=3), jit_compile=False)
        model.set_weights([kernel])
        model.fit(x, labels, batch_size=24, epochs=1, shuffle=False, verbose=0)

        def f(w):
            halves = slice(0, 12), slice(12, 24)
            return sum(oracle_objective(labels[half], x[half] @ w, [3, 2], [0.5, 0.5], kappa=3) for half in halves) / 2

        expected = -0.1 * finite_difference_gradient(f, kernel)
        step = model.get_weights()[0] - kernel
        print("error", np.abs(step - expected).max() / np.abs(expected).max())
        """
    )
    assert float(out.split("error")[1]) < 1e-4  # float32; the sum of the losses would give 1
