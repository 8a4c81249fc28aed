from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest

from crl_tf.datasets import load_dataset
from crl_tf.datasets.sources import cifar100
from crl_tf.datasets.sources.cifar100 import choose_per_class
from crl_tf.imbalance import class_counts, imbalance_ratio


@pytest.fixture(scope="module")
def loaded(cifar_dir):
    return {name: load_dataset(name, data_dir=str(cifar_dir)) for name in ("cifar100", "cifar100_imb", "cifar100_bln")}


def counts_of(dataset, split="train"):
    return class_counts(dataset.splits[split].labels, dataset.schema.num_classes)[0]


def numbers_of(split):
    """The running number that the fixture wrote into red and green of the first pixel."""
    return split.images[:, 0, 0, 0].astype(int) + 256 * split.images[:, 0, 0, 1].astype(int)


def test_split_per_class(loaded):
    dataset = loaded["cifar100"]
    assert dataset.schema.names == ("object",)
    assert dataset.schema.attributes[0].classes[:2] == ("thing0", "thing1")
    for split, size in (("train", 490), ("validation", 10), ("test", 100)):
        assert set(counts_of(dataset, split)) == {size}
    numbers = np.concatenate([numbers_of(dataset.splits[s]) for s in ("train", "validation")])
    assert sorted(numbers) == list(range(50000))


def test_labels_stay_with_their_images(loaded):
    for dataset in loaded.values():
        for split in dataset.splits.values():
            # The fixture wrote the label into the red of pixel (row 0, column 1).
            np.testing.assert_array_equal(split.images[:, 0, 1, 0], split.labels[:, 0])


def test_validation_follows_the_seed(loaded, cifar_dir):
    other = load_dataset("cifar100", data_dir=str(cifar_dir), seed=1)
    assert set(numbers_of(loaded["cifar100"].splits["validation"])) != set(numbers_of(other.splits["validation"]))


def test_parent_folder_is_accepted(cifar_dir, tmp_path):
    shutil.copytree(cifar_dir, tmp_path / "cifar-100-python")
    assert len(load_dataset("cifar100", data_dir=str(tmp_path)).splits["test"]) == 10000


def test_imb_and_bln(loaded):
    full, imb, bln = (loaded[name] for name in ("cifar100", "cifar100_imb", "cifar100_bln"))
    sizes = counts_of(imb)
    # gamma = 1: b = (25 * 100 - 500) / (500 - 25) = 2000/475 and a = 500 (1 + b); f(1) = 500 is clipped at 490.
    b = 2000 / 475
    assert sizes[0] == 490
    assert sizes[1] == round(500 * (1 + b) / (2 + b)) == 419
    assert sizes[9] == round(500 * (1 + b) / (10 + b))
    assert sizes[99] == 25
    assert imbalance_ratio(sizes) == 490 / 25
    assert set(counts_of(bln)) == {round(sizes.sum() / 100)}
    for split in ("validation", "test"):
        np.testing.assert_array_equal(imb.splits[split].images, full.splits[split].images)
        np.testing.assert_array_equal(bln.splits[split].images, full.splits[split].images)


def test_gamma_shapes_the_tail(loaded, cifar_dir):
    gentle = counts_of(load_dataset("cifar100_imb", data_dir=str(cifar_dir), gamma=2.0))
    assert gentle.sum() > counts_of(loaded["cifar100_imb"]).sum()
    assert gentle[99] == 25
    with pytest.raises(ValueError, match=r"gamma=-1"):
        load_dataset("cifar100_imb", data_dir=str(cifar_dir), gamma=-1)


def test_choose_per_class():
    labels = np.array([0, 1, 0, 1, 0, 2])
    chosen = choose_per_class(labels, np.array([2, 1, 0]), seed=3)
    assert list(np.bincount(labels[chosen], minlength=3)) == [2, 1, 0]
    assert list(chosen) == sorted(chosen)
    # The same seed ranks alike, so that a smaller choice lies within a larger one.
    assert set(chosen) < set(choose_per_class(labels, np.array([3, 2, 1]), seed=3))
    with pytest.raises(ValueError, match=r"sizes\[2\] must lie in \[0, 1\], received 2"):
        choose_per_class(labels, np.array([0, 0, 2]), seed=0)


