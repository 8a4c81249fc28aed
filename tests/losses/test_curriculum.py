"""Dynamic curriculum learning against loops written from the paper's formulas, its schedules by arithmetic, its random choice."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from objective_cases import TOLERANCE, batch_of
from oracle import columns_of, log_softmax, mean, minority_of, softmax

from crl_tf.callbacks import TrainingProgress
from crl_tf.crl_model import CRLModel
from crl_tf.losses.curriculum import SCHEDULERS, CurriculumLoss, loss_schedule

SCHEMAS = {
    "multi": ([2, 3, 5], [[90, 10], [50, 0, 7], [400, 30, 20, 1, 0]]),
    "binary": ([2] * 4, [[90, 10], [20, 80], [50, 50], [99, 1]]),
}
every_schema = pytest.mark.parametrize("schema", SCHEMAS)


def wanted_over_current(column, counts, g):
    """Per class of one label that occurs in the batch: D_train^g over the batch's distribution, each over its smallest number."""
    fewest = min([n for n in counts if n] or [1])
    h = {k: list(column).count(k) for k in range(len(counts)) if k in list(column)}
    target = {k: (max(counts[k], fewest) / fewest) ** g for k in h}
    return {k: (target[k] / min(target.values())) / (h[k] / min(h.values())) for k in h}


def easy_triplets(column, probabilities, features, margin, kappa):
    """(anchor, hinge) of every triplet of one label."""
    found = []
    for c in minority_of(column, probabilities.shape[1]):
        score = probabilities[:, c]
        members = sorted((i for i, a in enumerate(column) if a == c), key=lambda i: (-score[i], i))
        others = sorted((i for i, a in enumerate(column) if a not in (c, -1)), key=lambda i: (-score[i], i))
        half = math.ceil(len(members) / 2)
        for a in members[:half][:kappa]:
            for p in members[half:][-kappa:]:
                for n in others[:kappa]:
                    near, far = (math.dist(features[a], features[i]) for i in (p, n))
                    found.append((a, max(0.0, margin + near - far)))
    return found


def expected(labels, logits, features, sizes, counts, *, g, f, margin=None, kappa=25, draws=None):
    total = 0.0
    for j, columns in enumerate(columns_of(sizes)):
        column, terms = labels[:, j].tolist(), []
        ratio = wanted_over_current(column, counts[j], g)
        for i, a in enumerate(column):
            if a >= 0:
                weight = ratio[a] if ratio[a] >= 1 else float(draws[j, i] < ratio[a])
                terms.append(-weight * log_softmax(logits[i, columns])[a])
        own = features[:, j] if features.ndim == 3 else features
        probabilities = np.array([softmax(row[columns]) for row in logits])
        triplets = easy_triplets(column, probabilities, own, margin or 2 * math.pi / sizes[j], kappa)
        total += mean(terms) + f * mean([hinge for _, hinge in triplets])
    return total


def run(loss, labels, logits, features):
    with tf.GradientTape() as tape:
        x, z = tf.constant(logits), tf.constant(features)
        tape.watch([x, z])
        value = tf.reduce_mean(loss.batch_terms(labels, x, z).per_sample)
    slopes = tape.gradient(value, [x, z])
    return float(value), [slope.numpy() for slope in slopes]


@pytest.fixture
def draws(monkeypatch):
    """The random draw becomes a table, [L, B]."""
    table = np.random.default_rng(9).random((5, 64)).astype(np.float32)
    monkeypatch.setattr(keras.random, "uniform", lambda shape, seed: tf.constant(table)[: shape[0], : shape[1]])
    return table


