"""`CRL`, the Keras loss of eq. 8: against the oracle, and in the places where Keras puts a loss."""

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
from oracle import columns_of, finite_difference_gradient, oracle_alpha, oracle_cross_entropy, oracle_objective, softmax

import crl_tf
from crl_tf import CRL

VARIANTS = [(level, comparison) for level in ("class", "instance") for comparison in ("relative", "absolute", "distribution")]
every_variant = pytest.mark.parametrize(("level", "comparison"), VARIANTS, ids=["-".join(variant) for variant in VARIANTS])

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}  # float32, as in test_class_rectification_loss.py


def batch_of(seed, batch, num_classes, dim=5, unannotated=0.0):
    """Labels [B, L] with skewed class frequencies, logits [B, sum], features [B, L, D]."""
    rng = np.random.default_rng(seed)
    columns = []
    for size in num_classes:
        frequency = 1.0 / (1 + np.arange(size))
        columns.append(rng.choice(size, batch, p=frequency / frequency.sum()))
    labels = np.stack(columns, axis=1).astype(np.int32)
    labels[rng.random(labels.shape) < unannotated] = -1
    logits = 1.5 * rng.standard_normal((batch, sum(num_classes))).astype(np.float32)
    features = rng.standard_normal((batch, len(num_classes), dim)).astype(np.float32)
    return labels, logits, features


def probabilities_of(logits, num_classes):
    return np.array([np.concatenate([softmax(row[columns]) for columns in columns_of(num_classes)]) for row in logits])


def one_hot(labels, num_classes):
    return np.concatenate([np.eye(size, dtype=np.float32)[labels[:, j]] for j, size in enumerate(num_classes)], axis=1)


@pytest.fixture(autouse=True)
def default_policy():
    """Whatever a test sets, the next one starts from float32."""
    yield
    keras.config.set_dtype_policy("float32")
    keras.config.set_floatx("float32")


# ---------------------------------------------------------------------------------------------------------------------------
# The value.


@pytest.mark.parametrize("comparison", ["relative", "absolute", "distribution"])
@pytest.mark.parametrize("num_classes", [[2], [6], [3, 2, 5]], ids=str)
def test_the_class_level_equals_the_oracle(num_classes, comparison):
    labels, logits, _ = batch_of(1, 24, num_classes, unannotated=0.1)
    alpha = [0.7, 0.2, 0.5][: len(num_classes)]
    value = CRL(num_classes, comparison=comparison, alpha=alpha, kappa=4)(labels, logits)
    assert value.shape == () and value.dtype == tf.float32
    expected = oracle_objective(labels, logits, num_classes, alpha, comparison=comparison, kappa=4)
    np.testing.assert_allclose(value, expected, **TOLERANCE)


def test_the_options_reach_the_rectification():
    num_classes = [4, 3]
    labels, logits, _ = batch_of(2, 72, num_classes)
    seen = []
    for options in (
        {},
        {"kappa": 1},
        {"kappa": None},
        {"rho": 0.8, "kappa": 3},
        {"margin": 0.1},
        {"scope": "all"},
        {"comparison": "distribution"},
        {"comparison": "distribution", "num_bins": 5},
    ):
        value = float(CRL(num_classes, alpha=0.9, **options)(labels, logits))
        assert value == pytest.approx(oracle_objective(labels, logits, num_classes, [0.9, 0.9], **options), abs=1e-5)
        seen.append(value)
    assert min(abs(x - y) for k, x in enumerate(seen) for y in seen[:k]) > 1e-4  # each of them tells


def test_by_hand():
    """p of class 1: 0.6, 0.8 (class 1), 0.1, 0.3, 0.5 (class 0); L_crl = 0.4 (kappa 2: see test_class_rectification_loss.py)."""
    p = np.array([0.6, 0.8, 0.1, 0.3, 0.5])
    logits = np.stack([np.zeros(5), np.log(p / (1 - p))], axis=1).astype(np.float32)
    cross_entropy = -(np.log(0.6) + np.log(0.8) + np.log(0.9) + np.log(0.7) + np.log(0.5)) / 5
    value = CRL(2, alpha=0.25, kappa=2)(np.array([1, 1, 0, 0, 0]), logits)
    np.testing.assert_allclose(value, 0.25 * 0.4 + 0.75 * cross_entropy, **TOLERANCE)


