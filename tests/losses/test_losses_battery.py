"""One battery over every row of the table of losses: what is left out, extremes, forms of input, ways of running, saving.

A new row is in it without being listed. A row that needs features gets them as the first columns of the output.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from objective_cases import batch_of, one_hot, probabilities_of

from crl_tf.losses.asymmetric import AsymmetricLoss
from crl_tf.losses.crl.loss import CRL
from crl_tf.losses.focal import FocalLoss
from crl_tf.losses.ldam import LDAMLoss
from crl_tf.losses.logit_adjusted import BalancedSoftmaxLoss, LogitAdjustedLoss
from crl_tf.losses.reweighted import ClassBalancedLoss, CostSensitiveLoss
from crl_tf.losses.table import LOSSES, Problem, make_loss
from crl_tf.losses.triplet import TripletLoss

SIZES, COUNTS = [2, 3, 5], [[90, 10], [50, 0, 7], [400, 30, 20, 1, 0]]
DEPTH = 4
# Parameters that tell: other than the default, or of a size at which the loss is not almost 0.
SECTIONS = {
    "crl": {"alpha": 0.4},
    "focal": {"gamma": 1.5, "alpha": 0.6},
    "class_balanced": {"beta": 0.99},
    "logit_adjusted": {"tau": 0.7},
    "ldam": {"max_margin": 0.3, "beta": 0.99, "defer_until": 0.5},
    "asymmetric": {"gamma_positive": 0.5, "gamma_negative": 2.0, "clip": 0.1},
}


def late(loss):
    """Half-way through training."""
    if hasattr(loss, "progress"):
        loss.progress.assign(0.5)
    return loss


def from_row(name):
    """What makes a row's loss: (sizes, counts, **parameters of every loss)."""

    def make(sizes, counts, **parameters):
        loss = make_loss(name, SECTIONS, Problem(sizes, counts, cosine_scale=8.0))
        # What a recipe does not set: from_logits, feature_shape, name, reduction.
        return late(type(loss).from_config({**loss.get_config(), **parameters}))

    return make


def late_ldam(sizes, counts, **parameters):
    return late(LDAMLoss(sizes, counts, max_margin=0.3, scale=8.0, beta=0.99, defer_until=0.5, **parameters))


MAKERS = {
    **{name: from_row(name) for name in LOSSES},
    "asymmetric_bare": lambda sizes, counts, **p: AsymmetricLoss(sizes, 0.5, 0.5, 0.0, **p),
    "crl_focal": lambda sizes, counts, **p: CRL(sizes, alpha=0.4, base=FocalLoss(sizes), **p),
    "crl_ldam": lambda sizes, counts, **p: CRL(sizes, alpha=0.4, base=late_ldam(sizes, counts), **p),
    "triplet": lambda sizes, counts, **p: TripletLoss(sizes, margin=1.0, **p),
}
NEED_FEATURES = [name for name, make in MAKERS.items() if make(SIZES, COUNTS).needs_features]
# What these say of one sample depends on the others.
PAIRING = [name for name in MAKERS if name in NEED_FEATURES or name.startswith(("class_rel", "class_abs", "class_dis", "crl"))]
every_loss = pytest.mark.parametrize("name", MAKERS)
of_one_sample = pytest.mark.parametrize("name", [name for name in MAKERS if name not in PAIRING])
# Where a graph is traced, without those that differ in nothing that matters there; tests/losses/crl/fast compiles all six of CRL.
ALIKE = ("class_abs", "class_dis", "instance_rel", "instance_abs", "asymmetric_bare", "crl_focal")
every_kind = pytest.mark.parametrize("name", [name for name in MAKERS if name not in ALIKE])


def make(kind, sizes=None, counts=None, **parameters):
    if kind in NEED_FEATURES:
        parameters["feature_shape"] = (len(sizes or SIZES), DEPTH)
    return MAKERS[kind](sizes or SIZES, counts or COUNTS, **parameters)


def outputs_of(name, logits, sizes=None):
    """The outputs of a model: logits, behind features where the loss needs them."""
    if name not in NEED_FEATURES:
        return logits
    features = np.random.default_rng(99).standard_normal((len(logits), len(sizes or SIZES) * DEPTH)).astype(np.float32)
    return np.concatenate([features, logits], axis=1)


def draw_again(loss):
    """Lets a loss that draws draw the same as after the last call of this."""
    for generator in getattr(loss, "seed_generators", ()):
        generator.state.assign([5, 0])


def value_and_gradient(loss, labels, outputs, **options):
    """The value, and the gradient by features and logits."""
    x = tf.constant(outputs)
    draw_again(loss)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(labels, x, **options)
    assert value.shape == () and value.dtype == tf.float32
    return float(value), tape.gradient(value, x).numpy()