@every_schema
@pytest.mark.parametrize("progress", [0.0, 0.2, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("given", [{}, {"kappa": 2, "margin": 1.5}], ids=["default", "few"])
def test_the_loss_by_loops(schema, progress, given, draws):
    sizes, counts = SCHEMAS[schema]
    labels, logits, features = batch_of(3, 40, sizes, unannotated=0.1)
    loss = CurriculumLoss(sizes, counts, loss_share=0.3, epsilon=0.2, **given)
    loss.progress.assign(progress)
    g = math.cos(progress * math.pi / 2)
    f = 0.2 + (0.5 + 0.5 * math.cos(progress * math.pi) if progress < 0.3 else 0)
    for z in (features, features[:, 0]):
        want = expected(labels, logits, z, sizes, counts, g=g, f=f, draws=draws, **given)
        value, slopes = run(loss, labels, logits, z)
        np.testing.assert_allclose(value, want, **TOLERANCE)
        assert all(np.isfinite(slope).all() and slope.any() for slope in slopes)
    joined = np.concatenate([features[:, 0], logits], axis=1)
    in_one = CurriculumLoss(sizes, counts, loss_share=0.3, epsilon=0.2, feature_shape=5, **given)
    in_one.progress.assign(progress)
    np.testing.assert_allclose(in_one(labels, joined), value, rtol=1e-6)


def test_the_gradient_of_the_triplets_by_differences(draws):
    sizes, counts = SCHEMAS["multi"]
    labels, logits, features = batch_of(4, 24, sizes)
    loss = CurriculumLoss(sizes, counts, margin=2.0)
    slope = run(loss, labels, logits, features)[1][1]
    draw = np.random.default_rng(1)
    given = {"g": 1.0, "f": 1.1, "margin": 2.0, "draws": draws}
    for _ in range(3):
        step = draw.standard_normal(features.shape) * 1e-6
        ends = [expected(labels, logits, features + sign * step, sizes, counts, **given) for sign in (1.0, -1.0)]
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float((slope * step).sum()) * 1e6, rel=1e-3, abs=1e-4)


def test_triplets_by_hand():
    # Class 1 has samples 3 and 4; the second scores higher: the anchor. Its positive is 3 away, its negatives 4, 5 and 99.
    features = np.array([[4.0, 0.0], [0.0, 5.0], [99.0, 0.0], [3.0, 0.0], [0.0, 0.0]], np.float32)
    logits = np.zeros((5, 2), np.float32)
    logits[4, 1] = 1.0
    loss = CurriculumLoss(2, [30, 20], margin=1.5, loss_share=1.0, epsilon=0.0)
    per_sample = loss.batch_terms(np.array([0, 0, 0, 1, 1]), tf.constant(logits), tf.constant(features)).per_sample.numpy()
    # 1.5 + 3 - 4 = 0.5 and twice nothing: a mean of 1/6, all of it with the anchor (times B = 5), beside its cross-entropy.
    right = math.log(1 + math.exp(-1))
    np.testing.assert_allclose(per_sample, [math.log(2)] * 4 + [right + 5 / 6], rtol=1e-5)


def test_equal_scores_make_no_anchor_its_own_positive():
    """All logits 0, all features far from one another except two equal ones of class 1."""
    features = np.array([[9.0], [-9.0], [5.0], [1.0], [1.0]], np.float32)
    loss = CurriculumLoss(2, [3, 2], margin=5.0, loss_share=1.0, epsilon=0.0)
    value, slopes = run(loss, np.array([0, 0, 0, 1, 1]), np.zeros((5, 2), np.float32), features)
    # d+ = 0; d- = 8, 10, 4: only the last is within 5. Without a draw: the batch is as the training set.
    assert value == pytest.approx(math.log(2) + 1 / 3, rel=1e-5)
    # Anchor 3 is pulled away from sample 2, and from its equal it has no slope.
    np.testing.assert_allclose(slopes[1][:, 0], [0, 0, -1 / 3, 1 / 3, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "start", "middle", "end"),
    [("cos", 1, 0.5**0.5, 0), ("linear", 1, 0.5, 0), ("exp", 1, 0.05**0.5, 0.05), ("composite", 1, 0.5, 0)],
)
def test_schedules(name, start, middle, end):
    got = [float(SCHEDULERS[name](tf.constant(at))) for at in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(got, [start, middle, end], atol=1e-6)
    # Of 90 : 10 at the middle: 9 to the power g; the batch is balanced, so that this is the majority's weight.
    loss = CurriculumLoss(2, [90, 10], scheduler=name, loss_share=0.0, epsilon=0.0)
    loss.progress.assign(0.5)
    value, _ = run(loss, np.array([0, 0, 1, 1]), np.zeros((4, 2), np.float32), np.zeros((4, 1), np.float32))
    assert value == pytest.approx((9**middle + 1) / 2 * math.log(2), rel=1e-5)


def test_loss_schedule():
    got = [float(loss_schedule(tf.constant(at), 0.3, 0.1)) for at in (0.0, 0.15, 0.2999, 0.3, 1.0)]
    # cos(0.15 pi) = 0.8910, cos(0.3 pi) = 0.5878
    np.testing.assert_allclose(got, [1.1, 1.0455, 0.8939, 0.1, 0.1], atol=2e-4)
    assert float(loss_schedule(tf.constant(0.0), 0.0, 0.5)) == 0.5


def test_what_is_kept_at_random():
    """A balanced target: of 300 samples of class 0 a fifth stays, of the 60 of class 1 all do; each for itself."""
    keras.utils.set_random_seed(0)
    loss = CurriculumLoss(2, [50, 10], epsilon=0.0)
    loss.progress.assign(1.0)
    labels, logits, features = np.repeat([0, 1], [300, 60]), tf.zeros([360, 2]), tf.zeros([360, 1])
    draw = tf.function(lambda: loss.batch_terms(labels, logits, features).per_sample)
    kept = np.stack([draw().numpy() for _ in range(100)]) / math.log(2)
    assert set(np.unique(kept.round(5))) == {0.0, 1.0}
    assert kept[:, 300:].all()
    # 30,000 draws: 0.2 with an error of sqrt(0.2 * 0.8 / 30000) = 0.0023; of one sample's 100, 0.04.
    assert abs(kept[:, :300].mean() - 0.2) < 4 * 0.0023
    assert np.abs(kept[:, :300].mean(axis=0) - 0.2).max() < 5 * 0.04
    # Independent ones: the number kept has a variance of 300 * 0.16 = 48, give or take 4 * 48 * sqrt(2 / 100).
    assert abs(kept[:, :300].sum(axis=1).var() - 48) < 27

    def values():
        loss.seed_generators[0].state.assign([7, 0])
        return [loss.batch_terms(labels, logits, features).per_sample.numpy().tolist() for _ in range(2)]

    first, second = values()
    assert first != second and values() == [first, second]


@every_schema
def test_degenerate_batches(schema):
    sizes, counts = SCHEMAS[schema]
    loss = CurriculumLoss(sizes, counts)
    labels, logits, features = batch_of(5, 12, sizes)
    # One sample: of each label only its class is there, wanted as much as it is there; and no triplet.
    value, slopes = run(loss, labels[:1], logits[:1], features[:1])
    alone = sum(-log_softmax(logits[0, c])[a] for c, a in zip(columns_of(sizes), labels[0], strict=True))
    assert value == pytest.approx(alone, rel=1e-5) and not slopes[1].any()
    # A label that nobody has: nothing of it, whatever its logits and features.
    without = labels.copy()
    without[:, 1] = -1
    _, slopes = run(loss, without, logits, features)
    assert not slopes[0][:, columns_of(sizes)[1]].any() and not slopes[1][:, 1].any()
    assert slopes[0].any() and slopes[1].any()
    value, slopes = run(loss, np.full_like(labels, -1), logits, features)
    assert value == 0.0 and not any(slope.any() for slope in slopes)
    # One class only, equal features, extreme logits, nothing at all.
    for y, x, z in (
        (np.zeros_like(labels), logits, features),
        (labels, logits, np.ones_like(features)),
        (labels, logits * 1e4, features),
    ):
        value, slopes = run(loss, y, x, z)
        assert np.isfinite(value) and all(np.isfinite(slope).all() for slope in slopes)
    assert loss.batch_terms(labels[:0], tf.constant(logits[:0]), tf.constant(features[:0])).per_sample.shape == (0,)
    nothing = CurriculumLoss(sizes, [[0] * size for size in sizes])
    assert np.isfinite(run(nothing, labels, logits, features)[0])


@every_schema
def test_graph_and_xla_equal_eager(schema, draws):
    sizes, counts = SCHEMAS[schema]
    labels, logits, features = batch_of(6, 32, sizes, unannotated=0.1)
    loss = CurriculumLoss(sizes, counts, kappa=4)
    want = run(loss, labels, logits, features)
    for jit_compile in (False, True):

        @tf.function(jit_compile=jit_compile)
        def step(y, x, z):
            with tf.GradientTape() as tape:
                tape.watch([x, z])
                value = tf.reduce_mean(loss.batch_terms(y, x, z).per_sample)
            return value, tape.gradient(value, [x, z])

        value, slopes = step(tf.constant(labels), tf.constant(logits), tf.constant(features))
        np.testing.assert_allclose(value, want[0], rtol=1e-5)
        for got, slope in zip(slopes, want[1], strict=True):
            np.testing.assert_allclose(got, slope, rtol=1e-4, atol=1e-5)
        # A traced step sees training go on.
        loss.progress.assign(0.5)
        moved = float(step(tf.constant(labels), tf.constant(logits), tf.constant(features))[0])
        assert moved == pytest.approx(run(loss, labels, logits, features)[0], rel=1e-5) and moved != pytest.approx(want[0])
        loss.progress.assign(0.0)


def test_xla_draws_anew():
    loss = CurriculumLoss(2, [50, 10])
    loss.progress.assign(1.0)
    labels, logits = tf.repeat([0, 1], [30, 6]), tf.zeros([36, 2])
    step = tf.function(lambda: loss.batch_terms(labels, logits, tf.zeros([36, 1])).per_sample, jit_compile=True)
    seen = np.stack([step().numpy()[:30] for _ in range(20)])
    assert len(np.unique(seen, axis=0)) > 10


def test_a_graph_does_not_grow_with_the_classes():
    def operations(sizes):
        loss = CurriculumLoss(sizes, [[10] * size for size in sizes])
        specs = [tf.TensorSpec(shape) for shape in ([32, sum(sizes)], [32, len(sizes), 4])]
        step = tf.function(lambda *batch: loss.batch_terms(*batch).per_sample).get_concrete_function(
            tf.TensorSpec([32, len(sizes)], tf.int32), *specs
        )
        return len(step.graph.get_operations())

    assert operations([6, 7, 8, 9, 55, 15, 13, 20, 45]) < operations([2, 3]) + 30


def test_training_saving_and_loading(tmp_path):
    sizes, counts = SCHEMAS["multi"]
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    features = keras.layers.Reshape((3, 4))(keras.layers.Dense(12)(inputs))
    outputs = {"features": features, "logits": keras.layers.Dense(10)(keras.layers.Flatten()(features))}
    model = CRLModel(keras.Model(inputs, outputs))
    given = {"scheduler": "linear", "margin": 0.7, "kappa": 3, "loss_share": 0.4, "epsilon": 0.05}
    loss = CurriculumLoss(sizes, counts, **given)
    model.compile(keras.optimizers.SGD(0.05), loss=loss)
    labels, _, z = batch_of(7, 64, sizes)
    history = model.fit(z[:, 0], labels, epochs=4, batch_size=32, verbose=0, callbacks=[TrainingProgress(loss, 4)])
    assert np.isfinite(history.history["loss"]).all() and float(loss.progress) == 0.75
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config() == loss.get_config() and {**loss.get_config(), **given} == loss.get_config()
    np.testing.assert_array_equal(loaded(z[:, 0]), model(z[:, 0]))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    again.progress.assign(0.0)
    loss.progress.assign(0.0)
    logits = np.zeros((64, 10), np.float32)
    values = []
    for same in (again, loss):
        same.seed_generators[0].state.assign([2, 0])
        values.append(run(same, labels, logits, z)[0])
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scheduler": "step"}, r"scheduler must be one of \['composite', 'cos', 'exp', 'linear'\], received 'step'"),
        ({"margin": 0}, r"margin must be a number > 0 or None, received 0"),
        ({"kappa": 0}, r"kappa must be an integer >= 1, received 0"),
        ({"kappa": None}, r"kappa must be an integer >= 1, received None"),
        ({"loss_share": 1.5}, r"loss_share must be a number in \[0, 1\], received 1\.5"),
        ({"epsilon": -0.1}, r"epsilon must be a number >= 0, received -0\.1"),
    ],
)
def test_refused_arguments(given, message):
    with pytest.raises(ValueError, match=message):
        CurriculumLoss(2, [3, 1], **given)


def test_refused_features():
    loss = CurriculumLoss([2, 3], [[3, 1], [3, 2, 1]])
    with pytest.raises(ValueError, match=r"features must be \[B, D\] or \[B, 2, D\], received shape \(4, 3, 5\)"):
        loss.batch_terms(np.zeros((4, 2), np.int32), tf.zeros([4, 5]), tf.zeros([4, 3, 5]))
    with pytest.raises(ValueError, match="CurriculumLoss needs features beside the logits"):
        loss(np.zeros((4, 2), np.int32), tf.zeros([4, 5]))
    with pytest.raises(ValueError, match="class_counts must be 2 sequences"):
        CurriculumLoss([2, 3], [[3, 1]])
