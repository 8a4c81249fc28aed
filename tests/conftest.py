import csv
import ctypes
import gc
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import pytest

from crl_tf import machine
from crl_tf.experiment.config import base_config


@pytest.fixture(scope="session", autouse=True)
def real_processor_flags():
    """What reads the processor's instructions. In its place, every test has a processor without bfloat16, so that its numbers
    are those of float32 on every machine."""
    real = machine.processor_flags
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "processor_flags", lambda: frozenset())
        yield real


@pytest.fixture(scope="module", autouse=True)
def freed_memory():
    """Hands what a file of tests has freed back to the system: two workers together would come near to 20 GB."""
    yield
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("CRL_TF_REAL_DATA")
    if not folder:
        pytest.skip("CRL_TF_REAL_DATA is not set")
    return Path(folder)


@pytest.fixture
def log(caplog):
    """What the program logs for its user: `log.messages`, `log.clear()`."""
    caplog.set_level("INFO", logger="crl_tf")
    return caplog


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """A folder of 60 tiny images and attributes.csv: two labels (3 and 2 classes), some cells empty."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        colour = ("red", "green", "blue")[0 if i % 6 < 4 else 1 if i % 6 == 4 else 2]
        image = rng.integers(0, 60, (16, 16, 3), np.uint8)
        image[..., ("red", "green", "blue").index(colour)] += 150
        size = "" if i % 10 == 3 else ("large" if i % 5 == 0 else "small")
        keras.utils.save_img(folder / f"{i}.png", image, scale=False)
        rows.append([f"{i}.png", "train" if i < 36 else "val" if i < 48 else "test", colour, size])
    with open(folder / "attributes.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "split", "colour", "size"], *rows])
    return folder


@pytest.fixture
def tiny_recipe(shop):
    """Two epochs of CifarNet on the shop: seconds."""
    recipe = base_config()
    recipe.dataset = "attribute_csv"
    recipe.data.dir = str(shop)
    recipe.data.image_size = (16, 16)
    recipe.model = "cifarnet"
    recipe.train.epochs = 2
    recipe.train.batch_size = 16
    recipe.train.learning_rate = 0.001
    recipe.crl.eta = 0.5
    return recipe