def by_label(gradient, label):
    """The columns of one label: its logits, and its features where there are any."""
    start = gradient.shape[1] - sum(SIZES) + sum(SIZES[:label])
    columns = [gradient[:, start : start + SIZES[label]]]
    if gradient.shape[1] > sum(SIZES):
        columns.append(gradient[:, DEPTH * label : DEPTH * (label + 1)])
    return np.concatenate(columns, axis=1)


@of_one_sample
def test_a_sample_that_is_not_annotated_changes_nothing(name):
    """Two labels of one sample are -1: the rest as if the sample were not there, and no gradient for its columns of them."""
    labels, logits, _ = batch_of(1, 12, SIZES)
    labels[5, :2] = -1
    value, gradient = value_and_gradient(make(name), labels, logits)
    others = np.arange(12) != 5
    without = sum(
        value_and_gradient(make(name, [size], [COUNTS[j]]), labels[rows, j], logits[rows, first : first + size])[0]
        for j, (size, first, rows) in enumerate(zip(SIZES, [0, 2, 5], [others, others, np.full(12, True)], strict=True))
    )
    assert value == pytest.approx(without, rel=1e-5)
    assert not gradient[5, :5].any() and gradient[5, 5:].any() and gradient[4, :5].any()


@every_loss
def test_a_label_that_nobody_has(name):
    labels, logits, _ = batch_of(2, 12, SIZES)
    labels[:, 1] = -1
    outputs = outputs_of(name, logits)
    _, gradient = value_and_gradient(make(name), labels, outputs)
    assert not by_label(gradient, 1).any() and by_label(gradient, 0).any() and by_label(gradient, 2).any()
    labels[:] = -1
    value, gradient = value_and_gradient(make(name), labels, outputs)
    assert value == 0.0 and not gradient.any()


@of_one_sample
def test_a_batch_is_the_mean_of_its_samples(name):
    labels, logits, _ = batch_of(3, 4, SIZES)
    loss = make(name)
    alone = [value_and_gradient(loss, labels[i : i + 1], logits[i : i + 1])[0] for i in range(4)]
    assert min(alone) > 0 and value_and_gradient(loss, labels, logits)[0] == pytest.approx(np.mean(alone), rel=1e-5)


@every_loss
def test_the_terms_sum_to_the_loss(name):
    """`terms` of [L, B]; `per_sample` of [B], whose mean is the loss; no gradient beyond what it says that it needs."""
    labels, logits, features = batch_of(12, 14, SIZES, unannotated=0.1)
    loss = make(name)
    draw_again(loss)
    terms = loss.batch_terms(labels, logits, features[..., :DEPTH])
    assert terms.by_label.shape == (3, 14) and terms.per_sample.shape == (14,)
    assert float(tf.reduce_sum(terms.by_label)) == pytest.approx(float(tf.reduce_mean(terms.per_sample)), rel=1e-5)
    assert set(terms.logs) == set(loss.logged)
    assert all(log.value.shape == () and np.isfinite(log.value) for log in terms.logs.values())
    outputs = np.concatenate([features[..., :DEPTH].reshape(14, -1), logits], axis=1) if loss.needs_features else logits
    assert value_and_gradient(loss, labels, outputs)[0] == pytest.approx(float(tf.reduce_mean(terms.per_sample)), rel=1e-5)


@pytest.mark.parametrize("name", NEED_FEATURES)
def test_features_that_are_missing_or_of_another_shape_are_named(name):
    labels, logits, _ = batch_of(13, 6, SIZES)
    loss = MAKERS[name](SIZES, COUNTS)
    with pytest.raises(ValueError, match=rf"{type(loss).__name__} needs features.*CRLModel.*JoinFeatures.*feature_shape"):
        loss(labels, logits)
    with pytest.raises(ValueError, match=r"features must be \[B, D\] or \[B, 3, D\], received shape \(6, 2, 4\)"):
        loss.batch_terms(labels, logits, tf.zeros([6, 2, 4]))


@every_loss
def test_classes_without_a_training_image(name):
    """Found in validation all the same; and a label without any training image at all."""
    labels = np.array([[0, 1, 4], [1, 1, 4], [0, 0, 3]], np.int32)
    outputs = outputs_of(name, batch_of(4, 3, SIZES)[1])
    for counts in (COUNTS, [[0, 0], [50, 0, 7], [1, 0, 0, 0, 0]]):
        value, gradient = value_and_gradient(make(name, counts=counts), labels, outputs)
        assert np.isfinite(value) and value > 0 and np.isfinite(gradient).all() and gradient.any()


@every_loss
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_extreme_logits(name, size):
    """The true class, or another, far above the rest; all equal."""
    labels = np.array([[0, 1, 4], [1, 2, 0], [0, 0, 3], [1, -1, 2]], np.int32)
    right = (2 * one_hot(np.maximum(labels, 0), SIZES) - 1) * size
    for logits in (right, -right, np.full_like(right, size), np.zeros_like(right)):
        value, gradient = value_and_gradient(make(name), labels, outputs_of(name, logits.astype(np.float32)))
        assert np.isfinite(value) and value >= 0 and np.isfinite(gradient).all()


