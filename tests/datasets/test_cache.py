"""Decoded images, kept: the same batches as from the files, a stale cache never taken for the right one, whole or not there."""

from __future__ import annotations

import dataclasses
import os
import resource
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from dataset_files import write_image

from crl_tf.datasets import Dataset, Split, load_dataset
from crl_tf.datasets import cache as cache_room
from crl_tf.datasets.cache import available_memory, cached
from crl_tf.datasets.pipeline import make_pipeline
from crl_tf.schema import Attribute, AttributeSchema

SIZE = (12, 10)
SCHEMA = AttributeSchema((Attribute("number", tuple(str(i) for i in range(40))),))


@pytest.fixture
def files(tmp_path):
    """Train: 17 JPEGs large enough to be decoded at half their size and 3 PNGs of all sizes; 2 of validation, 2 of test."""
    rng = np.random.default_rng(0)
    splits = {}
    for split, count in (("train", 20), ("validation", 2), ("test", 2)):
        paths = []
        for i in range(count):
            shape = (60, 50, 3) if i < 17 else (7 + i, 30, 3)
            path = tmp_path / "images" / f"{split}{i}.{'jpg' if i < 17 else 'png'}"
            coarse = rng.uniform(0, 255, (4, 4, 3))
            write_image(path, np.clip(tf.image.resize(coarse, shape[:2]).numpy() + rng.normal(0, 9, shape), 0, 255))
            paths.append(str(path))
        splits[split] = Split(np.array(paths), np.arange(count, dtype=np.int32)[:, np.newaxis])
    return Dataset("faces", SCHEMA, splits)


def batches(split, epochs=2, **arguments):
    arguments = {"image_size": SIZE, "batch_size": 8, "training": True, "seed": 3, "augment": ("flip", "crop"), **arguments}
    pipeline = make_pipeline(split, **arguments)
    assert pipeline.element_spec[0] == tf.TensorSpec((None, *SIZE, 3), tf.uint8)
    assert pipeline.cardinality() == -(-len(arguments.get("indices", split.labels)) // 8)
    return [(images.numpy(), labels.numpy()) for _ in range(epochs) for images, labels in pipeline]


def assert_same(first, second):
    assert len(first) == len(second)
    for (images, labels), (other_images, other_labels) in zip(first, second, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


@pytest.mark.parametrize("arguments", [{}, {"training": False}, {"indices": np.array([4, 4, 19, 0, 7, 4, 1, 2, 3, 18])}])
def test_batches_are_the_same_from_files_memory_and_disk(files, tmp_path, arguments, monkeypatch):
    from_files = batches(files.splits["train"], **arguments)
    in_memory = cached(files, SIZE, "memory")
    on_disk = cached(files, SIZE, str(tmp_path / "cache"))
    again = cached(files, SIZE, str(tmp_path / "cache"))
    for dataset in (in_memory, on_disk, again):
        assert_same(batches(dataset.splits["train"], **arguments), from_files)
    # However many threads: with five as with those of this machine.
    monkeypatch.setattr("crl_tf.datasets.pipeline.usable_cores", lambda: 5)
    for dataset in (files, on_disk):
        assert_same(batches(dataset.splits["train"], **arguments), from_files)


def test_on_disk_is_mapped_and_in_memory_is_not(files, tmp_path):
    on_disk = cached(files, SIZE, str(tmp_path / "cache")).splits["train"].images
    assert isinstance(on_disk, np.memmap) and not on_disk.flags.writeable
    in_memory = cached(files, SIZE, "memory").splits["train"].images
    assert type(in_memory) is np.ndarray and in_memory.dtype == np.uint8 and in_memory.shape == (20, *SIZE, 3)
    np.testing.assert_array_equal(on_disk, in_memory)


def test_a_kept_cache_is_used_and_not_written_again(files, tmp_path, monkeypatch):
    cached(files, SIZE, str(tmp_path / "cache"))
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()}
    assert sorted(name.rsplit("-", 1)[0] for name in before) == [
        "faces-test-12x10",
        "faces-train-12x10",
        "faces-validation-12x10",
    ]
    monkeypatch.setattr(cache_room, "_decoded", lambda *_: pytest.fail("decoded again"))
    cached(files, SIZE, str(tmp_path / "cache"))
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()} == before


