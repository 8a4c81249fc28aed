"""CRLModel under a strategy: two replicas take the step of their averaged losses. In a process of its own: TensorFlow must be
told of two logical CPUs before it starts."""

import json
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import json, sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np
from crl_tf import CRL, ClassBalancedAccuracy, CRLModel, MultiLabelCrossEntropy

def build():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    features = keras.layers.Dense(8, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.1))(inputs)
    return CRLModel(keras.Model(inputs, {"features": features, "logits": keras.layers.Dense(5)(features)}))

rng = np.random.default_rng(0)
x = rng.normal(size=(32, 6)).astype("float32")
y = np.stack([rng.random(32) < 0.3, rng.choice(3, 32, p=[0.6, 0.25, 0.15])], axis=1).astype("int32")
report = {}
for name, loss in (("class", CRL([2, 3], alpha=0.4)), ("instance", CRL([2, 3], level="instance", alpha=0.4)),
                   ("ce", MultiLabelCrossEntropy([2, 3]))):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = build()
        model.compile(keras.optimizers.SGD(0.1), loss=loss, metrics=[ClassBalancedAccuracy([2, 3])])
    logs = model.fit(x, y, batch_size=32, epochs=1, shuffle=False, verbose=0).history
    single = build()
    with tf.GradientTape() as tape:
        shares = []
        for part in (slice(0, 16), slice(16, 32)):
            outputs = single.network(x[part])
            if name == "ce":
                shares.append(loss(y[part], outputs["logits"]))
            else:
                shares.append(tf.reduce_mean(loss.batch_terms(y[part], outputs["logits"], outputs["features"]).per_sample))
        total = tf.add_n(shares) / 2 + tf.add_n(single.losses)
    gradients = tape.gradient(total, single.trainable_variables)
    expected = [v - 0.1 * g for v, g in zip(single.trainable_variables, gradients)]
    halves = [build() for _ in range(2)]
    for half, part in zip(halves, (slice(0, 16), slice(16, 32))):
        half.compile(keras.optimizers.SGD(0.0), loss=loss)
        half.train_on_batch(x[part], y[part])
    metric = ClassBalancedAccuracy([2, 3])
    metric.update_state(y, build()(x))
    report[name] = {
        "step": max(float(np.abs(v.numpy() - e).max()) for v, e in zip(model.trainable_variables, expected)),
        "moved": max(float(np.abs(v.numpy() - w.numpy()).max()) for v, w in zip(model.trainable_variables, build().weights)),
        "loss": [logs["loss"][0], float(total)],
        "tallies": {key: [value.tolist(), sum(half.tallies()[key] for half in halves).tolist()]
                    for key, value in model.tallies().items()},
        "balanced_accuracy": [logs["balanced_accuracy"][0], float(metric.result())],
    }
# 9 samples in batches of 8: the second batch leaves one replica nothing.
for level in ("class", "instance"):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = build()
        model.compile(keras.optimizers.SGD(0.1), loss=CRL([2, 3], level=level, alpha=0.4))
    report[f"empty share, {level}"] = model.fit(x[:9], y[:9], batch_size=8, verbose=0).history["loss"][0]
print(json.dumps(report))
"""

CONVOLUTIONS = """
import json
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np
from crl_tf import CRL, CRLModel

with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    maps = keras.layers.Conv2D(5, 3, activation="relu")(maps)
    features = keras.layers.GlobalAveragePooling2D()(maps)
    model = CRLModel(keras.Model(inputs, {"features": features, "logits": keras.layers.Dense(3)(features)}))
    model.compile(keras.optimizers.SGD(0.0), loss=CRL(3, level="instance", alpha=0.4, mining="global"))
# One image is left for the second batch.
x, y = np.random.default_rng(0).normal(size=(9, 8, 8, 3)).astype("float32"), np.arange(9) % 3
logs = model.fit(x, y, validation_data=(x, y), batch_size=8, shuffle=False, verbose=0).history
predicted = model.predict(x, batch_size=8, verbose=0)
print(json.dumps([logs["loss"][0], logs["val_loss"][0], float(np.abs(predicted - model(x)).max())]))
"""


def printed_by(script):
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def report():
    return printed_by(SCRIPT)


@pytest.mark.parametrize("loss", ["class", "instance", "ce"])
def test_two_replicas_take_the_step_of_their_averaged_losses(report, loss):
    measured = report[loss]
    assert measured["moved"] > 1e-3 and measured["step"] < 1e-6
    np.testing.assert_allclose(*measured["loss"], rtol=1e-5)
    np.testing.assert_allclose(*measured["balanced_accuracy"], rtol=1e-5)


@pytest.mark.parametrize("level", ["class", "instance"])
def test_tallies_of_replicas_add_up(report, level):
    tallies = report[level]["tallies"]
    assert set(tallies) == {"steps", "rectified", "compared", "relative"} and tallies["steps"] == [2, 2]
    for both in tallies.values():
        np.testing.assert_allclose(*both, rtol=1e-5)
    assert report["ce"]["tallies"] == {}


@pytest.mark.parametrize("level", ["class", "instance"])
def test_a_replica_may_get_nothing_of_the_last_batch(report, level):
    assert np.isfinite(report[f"empty share, {level}"])


def test_a_replica_with_convolutions_may_get_nothing_of_the_last_batch():
    trained, validated, apart = printed_by(CONVOLUTIONS)
    assert trained == pytest.approx(validated, rel=1e-5) and apart < 1e-6
