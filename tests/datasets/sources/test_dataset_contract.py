"""What holds for every dataset of the table."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
from dataset_files import write_image
from deepfashion_files import write_deepfashion

from crl_tf.datasets import DATASETS, SPLITS, Records, load_dataset
from crl_tf.datasets.records.prepare import prepare
from crl_tf.datasets.sources.xdomain import ATTRIBUTES

FOLDERS = {
    "handwriting": None,
    "celeba": "celeba_dir",
    "cifar100": "cifar_dir",
    "cifar100_imb": "cifar_dir",
    "cifar100_bln": "cifar_dir",
    "attribute_csv": "csv_dir",
    "deepfashion": "deepfashion_dir",
    "image_folder": "folders_dir",
    "xdomain": "xdomain_dir",
    "records": "records_dir",
}


@pytest.fixture
def deepfashion_dir(tmp_path):
    return write_deepfashion(tmp_path)


@pytest.fixture
def folders_dir(tmp_path):
    for number in range(30):
        write_image(tmp_path / "abc"[number % 3] / f"{number}.png", np.zeros((2, 2, 3)))
    return tmp_path


@pytest.fixture
def xdomain_dir(tmp_path):
    """Three classes of each of the nine attributes, 300 rows of one image."""
    rows = [["path", *ATTRIBUTES]]
    for row in range(300):
        write_image(tmp_path / f"{row}.png", np.zeros((2, 2, 3)))
        rows.append([f"{row}.png", *(f"{name} {(row + place) % 3}" for place, name in enumerate(ATTRIBUTES))])
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path


@pytest.fixture
def records_dir(csv_dir, tmp_path):
    return prepare(dataclasses.replace(load_dataset("attribute_csv", data_dir=str(csv_dir)), name="records"), tmp_path / "out")


def test_every_dataset_is_under_contract():
    assert set(FOLDERS) == set(DATASETS)


@pytest.fixture(params=sorted(DATASETS))
def load(request):
    fixture = FOLDERS[request.param]
    folder = None if fixture is None else str(request.getfixturevalue(fixture))
    return lambda seed=0: load_dataset(request.param, data_dir=folder, seed=seed), request.param


@pytest.mark.filterwarnings("ignore:xdomain")
def test_contract(load):
    load, name = load
    first, again = load(), load()
    assert first.name == name
    assert tuple(first.splits) == SPLITS
    for split in SPLITS:
        a, b = first.splits[split], again.splits[split]
        assert a.labels.dtype in (np.int8, np.int16, np.int32)
        assert a.labels.shape == (len(a), len(first.schema))
        if isinstance(a.images, Records):
            assert a.images.read(np.arange(len(a))) == b.images.read(np.arange(len(b)))
        else:
            np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
    # Every class of every label is there to train or to test on: a class name that never occurs is a mistake of the loader.
    labels = np.concatenate([s.labels for s in first.splits.values()])
    for column, attribute in zip(labels.T, first.schema.attributes, strict=True):
        assert set(column) - {-1} == set(range(attribute.num_classes)), attribute.name


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"name must be one of .*'celeba'.*'handwriting'.*received 'mnist'"):
        load_dataset("mnist")


def test_missing_folder_is_named(tmp_path):
    for name in sorted(set(DATASETS) - {"handwriting"}):
        with pytest.raises(FileNotFoundError, match=r"nowhere"):
            load_dataset(name, data_dir=str(tmp_path / "nowhere"))
