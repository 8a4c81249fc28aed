"""SGD and AdamW by hand, schedules by arithmetic, a backbone that learns more slowly, and the recipes of the paper."""

import math
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from tasks import task_of

from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.config import base_config, from_json, load_recipe, override, recipe_names
from crl_tf.experiment.trainers.gradient import compiled, fit
from crl_tf.experiment.trainers.optimizer import RateWarmup, check_schedule, make_optimizer, make_schedule
from crl_tf.models import BACKBONE


def settings(**values):
    train = base_config().train
    train.update(values)
    return train


def tiny_model(freeze=False):
    """Weights 1, 2 and 3 in two layers of a backbone and a head, none of which has a bias; returns the backbone, too."""
    inside = keras.Input((1,))
    first, second = (keras.layers.Dense(1, use_bias=False, trainable=not freeze) for _ in range(2))
    backbone = keras.Model(inside, second(first(inside)), name=BACKBONE)
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, name="logits")(backbone(inputs)))
    model.set_weights([np.full((1, 1), value, np.float32) for value in (1, 2, 3)])
    return model, backbone


def by_hand(optimizer, rates, gradients, weight, momentum, decay):
    """One weight after a step per rate and gradient; AdamW with Keras's beta 0.9 and 0.999, epsilon 1e-7."""
    velocity = square = 0.0
    for step, (rate, gradient) in enumerate(zip(rates, gradients, strict=True), 1):
        weight -= rate * decay * weight
        if optimizer == "sgd":
            velocity = momentum * velocity - rate * gradient
            weight += velocity
        else:
            velocity = 0.9 * velocity + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            corrected = rate * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            weight -= corrected * velocity / (math.sqrt(square) + 1e-7)
    return weight


@pytest.mark.parametrize("backbone_rate", [1.0, 0.1])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_steps_by_hand(name, backbone_rate):
    model, backbone = tiny_model()
    # Two epochs of two steps: warm-up 1/2, 1; then a tenth behind the first epoch.
    train = settings(optimizer=name, learning_rate=0.5, momentum=0.8, weight_decay=0.2, epochs=2, schedule="step")
    train.step_epochs, train.warmup_epochs = (1,), 1.0
    optimizer = make_optimizer(train, steps_per_epoch=2, backbone=backbone, backbone_rate=backbone_rate)
    gradients = [[0.3, -0.2, 0.5], [0.1, 0.4, -0.6], [-0.7, 0.2, 0.1], [0.2, 0.2, 0.2]]
    for row in gradients:
        optimizer.apply_gradients(zip([tf.fill([1, 1], g) for g in row], model.trainable_variables, strict=True))
    rates = np.array([0.25, 0.5, 0.05, 0.05])
    for weight, start, column, multiple in zip(
        model.get_weights(), (1, 2, 3), zip(*gradients, strict=True), (backbone_rate, backbone_rate, 1), strict=True
    ):
        assert weight.item() == pytest.approx(by_hand(name, multiple * rates, column, start, 0.8, 0.2), rel=1e-4)


def test_decay_in_the_gradient_is_stronger_by_what_momentum_adds():
    momentum, decay, rate = 0.9, 0.0005, 0.1
    coupled, velocity = [1.0], 0.0
    for _ in range(120):
        velocity = momentum * velocity - rate * decay * coupled[-1]
        coupled.append(coupled[-1] + velocity)
    shrunk = 1 - coupled[-1] / coupled[-2]
    lost = {}
    for factor in (1, 10):  # 10 = 1 / (1 - 0.9)
        model, backbone = tiny_model()
        optimizer = make_optimizer(
            settings(learning_rate=rate, momentum=momentum, weight_decay=factor * decay), steps_per_epoch=1, backbone=backbone
        )
        optimizer.apply_gradients((tf.zeros([1, 1]), variable) for variable in model.trainable_variables)
        lost[factor] = 1 - model.get_weights()[0].item()
    assert lost[10] == pytest.approx(shrunk, rel=0.01) and lost[1] == pytest.approx(shrunk / 10, rel=0.01)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_norm_of_all_gradients_is_bounded(name):
    """Gradients 3, 0 and 4 have the norm 5: at most 1 leaves 0.6, 0 and 0.8; at most 6 leaves them."""
    moved = {}
    for clip, gradients in ((1.0, (3.0, 0.0, 4.0)), (None, (0.6, 0.0, 0.8)), (6.0, (0.6, 0.0, 0.8))):
        model, _ = tiny_model()
        optimizer = make_optimizer(settings(optimizer=name, learning_rate=0.1, clip_norm=clip), steps_per_epoch=1)
        for _ in range(2):
            pairs = zip(gradients, model.trainable_variables, strict=True)
            optimizer.apply_gradients((tf.fill([1, 1], gradient), variable) for gradient, variable in pairs)
        moved[clip] = [weight.item() for weight in model.get_weights()]
    assert moved[1.0] == pytest.approx(moved[None], rel=1e-5) and moved[6.0] == moved[None] != [1, 2, 3]


