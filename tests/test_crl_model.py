"""CRLModel: its step is the objective's gradient, it logs what rectification does, it saves whole; AlphaWarmup moves alpha."""

from types import MappingProxyType

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf import CRL, AlphaWarmup, ClassBalancedAccuracy, CRLModel, JoinFeatures, MultiLabelCrossEntropy, crl_losses
from crl_tf.losses.base import Log, Loss, Terms

SIZES = [2, 3]


def network(seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6,))
    features = keras.layers.Reshape((2, 4))(keras.layers.Dense(8, activation="tanh")(inputs))
    logits = keras.layers.Dense(5)(keras.layers.Flatten()(features))
    return keras.Model(inputs, {"features": features, "logits": logits})


def batch(n=24, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.random(n) < 0.3, rng.choice(3, n, p=[0.6, 0.25, 0.15])], axis=1).astype(np.int32)
    return rng.normal(size=(n, 6)).astype(np.float32), labels


@pytest.mark.parametrize("level", ["class", "instance"])
@pytest.mark.parametrize("jit", [False, True])
def test_a_step_of_sgd_follows_the_gradient_of_the_objective(level, jit):
    x, y = batch()
    loss = CRL(SIZES, level=level, alpha=0.4, kappa=5)
    model = CRLModel(network())
    before = [v.numpy() for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        outputs = model.network(x)
        expected = tf.reduce_mean(loss.batch_terms(y, outputs["logits"], outputs["features"]).per_sample)
    gradients = tape.gradient(expected, model.trainable_variables)
    model.compile(keras.optimizers.SGD(0.1), loss=loss, jit_compile=jit)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["loss"] == pytest.approx(float(expected), rel=1e-5)
    for variable, start, gradient in zip(model.trainable_variables, before, gradients, strict=True):
        np.testing.assert_allclose(variable.numpy(), start - 0.1 * gradient.numpy(), atol=1e-6)


def test_plain_compile_with_joined_features_takes_the_same_step():
    x, y = batch()
    wrapped = CRLModel(network())
    wrapped.compile(keras.optimizers.SGD(0.1), loss=CRL(SIZES, level="instance", alpha=0.4))
    plain_network = network()
    joined = JoinFeatures()([plain_network.output["features"], plain_network.output["logits"]])
    plain = keras.Model(plain_network.input, joined)
    metric = ClassBalancedAccuracy(SIZES, feature_shape=(2, 4))
    plain.compile(keras.optimizers.SGD(0.1), CRL(SIZES, level="instance", alpha=0.4, feature_shape=(2, 4)), metrics=[metric])
    ours, keras_own = (model.train_on_batch(x, y, return_dict=True) for model in (wrapped, plain))
    assert ours["loss"] == pytest.approx(keras_own["loss"], rel=1e-6)
    for a, b in zip(wrapped.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_logs_say_what_rectification_did():
    # One label, 4 samples of class 0 and 2 of class 1: class 1 is the minority (2 <= 3), its 2 anchors have 1 positive and 4
    # negatives each: 8 triplets. Logits that separate by a margin leave none of them active, equal ones leave all.
    logits = np.array([[9, -9]] * 4 + [[-9, 9]] * 2, np.float32)
    y = np.array([0, 0, 0, 0, 1, 1])
    inputs = keras.Input((2,))
    identity = keras.layers.Rescaling(1.0)(inputs)
    model = CRLModel(keras.Model(inputs, {"features": identity, "logits": identity}))
    model.compile(keras.optimizers.SGD(0.0), loss=CRL(2, alpha=0.5))
    logs = model.train_on_batch(logits, y, return_dict=True)
    assert (logs["minority_classes"], logs["triplets"], logs["active_triplets"]) == (1, 8, 0)
    model.reset_metrics()
    logs = model.train_on_batch(np.zeros_like(logits), y, return_dict=True)
    assert (logs["triplets"], logs["active_triplets"]) == (8, 1)
    assert logs["L_ce"] == pytest.approx(np.log(2)) and logs["L_crl"] == pytest.approx(0.5)
    assert set(model.test_on_batch(logits, y, return_dict=True)) == {"loss", "L_ce", "L_crl"}
    history = model.fit(logits, y, validation_data=(logits, y), verbose=0).history
    assert {name for name in history if name.startswith("val_")} == {"val_loss", "val_L_ce", "val_L_crl"}


def test_only_crl_adds_to_the_logs_and_sample_weights_count():
    x, y = batch()
    model = CRLModel(network())
    model.compile(loss=MultiLabelCrossEntropy(SIZES))
    assert set(model.test_on_batch(x, y, return_dict=True)) == {"loss"}
    for loss in (MultiLabelCrossEntropy(SIZES), CRL(SIZES, alpha=0.3)):
        model.compile(loss=loss)
        with pytest.raises(ValueError, match="sample_weight must hold one weight per sample"):
            model.test_on_batch(x, y, sample_weight=np.ones((len(x), 2)))
        weight = np.linspace(0, 2, len(x)).astype(np.float32)
        per_sample = loss.call(y, model(x)).numpy()
        got = model.test_on_batch(x, y, sample_weight=weight, return_dict=True)["loss"]
        assert got == pytest.approx((weight * per_sample).mean(), rel=1e-5)


class OfItsOwn(Loss):
    """A loss of features that logs two numbers, one of them in training only."""

    needs_features = True
    logged = MappingProxyType({"length": True, "samples": False})

    def terms(self, labels, logits, features=None):
        length = tf.reduce_sum(tf.square(features), axis=[1, 2])
        samples = tf.cast(tf.shape(labels)[1], tf.float32)
        logs = {"length": Log(tf.reduce_mean(length), weight=samples), "samples": Log(samples)}
        return Terms(length[None] / samples, logs)


def test_a_loss_of_ones_own_gets_features_and_logs_what_it_says():
    x, y = batch(24)
    model = CRLModel(network())
    model.compile(keras.optimizers.SGD(0.0), loss=OfItsOwn(SIZES), metrics=[ClassBalancedAccuracy(SIZES)])
    history = model.fit(x, y, batch_size=16, shuffle=False, validation_data=(x, y), verbose=0).history
    names = {"loss", "length", "balanced_accuracy"}
    assert set(history) == names | {"samples"} | {f"val_{name}" for name in names}
    expected = float(tf.reduce_mean(tf.reduce_sum(tf.square(model.features(x)), axis=[1, 2])))
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5) and history["length"][0] == pytest.approx(expected, rel=1e-5)
    assert history["samples"][0] == 12  # the mean of 16 and 8
    model.compile(loss=MultiLabelCrossEntropy(SIZES))
    assert not {"length", "samples"} & set(model.train_on_batch(x, y, return_dict=True))


def test_saves_and_loads_without_custom_objects(tmp_path):
    x, y = batch()
    model = CRLModel(network())
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss=CRL(SIZES, level="instance", class_counts=[[9, 1], [5, 3, 2]]))
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    np.testing.assert_array_equal(model.features(x), loaded.features(x))
    assert loaded.loss.get_config() == model.loss.get_config()
    assert model.train_on_batch(x, y) == pytest.approx(loaded.train_on_batch(x, y))
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_keras_losses_by_name_see_the_logits():
    x, _ = batch()
    model = CRLModel(network())
    model.compile(loss="mse")
    logits = model.predict(x, verbose=0)
    assert model.test_on_batch(x, np.zeros_like(logits), return_dict=True)["loss"] == pytest.approx((logits**2).mean(), rel=1e-5)


