import keras
import numpy as np
import pytest
from ml_collections import ConfigDict

from crl_tf.crl_model import CRLModel
from crl_tf.datasets.pipeline import make_pipeline
from crl_tf.datasets.source import Dataset, Split
from crl_tf.experiment.trainers.base import StageInput
from crl_tf.imbalance import class_counts
from crl_tf.models import build_network
from crl_tf.schema import Attribute, AttributeSchema

SIZE = (16, 16)


@pytest.fixture(scope="session")
def toy():
    """60 small images of two labels: which of three colours is strongest, and light or dark; a tenth is not annotated."""
    rng = np.random.default_rng(0)
    labels = np.stack([rng.choice(3, 60, p=[0.6, 0.25, 0.15]), rng.choice(2, 60, p=[0.7, 0.3])], axis=1).astype(np.int32)
    images = rng.integers(0, 60, (60, *SIZE, 3))
    images[np.arange(60), :, :, labels[:, 0]] += 100
    images += 60 * labels[:, 1, np.newaxis, np.newaxis, np.newaxis]
    labels[rng.random(labels.shape) < 0.1] = -1
    schema = AttributeSchema((Attribute("colour", ("red", "green", "blue")), Attribute("light", ("dark", "light"))))
    whole = Split(images.astype(np.uint8), labels)
    return Dataset("toy", schema, {name: whole for name in ("train", "validation", "test")})


@pytest.fixture
def settings():
    return ConfigDict(
        {
            "cluster_every": 4,
            "cluster_size": 6,
            "neighbours": 5,
            "references": 50,
            "margin": 0.2,
            "margins": (0.1, 0.2, 0.3),
            "pretraining_epochs": 1,
        }
    )


@pytest.fixture
def given_for(toy, settings):
    """Makes the input of a stage: of a folder, and what else differs from the toy's."""

    def make(workdir, **changes):
        dataset = changes.pop("dataset", toy)
        seed = changes.get("seed", 0)

        def make_model():
            sizes = dataset.schema.num_classes
            return CRLModel(build_network("cifarnet", image_size=SIZE, num_classes=sizes, width=0.1))

        def pipeline(split, training, indices):
            return make_pipeline(
                dataset.splits[split], image_size=SIZE, batch_size=16, training=training, seed=seed, indices=indices
            )

        content = {
            "settings": settings,
            "dataset": dataset,
            "counts": class_counts(dataset.splits["train"].labels, dataset.schema.num_classes),
            "seed": 0,
            "batch_size": 16,
            "epochs": 2,
            "workdir": workdir,
            "image_size": SIZE,
            "make_model": make_model,
            "make_optimizer": lambda model, steps: keras.optimizers.SGD(0.01, momentum=0.9),
            "pipeline": pipeline,
        }
        return StageInput(**{**content, **changes})

    return make
