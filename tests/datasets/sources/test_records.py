"""Records opened by their index: the same batches as from the files, and every kind of damage named."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf
from dataset_files import RecordedProgress, write_image

from crl_tf.datasets.cache import cached
from crl_tf.datasets.pipeline import make_pipeline
from crl_tf.datasets.records.prepare import prepare
from crl_tf.datasets.source import SPLITS, Dataset, Records, Split, file_paths
from crl_tf.datasets.sources.records import METADATA, checksum, load_records, pack_index
from crl_tf.schema import Attribute, AttributeSchema

SCHEMA = AttributeSchema((Attribute("colour", ("red", "green", "blue")), Attribute("size", ("s", "l"))))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """40, 6 and 6 JPEG and PNG images of several sizes, large enough to be decoded at a reduced scale."""
    folder, rng, splits = tmp_path_factory.mktemp("source"), np.random.default_rng(0), {}
    for split, count in zip(SPLITS, (40, 6, 6), strict=True):
        paths = [folder / f"{split}{i}{'.png' if i % 3 else '.jpg'}" for i in range(count)]
        for i, path in enumerate(paths):
            write_image(path, rng.integers(0, 256, (20 + 5 * (i % 4), 30, 3)))
        labels = np.stack([rng.integers(-1, 3, count), rng.integers(-1, 2, count)], 1).astype(np.int32)
        extras = {"identity": rng.integers(0, 2**40, count), "group": file_paths(f"ü{i}" for i in range(count))}
        extras["landmarks"] = rng.random((count, 5, 2))
        splits[split] = Split(file_paths(map(str, paths)), labels, extras)
    return Dataset("mine", SCHEMA, splits)


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    return prepare(dataset, tmp_path_factory.mktemp("whole"), shard_bytes=8000)


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "mine" / "1.0.0")
    return tmp_path / "mine" / "1.0.0"


def batches(split, **settings):
    pipeline = make_pipeline(split, **{"image_size": (7, 6), "batch_size": 16, "training": True, "seed": 1, **settings})
    return [(images.numpy(), labels.numpy()) for _ in range(2) for images, labels in pipeline]


@pytest.mark.parametrize("settings", [{"augment": ("flip", "crop")}, {"training": False}, {"indices": np.array([5, 5, 0, 39])}])
def test_training_sees_the_same_bytes_as_from_the_files(dataset, whole, settings):
    records = load_records(str(whole))
    assert isinstance(records.splits["train"].images, Records)
    assert len(records.splits["train"].images.shards) > 2
    tf.keras.utils.set_random_seed(3)
    from_files = batches(dataset.splits["train"], **settings)
    tf.keras.utils.set_random_seed(3)
    from_records = batches(records.splits["train"], **settings)
    assert len(from_files) == len(from_records) > 1
    for (images, labels), (same_images, same_labels) in zip(from_files, from_records, strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)


def test_labels_schema_and_extras_come_back(dataset, whole):
    records = load_records(str(whole), verify=True)
    assert records.name == "records"
    assert records.schema == dataset.schema
    for split, part in dataset.splits.items():
        found = records.splits[split]
        assert found.labels.dtype == np.int8
        np.testing.assert_array_equal(found.labels, part.labels)
        assert found.extras.keys() == part.extras.keys()
        for name, values in part.extras.items():
            assert found.extras[name].dtype == values.dtype
            np.testing.assert_array_equal(found.extras[name], values)


def test_a_cache_of_records_holds_the_same_images(dataset, whole, tmp_path):
    size = (7, 6)
    from_records = cached(load_records(str(whole)), size, str(tmp_path)).splits["validation"].images
    from_files = cached(dataset, size, "memory").splits["validation"].images
    np.testing.assert_array_equal(from_records, from_files)


def test_is_found_from_the_folders_above_and_wherever_it_is_moved(folder, tmp_path):
    for data_dir in (folder, folder.parent, tmp_path):
        assert len(load_records(str(data_dir)).splits["train"]) == 40
    shutil.copytree(folder.parent, tmp_path / "other")
    with pytest.raises(
        ValueError, match=r"^records: data_dir must name one of \['.*mine/1\.0\.0', '.*other/1\.0\.0'\], received "
    ):
        load_records(str(tmp_path))


def test_nothing_there(tmp_path):
    with pytest.raises(
        ValueError, match=r"^records: data_dir must be a folder that tools/prepare_dataset\.py has written, received None$"
    ):
        load_records(None)
    line = r"^records: no crl_tf\.json in .*{} or up to two folders below: see tools/prepare_dataset\.py$"
    with pytest.raises(FileNotFoundError, match=line.format("nowhere")):
        load_records(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=line.format(tmp_path.name)):
        load_records(str(tmp_path))


def test_missing_shard(folder):
    path = sorted(folder.glob("crl_mine-train*"))[1]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"^records: {path} is missing: delete {folder} and prepare it again$"):
        load_records(str(folder))


def test_truncated_shard(folder):
    path = sorted(folder.glob("crl_mine-train*"))[1]
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    sizes = f"{len(content)} bytes expected, received {len(content) - 1}"
    line = rf"^records: {path} is damaged, {sizes}: delete {folder} and prepare it again$"
    with pytest.raises(ValueError, match=line):
        load_records(str(folder))


def test_a_changed_byte_is_found_by_verifying(folder):
    path = sorted(folder.glob("crl_mine-test*"))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    load_records(str(folder))
    with pytest.raises(ValueError, match=rf"^records: {path} is damaged, its checksum is another than when it was written: "):
        load_records(str(folder), verify=True)


def test_verifying_reports_every_shard(folder):
    progress = RecordedProgress()
    load_records(str(folder), verify=True, progress=progress)
    assert progress.done == {"verifying shards": len(list(folder.glob("crl_mine-*")))}


def test_damaged_index_is_found_without_verifying(folder):
    content = bytearray((folder / "train.npz").read_bytes())
    content[100] ^= 1
    (folder / "train.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"^records: .*train\.npz is damaged, its checksum is another"):
        load_records(str(folder))
    (folder / "train.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"^records: .*train\.npz is missing"):
        load_records(str(folder))


def test_damaged_metadata(folder):
    path = folder / METADATA
    content = json.loads(path.read_text())
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=r"crl_tf\.json is not valid JSON"):
        load_records(str(folder))
    path.write_text(json.dumps({**content, "format": 2}))
    with pytest.raises(ValueError, match=r"^records: .*crl_tf\.json must be of format 1, received 2$"):
        load_records(str(folder))
    path.write_text(json.dumps({**content, "splits": {}}))
    with pytest.raises(
        ValueError, match=r"^records: .*crl_tf\.json is damaged \(KeyError\('train'\)\): delete .* and prepare it again$"
    ):
        load_records(str(folder))


def test_a_broken_image_is_named_by_its_place(folder):
    split = load_records(str(folder)).splits["test"]
    path, at = split.images.shards[0], int(split.images.offset[2])
    record = split.images.read(np.array([2]))[0]
    image = tf.train.Example.FromString(record).features.feature["image"].bytes_list.value[0]
    with open(path, "r+b") as file:
        file.seek(at + record.index(image))
        file.write(b"\0" * 40)
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"{path} at byte {at}"):
        batches(split, training=False)


def test_many_rows_open_without_reading_a_record(folder):
    rows = 200_000
    schema = AttributeSchema(tuple(Attribute(f"a{i}", ("absent", "present")) for i in range(40)))
    labels = (np.random.default_rng(0).random((rows, 40)) < 0.1).astype(np.int32)
    where = Records((), np.zeros(rows, np.int32), np.arange(rows) * 5000, np.full(rows, 4984))
    np.savez_compressed(folder / "train.npz", **pack_index(Split(where, labels), where))
    content = json.loads((folder / METADATA).read_text())
    content["schema"] = schema.to_config()
    facts = {"file": "train.npz", "bytes": (folder / "train.npz").stat().st_size, "blake2b": checksum(folder / "train.npz")}
    content["splits"] = {split: {**content["splits"]["train"], "index": facts} for split in SPLITS}
    (folder / METADATA).write_text(json.dumps(content))
    start = time.perf_counter()
    opened = load_records(str(folder))
    # A record costs 10 us to parse, 6 s for these; the index takes a quarter of a second.
    assert time.perf_counter() - start < 3
    np.testing.assert_array_equal(opened.splits["train"].labels, labels)


def test_a_damaged_record_is_named(folder):
    """Bytes that changed without a change of size are met when they are read."""
    (shard, *_) = sorted(folder.glob("*train.tfrecord*"))
    content = bytearray(shard.read_bytes())
    content[12:60] = b"\xff" * 48  # the first record begins after its length and checksum, 12 bytes
    shard.write_bytes(content)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"unreadable image: .*00000-of.* at byte 12: .*damaged record"):
        batches(load_records(str(folder)).splits["train"])
