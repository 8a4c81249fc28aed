"""The triplet loss against a loop over every pair, written from FaceNet's definition of semi-hard."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf.crl_model import CRLModel
from crl_tf.losses.triplet import TripletLoss

SCHEMAS = {"mixed": [2, 3, 5], "binary": [2, 2], "single": [4]}


def by_hand(labels, features, margin):
    """The loss of one label: features [B, D]."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    apart = lambda a, b: float(((unit[a] - unit[b]) ** 2).sum())  # noqa: E731
    hinges = []
    known = [i for i in range(len(labels)) if labels[i] >= 0]
    for a in known:
        negatives = [apart(a, n) for n in known if labels[n] != labels[a]]
        for p in known:
            if p == a or labels[p] != labels[a] or not negatives:
                continue
            farther = [d for d in negatives if d > apart(a, p)]
            negative = min(farther) if farther else max(negatives)
            hinges.append(max(0.0, margin + apart(a, p) - negative))
    return sum(hinges) / len(hinges) if hinges else 0.0


def sample(sizes, batch, seed=0, depth=3):
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(-1, max(2, c - 1), batch) for c in sizes], axis=1)  # of three or five, the last never occurs
    return labels.astype(np.int32), rng.normal(size=(batch, len(sizes), depth)).astype(np.float32)


@pytest.mark.parametrize("sizes", SCHEMAS.values(), ids=SCHEMAS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.2, 3.0])
def test_it_is_the_mean_over_all_pairs(sizes, shared, margin):
    labels, features = sample(sizes, 17)
    of_label = [features[:, 0] if shared else features[:, j] for j in range(len(sizes))]
    expected = sum(by_hand(labels[:, j], of_label[j], margin) for j in range(len(sizes)))
    loss = TripletLoss(sizes, margin=margin)
    given = features[:, 0] if shared else features
    computed = tf.reduce_mean(loss.batch_terms(labels, tf.zeros([17, sum(sizes)]), given).per_sample)
    assert expected > 0 or margin == 0
    np.testing.assert_allclose(computed, expected, rtol=2e-5, atol=1e-6)


def test_of_negatives_that_are_all_nearer_the_farthest_is_taken():
    angles = np.radians([0.0, 180.0, 60.0, 90.0])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # Anchor 0: positive at D = 4, negatives at 1 and 2. Anchor 1: positive at 4, negatives at 3 and 2. Anchors 2 and 3: positive
    # at 2 - 2 cos 30, of the negatives (1, 3) and (2, 2) the nearest is farther.
    near = 2 - 2 * np.cos(np.radians(30))
    hinges = [0.2 + 4 - 2, 0.2 + 4 - 3, max(0, 0.2 + near - 1), max(0, 0.2 + near - 2)]
    loss = TripletLoss(2).batch_terms([[0], [0], [1], [1]], tf.zeros([4, 2]), points).per_sample
    np.testing.assert_allclose(tf.reduce_mean(loss), sum(hinges) / 4, rtol=1e-5)


@pytest.mark.parametrize("labels", [[[0, 1, -1]], [[0, -1, 2], [0, -1, 2]], [[-1, -1, -1]] * 3, [[0, 0, 0], [1, 1, 1]]])
def test_a_batch_without_a_triplet_is_zero_and_pulls_on_nothing(labels):
    features = tf.random.stateless_normal([len(labels), 3, 4], [1, 2])
    with tf.GradientTape() as tape:
        tape.watch(features)
        loss = TripletLoss([2, 3, 5]).batch_terms(labels, tf.zeros([len(labels), 10]), features).per_sample
    assert not loss.numpy().any()
    assert not tape.gradient(loss, features).numpy().any()


@pytest.mark.parametrize("batch", [1, 9])
def test_alike_under_xla_and_in_a_graph_of_unknown_batch(batch):
    labels, features = sample([2, 3, 5], batch, seed=3)
    loss = TripletLoss([2, 3, 5])

    def terms(labels, features):
        with tf.GradientTape() as tape:
            tape.watch(features)
            value = tf.reduce_mean(loss.batch_terms(labels, tf.zeros([tf.shape(labels)[0], 10]), features).per_sample)
        return value, tape.gradient(value, features)

    plain = terms(tf.constant(labels), tf.constant(features))
    graph = tf.function(terms, input_signature=[tf.TensorSpec([None, 3], tf.int32), tf.TensorSpec([None, 3, 3])])
    for other in (graph, tf.function(terms, jit_compile=True)):
        for mine, theirs in zip(plain, other(tf.constant(labels), tf.constant(features)), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    assert np.isfinite(plain[1]).all()


def test_the_gradient_is_that_of_the_formula():
    labels, features = sample([3], 8, seed=5)
    loss = TripletLoss(3, margin=1.0)
    variable = tf.Variable(features[:, 0])
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(loss.batch_terms(labels, tf.zeros([8, 3]), variable).per_sample)
    gradient = tape.gradient(value, variable).numpy()
    step = np.random.default_rng(1).normal(size=features[:, 0].shape)
    wide = features[:, 0].astype(np.float64)
    slope = (by_hand(labels[:, 0], wide + 1e-6 * step, 1.0) - by_hand(labels[:, 0], wide - 1e-6 * step, 1.0)) / 2e-6
    np.testing.assert_allclose((gradient * step).sum(), slope, rtol=1e-3)


def test_gradients_of_features_that_are_zero_or_alike_are_finite():
    features = tf.Variable(tf.constant([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]))
    with tf.GradientTape() as tape:
        loss = TripletLoss(2).batch_terms([[0], [1], [0], [1]], tf.zeros([4, 2]), features).per_sample
    assert np.isfinite(loss).all() and np.isfinite(tape.gradient(loss, features)).all()


def test_it_comes_back_from_its_config_and_refuses_what_it_cannot_use():
    loss = TripletLoss([2, 3], margin=0.5, feature_shape=(2, 4))
    back = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert back.get_config() == loss.get_config() and back.margin == 0.5
    for margin in (-0.1, float("nan"), True):
        with pytest.raises(ValueError, match="margin must be a number >= 0, received"):
            TripletLoss(2, margin=margin)
    with pytest.raises(ValueError, match=r"features must be \[B, D\] or \[B, 2, D\], received shape \(3, 4, 5\)"):
        TripletLoss([2, 3]).batch_terms([[0, 0]] * 3, tf.zeros([3, 5]), tf.zeros([3, 4, 5]))


def test_training_on_it_brings_a_class_together():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (64, 1)).astype(np.int32)
    points = rng.normal(size=(64, 4)).astype(np.float32)
    points[:, 0] += 2 * labels[:, 0] - 1
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    features = keras.layers.Dense(2)(inputs)
    model = CRLModel(keras.Model(inputs, {"features": features, "logits": keras.layers.Dense(2, trainable=False)(features)}))
    model.compile(keras.optimizers.Adam(0.05), loss=TripletLoss(2))
    history = model.fit(points, labels, batch_size=64, epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]
