"""Global mining: replicas that each have a share of a batch take the step that one device takes with all of it.

In processes of their own: TensorFlow must be told of logical CPUs before it starts.
"""

import json
import subprocess
import sys

import numpy as np
import pytest

from crl_tf import CRL
from crl_tf.losses.table import LOSSES

SCRIPT = """
import json, sys
import tensorflow as tf
replicas, names = int(sys.argv[1]), sys.argv[2].split(",")
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * replicas)
import keras, numpy as np
from crl_tf import ClassBalancedAccuracy, CRLModel
from crl_tf.optimizers import SGD
from crl_tf.layers import BatchNormalization
from crl_tf.losses.table import Problem, make_loss

# The last batch has one sample: all replicas but the first have none of it.
BATCH, STEPS = 19, 20
rng = np.random.default_rng(0)
count = BATCH * (STEPS - 1) + 1
x = rng.normal(size=(count, 6)).astype("float32")
y = np.stack([rng.random(count) < 0.3, rng.choice(3, count, p=[0.6, 0.25, 0.15])], axis=1).astype("int32")
counts = [np.bincount(y[:, 0]), np.bincount(y[:, 1])]
y[rng.random(y.shape) < 0.1] = -1
weights = rng.random(count).astype("float32")
strategies = [tf.distribute.get_strategy(), tf.distribute.MirroredStrategy([f"CPU:{k}" for k in range(replicas)])]
report = {}
for row in names:
    found, (name, _, kind) = [], row.partition(" ")
    for strategy in strategies:
        with strategy.scope():
            keras.utils.set_random_seed(0)
            inputs = keras.Input((6,))
            middle = keras.layers.Reshape((2, 1, 3))(inputs)
            optimizer = keras.optimizers.SGD(0.02)
            if kind == "clipped":
                optimizer = SGD(0.1, global_clipnorm=0.05)
            if kind == "normalized":  # of images, and of vectors
                middle = BatchNormalization(synchronized=True)(middle)
            middle = keras.layers.Flatten()(middle)
            if kind == "normalized":
                middle = BatchNormalization(synchronized=True)(middle)
            features = keras.layers.Dense(8, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.1))(middle)
            model = CRLModel(keras.Model(inputs, {"features": features, "logits": keras.layers.Dense(5)(features)}))
            loss = make_loss(name, {"crl": {"alpha": 0.4}}, Problem([2, 3], counts, cosine_scale=30.0), mining="global")
            model.compile(optimizer, jit_compile=kind == "compiled", loss=loss, metrics=[ClassBalancedAccuracy([2, 3])])
        before = [value.numpy() for value in model.weights]
        history = model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, sample_weight=weights).history
        found.append(([value.numpy() for value in model.weights], model.tallies(), history))
    (one, tallies, logs), (several, others, of_several) = found
    report[row] = {
        "apart": max(float(np.abs(a - b).max()) for a, b in zip(one, several)),
        "moved": max(float(np.abs(a - b).max()) for a, b in zip(one, before)),
        "logs": [{key: value[0] for key, value in of.items()} for of in (logs, of_several)],
        "tallies": [{key: np.asarray(value).tolist() for key, value in of.items()} for of in (tallies, others)],
    }
    print(row, report[row]["apart"], file=sys.stderr)
print(json.dumps(report))
"""

RUNS = {2: ("class_rel compiled",), 3: (*LOSSES, "class_rel normalized", "class_rel clipped"), 4: ("instance_dis",)}


def measured(replicas, names):
    arguments = [sys.executable, "-c", SCRIPT, str(replicas), ",".join(names)]
    ran = subprocess.run(arguments, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def reports():
    return {replicas: measured(replicas, names) for replicas, names in RUNS.items()}


@pytest.mark.parametrize(("replicas", "name"), [(replicas, name) for replicas, names in RUNS.items() for name in names])
def test_replicas_take_the_steps_of_one_device(reports, replicas, name):
    report = reports[replicas][name]
    assert report["moved"] > 1e-2 and report["apart"] < 1e-6
    one, several = report["logs"]
    assert set(one) == set(several)
    np.testing.assert_allclose([several[key] for key in one], list(one.values()), rtol=1e-4)
    one, several = report["tallies"]
    for key, value in one.items():
        np.testing.assert_allclose(several[key], value, rtol=1e-5, atol=1e-5)


def test_a_word_that_is_no_kind_of_mining_is_refused():
    with pytest.raises(ValueError, match=r"mining must be one of \('replica', 'global'\), received 'all'"):
        CRL(3, alpha=0.5, mining="all")


def test_the_kind_of_mining_is_kept_with_a_loss():
    assert CRL.from_config(CRL(3, alpha=0.5, mining="global").get_config()).mining == "global"
    config = CRL(3, alpha=0.5).get_config()
    del config["mining"]  # as files of before have it
    assert CRL.from_config(config).mining == "replica"