def test_num_classes_given_as_an_array_still_saves(tmp_path):
    sizes = np.array(SIZES)
    model = CRLModel(network())
    model.compile(loss=CRL(sizes, alpha=0.5), metrics=[ClassBalancedAccuracy(sizes)])
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").loss.get_config()["num_classes"] == SIZES
    assert MultiLabelCrossEntropy(sizes).get_config()["num_classes"] == SIZES


def test_early_stopping_knows_which_way_is_up():
    x, y = batch()
    model = CRLModel(network())
    model.compile(loss=CRL(SIZES, alpha=0.5), metrics=[ClassBalancedAccuracy(SIZES)])
    stop = keras.callbacks.EarlyStopping("val_balanced_accuracy")
    model.fit(x, y, validation_data=(x, y), callbacks=[stop], verbose=0)
    assert stop.best == pytest.approx(model.evaluate(x, y, verbose=0, return_dict=True)["balanced_accuracy"])


def test_a_network_without_features_is_refused():
    with pytest.raises(ValueError, match="network must yield"):
        CRLModel(keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)]))


def test_keras_exports_a_model_that_was_only_fitted(tmp_path):
    x, y = batch()
    model = CRLModel(network())
    model.compile(loss=CRL(SIZES, alpha=0.5))
    model.fit(x, y, verbose=0)
    model.export(tmp_path / "export", verbose=False)
    served = tf.saved_model.load(tmp_path / "export")
    np.testing.assert_allclose(served.serve(x), model.predict(x, verbose=0), atol=1e-6)