def copy_of(cifar_dir, tmp_path, **replaced):
    for name in ("meta", "test", "train"):
        (tmp_path / name).write_bytes(replaced.get(name, (cifar_dir / name).read_bytes()))
    return str(tmp_path)


def test_broken_pickles_are_named(cifar_dir, tmp_path):
    with pytest.raises(ValueError, match=r"train is not an official pickle"):
        load_dataset("cifar100", data_dir=copy_of(cifar_dir, tmp_path, train=b"no pickle"))
    with pytest.raises(ValueError, match=r"meta must hold \['fine_label_names'\], missing"):
        load_dataset("cifar100", data_dir=copy_of(cifar_dir, tmp_path, meta=pickle.dumps({"coarse": 1})))
    wrong = pickle.dumps({"data": np.zeros((2, 5), np.uint8), "fine_labels": [0, 1]}, protocol=2)
    with pytest.raises(
        ValueError, match=r"data in .*train must be uint8 \[n, 3072\], images of 32 x 32 in 3 colours, received uint8 \[2, 5\]"
    ):
        load_dataset("cifar100", data_dir=copy_of(cifar_dir, tmp_path, train=wrong))


def test_pickles_run_no_code(cifar_dir, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    with pytest.raises(ValueError, match=r"it names (io|builtins) open"):
        load_dataset("cifar100", data_dir=copy_of(cifar_dir, tmp_path, train=pickle.dumps(Hostile(), protocol=2)))
    assert not (tmp_path / "run").exists()


def test_incomplete_folder(cifar_dir, tmp_path):
    shutil.copy(cifar_dir / "meta", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"must hold the official files \['train', 'test', 'meta'\]"):
        load_dataset("cifar100", data_dir=str(tmp_path))


@pytest.mark.parametrize("load", [cifar100.load_cifar100, cifar100.load_cifar100_imb, cifar100.load_cifar100_bln])
def test_nothing_is_fetched_unasked(load):
    with pytest.raises(
        ValueError, match=r"needs --data_dir, a folder with the Python pickles train, test.*; or --download, which"
    ):
        load()


def test_from_tfds_in_the_publishers_order(tmp_path):
    """Records prepared locally under the names of tensorflow-datasets' own builder: read without network."""
    tfds = pytest.importorskip("tensorflow_datasets")
    import tensorflow as tf

    builder = tfds.builder("cifar100", data_dir=str(tmp_path))
    # The publisher's own files bring the names along.
    builder.info.features["label"].names = [f"thing{k}" for k in range(100)]
    builder.info.features["coarse_label"].names = [f"kind{k}" for k in range(20)]

    def part(name, size):
        labels = np.arange(size) % 100
        ids = [f"{name}_{i:05d}" for i in range(size)]
        images = np.zeros((size, 32, 32, 3), np.uint8)
        images[:, 0, 0, 0] = np.arange(size)
        return tf.data.Dataset.from_tensor_slices(
            {"id": ids, "image": images, "label": labels, "coarse_label": labels % 20}
        ).shuffle(size, seed=1)

    tfds.dataset_builders.store_as_tfds_dataset(
        name="cifar100",
        version=str(builder.version),
        data_dir=str(tmp_path),
        features=builder.info.features,
        split_datasets={"train": part("train", 200), "test": part("test", 100)},
        disable_shuffling=False,
    )
    names, train, test = cifar100._from_tfds(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="must hold the official files"):
        cifar100.load_cifar100(str(tmp_path))  # without download it is the publisher's folder
    assert names[:2] == ("thing0", "thing1")
    for split, size in ((train, 200), (test, 100)):
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], np.arange(size))
        np.testing.assert_array_equal(split.labels[:, 0], np.arange(size) % 100)


def test_real_cifar100(real_data):
    dataset = load_dataset("cifar100", data_dir=str(real_data))
    assert [len(s) for s in dataset.splits.values()] == [49000, 1000, 10000]
    assert dataset.schema.attributes[0].classes[::99] == ("apple", "worm")
    # The mean colour of the training images that everyone normalises with: 0.5071, 0.4865, 0.4409.
    parts = [dataset.splits[s].images for s in ("train", "validation")]
    mean = sum(p.sum((0, 1, 2), dtype=np.float64) for p in parts) / (50000 * 1024 * 255)
    np.testing.assert_allclose(mean, [0.5071, 0.4865, 0.4409], atol=1e-4)