@every_variant
def test_gradient_of_the_objective(level, comparison):
    """Finite differences of the oracle with respect to y_pred, features and logits alike."""
    num_classes, alpha = [3, 2], [0.6, 0.3]
    labels, logits, features = batch_of(3, 12, num_classes, dim=3, unannotated=0.1)
    instance = level == "instance"
    y_pred = np.concatenate([features.reshape(12, -1), logits], axis=1) if instance else logits
    loss = CRL(num_classes, level=level, comparison=comparison, alpha=alpha, feature_shape=(2, 3) if instance else None)
    x = tf.constant(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(labels, x)
    gradient = tape.gradient(value, x).numpy()

    def f(y):
        apart = y[:, :-5].reshape(12, 2, 3) if instance else None
        return oracle_objective(labels, y[:, -5:], num_classes, alpha, apart, level, comparison=comparison)

    np.testing.assert_allclose(value, f(y_pred), **TOLERANCE)
    slopes = finite_difference_gradient(f, y_pred)
    np.testing.assert_allclose(gradient, slopes, rtol=0, atol=1e-4 * np.abs(slopes).max())


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("comparison", ["relative", "absolute", "distribution"])
def test_the_instance_level_through_feature_shape(comparison, shared):
    num_classes, alpha = [3, 2, 4], [0.7, 0.2, 0.5]
    labels, logits, features = batch_of(4, 20, num_classes, unannotated=0.1)
    if shared:
        features[:] = features[:, :1]
        y_pred, feature_shape = np.concatenate([features[:, 0], logits], axis=1), 5
    else:
        y_pred, feature_shape = np.concatenate([features.reshape(20, 15), logits], axis=1), (3, 5)
    loss = CRL(num_classes, level="instance", comparison=comparison, alpha=alpha, kappa=4, feature_shape=feature_shape)
    expected = oracle_objective(labels, logits, num_classes, alpha, features, "instance", comparison=comparison, kappa=4)
    np.testing.assert_allclose(loss(labels, y_pred), expected, **TOLERANCE)


def test_one_sigmoid_logit_per_binary_label():
    """z is the 2-way softmax over (0, z)."""
    num_classes, alpha = [2, 2, 2], [0.6, 0.1, 0.4]
    labels, logits, _ = batch_of(5, 24, num_classes, unannotated=0.1)
    z = logits[:, :3]
    pairs = np.stack([np.zeros_like(z), z], axis=2).reshape(24, 6)
    loss = CRL(num_classes, alpha=alpha)
    np.testing.assert_allclose(loss(labels, z), oracle_objective(labels, pairs, num_classes, alpha), **TOLERANCE)
    np.testing.assert_allclose(loss(labels, z), loss(labels, pairs), rtol=1e-6)
    # One label: [B, 1], with targets [B] and [B, 1].
    single = CRL(2, alpha=0.6)
    expected = oracle_objective(labels[:, :1], pairs[:, :2], [2], [0.6])
    np.testing.assert_allclose(single(labels[:, :1], z[:, :1]), expected, **TOLERANCE)
    np.testing.assert_allclose(single(labels[:, 0], z[:, :1]), expected, **TOLERANCE)
    # Behind features, too.
    _, _, features = batch_of(5, 24, num_classes)
    loss = CRL(num_classes, level="instance", alpha=alpha, feature_shape=(3, 5))
    expected = oracle_objective(labels, pairs, num_classes, alpha, features, "instance")
    np.testing.assert_allclose(loss(labels, np.concatenate([features.reshape(24, 15), z], axis=1)), expected, **TOLERANCE)


def test_softmax_probabilities():
    num_classes, alpha = [3, 2, 5], [0.6, 0.1, 0.4]
    labels, logits, _ = batch_of(6, 24, num_classes)
    probabilities = probabilities_of(logits, num_classes).astype(np.float32)
    value = CRL(num_classes, alpha=alpha, from_logits=False)(labels, probabilities)
    np.testing.assert_allclose(value, oracle_objective(labels, logits, num_classes, alpha), **TOLERANCE)


def test_sigmoid_probabilities():
    num_classes, alpha = [2, 2, 2], [0.6, 0.1, 0.4]
    labels, logits, _ = batch_of(7, 24, num_classes)
    z = logits[:, :3]
    pairs = np.stack([np.zeros_like(z), z], axis=2).reshape(24, 6)
    value = CRL(num_classes, alpha=alpha, from_logits=False)(labels, 1 / (1 + np.exp(-z)))
    np.testing.assert_allclose(value, oracle_objective(labels, pairs, num_classes, alpha), **TOLERANCE)


@pytest.mark.parametrize("num_classes", [[2], [3, 2]], ids=str)
def test_probabilities_of_0_and_1_stay_finite(num_classes):
    labels, _, _ = batch_of(8, 12, num_classes)
    wrong = one_hot((labels + 1) % np.array(num_classes), num_classes)
    for y_pred in [wrong, one_hot(labels, num_classes)]:
        x = tf.constant(y_pred)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = CRL(num_classes, alpha=0.5, from_logits=False)(labels, x)
        assert np.isfinite(value) and np.isfinite(tape.gradient(value, x)).all()


@pytest.mark.parametrize("num_classes", [[2], [6], [3, 2, 5], [2, 2, 2]], ids=str)
def test_one_hot_targets_equal_integer_targets(num_classes):
    labels, logits, _ = batch_of(9, 20, num_classes)
    loss = CRL(num_classes, alpha=0.5)
    expected = oracle_objective(labels, logits, num_classes, [0.5] * len(num_classes))
    for targets in (labels, labels.astype(np.int64), labels.astype(np.float32), one_hot(labels, num_classes)):
        np.testing.assert_allclose(loss(targets, logits), expected, **TOLERANCE)
    if len(num_classes) == 1:
        np.testing.assert_allclose(loss(labels[:, 0], logits), expected, **TOLERANCE)
    if set(num_classes) == {2}:  # one sigmoid logit, one-hot targets
        z = logits[:, 1::2] - logits[:, ::2]
        np.testing.assert_allclose(loss(one_hot(labels, num_classes), z), expected, **TOLERANCE)


def test_a_batch_without_minority_leaves_the_scaled_cross_entropy():
    """Class 1 is a singleton: L_crl is 0, (1 - alpha) L_ce stays."""
    labels = np.array([[0], [0], [1], [0]])
    logits = np.random.default_rng(10).standard_normal((4, 2)).astype(np.float32)
    expected = 0.7 * oracle_cross_entropy(labels, logits, [2])[0]
    np.testing.assert_allclose(CRL(2, alpha=0.3)(labels, logits), expected, **TOLERANCE)


# ---------------------------------------------------------------------------------------------------------------------------
# The balance.


@pytest.mark.parametrize("eta", [0.01, 0.5, 2.0])
def test_alpha_follows_from_the_class_counts(eta):
    num_classes, counts = [2, 3, 2], [[900, 100], [50, 50, 50], [10, 0]]
    # Omega: 800 / (2 * 900) = 0.444..; 0 (balanced); 10 / (2 * 10) = 0.5. eta = 2: 0.888.., 0, 1 (= 2 * 0.5).
    alpha = [min(1.0, eta * omega) for omega in (800 / 1800, 0.0, 0.5)]
    assert alpha == pytest.approx(oracle_alpha(counts, eta))
    labels, logits, _ = batch_of(11, 24, num_classes)
    value = CRL(num_classes, class_counts=counts, eta=eta)(labels, logits)
    np.testing.assert_allclose(value, oracle_objective(labels, logits, num_classes, alpha), **TOLERANCE)


def test_alpha_is_clipped_at_1():
    """Omega = 90 / (2 * 100) = 0.45 and eta = 10: alpha is 1, not 4.5; what is left is the rectification alone."""
    labels, logits, _ = batch_of(12, 24, [2])
    value = CRL(2, class_counts=[100, 10], eta=10.0)(labels, logits)
    np.testing.assert_allclose(value, oracle_objective(labels, logits, [2], [1.0]), **TOLERANCE)


def test_eta_is_0_01_by_default():
    labels, logits, _ = batch_of(13, 24, [2])
    value = CRL(2, class_counts=[100, 10])(labels, logits)
    np.testing.assert_allclose(value, oracle_objective(labels, logits, [2], [0.0045]), rtol=1e-6)
    assert abs(oracle_objective(labels, logits, [2], [0.0045]) - oracle_objective(labels, logits, [2], [0.0])) > 1e-5


def test_alpha_goes_before_the_class_counts():
    labels, logits, _ = batch_of(14, 24, [2, 3])
    value = CRL([2, 3], class_counts=[[9, 1], [5, 3, 1]], eta=0.5, alpha=0.8)(labels, logits)
    np.testing.assert_allclose(value, oracle_objective(labels, logits, [2, 3], [0.8, 0.8]), **TOLERANCE)


def test_alpha_0_is_the_cross_entropy_and_1_the_rectification():
    labels, logits, _ = batch_of(15, 24, [4])
    reference = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels[:, 0], logits)
    np.testing.assert_allclose(CRL(4, alpha=0.0)(labels, logits), reference, rtol=1e-5)
    np.testing.assert_allclose(
        CRL(4, alpha=1.0)(labels, logits), crl_tf.class_rectification_loss(labels, logits, num_classes=4)[0], rtol=1e-5
    )