@every_kind
def test_graph_and_xla_equal_eager(name):
    labels, logits, _ = batch_of(5, 16, SIZES, unannotated=0.2)
    # Training images like the batch, at the start of training: curriculum draws nothing, which XLA would do differently.
    counts = [[column.count(k) for k in range(size)] for size, column in zip(SIZES, labels.T.tolist(), strict=True)]
    outputs, loss = outputs_of(name, logits), make(name, counts=counts)
    if name == "curriculum":
        loss.progress.assign(0.0)
    expected, slopes = value_and_gradient(loss, labels, outputs)
    for jit_compile in (False, True):

        @tf.function(jit_compile=jit_compile)
        def run(y, x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = loss(y, x)
            return value, tape.gradient(value, x)

        value, gradient = run(tf.constant(labels), tf.constant(outputs))
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-6)
        if jit_compile and name != "triplet":  # XLA drops the check of the labels: a class that does not exist is no number.
            labels[3, 0] = 2
            assert np.isnan(run(tf.constant(labels), tf.constant(outputs))[0])
    labels[3, 0] = 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="class values"):
        loss(labels, outputs)


@of_one_sample
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

    def value(targets, columns, sizes=None, counts=None, **parameters):
        loss = make(name, sizes, counts, **parameters)
        return value_and_gradient(loss, targets, outputs_of(name, columns.astype(np.float32), sizes))[0]

    expected = value(labels, logits)
    assert value(one_hot(labels, SIZES), logits) == pytest.approx(expected, rel=1e-5)
    assert value(labels, probabilities_of(logits, SIZES), from_logits=False) == pytest.approx(expected, rel=1e-4)
    binary, counts = [2, 2, 2], [[90, 10], [3, 0], [5, 6]]
    labels, logits, _ = batch_of(8, 10, binary, unannotated=0.1)
    z = logits[:, 1::2] - logits[:, ::2]
    expected = value(labels, logits, binary, counts)
    assert value(labels, z, binary, counts) == pytest.approx(expected, rel=1e-4)
    sigmoid = 1 / (1 + np.exp(-z))
    assert value(labels, sigmoid, binary, counts, from_logits=False) == pytest.approx(expected, rel=1e-4)


@every_loss
def test_a_config_says_all(name):
    labels, logits, _ = batch_of(9, 10, SIZES, unannotated=0.1)
    loss, outputs = make(name, name="mine", reduction="sum"), outputs_of(name, logits)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config() and again.name == "mine"
    if hasattr(loss, "progress"):
        assert float(again.progress) == 0.0  # not saved: a resumed run is told
        again.progress.assign(loss.progress)
    values = [value_and_gradient(one, labels, outputs)[0] for one in (again, loss)]
    np.testing.assert_allclose(*values, rtol=1e-6)


@every_kind
def test_fit_and_a_saved_model(name, tmp_path):
    """One step of SGD makes the loss of the batch smaller; the compiled model comes back with the same loss."""
    labels, _, _ = batch_of(10, 24, SIZES, unannotated=0.1)
    x = np.random.default_rng(0).standard_normal((24, 6)).astype(np.float32)
    keras.utils.set_random_seed(0)
    loss = make(name)
    width = 10 + (len(SIZES) * DEPTH if loss.needs_features else 0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(width)])
    rate = 0.005 if loss.needs_features else 0.05
    model.compile(keras.optimizers.SGD(rate), loss=loss, jit_compile=False)

    def value(of):
        draw_again(of)
        return float(of(labels, model(x)))

    before = value(loss)
    draw_again(loss)
    fitted = model.fit(x, labels, batch_size=24, epochs=1, verbose=0, shuffle=False).history["loss"][0]
    assert fitted == pytest.approx(before, rel=1e-5)
    assert value(loss) < before
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.loss) is type(loss) and loaded.loss.get_config() == loss.get_config()
    if hasattr(loss, "progress"):
        loaded.loss.progress.assign(loss.progress)
    assert value(loaded.loss) == pytest.approx(value(loss), rel=1e-5)


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
        ("alpha_warmup_epochs", lambda: CRL(3, alpha=0.5, alpha_warmup_epochs=-1)),
        ("base.*num_classes", lambda: CRL([2, 3], alpha=0.5, base=FocalLoss([3, 2]))),
        ("base", lambda: CRL(3, alpha=0.5, base=keras.losses.CategoricalFocalCrossentropy())),
        ("base", lambda: CRL(3, alpha=0.5, base=CRL(3, level="instance", alpha=0.5))),
        ("base", lambda: CRL(3, alpha=0.5, base=TripletLoss(3))),
    ],
)
def test_a_bad_argument_is_named(named, build):
    with pytest.raises(ValueError, match=rf"\b{named}\b"):
        build()
