"""The SVM that takes the place of a last layer: the same decisions as scikit-learn's own, on whatever schema."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from crl_tf.crl_model import CRLModel
from crl_tf.experiment.trainers.linear_svm import NEVER, refit_last_layer
from crl_tf.models.heads import branches, linear

SIZES = [2, 4, 3]


@pytest.fixture(scope="module")
def samples():
    """300 points of which a linear rule tells something, features of very unequal scale, and a class that does not occur."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(300, 6)).astype(np.float32)
    scores = points @ rng.normal(size=(6, 4)) + rng.normal(scale=0.5, size=(300, 4))
    labels = np.stack([scores[:, 0] > 1, scores.argmax(axis=1), np.where(scores[:, 1] > 0, 2, 0)], axis=1).astype(np.int32)
    labels[rng.random(labels.shape) < 0.1] = -1
    return points * np.float32([1, 100, 1e-2, 1, 5, 1]) + 3, labels


@pytest.fixture(scope="module")
def refitted(samples):
    points, labels = samples
    inputs = keras.Input((6,))
    model = CRLModel(keras.Model(inputs, linear(inputs, SIZES)))
    refit_last_layer(model, tf.data.Dataset.from_tensor_slices((points, labels)).batch(128), SIZES)
    return model


@pytest.mark.parametrize("label, columns", [(0, slice(0, 2)), (1, slice(2, 6)), (2, slice(6, 9))])
def test_it_decides_as_scikit_learn_does(samples, refitted, label, columns):
    points, labels = samples
    known = labels[:, label] >= 0
    scaled = StandardScaler().fit_transform(points)
    expected = LinearSVC(dual="auto", random_state=0).fit(scaled[known], labels[known, label])
    logits = refitted(points).numpy()[:, columns]
    decided = logits.argmax(axis=1)
    # Where two classes are within rounding of each other, either may win.
    close = np.diff(np.sort(logits, axis=1)[:, -2:])[:, 0] < 1e-4
    np.testing.assert_array_equal(decided[~close], expected.predict(scaled)[~close])
    assert close.mean() < 0.01
    values = expected.decision_function(scaled)
    if values.ndim == 1:
        np.testing.assert_allclose(logits[:, -1] - logits[:, 0], values, atol=1e-3)
    else:
        np.testing.assert_allclose(logits, values, atol=1e-3)


def test_a_class_without_a_training_image_is_never_chosen(samples, refitted):
    logits = refitted(samples[0]).numpy()[:, 6:]
    np.testing.assert_allclose(logits[:, 1], NEVER)
    assert set(logits.argmax(axis=1)) == {0, 2}


def test_a_label_with_one_class_has_that_class(samples):
    points, labels = samples[0], np.full((300, 1), 1, np.int32)
    inputs = keras.Input((6,))
    model = CRLModel(keras.Model(inputs, linear(inputs, [3])))
    refit_last_layer(model, tf.data.Dataset.from_tensor_slices((points, labels)).batch(100), [3])
    np.testing.assert_array_equal(model(points), np.tile([NEVER, 0, NEVER], (300, 1)))


def test_a_head_of_branches_is_refused():
    inputs = keras.Input((6,))
    with pytest.raises(ValueError, match=r"logits must be a linear layer .* received LabelLogits"):
        refit_last_layer(CRLModel(keras.Model(inputs, branches(4)(inputs, SIZES))), tf.data.Dataset.range(1), SIZES)
