from functools import partial

import keras
import numpy as np
import pytest

from crl_tf.crl_model import CRLModel
from crl_tf.datasets.source import Dataset, Split
from crl_tf.experiment.data import Data
from crl_tf.experiment.trainers.base import Task
from crl_tf.imbalance import class_counts
from crl_tf.losses.crl.loss import CRL
from crl_tf.losses.cross_entropy import MultiLabelCrossEntropy
from crl_tf.losses.curriculum import CurriculumLoss
from crl_tf.losses.ldam import LDAMLoss
from crl_tf.models import build_network
from crl_tf.schema import Attribute, AttributeSchema

SIZE = (16, 16)


@pytest.fixture(scope="session")
def toy():
    """60 small images of two labels: which of three colours is strongest, and is the upper half light; a tenth is not annotated.

    Half of an image, not all of it: CifarNet subtracts the mean of each image.
    """
    rng = np.random.default_rng(0)
    labels = np.stack([rng.choice(3, 60, p=[0.6, 0.25, 0.15]), rng.choice(2, 60, p=[0.7, 0.3])], axis=1).astype(np.int32)
    images = rng.integers(0, 60, (60, *SIZE, 3))
    images[np.arange(60), :, :, labels[:, 0]] += 100
    images[:, : SIZE[0] // 2] += 60 * labels[:, 1, np.newaxis, np.newaxis, np.newaxis]
    labels[rng.random(labels.shape) < 0.1] = -1
    schema = AttributeSchema((Attribute("colour", ("red", "green", "blue")), Attribute("light", ("dark", "light"))))
    whole = Split(images.astype(np.uint8), labels)
    return Dataset("toy", schema, {name: whole for name in ("train", "validation", "test")})


@pytest.fixture
def settings():
    """The section "embedding", which the tasks of `task_in` share."""
    return {
        "cluster_every": 4,
        "cluster_size": 6,
        "neighbours": 5,
        "references": 50,
        "margin": 0.2,
        "margins": None,
        "occupied_share": 0.5,
        "pretraining_epochs": 1,
    }


@pytest.fixture
def task_in(toy, settings):
    """Makes the task of a trainer: its folder, and what else differs from two epochs of a small network on the toy."""

    def make(workdir, *, dataset=toy, augment=(), **changes):
        num_classes, seed = list(dataset.schema.num_classes), changes.get("seed", 0)
        counts = class_counts(dataset.splits["train"].labels, num_classes)
        content = {
            "data": Data(dataset, counts, SIZE, batch_size=16, seed=seed, augment=augment),
            "workdir": workdir,
            "seed": seed,
            "epochs": 2,
            "make_model": lambda: CRLModel(build_network("cifarnet", image_size=SIZE, num_classes=num_classes, width=0.1)),
            "make_optimizer": lambda model, steps: keras.optimizers.SGD(0.01, momentum=0.9),
            "make_loss": lambda: MultiLabelCrossEntropy(num_classes),
            "indices": None,
            "compile_options": {},
            "linear_svm": False,
            "embedding": settings,
        }
        return Task(**{**content, **changes})

    return make


@pytest.fixture
def stateful(task_in, toy):
    """Makes tasks with everything that is random or has a state: dropout, augmentation, momentum, a schedule, a warm-up.

    Called with the number of epochs, it gives a function of a folder, the name of a loss, and what else differs.
    """
    sizes = list(toy.schema.num_classes)
    counts = class_counts(toy.splits["train"].labels, sizes)

    def of_length(epochs):
        losses = {
            "ce": partial(MultiLabelCrossEntropy, sizes),
            "class_rel": partial(CRL, sizes, class_counts=counts, alpha=0.5, alpha_warmup_epochs=epochs - 1),
            "ldam": partial(LDAMLoss, sizes, counts, scale=10.0),
            "curriculum": partial(CurriculumLoss, sizes, counts),
        }

        def make_model():
            # What a process before drew must not matter.
            keras.utils.set_random_seed(5)
            return CRLModel(build_network("cifarnet", image_size=SIZE, num_classes=sizes, width=0.1))

        def make_optimizer(model, steps):
            return keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.003, epochs * steps))

        def start(workdir, loss, **options):
            made = {"make_model": make_model, "make_optimizer": make_optimizer, "make_loss": losses[loss]}
            return task_in(workdir, epochs=epochs, augment=("flip", "crop"), **made, **options)

        return start

    return of_length