def test_a_sum_over_the_batch_is_refused():
    x, y = batch()
    model = CRLModel(network())
    model.compile(loss=CRL(SIZES, alpha=0.5, reduction="sum"))
    with pytest.raises(ValueError, match="reduction='sum_over_batch_size', received 'sum'"):
        model.train_on_batch(x, y)


def test_instance_level_in_plain_compile_without_features_says_what_to_do():
    with pytest.raises(ValueError, match=r"CRLModel.*JoinFeatures.*feature_shape"):
        CRL(3, level="instance", alpha=0.5)([0, 1], np.zeros((2, 3), np.float32))


def test_dict_outputs_add_up_to_the_multi_label_loss():
    x, y = batch()
    net = network()
    logits = net.output["logits"]
    by_name = keras.Model(net.input, {"a": logits[:, :2], "b": logits[:, 2:]})
    by_name.compile(loss=crl_losses({"a": 2, "b": 3}, alpha=0.4))
    together = keras.Model(net.input, logits)
    together.compile(loss=CRL(SIZES, alpha=0.4))
    split = by_name.test_on_batch(x, {"a": y[:, 0], "b": y[:, 1]}, return_dict=True)["loss"]
    assert split == pytest.approx(together.test_on_batch(x, y, return_dict=True)["loss"], rel=1e-6)


def test_crl_losses_refuses_names_that_do_not_match():
    with pytest.raises(ValueError, match="class_counts must name the outputs"):
        crl_losses({"a": 2}, class_counts={"b": [1, 2]})


def test_warmup_ramps_alpha_step_by_step():
    x, y = batch(16)
    loss = CRL(SIZES, alpha=0.4)
    model = CRLModel(network())
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    seen = []
    spy = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(float(loss.alpha_scale)))
    model.fit(x, y, batch_size=8, epochs=3, callbacks=[AlphaWarmup(loss, 2), spy], verbose=0)
    # 2 steps an epoch, a ramp of 2 epochs: a quarter more each step.
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_the_traced_step_sees_the_warmup():
    x, y = batch()
    loss = CRL(SIZES, alpha=1.0)
    model = CRLModel(network())
    model.compile(loss=loss)
    logs = {}
    for scale in (0.0, 1.0):
        loss.alpha_scale.assign(scale)
        logs[scale] = model.test_on_batch(x, y, return_dict=True)
    assert logs[0.0]["loss"] == pytest.approx(logs[0.0]["L_ce"]) and logs[1.0]["loss"] == pytest.approx(logs[1.0]["L_crl"])


@pytest.mark.parametrize("wrong", [[[3, 0]], [[-2, 0]], [[0.5, 0]], [[1, 1, 0, 0, 1]], [[0.5, 0.5, 0, 0, 1]]])
def test_under_xla_a_wrong_target_is_nan_and_elsewhere_an_error(wrong):
    loss = CRL(SIZES, alpha=0.5)
    wrong, logits = np.array(wrong, np.float32), np.zeros((1, 5), np.float32)
    assert np.isnan(tf.function(loss, jit_compile=True)(wrong, logits))
    with pytest.raises(tf.errors.InvalidArgumentError, match="y_true"):
        loss(wrong, logits)
    with pytest.raises(tf.errors.InvalidArgumentError, match="y_true"):
        tf.function(loss)(tf.constant(wrong), tf.constant(logits))
