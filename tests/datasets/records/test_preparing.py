"""Datasets into TFRecord shards: what tensorflow-datasets reads back, stopping and going on, and what is refused."""

from __future__ import annotations

import os
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from dataset_files import RecordedProgress, write_image
from PIL import Image

from crl_tf.datasets.records import builders
from crl_tf.datasets.records.examples import Examples
from crl_tf.datasets.records.prepare import prepare, tfds_name
from crl_tf.datasets.source import SPLITS, Dataset, Split, file_paths
from crl_tf.datasets.sources.celeba import load_celeba
from crl_tf.datasets.sources.records import BEGUN, METADATA, load_records
from crl_tf.schema import Attribute, AttributeSchema

PER_SPLIT = {"train": 9, "validation": 3, "test": 4}


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, (6, 5, 3), np.uint8)


def made(folder, *, labels=0, names=("colour", "size"), extras=None, suffix=".png"):
    """16 random images in files, two labels of 3 and 2 classes with gaps; `labels` seeds them."""
    schema = AttributeSchema(tuple(Attribute(n, c) for n, c in zip(names, (("red", "green", "blue"), ("s", "l")), strict=True)))
    rng, splits, number = np.random.default_rng(labels), {}, 0
    for split, count in PER_SPLIT.items():
        paths = [folder / "images" / f"{split} é{i}{suffix}" for i in range(count)]
        for path in paths:
            if not path.exists():
                write_image(path, pixels(number))
            number += 1
        both = np.stack([rng.integers(-1, 3, count), rng.integers(-1, 2, count)], 1).astype(np.int32)
        known = {key: make(split, count) for key, make in (extras or {}).items()}
        splits[split] = Split(file_paths(map(str, paths)), both, known)
    return Dataset("mine", schema, splits)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def source(tmp_path):
    return made(tmp_path / "source")


def test_tfds_reads_what_is_there(tmp_path):
    extras = {
        "identity": lambda split, n: np.arange(n, dtype=np.int64) + 2**40,
        "landmarks": lambda split, n: np.arange(2.0 * n).reshape(n, 2),
        "group": lambda split, n: file_paths(f"ü {split} {i}" for i in range(n)),
    }
    dataset = made(tmp_path, extras=extras)
    assert (dataset.splits["train"].labels == -1).any()
    folder = prepare(dataset, tmp_path / "out", shard_bytes=400)
    assert folder == tmp_path / "out" / "crl_mine" / "1.0.0"
    assert len(list(folder.glob("crl_mine-train.tfrecord-*"))) > 1
    loaded, info = tfds.load("crl_mine", data_dir=str(tmp_path / "out"), with_info=True)
    assert info.features["attributes"]["colour"].names == ["red", "green", "blue"]
    for split, part in dataset.splits.items():
        assert info.splits[split].num_examples == len(part)
        found = {int(example["index"]): example for example in loaded[split].as_numpy_iterator()}
        assert sorted(found) == list(range(len(part)))
        for i, example in found.items():
            start = {"train": 0, "validation": 9, "test": 12}[split]
            np.testing.assert_array_equal(example["image"], pixels(start + i))
            assert [example["attributes"]["colour"], example["attributes"]["size"]] == part.labels[i].tolist()
            assert example["file_name"].decode() == f"{split} é{i}.png"
            assert example["extras"]["identity"] == 2**40 + i
            assert example["extras"]["landmarks"].tolist() == [2.0 * i, 2.0 * i + 1]
            assert example["extras"]["group"].decode() == f"ü {split} {i}"


def test_files_keep_their_bytes_and_order_is_mixed(celeba_dir, tmp_path):
    dataset = load_celeba(str(celeba_dir))
    folder = prepare(dataset, tmp_path / "out")
    for split in SPLITS:
        files = [open(path, "rb").read() for path in dataset.splits[split].images.tolist()]
        (shard,) = folder.glob(f"crl_celeba-{split}.*")
        stored = [tf.train.Example.FromString(r.numpy()).features.feature for r in tf.data.TFRecordDataset(str(shard))]
        order = [feature["index"].int64_list.value[0] for feature in stored]
        assert [feature["image"].bytes_list.value[0] for feature in stored] == [files[i] for i in order]
    big = Dataset("big", dataset.schema, {s: dataset.splits[s].take(np.arange(100) % len(dataset.splits[s])) for s in SPLITS})
    other = prepare(big, tmp_path / "out", seed=1)
    first = tf.data.TFRecordDataset(str(next(other.glob("crl_big-train.*"))))
    order = [tf.train.Example.FromString(r.numpy()).features.feature["index"].int64_list.value[0] for r in first]
    assert order != sorted(order)
    assert sorted(order) == list(range(100))


