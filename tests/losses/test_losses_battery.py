"""One battery over the losses of logits: what is left out, extremes, forms of input, ways of running, saving, bad arguments."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from objective_cases import batch_of, one_hot, probabilities_of

from crl_tf.callbacks import TrainingProgress
from crl_tf.losses.asymmetric import AsymmetricLoss
from crl_tf.losses.base import FeatureLoss
from crl_tf.losses.crl.loss import CRL
from crl_tf.losses.cross_entropy import MultiLabelCrossEntropy
from crl_tf.losses.focal import FocalLoss
from crl_tf.losses.ldam import LDAMLoss
from crl_tf.losses.logit_adjusted import BalancedSoftmaxLoss, LogitAdjustedLoss
from crl_tf.losses.reweighted import ClassBalancedLoss, CostSensitiveLoss


def late_ldam(sizes, counts, **parameters):
    loss = LDAMLoss(sizes, counts, max_margin=0.3, scale=8.0, beta=0.99, defer_until=0.5, **parameters)
    loss.progress.assign(0.5)
    return loss


LOSSES = {
    "focal": lambda sizes, counts, **p: FocalLoss(sizes, gamma=1.5, alpha=0.6, **p),
    "cost_sensitive": CostSensitiveLoss,
    "class_balanced": lambda sizes, counts, **p: ClassBalancedLoss(sizes, counts, beta=0.99, **p),
    "logit_adjusted": lambda sizes, counts, **p: LogitAdjustedLoss(sizes, counts, tau=0.7, **p),
    "balanced_softmax": BalancedSoftmaxLoss,
    "ldam": late_ldam,
    "asymmetric": lambda sizes, counts, **p: AsymmetricLoss(sizes, 0.5, 2.0, 0.1, **p),
    "asymmetric_bare": lambda sizes, counts, **p: AsymmetricLoss(sizes, 0.5, 0.5, 0.0, **p),
    "crl_focal": lambda sizes, counts, **p: CRL(sizes, alpha=0.4, base=FocalLoss(sizes), **p),
    "crl_ldam": lambda sizes, counts, **p: CRL(sizes, alpha=0.4, base=late_ldam(sizes, counts), **p),
}
every_loss = pytest.mark.parametrize("name", LOSSES)
# CRL pairs samples: what it says of one sample depends on the others.
by_label = pytest.mark.parametrize("name", [name for name in LOSSES if not name.startswith("crl")])
# One of each kind, where a graph is traced.
every_kind = pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("asymmetric_bare", "crl_focal")])
SIZES, COUNTS = [2, 3, 5], [[90, 10], [50, 0, 7], [400, 30, 20, 1, 0]]


def make(kind, sizes=None, counts=None, **parameters):
    return LOSSES[kind](sizes or SIZES, counts or COUNTS, **parameters)


def value_and_gradient(loss, labels, logits, **given):
    x = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(labels, x, **given)
    assert value.shape == () and value.dtype == tf.float32
    return float(value), tape.gradient(value, x).numpy()


@by_label
def test_a_sample_that_is_not_annotated_changes_nothing(name):
    """Two labels of one sample are -1: the rest as if the sample were not there, and no gradient for its columns of them."""
    labels, logits, _ = batch_of(1, 12, SIZES)
    labels[5, :2] = -1
    value, gradient = value_and_gradient(make(name), labels, logits)
    kept = np.arange(12) != 5
    without = sum(
        value_and_gradient(make(name, [size], [COUNTS[j]]), labels[rows, j], logits[rows, first : first + size])[0]
        for j, (size, first, rows) in enumerate(zip(SIZES, [0, 2, 5], [kept, kept, np.full(12, True)], strict=True))
    )
    assert value == pytest.approx(without, rel=1e-5)
    assert not gradient[5, :5].any() and gradient[5, 5:].any() and gradient[4, :5].any()


@every_loss
def test_a_label_that_nobody_has(name):
    labels, logits, _ = batch_of(2, 12, SIZES)
    labels[:, 1] = -1
    _, gradient = value_and_gradient(make(name), labels, logits)
    assert not gradient[:, 2:5].any() and gradient[:, :2].any() and gradient[:, 5:].any()
    labels[:] = -1
    value, gradient = value_and_gradient(make(name), labels, logits)
    assert value == 0.0 and not gradient.any()


@by_label
def test_a_batch_is_the_mean_of_its_samples(name):
    labels, logits, _ = batch_of(3, 4, SIZES)
    loss = make(name)
    alone = [value_and_gradient(loss, labels[i : i + 1], logits[i : i + 1])[0] for i in range(4)]
    assert min(alone) > 0 and value_and_gradient(loss, labels, logits)[0] == pytest.approx(np.mean(alone), rel=1e-5)


@every_loss
def test_classes_without_a_training_image(name):
    """Found in validation all the same; and a label without any training image at all."""
    labels = np.array([[0, 1, 4], [1, 1, 4], [0, 0, 3]], np.int32)
    logits = batch_of(4, 3, SIZES)[1]
    for counts in (COUNTS, [[0, 0], [50, 0, 7], [1, 0, 0, 0, 0]]):
        value, gradient = value_and_gradient(make(name, counts=counts), labels, logits)
        assert np.isfinite(value) and value > 0 and np.isfinite(gradient).all() and gradient.any()


@every_loss
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_extreme_logits(name, size):
    """The true class, or another, far above the rest; all equal."""
    labels = np.array([[0, 1, 4], [1, 2, 0], [0, 0, 3], [1, -1, 2]], np.int32)
    right = (2 * one_hot(np.maximum(labels, 0), SIZES) - 1) * size
    for logits in (right, -right, np.full_like(right, size), np.zeros_like(right)):
        value, gradient = value_and_gradient(make(name), labels, logits.astype(np.float32))
        assert np.isfinite(value) and value >= 0 and np.isfinite(gradient).all()


@every_kind
def test_graph_and_xla_equal_eager(name):
    labels, logits, _ = batch_of(5, 16, SIZES, unannotated=0.2)
    loss = make(name)
    expected, slopes = value_and_gradient(loss, labels, logits)
    for jit_compile in (False, True):

        @tf.function(jit_compile=jit_compile)
        def run(y, x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = loss(y, x)
            return value, tape.gradient(value, x)

        value, gradient = run(tf.constant(labels), tf.constant(logits))
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-6)
        if jit_compile:  # XLA drops the check of the labels: a class that does not exist is no number.
            labels[3, 0] = 2
            assert np.isnan(run(tf.constant(labels), tf.constant(logits))[0])
    with pytest.raises(tf.errors.InvalidArgumentError, match="class values"):
        loss(labels, logits)


@by_label
def test_sample_weight(name):
    labels, logits, _ = batch_of(6, 5, SIZES)
    loss, weight = make(name), np.array([1.0, 0.0, 2.0, 0.5, 1.0], np.float32)
    alone = [value_and_gradient(loss, labels[i : i + 1], logits[i : i + 1])[0] for i in range(5)]
    value, gradient = value_and_gradient(loss, labels, logits, sample_weight=weight)
    assert value == pytest.approx(np.dot(weight, alone) / 5, rel=1e-5)
    assert not gradient[1].any() and gradient[0].any()
    with pytest.raises(ValueError, match="sample_weight"):
        loss(labels, logits, sample_weight=np.ones((5, 3), np.float32))


@every_loss
def test_forms_of_targets_and_outputs(name):
    """One-hot targets; probabilities; one sigmoid per binary label, as logit and as probability."""
    labels, logits, _ = batch_of(7, 10, SIZES)
    expected, _ = value_and_gradient(make(name), labels, logits)
    assert float(make(name)(one_hot(labels, SIZES), logits)) == pytest.approx(expected, rel=1e-5)
    probabilities = probabilities_of(logits, SIZES).astype(np.float32)
    assert float(make(name, from_logits=False)(labels, probabilities)) == pytest.approx(expected, rel=1e-4)
    binary, counts = [2, 2, 2], [[90, 10], [3, 0], [5, 6]]
    labels, logits, _ = batch_of(8, 10, binary, unannotated=0.1)
    z = logits[:, 1::2] - logits[:, ::2]
    expected, _ = value_and_gradient(make(name, binary, counts), labels, logits)
    assert float(make(name, binary, counts)(labels, z)) == pytest.approx(expected, rel=1e-4)
    sigmoid = 1 / (1 + np.exp(-z))
    assert float(make(name, binary, counts, from_logits=False)(labels, sigmoid)) == pytest.approx(expected, rel=1e-4)


@every_loss
def test_a_config_says_all(name):
    labels, logits, _ = batch_of(9, 10, SIZES, unannotated=0.1)
    loss = make(name, name="mine", reduction="sum")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config() and again.name == "mine"
    if hasattr(loss, "progress"):
        assert float(again.progress) == 0.0  # not saved: a resumed run is told
        again.progress.assign(loss.progress)
    np.testing.assert_allclose(again(labels, logits), loss(labels, logits), rtol=1e-6)


@every_kind
def test_fit_and_a_saved_model(name, tmp_path):
    """One step of SGD makes the loss of the batch smaller; the compiled model comes back with the same loss."""
    labels, _, _ = batch_of(10, 24, SIZES, unannotated=0.1)
    x = np.random.default_rng(0).standard_normal((24, 6)).astype(np.float32)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(10)])
    loss = make(name)
    model.compile(keras.optimizers.SGD(0.05), loss=loss, jit_compile=False)
    before = float(loss(labels, model(x)))
    fitted = model.fit(x, labels, batch_size=24, epochs=1, verbose=0).history["loss"][0]
    assert fitted == pytest.approx(before, rel=1e-5) and float(loss(labels, model(x))) < before
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.loss) is type(loss) and loaded.loss.get_config() == loss.get_config()
    if hasattr(loss, "progress"):
        loaded.loss.progress.assign(loss.progress)
    again = loaded.evaluate(x, labels, batch_size=24, verbose=0)
    assert again == pytest.approx(float(loss(labels, model(x))), rel=1e-5)


@pytest.mark.parametrize(
    ("named", "build"),
    [
        ("gamma", lambda: FocalLoss(3, gamma=-1.0)),
        ("gamma", lambda: FocalLoss(3, gamma=float("nan"))),
        ("alpha", lambda: FocalLoss(3, alpha=0.0)),
        ("class_counts", lambda: CostSensitiveLoss([2, 3], [[1, 2], [3, 4]])),
        ("class_counts", lambda: BalancedSoftmaxLoss(3, [1, 2, -1])),
        ("beta", lambda: ClassBalancedLoss(2, [1, 2], beta=1.0)),
        ("beta", lambda: LDAMLoss(2, [1, 2], beta=-0.1)),
        ("tau", lambda: LogitAdjustedLoss(2, [1, 2], tau=-1.0)),
        ("max_margin", lambda: LDAMLoss(2, [1, 2], max_margin=0.0)),
        ("scale", lambda: LDAMLoss(2, [1, 2], scale=-30.0)),
        ("defer_until", lambda: LDAMLoss(2, [1, 2], defer_until=1.5)),
        ("gamma_positive", lambda: AsymmetricLoss(3, gamma_positive=-1.0)),
        ("gamma_negative", lambda: AsymmetricLoss(3, gamma_negative=-1.0)),
        ("clip", lambda: AsymmetricLoss(3, clip=1.0)),
        ("base.*num_classes", lambda: CRL([2, 3], alpha=0.5, base=FocalLoss([3, 2]))),
        ("base", lambda: CRL(3, alpha=0.5, base=keras.losses.CategoricalFocalCrossentropy())),
        ("base", lambda: CRL(3, alpha=0.5, base=CRL(3, alpha=0.5))),
        ("base", lambda: CRL(3, alpha=0.5, base=OfFeatures(3))),
    ],
)
def test_a_bad_argument_is_named(named, build):
    with pytest.raises(ValueError, match=rf"\b{named}\b"):
        build()


class OfFeatures(FeatureLoss):
    def by_sample(self, labels, logits, features):
        return tf.zeros_like(labels, tf.float32)


def test_crl_with_cross_entropy_as_its_base_is_crl():
    labels, logits, _ = batch_of(11, 30, SIZES, unannotated=0.1)
    for level, given in (("class", {}), ("instance", {"feature_shape": 4})):
        y_pred = logits if level == "class" else np.concatenate([logits[:, :4], logits], axis=1)
        plain = CRL(SIZES, level=level, alpha=0.4, **given)
        based = CRL(SIZES, level=level, alpha=0.4, base=MultiLabelCrossEntropy(SIZES), **given)
        expected, slopes = value_and_gradient(plain, labels, y_pred)
        value, gradient = value_and_gradient(based, labels, y_pred)
        assert value == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-7)


def test_crl_has_the_progress_of_its_base():
    base = LDAMLoss(SIZES, COUNTS)
    loss = CRL(SIZES, alpha=0.4, base=base)
    TrainingProgress(loss, epochs=4).on_epoch_begin(3)
    assert float(base.progress) == 0.75 and loss.base is base
    with pytest.raises(ValueError, match="loss"):
        TrainingProgress(CRL(SIZES, alpha=0.4, base=FocalLoss(SIZES)), epochs=4)


def test_a_config_of_before_there_was_a_base():
    config = CRL(SIZES, alpha=0.4).get_config()
    assert config.pop("base") is None
    assert CRL.from_config(config).get_config() == {**config, "base": None}
