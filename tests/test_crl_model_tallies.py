"""What rectification did over a whole training: tallies against a recount, the warning, and what a run writes of it."""

import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracle import oracle_crl, oracle_minority

from crl_tf import CRL, CRLModel
from crl_tf.callbacks import CollapseWarning
from crl_tf.experiment.config import override
from crl_tf.experiment.run import run

SIZES = [2, 3]


def model_and_batches(loss, batches=4, rate=0.0, **options):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    features = keras.layers.Dense(8, activation="tanh")(inputs)
    model = CRLModel(keras.Model(inputs, {"features": features, "logits": keras.layers.Dense(5)(features)}))
    model.compile(keras.optimizers.SGD(rate), loss=loss, **options)
    rng = np.random.default_rng(0)
    made = []
    for _ in range(batches):
        y = np.stack([rng.random(14) < 0.25, rng.choice(3, 14, p=[0.7, 0.2, 0.1])], axis=1).astype(np.int32)
        y[rng.random(y.shape) < 0.2] = -1
        made.append((rng.normal(size=(14, 6)).astype(np.float32), y))
    return model, made


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("normalization", ["triplets", "anchors"])
def test_tallies_are_what_a_recount_of_the_batches_gives(normalization, jit_compile):
    loss = CRL(SIZES, alpha=0.3, kappa=4, normalization=normalization)
    model, batches = model_and_batches(loss, jit_compile=jit_compile)
    rectified, compared, relative = np.zeros((2, 3)), np.zeros(2), np.zeros(2)
    for x, y in batches:
        model.train_on_batch(x, y)
        minority = oracle_minority(y, SIZES)
        # Here every minority class has negatives: no label is all of one class.
        rectified += minority
        compared += minority.any(axis=1)
        loss = oracle_crl(y, model.predict_on_batch(x), SIZES, kappa=4, normalization=normalization)
        anchors = [max(1, np.isin(y[:, j], np.flatnonzero(minority[j])).sum()) for j in range(2)]
        relative += loss / 0.5 / (anchors if normalization == "anchors" else 1)
    found = model.tallies()
    assert found["steps"] == 4 and found["compared"].tolist() == compared.tolist() and 0 < compared.sum()
    assert found["rectified"].tolist() == [*rectified[0, :2], *rectified[1]]
    np.testing.assert_allclose(found["relative"], relative, rtol=1e-5)


def acted(labels, sizes):
    """On which classes CRL acts in a batch, label after label, from section 1 of the specification: minority, and others."""
    minority = oracle_minority(labels, sizes)
    others = [[(labels[:, j] >= 0).sum() > (labels[:, j] == c).sum() for c in range(size)] for j, size in enumerate(sizes)]
    return [int(minority[j, c] and others[j][c]) for j, size in enumerate(sizes) for c in range(size)]


def test_validation_does_not_count_and_another_loss_has_no_tallies():
    model, ((x, y), *_) = model_and_batches(CRL(SIZES, alpha=0.3))
    model.test_on_batch(x, y)
    assert model.tallies()["steps"] == 0
    model.compile("sgd", loss="mse")
    assert model.tallies() == {}


def epochs_of(ratios, names=None):
    """The warnings after epochs in which L_crl of label j was ratios[epoch][j] times its value for equal scores."""
    model, _ = model_and_batches(CRL(SIZES, alpha=0.3))
    callback = CollapseWarning(names)
    callback.set_model(model)
    total, found = np.zeros(2), []
    for epoch, of_labels in enumerate(ratios):
        total = total + 10 * np.array(of_labels)
        counted = {"compared": np.full(2, 10.0 * (epoch + 1)), "relative": total}
        model.tallies = lambda counted=counted: counted
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            callback.on_epoch_end(epoch)
        found.append([str(one.message) for one in caught])
    return found


def test_a_label_is_warned_of_once_after_two_epochs_in_a_row_above_its_value_for_equal_scores():
    found = epochs_of([(1.2, 0.9), (1.1, 1.3), (1.2, 1.2), (1.2, 1.2)], ["colour", "size"])
    assert [len(of_epoch) for of_epoch in found] == [0, 1, 1, 0]
    assert found[1][0].startswith("L_crl of 'colour' stays above its value for equal scores (epoch 2)")
    assert "'size'" in found[2][0] and "'colour'" not in found[2][0] and "gate=True" in found[2][0]


def test_no_warning_where_it_falls_below_again_or_is_never_above():
    assert epochs_of([(1.2, 0.5), (0.9, 1.0), (1.2, 0.5), (1.0, 1.0)]) == [[], [], [], []]