def test_what_tfds_would_misread_becomes_png(tmp_path):
    kinds = {"gif": "GIF", "webp": "WEBP", "bmp": "BMP", "jpg": "JPEG", "png": "PNG"}
    paths = []
    for suffix, kind in kinds.items():
        image = Image.fromarray(pixels(7).repeat(4, 0).repeat(4, 1))
        more = {"save_all": True, "append_images": [Image.new("RGB", image.size)]} if kind == "GIF" else {"lossless": True}
        image.save(tmp_path / f"a.{suffix}", kind, **more)
        paths.append(str(tmp_path / f"a.{suffix}"))
    Image.new("CMYK", (5, 4), (10, 200, 30, 40)).save(tmp_path / "cmyk.jpg")
    Image.new("LA", (5, 4), (10, 200)).save(tmp_path / "alpha.png")
    Image.fromarray(np.full((4, 5), 40000, np.uint16)).save(tmp_path / "sixteen.png")
    palette = Image.fromarray(pixels(3)).quantize(16)
    palette.save(tmp_path / "palette.bmp")
    paths += [str(tmp_path / name) for name in ("palette.bmp", "cmyk.jpg", "alpha.png", "sixteen.png")]
    split = Split(file_paths(paths), np.zeros((len(paths), 1), np.int32))
    dataset = Dataset("kinds", AttributeSchema((Attribute("a", ("x", "y")),)), dict.fromkeys(SPLITS, split))
    prepare(dataset, tmp_path / "out")
    found = {
        e["file_name"].decode(): e["image"]
        for e in tfds.load("crl_kinds", split="test", data_dir=str(tmp_path / "out")).as_numpy_iterator()
    }
    assert found.keys() == {path.rsplit("/", 1)[1] for path in paths}
    np.testing.assert_array_equal(found.pop("palette.bmp"), np.asarray(palette.convert("RGB")))
    for path in paths[:5] + paths[6:]:
        wanted = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False).numpy()
        np.testing.assert_array_equal(found[path.rsplit("/", 1)[1]], wanted, path)


def test_pixels_become_png(tmp_path):
    split = Split(np.stack([pixels(i) for i in range(5)]), np.arange(5, dtype=np.int32)[:, None] % 2)
    dataset = Dataset("cifar100", AttributeSchema((Attribute("a", ("x", "y")),)), dict.fromkeys(SPLITS, split))
    prepare(dataset, tmp_path / "out", shard_bytes=100)
    for example in tfds.load("crl_cifar100", split="train", data_dir=str(tmp_path / "out")).as_numpy_iterator():
        np.testing.assert_array_equal(example["image"], pixels(int(example["index"])))
        assert example["file_name"].decode() == f"train/{example['index']}.png"


def test_records_prepared_again_keep_bytes_and_names(source, tmp_path):
    prepare(source, tmp_path / "once")
    twice = prepare(load_records(str(tmp_path / "once")), tmp_path / "twice", shard_bytes=500, seed=5)
    assert twice.parent.name == "crl_records"
    again = load_records(str(tmp_path / "twice"), verify=True)
    for split, part in source.splits.items():
        np.testing.assert_array_equal(again.splits[split].labels, part.labels)
        for record, path in zip(again.splits[split].images.read(np.arange(len(part))), part.images.tolist(), strict=True):
            feature = tf.train.Example.FromString(record).features.feature
            assert feature["image"].bytes_list.value[0] == open(path, "rb").read()
            assert feature["file_name"].bytes_list.value[0].decode() == path.rsplit("/", 1)[1]


@pytest.mark.parametrize(
    ("name", "key"),
    [("a b", "a b"), ("a/b", "a_b"), ("a\nb", "a_b"), ("ärmel: (lang)", "ärmel_ (lang)"), ("x" * 300, "x" * 80), ("..", "..")],
)
def test_any_attribute_name_goes_through_tfds(tmp_path, name, key):
    dataset = made(tmp_path, names=(name, "A_B"))
    folder = prepare(dataset, tmp_path / "out")
    builder = tfds.builder_from_directory(str(folder))
    labels = {int(e["index"]): int(e["attributes"][key]) for e in builder.as_dataset(split="train").as_numpy_iterator()}
    assert [labels[i] for i in range(9)] == dataset.splits["train"].labels[:, 0].tolist()
    assert builder.info.features["attributes"][key].names == ["red", "green", "blue"]
    assert load_records(str(folder)).schema == dataset.schema


