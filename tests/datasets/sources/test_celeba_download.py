"""CelebA through tensorflow-datasets: records prepared locally are laid out, and a failing download says what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from dataset_files import RecordedProgress

from crl_tf.datasets.sources import celeba
from crl_tf.datasets.sources.celeba import load_celeba
from crl_tf.datasets.sources.cifar100 import load_cifar100, load_cifar100_bln, load_cifar100_imb


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """Records prepared locally under the names of tensorflow-datasets' own `celeb_a` builder: read without network."""
    folder = tmp_path_factory.mktemp("tfds")
    builder = tfds.builder("celeb_a", data_dir=str(folder))

    def part(number: int, size: int) -> tf.data.Dataset:
        def examples():
            for i in range(size):
                features = {
                    "image": np.full((218, 178, 3), 80 * number + 10 * i, np.uint8),
                    "landmarks": {name: 100 * number + 10 * i + c for c, name in enumerate(celeba.COORDINATES)},
                    "attributes": {name: (name == "Bald") == (i == 0) for name in builder.info.features["attributes"]},
                    "identity": {"Identity_No": 1000 * number + i},
                }
                yield features

        signature = {
            "image": tf.TensorSpec((218, 178, 3), tf.uint8),
            "landmarks": {name: tf.TensorSpec((), tf.int64) for name in builder.info.features["landmarks"]},
            "attributes": {name: tf.TensorSpec((), tf.bool) for name in builder.info.features["attributes"]},
            "identity": {name: tf.TensorSpec((), tf.int64) for name in builder.info.features["identity"]},
        }
        return tf.data.Dataset.from_generator(examples, output_signature=signature)

    tfds.dataset_builders.store_as_tfds_dataset(
        name="celeb_a",
        version=str(builder.version),
        data_dir=str(folder),
        features=builder.info.features,
        split_datasets={name: part(i, 3 - i) for i, name in enumerate(("train", "validation", "test"))},
    )
    return folder


def test_from_tfds(tfds_dir):
    folder = celeba.lay_out_from_tfds(str(tfds_dir))
    dataset = load_celeba(str(folder))
    assert [len(s) for s in dataset.splits.values()] == [3, 2, 1]
    assert len(dataset.schema) == 40
    bald = dataset.schema.names.index("Bald")
    for split in dataset.splits.values():
        # One example in each part is bald and nothing else; the others are everything but bald.
        assert sorted(split.labels.sum(1)) == [1] + [39] * (len(split) - 1)
        assert split.labels[:, bald].sum() == 1
        assert all(Path(image).read_bytes()[:2] == b"\xff\xd8" for image in split.images)
    for number, split in enumerate(dataset.splits.values()):
        # The bald one has number 0 of its part; identity, landmarks and brightness stay with their image.
        index = split.extras["identity"] - 1000 * number
        np.testing.assert_array_equal(index == 0, split.labels[:, bald] == 1)
        np.testing.assert_array_equal(split.extras["landmarks"], (100 * number + 10 * index)[:, np.newaxis] + np.arange(10))
        brightness = [tf.io.decode_image(Path(image).read_bytes()).numpy().mean() for image in split.images]
        np.testing.assert_allclose(brightness, 80 * number + 10 * index, atol=2)
    # Nothing but the whole folder stays, and a second call takes it as it is.
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    before = folder.stat().st_mtime_ns
    assert celeba.lay_out_from_tfds(str(tfds_dir)) == folder
    assert folder.stat().st_mtime_ns == before


def test_interrupted_layout_is_not_taken_for_whole(tfds_dir, tmp_path, monkeypatch):
    shutil.copytree(tfds_dir / "celeb_a", tmp_path / "celeb_a")
    write = celeba._write_layout

    def interrupted(builder, folder, progress):
        write(builder, folder, progress)
        raise KeyboardInterrupt

    monkeypatch.setattr(celeba, "_write_layout", interrupted)
    with pytest.raises(KeyboardInterrupt):
        celeba.lay_out_from_tfds(str(tmp_path))
    assert list((tmp_path / "crl_tf").iterdir()) == []
    monkeypatch.setattr(celeba, "_write_layout", write)
    progress = RecordedProgress()
    assert len(load_celeba(str(tmp_path), download=True, progress=progress).splits["train"]) == 3
    assert progress.done == progress.totals == {"writing train": 3, "writing validation": 2, "writing test": 1}


@pytest.mark.parametrize("load", [load_celeba, load_cifar100, load_cifar100_imb, load_cifar100_bln])
def test_a_download_that_fails_says_why_and_what_to_make_by_hand(load, tmp_path, monkeypatch):
    from tensorflow_datasets.core.download import download_manager, util

    by_hand = (
        r"img_align_celeba/.*list_attr_celeba\.txt and list_eval" if load is load_celeba else r"the Python pickles train, test"
    )
    for error in (
        util.DownloadError("Failed to get url https://drive: 403"),
        download_manager.NonMatchingChecksumError("Artifact https://drive\nhas wrong checksum"),
        ConnectionError("no route to host"),
        ValueError("Failed to obtain confirmation link for GDrive URL"),
    ):

        def fail(*_, error=error, **__):
            raise error

        # Below tensorflow-datasets' own code, which gets to wrap it.
        monkeypatch.setattr(download_manager.DownloadManager, "download", fail)
        monkeypatch.setattr(download_manager.DownloadManager, "download_and_extract", fail)
        said = str(error).split()[0]
        with pytest.raises(
            OSError, match=rf"download .* failed \({type(error).__name__}: .*{said}.*as --data_dir.* {by_hand}"
        ) as raised:
            load(str(tmp_path), download=True)
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "crl_tf").exists()
