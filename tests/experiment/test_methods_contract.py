"""One contract for every row of the table of methods: schemas, degenerate batches, seeds, saving, exporting, deciding."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf import CRLModel
from crl_tf.datasets.source import Dataset, Split
from crl_tf.experiment import run as experiment
from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.config import base_config, checked, loss_sections, override
from crl_tf.experiment.data import Data
from crl_tf.experiment.methods import METHODS, combined
from crl_tf.imbalance import class_counts
from crl_tf.losses.table import Problem, make_loss
from crl_tf.schema import Attribute, AttributeSchema

SCHEMAS = {"one label": (4,), "binary": (2, 2, 2), "mixed": (2, 3, 6)}
OTHER_TRAINERS = [name for name, row in METHODS.items() if row.trainer]
SETTINGS_ALONE = {"logit_adjusted_base", "gated", "per_anchor"}
TRAINED = [f"class_rel+{name}" if name in SETTINGS_ALONE else name for name in METHODS if name not in OTHER_TRAINERS]
"""A row that only sets settings of a loss is run with one."""


def recipe_of(method):
    return checked(override(base_config(), {"method": method}))[0]


def samples(sizes, count=24, seed=0):
    """Features that tell a little of the labels, which are skewed and partly not annotated."""
    rng = np.random.default_rng(seed)
    labels = np.stack([np.minimum(rng.geometric(0.5, count) - 1, size - 1) for size in sizes], axis=1).astype(np.int32)
    labels[rng.random(labels.shape) < 0.1] = -1
    return rng.normal(size=(count, 5)).astype(np.float32), labels


def model_of(method, sizes):
    recipe = recipe_of(method)
    # Of the last class of each label no training image.
    counts = [np.array([100, 10, *[3] * (size - 3), 0][:size]) for size in sizes]
    inputs = keras.Input((5,))
    features = keras.layers.Dense(6, "relu")(inputs)
    logits = keras.layers.Dense(sum(sizes))(features)
    model = CRLModel(keras.Model(inputs, {"features": features, "logits": logits}))
    loss = make_loss(combined(method).loss, loss_sections(recipe), Problem(sizes, counts, recipe.network.cosine_scale))
    # Eagerly: tracing would take longer than all else.
    model.compile(keras.optimizers.SGD(0.1), loss=loss, run_eagerly=True)
    for callback in loss.callbacks(10):
        # Late, where a deferred weight counts.
        callback.on_epoch_begin(9)
    return model


@pytest.mark.parametrize("sizes", SCHEMAS.values(), ids=SCHEMAS)
@pytest.mark.parametrize("method", TRAINED)
def test_a_step_on_every_kind_of_schema_is_finite_and_moves_and_repeats(method, sizes):
    x, y = samples(sizes)
    found = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        model = model_of(method, sizes)
        before = model.get_weights()
        loss = model.train_on_batch(x, y, return_dict=True)["loss"]
        found.append((float(loss), model.get_weights()))
    (loss, weights), (again, weights_again) = found
    assert np.isfinite(loss) and loss == again
    assert all(np.isfinite(w).all() for w in weights)
    assert any((a != b).any() for a, b in zip(before, weights, strict=True))
    for a, b in zip(weights, weights_again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["one sample", "one class", "a label without one", "nothing annotated", "far off"])
@pytest.mark.parametrize("method", TRAINED)
def test_loss_and_gradient_are_finite_on_degenerate_batches(method, kind):
    sizes = SCHEMAS["mixed"]
    x, y = samples(sizes)
    if kind == "one sample":
        x, y = x[:1], np.zeros((1, 3), np.int32)
    elif kind == "one class":
        y[:] = 1
    elif kind == "a label without one":
        y[:, 1] = -1
    elif kind == "nothing annotated":
        y[:] = -1
    keras.utils.set_random_seed(3)
    model = model_of(method, sizes)
    if kind == "far off":
        x = 1e3 * x
    loss = model.train_on_batch(x, y, return_dict=True)["loss"]
    assert np.isfinite(loss) and all(np.isfinite(w).all() for w in model.get_weights())
    if kind == "nothing annotated":
        assert loss == 0


@pytest.mark.parametrize("method", [*TRAINED, *OTHER_TRAINERS])
def test_a_run_saves_exports_and_its_export_decides_as_evaluate_does(method, tiny_recipe, tmp_path):
    tiny_recipe.train.epochs = 1
    tiny_recipe.network.width = 0.25
    recipe = override(tiny_recipe, {"method": method, "embedding.cluster_size": 5, "embedding.neighbours": 3})
    result = experiment.run(recipe, tmp_path / "run")
    assert result["method"] == method and result["rule"] == combined(method).rule and result["seconds"] > 0
    assert experiment.evaluate(tmp_path / "run") == [result]
    served = tf.saved_model.load(tmp_path / "run" / "export").signatures["serving_default"]
    data = assemble(recipe).load()
    counted = {name: np.zeros_like(label["confusion"]) for name, label in result["labels"].items()}
    for images, labels in data.batches("test"):
        found = served(images=tf.cast(images, tf.float32))
        for j, name in enumerate(data.dataset.schema.names):
            for truth, decided in zip(labels.numpy()[:, j], found[f"{name}_index"].numpy(), strict=True):
                if truth >= 0:
                    counted[name][truth, decided] += 1
            np.testing.assert_allclose(found[f"{name}_scores"].numpy().sum(axis=1), 1.0, rtol=1e-5)
    assert {name: matrix.tolist() for name, matrix in counted.items()} == {n: r["confusion"] for n, r in result["labels"].items()}


@pytest.mark.parametrize("sizes", SCHEMAS.values(), ids=SCHEMAS)
@pytest.mark.parametrize("method", OTHER_TRAINERS)
def test_a_training_of_its_own_on_every_kind_of_schema(method, sizes, tiny_recipe, tmp_path):
    rng = np.random.default_rng(0)
    schema = AttributeSchema(tuple(Attribute(f"a{j}", tuple(f"c{k}" for k in range(c))) for j, c in enumerate(sizes)))
    splits = {}
    for part, (name, count) in enumerate({"train": 40, "validation": 12, "test": 12}.items()):
        _, labels = samples(sizes, count, seed=part)
        splits[name] = Split(rng.integers(0, 256, (count, 16, 16, 3), np.uint8), labels)
    # In training, a class of one image, and one of none where there are enough classes.
    train = splits["train"].labels
    train[train == sizes[-1] - 1] = 0
    train[0, -1] = min(2, sizes[-1] - 1)
    tiny_recipe.train.epochs, tiny_recipe.network.width = 1, 0.25
    settings = {"method": method, "embedding.cluster_size": 5, "embedding.neighbours": 3, "embedding.cluster_every": 2}
    recipe = override(tiny_recipe, settings)
    counts = class_counts(splits["train"].labels, schema.num_classes)
    data = Data(Dataset("drawn", schema, splits), counts, (16, 16), recipe.train.batch_size, recipe.seed)
    result = experiment.run(recipe, tmp_path / "run", data=data, export=False)
    assert 0 <= result["balanced_accuracy"] <= 1 and set(result["labels"]) == set(schema.names)