def test_names_that_would_collide_are_told_apart(tmp_path):
    schema = AttributeSchema((Attribute("a/b", ("x ", "x", "")), Attribute("a:b", ("p", "q")), Attribute("A_b", ("p\nq", "p q"))))
    split = Split(np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 3), np.int32))
    folder = prepare(Dataset("d", schema, dict.fromkeys(SPLITS, split)), tmp_path)
    attributes = tfds.builder_from_directory(str(folder)).info.features["attributes"]
    named = {key: attributes[key].names for key in attributes}
    assert named == {"a_b": ["x", "x (2)", "(empty)"], "a_b (2)": ["p", "q"], "A_b (3)": ["p q", "p q (2)"]}
    assert load_records(str(folder)).schema == schema


def test_many_labels_of_the_same_classes_are_a_vector(tmp_path):
    labels = np.random.default_rng(0).integers(-1, 2, (4, 101)).astype(np.int32)
    schema = AttributeSchema(tuple(Attribute(f"n{i}", ("absent", "present")) for i in range(101)))
    dataset = Dataset("many", schema, dict.fromkeys(SPLITS, Split(np.zeros((4, 4, 4, 3), np.uint8), labels)))
    folder = prepare(dataset, tmp_path)
    for example in tfds.load("crl_many", split="train", data_dir=str(tmp_path)).as_numpy_iterator():
        assert example["attributes"].tolist() == labels[example["index"]].tolist()
    assert not list(folder.glob("*n7.labels.txt"))
    np.testing.assert_array_equal(load_records(str(folder)).splits["test"].labels, labels)


class Stopped(BaseException):
    """As by Ctrl-C."""


def test_goes_on_where_it_was_stopped_to_identical_files(source, tmp_path):
    whole = contents(prepare(source, tmp_path / "whole", shard_bytes=300, seed=3))

    def stop():
        if progress.done["writing shards"] >= 5:
            raise Stopped

    progress = RecordedProgress(stop)
    with pytest.raises(Stopped):
        prepare(source, tmp_path / "out", shard_bytes=300, seed=3, progress=progress)
    folder = tmp_path / "out" / "crl_mine" / "1.0.0"
    begun = {path.name: path.stat().st_mtime_ns for path in folder.glob("crl_mine-*")}
    assert 1 < len(begun) < len(list((tmp_path / "whole").rglob("crl_mine-*")))
    with pytest.raises(ValueError, match=r"1\.0\.0 was not prepared to its end: give .* the same command again"):
        load_records(str(tmp_path / "out"))
    with pytest.raises(tfds.core.registered.DatasetNotFoundError):
        tfds.load("crl_mine", data_dir=str(tmp_path / "out"))

    # As a process that was killed leaves it: half a file, and a shard of which nothing was noted.
    (folder / ".partial-0123-crl_mine-train.tfrecord-00004-of-00009").write_bytes(b"half")
    (folder / BEGUN / f"{sorted(begun)[0]}.json").unlink()
    progress = RecordedProgress()
    prepare(source, tmp_path / "out", shard_bytes=300, seed=3, progress=progress)
    assert progress.done == progress.totals == {"writing shards": len(list(folder.glob("crl_mine-*")))}
    assert contents(folder) == whole
    assert not (folder / BEGUN).exists()
    kept = [name for name, time in begun.items() if (folder / name).stat().st_mtime_ns == time]
    assert len(kept) == len(begun) - 1

    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    prepare(source, tmp_path / "out", shard_bytes=300, seed=3)
    assert times == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_does_not_go_on_with_another_dataset(source, tmp_path):
    def stop():
        raise Stopped

    def other_size(folder):
        dataset = made(folder)
        path = folder / "images" / "train é3.png"
        path.write_bytes(path.read_bytes() + b" ")
        return dataset

    others = [
        (lambda: made(tmp_path / "source", labels=1), {}),
        (lambda: made(tmp_path / "source", names=("color", "size")), {}),
        (lambda: made(tmp_path / "source", extras={"identity": lambda split, n: np.arange(n)}), {}),
        (lambda: source, {"seed": 1}),
        (lambda: source, {"shard_bytes": 200}),
        (lambda: other_size(tmp_path / "source"), {}),
    ]
    line = (
        r"^prepare: .*1\.0\.0 holds another dataset, or this one with other labels, .*: give another folder, or delete that one$"
    )
    prepare(source, tmp_path / "whole", shard_bytes=300)
    with pytest.raises(Stopped):
        prepare(source, tmp_path / "begun", shard_bytes=300, progress=RecordedProgress(stop))
    for other, settings in others:
        dataset = other()
        for folder in ("whole", "begun"):
            with pytest.raises(ValueError, match=line):
                prepare(dataset, tmp_path / folder, **{"shard_bytes": 300, **settings})