def test_a_second_training_of_a_model_counts_its_own_steps_only():
    """The first one lay far above the value for equal scores; the second one's first epoch lies below, its second above."""
    model, _ = model_and_batches(CRL(SIZES, alpha=0.3))
    callback = CollapseWarning()
    callback.set_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for epoch, totals in ((None, (50, 100.0)), (0, (60, 105.0)), (1, (70, 117.0))):
            counted = dict(zip(("compared", "relative"), map(np.atleast_1d, totals), strict=True))
            model.tallies = lambda counted=counted: counted
            callback.on_train_begin() if epoch is None else callback.on_epoch_end(epoch)


def test_a_crl_that_is_the_base_of_another_is_not_watched():
    """The tallies of a model are those of the outer loss; those of a distribution comparison have no value to be above."""
    for outer, watched in (("distribution", 0), ("relative", 1)):
        loss = CRL(SIZES, comparison=outer, alpha=0.3, base=CRL(SIZES, alpha=0.3))
        model, ((x, y), *_) = model_and_batches(loss)
        callbacks = loss.callbacks(2)
        assert sum(isinstance(callback, CollapseWarning) for callback in callbacks) == watched
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(x, y, epochs=2, callbacks=callbacks, verbose=0)
        assert ("relative" in model.tallies()) == bool(watched)


def test_only_a_loss_with_a_margin_and_without_a_gate_is_watched():
    for options, watched in (({}, True), ({"gate": True}, False), ({"comparison": "distribution"}, False)):
        callbacks = CRL(2, alpha=0.5, **options).callbacks(3, ["one"])
        assert any(isinstance(callback, CollapseWarning) for callback in callbacks) == watched


def test_a_resumed_run_has_counted_every_step_and_says_so_by_class(tiny_recipe, tmp_path, monkeypatch):
    """36 images in batches of 16: 3 steps an epoch. `large` and the colours but red are rare in the shop."""
    seen, terms = [], CRL.terms

    def recording(self, labels, logits, features=None):
        tf.numpy_function(lambda of_batch: seen.append(of_batch.T), [labels], [])
        return terms(self, labels, logits, features)

    monkeypatch.setattr(CRL, "terms", recording)
    recipe = override(tiny_recipe, {"method": "class_rel", "network.width": 0.25})
    longer = override(recipe, {"train.epochs": 3})
    run(recipe, tmp_path, export=False)
    first = json.loads((tmp_path / "result.json").read_text())["rectification"]
    two_epochs = json.loads((tmp_path / "tallies.json").read_text())["2"]
    resumed = run(longer, tmp_path, export=False, resume=True)["rectification"]
    assert (first["steps"], resumed["steps"]) == (6, 9)
    kept = json.loads((tmp_path / "tallies.json").read_text())
    assert set(kept) == {"2", "3"} and kept["2"] == two_epochs
    trained = [acted(labels, [3, 2]) for labels in seen if len(labels) != 12]  # the validation split holds 12 images
    for facts, steps in ((first, 6), (resumed, 9)):
        counted = [of_class for label in facts["labels"].values() for of_class in label["classes"].values()]
        assert counted == np.sum(trained[:steps], axis=0).tolist()
    assert set(resumed["labels"]) == {"colour", "size"}
    for name, facts in resumed["labels"].items():
        assert 0 < facts["steps"] <= 9 and facts["L_crl_over_constant"] > 0
        for of_class, steps in facts["classes"].items():
            assert first["labels"][name]["classes"][of_class] <= steps <= facts["steps"], of_class
    assert resumed["labels"]["colour"]["classes"]["red"] == 0  # two thirds of the images are red: never a minority
    assert max(resumed["labels"]["colour"]["classes"].values()) > 0


def test_a_run_resumed_without_its_tallies_does_not_pass_a_part_for_the_whole(tiny_recipe, tmp_path):
    """As one that an earlier version has begun."""
    recipe = override(tiny_recipe, {"method": "class_rel", "network.width": 0.25, "train.epochs": 1})
    run(recipe, tmp_path, export=False)
    (tmp_path / "tallies.json").unlink()
    result = run(override(recipe, {"train.epochs": 2}), tmp_path, export=False, resume=True)
    assert result["epochs"] == 2 and "rectification" not in result


def test_in_pairs_the_two_images_of_a_class_meet_in_one_batch(tiny_recipe, tmp_path):
    """Of 6 blue images, each has a partner in every epoch; a method without CRL has no tallies."""
    of = {
        method: run(override(tiny_recipe, {"method": method, "network.width": 0.25}), tmp_path / method, export=False)
        for method in ("class_rel+pairs", "ce")
    }
    assert "rectification" not in of["ce"] and not (tmp_path / "ce" / "tallies.json").exists()
    assert of["class_rel+pairs"]["rectification"]["labels"]["colour"]["classes"]["blue"] >= 2
