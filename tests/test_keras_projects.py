"""What other people's Keras projects hand over: truth values, texts, probabilities, signs, another loss, another model."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf import CRL, AlphaWarmup, ClassBalancedAccuracy, CRLModel, FocalLoss, JoinFeatures, crl_losses
from crl_tf.layout import Layout, integer_labels
from crl_tf.losses.table import LOSSES, Problem, make_loss

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype(np.float32)
Y = RNG.choice(2, (64, 2), p=[0.7, 0.3])


def ending_in(*layers_):
    """A model from 6 numbers to what the last of these layers gives."""
    return keras.Sequential([keras.Input((6,)), *layers_])


def network():
    inputs = keras.Input((6,))
    features = keras.layers.Dense(8)(inputs)
    return keras.Model(inputs, {"features": features, "logits": keras.layers.Dense(4)(features)})


@pytest.mark.parametrize("name", [name for name in LOSSES if not name.startswith("instance") and name != "triplet"])
@pytest.mark.parametrize("jit", [False, True])
def test_truth_values_are_classes_for_every_loss_and_the_metric(name, jit):
    problem = Problem([2, 2], [np.array([7, 3])] * 2, 10.0)
    section = {LOSSES[name].section: {**LOSSES[name].parameters, "alpha": 0.3}} if LOSSES[name].section == "crl" else {}
    loss = make_loss(name, section or {s: dict(r.parameters) for r in LOSSES.values() if (s := r.section)}, problem)
    logits = RNG.normal(size=(64, 4)).astype(np.float32)
    value = tf.function(lambda y: tf.reduce_mean(loss.call(y, logits)), jit_compile=jit)
    if name != "curriculum":  # draws anew in every call
        assert float(value(tf.constant(Y.astype(bool)))) == float(value(tf.constant(Y.astype(np.int32))))
    metrics = [ClassBalancedAccuracy([2, 2]) for _ in range(2)]
    for metric, targets in zip(metrics, (Y.astype(bool), Y), strict=True):
        tf.function(metric.update_state)(tf.constant(targets), logits)
    assert float(metrics[0].result()) == float(metrics[1].result()) > 0


def test_truth_values_out_of_the_pipeline_train():
    model = ending_in(keras.layers.Dense(4))
    model.compile("sgd", loss=CRL([2, 2], alpha=0.3), metrics=[ClassBalancedAccuracy([2, 2])])
    history = model.fit(tf.data.Dataset.from_tensor_slices((X, Y.astype(bool))).batch(16), verbose=0).history
    assert np.isfinite(history["loss"]).all() and 0 < history["balanced_accuracy"][0] < 1


def test_texts_are_refused_by_their_type():
    texts = tf.constant([["cat"], ["dog"]])
    for use in (
        lambda: integer_labels(texts, Layout((2,))),
        lambda: CRL(2, alpha=0.3)(texts, tf.zeros([2, 2])),
        lambda: ClassBalancedAccuracy(2).update_state(texts, tf.zeros([2, 2])),
        lambda: tf.function(ClassBalancedAccuracy(2).update_state)(texts, tf.zeros([2, 2])),
    ):
        with pytest.raises(ValueError, match=r"y_true must hold the classes as numbers, received dtype string.*StringLookup"):
            use()


def test_texts_out_of_the_pipeline_are_refused_by_their_type():
    model = ending_in(keras.layers.Dense(2))
    model.compile("sgd", loss=CRL(2, alpha=0.3))
    with pytest.raises(ValueError, match="received dtype string"):
        model.fit(tf.data.Dataset.from_tensor_slices((X, np.array(["a", "b"] * 32))).batch(16), verbose=0)


def softmax_of_each_label():
    inputs = keras.Input((6,))
    heads = [keras.layers.Dense(2, "softmax")(inputs) for _ in range(2)]
    return keras.Model(inputs, keras.layers.Concatenate()(heads))


def joined_probabilities():
    inputs = keras.Input((6,))
    features = keras.layers.Dense(3)(inputs)
    return keras.Model(inputs, JoinFeatures()([features, keras.layers.Dense(4, "softmax")(features)]))


@pytest.mark.parametrize(
    "make, sizes, options, what",
    [
        (lambda: ending_in(keras.layers.Dense(3, "softmax")), 3, {}, "softmax"),
        (lambda: ending_in(keras.layers.Dense(2, "sigmoid")), [2, 2], {}, "sigmoid"),
        (softmax_of_each_label, [2, 2], {}, "softmax"),
        (joined_probabilities, 4, {"feature_shape": 3}, "softmax"),
    ],
)
@pytest.mark.parametrize("as_metric", [False, True])
def test_probabilities_in_place_of_logits_are_said(make, sizes, options, what, as_metric):
    model = make()
    if as_metric:
        # "mse" has no opinion on where its outputs come from.
        model.compile("sgd", loss=lambda y, p: tf.reduce_mean(p), metrics=[ClassBalancedAccuracy(sizes, **options)])
    else:
        level = {"level": "instance"} if options else {}
        model.compile("sgd", loss=CRL(sizes, alpha=0.3, **level, **options))
    with pytest.warns(UserWarning, match=f"y_pred must be logits with from_logits=True, received the output of a {what}"):
        model.fit(X, Y[:, : np.size(sizes)], verbose=0)


def test_logits_and_declared_probabilities_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for last, from_logits in ((keras.layers.Dense(3), True), (keras.layers.Dense(3, "softmax"), False)):
            model = ending_in(keras.layers.Dense(4, "sigmoid"), last)
            loss = CRL(3, alpha=0.3, from_logits=from_logits)
            model.compile("sgd", loss=loss, metrics=[ClassBalancedAccuracy(3, from_logits=from_logits)])
            model.fit(X, Y[:, :1], verbose=0)


def test_a_warm_up_of_another_loss_than_the_compiled_one_is_refused():
    compiled, other = CRL([2, 2], alpha=0.3), CRL([2, 2], alpha=0.3)
    model = ending_in(keras.layers.Dense(4))
    model.compile("sgd", loss=compiled)
    with pytest.raises(ValueError, match="loss must be the one that the model is compiled with, the same object"):
        model.fit(X, Y, verbose=0, callbacks=[AlphaWarmup(other, 1)])
    model.fit(X, Y, verbose=0, callbacks=[AlphaWarmup(compiled, 1)])


def test_a_warm_up_knows_losses_of_outputs_of_a_wrapper_and_of_a_base():
    inputs = keras.Input((6,))
    heads = {name: keras.layers.Dense(2, name=name)(inputs) for name in ("a", "b")}
    model, losses = keras.Model(inputs, heads), crl_losses({"a": 2, "b": 2}, alpha=0.3)
    model.compile("sgd", loss=losses)
    model.fit(X, {"a": Y[:, 0], "b": Y[:, 1]}, verbose=0, callbacks=[AlphaWarmup(loss, 1) for loss in losses.values()])
    inner = CRL([2, 2], alpha=0.3)
    wrapped = CRLModel(network())
    wrapped.compile("sgd", loss=CRL([2, 2], alpha=0.3, base=inner))
    wrapped.fit(X, Y, verbose=0, callbacks=[AlphaWarmup(inner, 1)])


def test_losses_of_several_outputs_take_the_counts_that_one_loss_takes():
    sizes, counts = {"season": 3, "colour": 2}, [[8, 1, 1], [5, 5]]
    losses = crl_losses(sizes, class_counts=counts)
    together = CRL([3, 2], class_counts=counts)
    np.testing.assert_allclose([losses["season"].alpha[0], losses["colour"].alpha[0]], together.alpha)
    with pytest.raises(ValueError, match="class_counts must be 2 sequences, one per label"):
        crl_losses(sizes, class_counts=[[8, 1, 1]])


def test_labels_of_signs_are_said_before_a_training(recwarn):
    model = CRLModel(network())
    model.compile("sgd", loss=CRL([2, 2], alpha=0.3))
    signs = np.where(Y == 1, 1, -1)
    with pytest.warns(UserWarning, match="2 of 2 labels are 1 or -1 and never 0; -1 means not annotated"):
        model.fit(X, signs, verbose=0)
    some = np.where(RNG.random(Y.shape) < 0.3, -1, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X, some, verbose=0)


@pytest.mark.parametrize("jit", [False, True])
def test_a_class_out_of_range_is_refused_before_a_training_also_under_xla(jit):
    model = CRLModel(network())
    model.compile("sgd", loss=FocalLoss([2, 2]), jit_compile=jit)
    with pytest.raises(tf.errors.InvalidArgumentError, match="class values must be whole numbers in"):
        model.fit(X, Y + 1, verbose=0)
    assert "NaN" in CRL.__doc__ and "the -1 would be left out" in CRL.__doc__


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: CRL(None, alpha=0.3), "num_classes must be an int >= 2, or a sequence of such ints, received None"),
        (lambda: CRL([[2, 3]], alpha=0.3), "num_classes must be an int >= 2"),
        (lambda: CRL(2.0, alpha=0.3), "num_classes must be an int >= 2"),
        (lambda: CRL(3, alpha="a"), r"alpha must be a number in \[0, 1\], or one per label \(1\), received 'a'"),
        (lambda: CRL(3, class_counts=[5, 3, 1], eta=None), "eta must be a number >= 0, received None"),
        (lambda: CRL(3, alpha=0.3, rho="a"), "rho must lie in"),
        (lambda: CRL(3, class_counts=[["a", "b", "c"]]), "class_counts must be numbers >= 0"),
        (lambda: CRL(3, class_counts=[[1e308, 1e308, 1]]), "class_counts must be numbers >= 0"),
        (lambda: FocalLoss(3, gamma="a"), "gamma must be a number >= 0, received 'a'"),
        (lambda: AlphaWarmup(CRL(3, alpha=0.3), float("nan")), "epochs must be a number >= 0, received nan"),
        (lambda: AlphaWarmup(CRL(3, alpha=0.3), None), "epochs must be a number >= 0, received None"),
        (lambda: crl_losses([2, 3], alpha=0.3), "num_classes must name the outputs"),
        (lambda: CRLModel(None), "network must be a keras.Model, received NoneType"),
        (lambda: CRL(3, alpha=0.3)([1], np.zeros((4, 3))), "the same samples, received 1 targets and 4 outputs"),
        (lambda: ClassBalancedAccuracy(3).update_state([1], np.zeros((4, 3))), "the same samples, received 1 targets and 4"),
    ],
)
def test_arguments_of_another_kind_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("sizes", [3, [2, 3]])
def test_an_output_of_nan_is_wrong_for_every_class(sizes):
    metric = ClassBalancedAccuracy(sizes, confusion=True)
    labels = np.zeros((4, np.size(sizes)), int)
    outputs = np.zeros((4, np.sum(sizes)), np.float32)
    outputs[0, -1] = np.nan  # of the last label
    metric.update_state(labels, outputs)
    assert float(metric.result()) == pytest.approx(np.mean([1.0] * (np.size(sizes) - 1) + [0.75]))
    assert metric.confusion_matrices()[-1].sum() == 3


def test_labels_of_signs_are_said_by_the_metric_of_a_plain_model():
    model = ending_in(keras.layers.Dense(4))
    model.compile("sgd", loss=CRL([2, 2], alpha=0.3), metrics=[ClassBalancedAccuracy([2, 2])])
    with pytest.warns(UserWarning) as caught:
        warnings.simplefilter("default")
        model.fit(X, np.where(Y == 1, 1, -1), verbose=0, epochs=3)
    assert ["2 of 2 labels are 1 or -1 and never 0" in str(one.message) for one in caught].count(True) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="y_true")
        model.compile("sgd", loss=CRL([2, 2], alpha=0.3), metrics=[ClassBalancedAccuracy([2, 2])])
        model.fit(X, np.where(RNG.random(Y.shape) < 0.3, -1, Y), verbose=0, epochs=3)


def piped(labels):
    return tf.data.Dataset.from_tensor_slices((X, labels)).batch(8, drop_remainder=True)


def test_a_class_out_of_range_in_a_pipeline_is_refused_after_the_first_step_under_xla():
    model = CRLModel(network())
    model.compile("sgd", loss=CRL([2, 2], alpha=0.3), jit_compile=True)
    steps = []
    count = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: steps.append(batch))
    late = np.where(np.arange(len(Y))[:, None] < 8, Y, 5 * Y)
    with pytest.raises(ValueError, match=r"y: class values must be whole numbers in .*; label 0 has others, num_classes=2"):
        model.fit(piped(Y + 1), verbose=0, callbacks=count)
    assert steps == [0]
    # One that comes later is found at the end of the epoch.
    model.compile("sgd", loss=CRL([2, 2], alpha=0.3), jit_compile=True)
    with pytest.raises(ValueError, match="label 0 has others"):
        model.fit(piped(late), verbose=0, epochs=3, callbacks=[count])
    assert steps == [0, *range(len(Y) // 8)]


@pytest.mark.parametrize("jit", [False, True])
def test_labels_of_signs_in_a_pipeline_are_said_once_after_an_epoch(jit):
    model = CRLModel(network())
    model.compile("sgd", loss=CRL([2, 2], alpha=0.3), jit_compile=jit)
    with pytest.warns(UserWarning) as caught:
        warnings.simplefilter("always")
        model.fit(piped(np.where(Y == 1, 1, -1)), verbose=0, epochs=3)
    assert ["2 of 2 labels are 1 or -1 and never 0" in str(one.message) for one in caught].count(True) == 1
    # A single batch without a 0 says nothing of an epoch.
    model.compile("sgd", loss=CRL([2, 2], alpha=0.3), jit_compile=jit)
    first = np.where(np.arange(len(Y))[:, None] < 8, np.where(Y == 1, 1, -1), Y)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="y_true")
        model.fit(piped(first), verbose=0)


@pytest.mark.parametrize(
    "outputs, received",
    [(lambda x: keras.layers.Dense(4)(x), "KerasTensor"), (lambda x: {"logits": keras.layers.Dense(4)(x)}, r"\['logits'\]")],
)
def test_a_model_of_another_form_is_refused_in_one_line(outputs, received):
    inputs = keras.Input((6,))
    plain = keras.Model(inputs, outputs(inputs))
    with pytest.raises(ValueError, match=f"received {received}$") as refused:
        CRLModel(plain)
    assert len(str(refused.value).splitlines()) == 1