def change_a_file(dataset, monkeypatch):
    path = dataset.splits["train"].images[3]
    write_image_like(path, 200)


def write_image_like(path, value):
    """Other pixels in a file of the same length: only its time tells."""
    length, times = os.path.getsize(path), os.stat(path)
    content = tf.io.encode_jpeg(np.full((60, 50, 3), value, np.uint8)).numpy()
    assert len(content) <= length
    with open(path, "wb") as file:
        file.write(content.ljust(length, b"\0"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))


def other_decoding(dataset, monkeypatch):
    monkeypatch.setattr(cache_room.decoding, "VERSION", 99)


def other_tensorflow(dataset, monkeypatch):
    monkeypatch.setattr(tf, "__version__", "9.9.9")


@pytest.mark.parametrize("change", [change_a_file, other_decoding, other_tensorflow])
def test_what_has_changed_is_decoded_anew_beside_the_old(files, tmp_path, monkeypatch, change):
    folder = tmp_path / "cache"
    cached(files, SIZE, str(folder))
    before = {p: p.read_bytes() for p in folder.iterdir()}
    change(files, monkeypatch)
    assert_same(batches(cached(files, SIZE, str(folder)).splits["train"]), batches(files.splits["train"]))
    assert any(p.name.startswith("faces-train") for p in set(folder.iterdir()) - set(before))
    assert all(p.read_bytes() == content for p, content in before.items())


def test_another_order_size_split_or_dataset_has_a_cache_of_its_own(files, tmp_path):
    folder = tmp_path / "cache"
    train = files.splits["train"]
    reversed_train = Split(train.images[::-1].copy(), train.labels[::-1].copy())
    for dataset, size in (
        (files, SIZE),
        (dataclasses.replace(files, splits={**files.splits, "train": reversed_train}), SIZE),
        (dataclasses.replace(files, name="others"), SIZE),
        (files, (10, 12)),
        (dataclasses.replace(files, splits={**files.splits, "test": train}), SIZE),
    ):
        kept = cached(dataset, size, str(folder))
        expected = [images for images, _ in batches_of(dataset.splits["train"], size)]
        np.testing.assert_array_equal(kept.splits["train"].images, np.concatenate(expected))
    # train, validation, test of the first; one train; three; three; one test.
    assert len(list(folder.iterdir())) == 3 + 1 + 3 + 3 + 1


def batches_of(split, size):
    return [(x.numpy(), y.numpy()) for x, y in make_pipeline(split, image_size=size, batch_size=8, training=False)]


def test_images_of_the_wanted_size_need_no_cache(tmp_path):
    digits = load_dataset("handwriting")
    for where in ("memory", str(tmp_path / "cache"), "none"):
        assert cached(digits, (32, 32), where) is digits
    assert not (tmp_path / "cache").exists()