def test_neither_alpha_nor_class_counts():
    with pytest.raises(ValueError, match=r"class_counts.*alpha|alpha.*class_counts"):
        CRL(3)


@pytest.mark.parametrize(
    ("names", "arguments"),
    [
        ("num_classes", {"num_classes": 1, "alpha": 0.5}),
        ("num_classes", {"num_classes": [], "alpha": 0.5}),
        ("level", {"level": "pixel", "alpha": 0.5}),
        ("comparison", {"comparison": "triplet", "alpha": 0.5}),
        ("scope", {"scope": "most", "alpha": 0.5}),
        ("kappa", {"kappa": 0, "alpha": 0.5}),
        ("rho", {"rho": 0.0, "alpha": 0.5}),
        ("margin", {"margin": -1.0, "alpha": 0.5}),
        ("margin", {"margin": 0.5, "comparison": "distribution", "alpha": 0.5}),
        ("num_bins", {"num_bins": 1, "alpha": 0.5}),
        ("alpha", {"alpha": 1.5}),
        ("alpha", {"alpha": -0.1}),
        ("alpha", {"alpha": [0.5, 0.5, 0.5]}),
        ("eta", {"eta": -1.0, "class_counts": [[9, 1], [5, 3, 1]]}),
        ("class_counts", {"class_counts": [[9, 1], [5, 3]]}),
        ("class_counts", {"class_counts": [[9, 1]]}),
        ("feature_shape", {"feature_shape": (5, 4), "level": "instance", "alpha": 0.5}),
        ("feature_shape", {"feature_shape": 0, "level": "instance", "alpha": 0.5}),
    ],
)
def test_a_bad_argument_is_named(names, arguments):
    with pytest.raises(ValueError, match=rf"\b({names})\b"):
        CRL(**{"num_classes": [2, 3], **arguments})


