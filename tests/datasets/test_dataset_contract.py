"""What holds for every dataset of the table."""

from __future__ import annotations

import numpy as np
import pytest

from crl_tf.datasets import DATASETS, SPLITS, load_dataset

FOLDERS = {
    "handwriting": None,
    "celeba": "celeba_dir",
    "cifar100": "cifar_dir",
    "cifar100_imb": "cifar_dir",
    "cifar100_bln": "cifar_dir",
    "attribute_csv": "csv_dir",
}


def test_every_dataset_is_under_contract():
    assert set(FOLDERS) == set(DATASETS)


@pytest.fixture(params=sorted(DATASETS))
def load(request):
    fixture = FOLDERS[request.param]
    folder = None if fixture is None else str(request.getfixturevalue(fixture))
    return lambda seed=0: load_dataset(request.param, data_dir=folder, seed=seed), request.param


def test_contract(load):
    load, name = load
    first, again = load(), load()
    assert first.name == name
    assert tuple(first.splits) == SPLITS
    for split in SPLITS:
        a, b = first.splits[split], again.splits[split]
        assert a.labels.dtype == np.int32
        assert a.labels.shape == (len(a), len(first.schema))
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
    for name in ("celeba", "cifar100", "attribute_csv"):
        with pytest.raises(FileNotFoundError, match=r"nowhere"):
            load_dataset(name, data_dir=str(tmp_path / "nowhere"))