def test_the_dataset_may_have_moved(source, tmp_path):
    prepare(source, tmp_path / "out")
    elsewhere = made(tmp_path / "elsewhere")
    for name in SPLITS:
        for mine, theirs in zip(elsewhere.splits[name].images, source.splits[name].images, strict=True):
            shutil.copy2(theirs, mine)
    prepare(elsewhere, tmp_path / "out")
    # The same size and another time: its content may be another.
    os.utime(str(elsewhere.splits["train"].images[0]), (1, 1))
    with pytest.raises(ValueError, match="holds another dataset, or this one with other labels, files"):
        prepare(elsewhere, tmp_path / "out")


def test_bad_arguments_and_folders(source, tmp_path):
    with pytest.raises(ValueError, match=r"^prepare: shard_bytes must be a positive integer, received 0$"):
        prepare(source, tmp_path / "out", shard_bytes=0)
    (tmp_path / "out" / "crl_mine" / "1.0.0").mkdir(parents=True)
    (tmp_path / "out" / "crl_mine" / "1.0.0" / "mine.txt").write_text("dear")
    with pytest.raises(ValueError, match=r"1\.0\.0 must be empty or begun by an earlier run, and holds other files$"):
        prepare(source, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match=r"^prepare: folder .*/file/crl_mine/1\.0\.0 must be writable and have room for .*: Not a directory"
    ):
        prepare(source, tmp_path / "file")


def test_two_at_once(source, tmp_path):
    def second():
        with pytest.raises(ValueError, match=r"^prepare: another process is writing to .*1\.0\.0$"):
            prepare(source, tmp_path / "out")
        raise Stopped

    with pytest.raises(Stopped):
        prepare(source, tmp_path / "out", progress=RecordedProgress(second))
    prepare(source, tmp_path / "out")


def test_images_that_cannot_be_read_are_named(source, tmp_path):
    paths = source.splits["validation"].images.tolist()
    whole = open(paths[1], "rb").read()
    with open(paths[1], "wb") as file:
        file.write(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"^prepare: [^\[]*validation é1\.png: "):
        prepare(source, tmp_path / "out")
    with open(paths[1], "wb") as file:
        file.write(b"x" * len(whole))
    with pytest.raises(ValueError, match=r"^prepare: [^\[]*validation é1\.png: "):
        prepare(source, tmp_path / "other")
    (tmp_path / "source" / "images" / "test é2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"^prepare: image .*test é2\.png is missing$"):
        prepare(source, tmp_path / "out")


def test_an_image_that_vanishes_meanwhile_is_named(source, tmp_path):
    examples = Examples(source)
    (tmp_path / "source" / "images" / "test é2.png").unlink()
    with pytest.raises(ValueError, match=r"^prepare: image .*test é2\.png cannot be read: No such file or directory$"):
        examples.of("test", np.arange(4))


def test_full_disk_is_one_line_and_complete_shards_stay(source, tmp_path, monkeypatch):
    large = tmp_path / "source" / "images" / "test é0.png"
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    write_image(large, noise)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15000, hard))
    try:
        with pytest.raises(
            OSError, match=r"^prepare: folder .*1\.0\.0 must be writable and have room for .*; what is complete stays$"
        ) as error:
            prepare(source, tmp_path / "out", shard_bytes=500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    folder = tmp_path / "out" / "crl_mine" / "1.0.0"
    assert not (folder / METADATA).exists()
    assert not list(folder.glob(".partial-*"))
    assert len(list(folder.glob("crl_mine-train*"))) > 1
    prepare(source, tmp_path / "out", shard_bytes=500)
    load_records(str(tmp_path / "out"), verify=True)


def test_too_little_space_is_told_at_once(source, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(OSError, match=r"have room for 2\.\d+e-06 GB: only 1e-08 GB are free"):
        prepare(source, tmp_path / "out")


def test_extras_that_cannot_be_stored(tmp_path):
    only_train = {"identity": lambda split, n: np.arange(n)[:, None] if split == "test" else np.arange(n)}
    with pytest.raises(ValueError, match=r"^prepare: every split must have the extras of train, \['identity'\]; test has"):
        prepare(made(tmp_path, extras=only_train), tmp_path / "out")
    texts = {"names": lambda split, n: np.full((n, 2), "x")}
    with pytest.raises(ValueError, match=r"^prepare: extras must be numbers, or one text each.*\['names'\]$"):
        prepare(made(tmp_path, extras=texts), tmp_path / "out")


def test_names_never_meet_those_of_tfds():
    theirs = set(tfds.list_builders()) - {cls.name for key, cls in vars(builders).items() if key.startswith("Crl")}
    assert "cifar100" in theirs
    split = Split(np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 1), np.int32))
    for name in ("cifar100", "celeba", "attribute_csv", "höhe-1"):
        dataset = Dataset(name, AttributeSchema((Attribute("a", ("x", "y")),)), dict.fromkeys(SPLITS, split))
        assert tfds_name(dataset) not in theirs
        tfds.core.naming.DatasetName(tfds_name(dataset))