def test_an_array_of_another_size_is_resized_once(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    split = Split(images, np.arange(9, dtype=np.int32)[:, np.newaxis])
    other = Split(images[::-1].copy(), split.labels)
    for train in (split, other):
        dataset = Dataset("arrays", SCHEMA, {"train": train, "validation": split, "test": split})
        assert_same(batches(cached(dataset, SIZE, str(tmp_path)).splits["train"]), batches(train))
        assert_same(batches(cached(dataset, SIZE, "memory").splits["train"]), batches(train))


def test_an_interrupted_build_leaves_nothing(files, tmp_path, monkeypatch):
    decoded = cache_room._decoded

    def interrupted(split, image_size):
        yield next(decoded(split, image_size))[:4]
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_room, "_decoded", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached(files, SIZE, str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").iterdir())


def test_a_killed_build_is_not_taken_up_and_goes_once_it_is_old(files, tmp_path):
    folder = tmp_path / "cache"
    cached(files, SIZE, str(folder))
    (whole,) = folder.glob("faces-train-*")
    content = whole.read_bytes()
    whole.unlink()
    fresh, old = (folder / f".partial-{token}-{whole.name}" for token in ("aaa", "bbb"))
    for partial in (fresh, old):
        partial.write_bytes(content[:500])
    os.utime(old, (time.time() - 4000,) * 2)
    cached(files, SIZE, str(folder))
    # The fresh one may be another process at work.
    assert whole.read_bytes() == content and fresh.exists() and not old.exists()


def test_a_broken_image_is_named_and_leaves_no_cache(files, tmp_path):
    path = files.splits["train"].images[5]
    with open(path, "r+b") as file:
        file.truncate(300)
    for where in ("memory", str(tmp_path / "cache")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"unreadable image: .*train5\.jpg"):
            cached(files, SIZE, where)
    assert not list((tmp_path / "cache").iterdir())


def test_a_disk_that_fills_up_is_one_error_and_leaves_nothing(files, tmp_path):
    # The limit on the size of a file stands for the end of the disk: an honest write error, in the middle of the file.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match=rf"cache: folder {tmp_path}/cache must be writable and have room for 7\.2e-06 GB"):
            cached(files, SIZE, str(tmp_path / "cache"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "cache").iterdir())


def test_too_little_space_is_told_before_decoding(files, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_room, "_decoded", lambda *_: pytest.fail("decoded first"))
    monkeypatch.setattr(cache_room.shutil, "disk_usage", lambda folder: _Usage)
    with pytest.raises(OSError, match=r"have room for 7\.2e-06 GB: only 1e-06 GB are free"):
        cached(files, SIZE, str(tmp_path / "cache"))


class _Usage:
    free = 1000


def test_a_folder_that_cannot_be_written_to_is_named(files, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=rf"cache: folder {tmp_path}/file/cache must be writable.*Not a directory"):
        cached(files, SIZE, str(tmp_path / "file" / "cache"))
    assert (tmp_path / "file").read_text() == "mine"


def test_memory_is_asked_for_first(files, monkeypatch):
    monkeypatch.setattr(cache_room, "available_memory", lambda: 8000)
    # 24 images of 12 * 10 * 3 bytes.
    with pytest.raises(ValueError, match=r"room for the decoded images, 8\.64e-06 GB; 8e-06 GB are available.*--cache=FOLDER"):
        cached(files, SIZE, "memory")
    monkeypatch.setattr(cache_room, "available_memory", lambda: 8640)
    assert len(cached(files, SIZE, "memory").splits["train"]) == 20


def test_available_memory_is_that_of_the_system():
    assert 2**20 < available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("damage", ["short", "no array", "other shape"])
def test_a_damaged_cache_is_named_and_kept(files, tmp_path, damage):
    cached(files, SIZE, str(tmp_path))
    (path,) = tmp_path.glob("faces-train-*")
    if damage == "other shape":
        with path.open("wb") as file:
            np.save(file, np.zeros((20, 10, 12, 3), np.uint8))
    else:
        path.write_bytes({"short": path.read_bytes()[:-1], "no array": b"hello"}[damage])
    content = path.read_bytes()
    with pytest.raises(ValueError, match=rf"cache: {path} is damaged \(.*\): delete it"):
        cached(files, SIZE, str(tmp_path))
    assert path.read_bytes() == content


def test_two_processes_building_at_once_do_no_harm(tmp_path, csv_dir):
    script = f"""
import sys
from crl_tf.datasets import load_dataset
from crl_tf.datasets.cache import cached
dataset = load_dataset("attribute_csv", data_dir={str(csv_dir)!r})
print("ready", flush=True)
sys.stdin.readline()
print(int(cached(dataset, (4, 5), {str(tmp_path / "cache")!r}).splits["train"].images.sum()))
"""
    both = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    sums = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0] and sums[0] == sums[1] != ""
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_nothing_is_no_folder(files):
    with pytest.raises(ValueError, match=r"cache must be 'none', 'memory' or a folder, received ''"):
        cached(files, SIZE, "")
    assert cached(files, SIZE, "none") is files
