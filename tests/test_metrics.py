"""ClassBalancedAccuracy against scikit-learn and by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from crl_tf import ClassBalancedAccuracy
from crl_tf.layout import Layout
from crl_tf.metrics import decided_classes


def random_case(seed, n=200, sizes=(2, 4, 7)):
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.choice(s, n, p=rng.dirichlet(np.ones(s))) for s in sizes], axis=1)
    labels[rng.random(labels.shape) < 0.1] = -1
    return labels, rng.normal(size=(n, sum(sizes))).astype(np.float32)


def predictions(logits, sizes):
    ends = np.cumsum(sizes)
    return np.stack([logits[:, end - size : end].argmax(1) for size, end in zip(sizes, ends, strict=True)], axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn_over_batches(seed):
    sizes = (2, 4, 7)
    labels, logits = random_case(seed)
    metric = ClassBalancedAccuracy(sizes, confusion=True)
    for start in range(0, 200, 64):  # the last batch is smaller
        metric.update_state(labels[start : start + 64], logits[start : start + 64])
    predicted = predictions(logits, sizes)
    of_label = []
    for j, (size, confusion) in enumerate(zip(sizes, metric.confusion_matrices(), strict=True)):
        known = labels[:, j] >= 0
        np.testing.assert_array_equal(confusion, confusion_matrix(labels[known, j], predicted[known, j], labels=range(size)))
        with np.testing.suppress_warnings() as quiet:
            quiet.filter(UserWarning)
            of_label.append(balanced_accuracy_score(labels[known, j], predicted[known, j]))
    assert float(metric.result()) == pytest.approx(np.mean(of_label), rel=1e-6)


def test_labels_and_classes_that_have_not_occurred_are_left_out():
    metric = ClassBalancedAccuracy([3, 2])
    assert np.isnan(metric.result())
    metric.update_state([[-1, -1]], [[9, 0, 0, 1, 0]])
    assert np.isnan(metric.result())
    # First label: class 0 right once of two, class 1 right; class 2 absent. Second label never annotated.
    metric.update_state([[0, -1], [0, -1], [1, -1]], [[9, 0, 0, 1, 0], [0, 9, 0, 1, 0], [0, 9, 0, 1, 0]])
    assert float(metric.result()) == pytest.approx((1 / 2 + 1) / 2)


def test_sigmoid_probabilities_one_hot_and_weights():
    y = np.array([[0, 1], [1, 1], [1, 0]])
    logits = np.array([[-1.0, 2.0], [-3.0, -0.5], [4.0, -1.0]], np.float32)
    expected = (1 + 1 / 2 + 1 / 2 + 1) / 4  # sensitivities 1, 1/2 of the first label and 1, 1/2 of the second
    plain, probabilities = ClassBalancedAccuracy([2, 2]), ClassBalancedAccuracy([2, 2], from_logits=False)
    plain.update_state(y, logits)
    probabilities.update_state(y, tf.sigmoid(logits))
    assert float(plain.result()) == pytest.approx(expected) and float(probabilities.result()) == pytest.approx(expected)
    one_hot = ClassBalancedAccuracy([2, 2])
    one_hot.update_state(np.eye(2)[y].reshape(3, 4), logits)
    assert float(one_hot.result()) == pytest.approx(expected)
    weighted = ClassBalancedAccuracy([2, 2])
    # The first label's wrong sample (the second) weighs 3 of 4; so does the second label's wrong one of its class 1.
    weighted.update_state(y, logits, sample_weight=[1.0, 3.0, 1.0])
    assert float(weighted.result()) == pytest.approx((1 + 1 / 4 + 1 / 4 + 1) / 4)


def test_counts_beyond_what_float32_can_hold():
    metric = ClassBalancedAccuracy(2, confusion=True)
    # A weight of 2^24 in float32, to which nothing more could be added, and then the one that decides.
    metric.update_state([0, 1], [[1.0, 0.0], [1.0, 0.0]], sample_weight=[2.0**24, 1.0])
    metric.update_state([0], [[1.0, 0.0]])
    assert metric.confusion_matrices()[0].tolist() == [[2**24 + 1, 0], [1, 0]]


def test_works_in_compile_resets_and_survives_its_config():
    labels, logits = random_case(7)
    inputs = keras.Input((13,))
    model = keras.Model(inputs, keras.layers.Rescaling(1.0)(inputs))
    model.compile(loss="mse", metrics=[ClassBalancedAccuracy([2, 4, 7])])
    metric = ClassBalancedAccuracy.from_config(ClassBalancedAccuracy([2, 4, 7]).get_config())
    metric.update_state(labels, logits)
    model.compile(loss=lambda y, p: tf.reduce_sum(p, axis=1), metrics=[ClassBalancedAccuracy([2, 4, 7])])
    first = model.evaluate(logits, labels, verbose=0, return_dict=True)["balanced_accuracy"]
    again = model.evaluate(logits, labels, verbose=0, return_dict=True)["balanced_accuracy"]
    assert first == again == pytest.approx(float(metric.result()), rel=1e-6)


@pytest.mark.parametrize("sizes", [(3, 3), (2, 50, 2)])
@pytest.mark.parametrize("jit", [False, True])
def test_of_equal_scores_the_first_class_is_decided_as_by_argmax(sizes, jit):
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 3, (40, sum(sizes))).astype(np.float32)
    logits[0] = np.nan
    decided = tf.function(lambda z: decided_classes(z, Layout(sizes)), jit_compile=jit)(logits).numpy()
    np.testing.assert_array_equal(decided[1:], predictions(logits, sizes)[1:])
    assert (decided[0] == -1).all()


def test_confusion_matrices_must_be_asked_for():
    metric = ClassBalancedAccuracy([3, 2])
    with pytest.raises(ValueError, match="confusion must be True when the metric is made, received False"):
        metric.confusion_matrices()
    assert ClassBalancedAccuracy.from_config(ClassBalancedAccuracy([3, 2], confusion=True).get_config()).confusion_matrices()


@pytest.mark.parametrize("sizes", [10_000, [1000, *[2] * 40]])
def test_memory_is_linear_in_the_classes_of_all_labels(sizes):
    metric = ClassBalancedAccuracy(sizes)
    width = sum(np.atleast_1d(sizes))
    assert sum(int(np.prod(variable.shape)) for variable in metric.variables) == 2 * width + np.size(sizes)
    step = tf.function(metric.update_state).get_concrete_function(
        tf.TensorSpec([64, np.size(sizes)], tf.int32), tf.TensorSpec([64, width], tf.float32)
    )
    largest = max(
        int(np.prod(output.shape))
        for op in step.graph.get_operations()
        for output in op.outputs
        if output.shape.is_fully_defined()
    )
    assert largest <= 64 * width