@pytest.mark.parametrize(
    ("names", "y_true", "y_pred"),
    [
        ("y_pred", np.zeros((4, 2), np.int32), np.zeros((4, 6), np.float32)),
        ("y_pred", np.zeros((4, 2), np.int32), np.zeros((4, 2), np.float32)),  # sigmoid logits need binary labels
        ("y_pred", np.zeros((4, 2), np.int32), np.zeros((4, 5, 1), np.float32)),
        ("y_true", np.zeros((4, 3), np.int32), np.zeros((4, 5), np.float32)),
        ("y_true", np.zeros((4,), np.int32), np.zeros((4, 5), np.float32)),
        ("y_true|labels", np.array([[0, 0], [0, 3], [1, 1], [0, 2]]), np.zeros((4, 5), np.float32)),
        ("y_true|labels", np.array([[0, 0], [2, 2], [1, 1], [0, 2]]), np.zeros((4, 5), np.float32)),
        ("y_true|labels", np.array([[0, 0], [-2, 2], [1, 1], [0, 2]]), np.zeros((4, 5), np.float32)),
    ],
)
def test_bad_targets_and_predictions_are_named(names, y_true, y_pred):
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=rf"\b({names})\b"):
        CRL([2, 3], alpha=0.5)(y_true, y_pred)


def test_the_instance_level_without_features():
    with pytest.raises(ValueError, match=r"\bfeature_shape\b"):
        CRL([2, 3], level="instance", alpha=0.5)(np.zeros((4, 2), np.int32), np.zeros((4, 5), np.float32))


# ---------------------------------------------------------------------------------------------------------------------------
# One value per sample.


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


# ---------------------------------------------------------------------------------------------------------------------------
# Config and files.


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
        "PYTHONPATH": os.pathsep.join([str(root), str(Path(__file__).parent)]),
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


# ---------------------------------------------------------------------------------------------------------------------------
# Training.


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