@pytest.mark.parametrize(
    "values, expected",
    [
        ({}, [0.4] * 8),
        ({"schedule": "cosine"}, [0.4 * 0.5 * (1 + math.cos(math.pi * t / 8)) for t in range(8)]),
        ({"schedule": "step", "step_epochs": (1, 3)}, [0.4, 0.4, 0.04, 0.04, 0.04, 0.04, 0.004, 0.004]),
        ({"schedule": "step", "step_epochs": (2,), "step_factor": 0.5}, [0.4] * 4 + [0.2] * 4),
        ({"warmup_epochs": 2.0}, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4]),
        ({"warmup_epochs": 0.5}, [0.4] * 8),  # a single step, whose share is (0 + 1) / 1
        ({"schedule": "step", "step_epochs": (1,), "warmup_epochs": 2.0}, [0.1, 0.2, 0.03, 0.04, 0.04, 0.04, 0.04, 0.04]),
        (
            {"schedule": "cosine", "warmup_epochs": 1.0},
            [0.2 * min(1, (t + 1) / 2) * (1 + math.cos(math.pi * t / 8)) for t in range(8)],
        ),
    ],
)
def test_schedules(values, expected):
    """Four epochs of two steps, at 0.4."""
    schedule = make_schedule(settings(epochs=4, **values), 0.4, 2)
    if callable(schedule):
        schedule = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    seen = [float(schedule(tf.constant(t, tf.int64)) if callable(schedule) else schedule) for t in range(8)]
    np.testing.assert_allclose(seen, expected, rtol=1e-5)


def test_a_warm_up_counts_in_steps():
    assert [RateWarmup(1.0, 3)(t).numpy() for t in (0, 2, 9)] == [np.float32(1 / 3), 1, 1]
    assert make_schedule(settings(warmup_epochs=0.01), 0.4, 2) == 0.4  # less than half a step is none


@pytest.fixture
def assembled(tiny_recipe):
    """Makes a compiled model and its task."""

    def make(**values):
        task = task_of(override(tiny_recipe, {"network.width": 0.1, "method": "ce", **values}))
        keras.utils.set_random_seed(0)
        return compiled(task)[0], task

    return make


def test_a_slow_backbone_moves_by_its_share(assembled):
    moved = {}
    for rate in (1.0, 0.1):
        model, task = assembled(**{"network.backbone_rate": rate, "train.weight_decay": 0.1})
        before = [weight.copy() for weight in model.get_weights()]
        model.train_on_batch(*next(iter(task.data.batches("train", training=True))))
        moved[rate] = [after - weight for after, weight in zip(model.get_weights(), before, strict=True)]
    backbone = len(model.network.get_layer(BACKBONE).weights)
    assert 0 < backbone < len(model.weights)
    for at, (whole, share) in enumerate(zip(moved[1.0], moved[0.1], strict=True)):
        np.testing.assert_allclose(share, whole * (0.1 if at < backbone else 1), atol=1e-7)
    assert max(np.abs(step).max() for step in moved[0.1][:backbone]) > 1e-5


