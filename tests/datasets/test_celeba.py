from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crl_tf.datasets import celeba, load_dataset


def load(folder: Path):
    return load_dataset("celeba", data_dir=str(folder))


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_official_partition(celeba_dir):
    dataset = load(celeba_dir)
    assert dataset.schema.names == ("Bald", "Smiling")
    assert all(a.classes == ("absent", "present") for a in dataset.schema.attributes)
    found = {
        name: {Path(image).name: tuple(row.tolist()) for image, row in zip(split.images, split.labels, strict=True)}
        for name, split in dataset.splits.items()
    }
    # The fixture: even numbers are bald, those above 4 smile.
    assert found == {
        "train": {"000001.jpg": (0, 0), "000002.jpg": (1, 0), "000003.jpg": (0, 0)},
        "validation": {"000004.jpg": (1, 0)},
        "test": {"000005.jpg": (0, 1), "000006.jpg": (1, 1)},
    }
    assert all(Path(image).is_file() for split in dataset.splits.values() for image in split.images)


def test_images_that_no_list_names_are_left_alone(celeba_dir):
    (celeba_dir / "img_align_celeba" / "999999.jpg").write_bytes(b"")
    assert sum(len(s) for s in load(celeba_dir).splits.values()) == 6


def test_missing_images_are_counted(celeba_dir):
    for name in ("000003.jpg", "000005.jpg"):
        (celeba_dir / "img_align_celeba" / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 6 listed images are missing in .*, the first: 00000[35]\.jpg"):
        load(celeba_dir)


def test_missing_list(celeba_dir):
    (celeba_dir / "list_eval_partition.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks \['list_eval_partition\.txt'\]"):
        load(celeba_dir)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("list_attr_celeba.txt", "6\n", "7\n", r"first line must be the number of images \(6\), received '7'"),
        ("list_attr_celeba.txt", "000006.jpg  1", "000006.jpg  2", r"line 3: expected a file name and 2 values, each 1 or -1"),
        ("list_attr_celeba.txt", "000005.jpg -1", "000005.jpg", r"line 4: expected a file name and 2 values"),
        ("list_attr_celeba.txt", "000005.jpg", "000006.jpg", r"listed more than once"),
        ("list_eval_partition.txt", "000004.jpg 1", "000004.jpg 3", r"line 4: expected a file name and 0, 1 or 2, received"),
        ("list_eval_partition.txt", "000004.jpg 1\n", "", r"same images; 1 are in only one of them, the first: 000004\.jpg"),
        ("list_eval_partition.txt", "000004.jpg 1\n", "000004.jpg 0\n", r"split 'validation' is empty"),
    ],
)
def test_malformed_lists(celeba_dir, file, old, new, message):
    replace(celeba_dir / file, old, new)
    with pytest.raises(ValueError, match=message):
        load(celeba_dir)


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """Records prepared locally under the names of tensorflow-datasets' own `celeb_a` builder: read without network."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    builder = tfds.builder("celeb_a", data_dir=str(folder))

    def part(number: int, size: int) -> tf.data.Dataset:
        def examples():
            for i in range(size):
                features = {
                    "image": np.full((218, 178, 3), 80 * number + 10 * i, np.uint8),
                    "landmarks": {name: 0 for name in builder.info.features["landmarks"]},
                    "attributes": {name: (name == "Bald") == (i == 0) for name in builder.info.features["attributes"]},
                    "identity": {name: 0 for name in builder.info.features["identity"]},
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
    folder = celeba._lay_out_from_tfds(str(tfds_dir))
    dataset = load(folder)
    assert [len(s) for s in dataset.splits.values()] == [3, 2, 1]
    assert len(dataset.schema) == 40
    bald = dataset.schema.names.index("Bald")
    for split in dataset.splits.values():
        # One example in each part is bald and nothing else; the others are everything but bald.
        assert sorted(split.labels.sum(1)) == [1] + [39] * (len(split) - 1)
        assert split.labels[:, bald].sum() == 1
        assert all(Path(image).read_bytes()[:2] == b"\xff\xd8" for image in split.images)
    # Nothing but the whole folder stays, and a second call takes it as it is.
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    before = folder.stat().st_mtime_ns
    assert celeba._lay_out_from_tfds(str(tfds_dir)) == folder
    assert folder.stat().st_mtime_ns == before


def test_interrupted_layout_is_not_taken_for_whole(tfds_dir, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(tfds_dir / "celeb_a", tmp_path / "celeb_a")
    write = celeba._write_layout

    def interrupted(builder, folder):
        write(builder, folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(celeba, "_write_layout", interrupted)
    with pytest.raises(KeyboardInterrupt):
        celeba._lay_out_from_tfds(str(tmp_path))
    assert list((tmp_path / "crl_tf").iterdir()) == []
    monkeypatch.setattr(celeba, "_write_layout", write)
    assert len(load(celeba._lay_out_from_tfds(str(tmp_path))).splits["train"]) == 3


def test_real_celeba(real_data):
    dataset = load(real_data / "celeba")
    assert [len(s) for s in dataset.splits.values()] == [9385, 4535, 4640]
    assert len(dataset.schema) == 40
    assert dataset.schema.names[0] == "5_o_Clock_Shadow"
    bald = np.concatenate([s.labels for s in dataset.splits.values()])[:, dataset.schema.names.index("Bald")]
    # 2.5 % by the data's own description.
    assert bald.mean() == pytest.approx(0.025, abs=0.0005)