def learning_rates(folder):
    rates = {}
    for path in folder.rglob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if "learning_rate" in value.tag:
                    rates[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    return rates


@pytest.mark.parametrize(
    "optimizer, precision, steps", [("sgd", "float32", 1), ("adamw", "float32", 2), ("sgd", "mixed_float16", 1)]
)
def test_a_slow_backbone_resumes_where_it_stood(assembled, tmp_path, monkeypatch, optimizer, precision, steps):
    # A resumed run draws the first masks of dropout again (docs/limitations.md).
    monkeypatch.setattr(keras.layers.Dropout, "call", lambda self, inputs, training=False: inputs)
    values = {
        "network.backbone_rate": 0.1,
        "network.freeze": 1,
        "train.optimizer": optimizer,
        "train.precision": precision,
        "train.steps_per_execution": steps,
        "train.schedule": "cosine",
        "train.warmup_epochs": 1.5,
        "train.batch_size": 4,
    }

    def train(workdir):
        model, task = assembled(**values)
        # The 12 images of validation, which come in the same order in each epoch; those of training after a resume do not.
        fit(model, task.data.batches("validation"), task.data.batches("test").take(1), epochs=2, workdir=workdir)
        return model

    whole = train(tmp_path / "whole")
    (tmp_path / "resumed/checkpoint").mkdir(parents=True)
    shutil.copy(tmp_path / "whole/checkpoint/epoch-000001.keras", tmp_path / "resumed/checkpoint")
    resumed = train(tmp_path / "resumed")
    loaded = keras.saving.load_model(tmp_path / "whole/checkpoint/epoch-000002.keras")
    assert [type(inner).__name__.lower() for inner in optimizers(whole)] == [optimizer] * 2
    # Two epochs of three steps, of a backbone whose first layer is frozen: three more layers, and one of the head.
    slots = {"sgd": 1, "adamw": 2}[optimizer]
    assert sorted(len(inner.variables) for inner in optimizers(whole)) == [1 + slots * 2, 1 + slots * 6]
    for other in (resumed, loaded):
        for a, b in zip(whole.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(b, a, atol=1e-6 if precision == "float32" else 1e-4)
        for inner in optimizers(other):
            assert int(inner.iterations) == 6 - skipped(whole)
    for a, b in zip(whole.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    logged = learning_rates(tmp_path / "whole/logs")
    assert {step for _, step in logged} == {0, 1} and len(logged) == 4
    for epoch in (0, 1):
        head = logged["epoch_learning_rate_head", epoch]
        assert head > 0
        assert logged["epoch_learning_rate_backbone", epoch] == pytest.approx(0.1 * head, rel=1e-5)


def optimizers(model):
    """Those of head and backbone, out of the one that scales the loss of float16."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer).optimizers


def skipped(model):
    """Steps that float16 overflowed in: each has halved the scale of 2^15."""
    scale = getattr(model.optimizer, "dynamic_scale", None)
    return 0 if scale is None else 15 - int(math.log2(float(scale)))


def test_one_optimizer_is_enough_where_nothing_is_slow():
    for freeze, rate in ((False, 1.0), (True, 0.1)):
        _, backbone = tiny_model(freeze)
        optimizer = make_optimizer(settings(), steps_per_epoch=1, backbone=backbone, backbone_rate=rate)
        assert isinstance(optimizer, keras.optimizers.SGD)


@pytest.mark.parametrize(
    "values, complaint",
    [
        ({"schedule": "step"}, "train.step_epochs must name an epoch or more for train.schedule='step', received none"),
        ({"step_epochs": (2,)}, r"train.step_epochs must be empty for train.schedule='constant', received \(2,\)"),
        ({"schedule": "step", "step_epochs": (3, 3)}, r"train.step_epochs must increase, received \(3, 3\)"),
        ({"warmup_epochs": 10.0}, "train.warmup_epochs must be less than the 10 of train.epochs .*, received 10.0"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_schedule(settings(**values))
    with pytest.raises(ValueError, match=complaint):
        assemble(override(base_config(), {f"train.{name}": value for name, value in values.items()}))


def test_a_rate_that_never_falls_is_told():
    with pytest.warns(UserWarning, match=r"step_epochs \(10, 20\): the learning rate falls in none of the 10 epochs"):
        check_schedule(settings(schedule="step", step_epochs=(10, 20), epochs=10))


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_trained_with(name):
    assemble(load_recipe(name))


PAPER = {
    # Sec. 4.1 to 4.3: dataset, network, learning rate, weight decay, batch, epochs, eta (none: alpha = 0.5).
    "celeba_paper": ("celeba", "deepid2", 0.001, 0.0005, 256, 921, 0.01),
    "xdomain_paper": ("xdomain", "mtct", 0.001, 0.0005, 128, 256, 0.01),
    "deepfashion_paper": ("deepfashion", "resnet50", 0.01, 0.00004, 64, 141, 0.01),
    "cifar100_imb_paper": ("cifar100_imb", "cifarnet", 0.1, 0.0005, 256, 200, 0.01),
    "cifar100_imb_resnet32_paper": ("cifar100_imb", "resnet32", 0.1, 0.0005, 256, 200, 0.5),
    "cifar100_imb_densenet_paper": ("cifar100_imb", "densenet", 0.1, 0.0005, 256, 200, 0.5),
    "cifar100_paper": ("cifar100", "cifarnet", 0.1, 0.0005, 256, 200, None),
    "cifar100_resnet32_paper": ("cifar100", "resnet32", 0.1, 0.0005, 256, 200, None),
    "cifar100_densenet_paper": ("cifar100", "densenet", 0.1, 0.0005, 256, 200, None),
}


def test_no_recipe_of_the_paper_is_missed():
    assert {name for name in recipe_names() if name.endswith("_paper")} == set(PAPER)


@pytest.mark.parametrize("name", PAPER)
def test_recipes_of_the_paper_have_its_numbers(name):
    recipe = load_recipe(name)
    dataset, model, rate, decay, batch, epochs, eta = PAPER[name]
    train = recipe.train
    assert (recipe.dataset, recipe.model, train.optimizer, train.momentum) == (dataset, model, "sgd", 0.9)
    assert (train.learning_rate, train.weight_decay, train.batch_size, train.epochs) == (rate, decay, batch, epochs)
    assert (train.schedule, train.warmup_epochs, recipe.crl.alpha_warmup_epochs) == ("constant", 0, 0)
    assert (recipe.crl.alpha, recipe.crl.eta) == ((None, eta) if eta else (0.5, recipe.crl.eta))
    assert (recipe.network.width, recipe.network.freeze, recipe.network.backbone_rate) == (1, "none", 1)


def test_a_run_of_before_these_settings_is_read():
    old = base_config().to_dict()
    del old["network"]
    for key in ("step_epochs", "step_factor", "warmup_epochs"):
        del old["train"][key]
    assert from_json(old).to_json() == base_config().to_json()
