"""What checking finds is what the pipeline would raise for, and leaving it out leaves the rest as it was."""

from __future__ import annotations

import re

import image_zoo
import numpy as np
import pytest
import tensorflow as tf
from dataset_files import RecordedProgress

from crl_tf.datasets.images import check as checking
from crl_tf.datasets.images.check import check_images, duplicates, image_names, without_unreadable
from crl_tf.datasets.pipeline import make_pipeline
from crl_tf.datasets.source import Dataset, Records, Split, file_paths
from crl_tf.schema import Attribute, AttributeSchema

SCHEMA = AttributeSchema((Attribute("colour", ("red", "blue")),))


def zoo(folder):
    """Readable and unreadable files mixed, a folder and a missing one among them; and which are unreadable, with the reason."""
    good, bad = image_zoo.readable(), image_zoo.unreadable()
    reasons = {name: reason for name, (_, reason) in bad.items()}
    reasons |= {"folder.jpg": "a folder, not an image file", "nowhere.jpg": "missing", "circle.jpg": "cannot be opened (Too many"}
    folder.mkdir(exist_ok=True)
    for name, content in (good | {name: content for name, (content, _) in bad.items()}).items():
        (folder / name).write_bytes(content)
    (folder / "folder.jpg").mkdir()
    (folder / "circle.jpg").symlink_to(folder / "circle.jpg")
    names = np.random.default_rng(0).permutation([*good, *reasons]).tolist()
    return split_of(str(folder / name) for name in names), names, reasons


def split_of(paths):
    paths = file_paths(paths)
    return Split(paths, (np.arange(len(paths), dtype=np.int32) % 2)[:, None], {"number": np.arange(len(paths))})


def records_of(path, serialized):
    """Examples written one behind the other; no frame is needed to read them where they lie."""
    path.write_bytes(b"".join(serialized))
    length = np.array([len(s) for s in serialized], np.int64)
    return Records((str(path),), np.zeros(len(length), np.int32), np.cumsum(length) - length, length)


def example(image):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
    return tf.train.Example(features=tf.train.Features(feature={"image": feature})).SerializeToString()


def pipeline_raises(split):
    """The images for which the pipeline raises; after an error it goes on with the next."""
    batches, raised = iter(make_pipeline(split, image_size=(8, 8), batch_size=1, training=False)), []
    for index in range(len(split)):
        try:
            next(batches)
        except (tf.errors.OpError, UnicodeDecodeError):  # TensorFlow quotes the bytes of a damaged record
            raised.append(index)
    assert next(batches, None) is None
    return raised


def dataset_of(train, **others):
    rest = split_of(["unused"])
    pixels = Split(np.zeros((5, 8, 8, 3), np.uint8), rest.labels.repeat(5, 0), {"number": np.arange(5)})
    return Dataset("mine", SCHEMA, {"train": train, "validation": pixels, "test": pixels} | others)


def test_exactly_what_the_pipeline_raises_for_is_found(tmp_path, monkeypatch):
    split, names, reasons = zoo(tmp_path / "ä b")
    monkeypatch.setattr(checking, "CHUNK", 7)
    progress = RecordedProgress()
    checked = check_images(split, image_size=(8, 8), progress=progress, what="reading train")
    assert progress.done == progress.totals == {"reading train": len(split)}
    assert {names[p.index]: p.reason.startswith(reasons[names[p.index]]) for p in checked.unreadable} == dict.fromkeys(
        reasons, True
    )
    assert [p.index for p in checked.unreadable] == pipeline_raises(split)
    assert all(p.name == str(split.images[p.index]) and "\n" not in p.reason for p in checked.unreadable)


def test_the_same_of_records(tmp_path):
    contents = [c for c in image_zoo.readable().values()] + [c for c, _ in image_zoo.unreadable().values()]
    serialized = [*map(example, contents), b"\xff\xff\xff", tf.train.Example().SerializeToString() or b"", example(contents[0])]
    records = records_of(tmp_path / "a.tfrecord", serialized)
    split = Split(records, np.zeros((len(records), 1), np.int32))
    checked = check_images(split, image_size=(8, 8))
    good = len(image_zoo.readable())
    broken = [*range(good, len(split) - 1)]
    assert [p.index for p in checked.unreadable] == broken == pipeline_raises(split)
    assert [p.reason for p in checked.unreadable[-2:]] == ["a damaged record: it holds no image"] * 2
    assert checked.unreadable[0].name == f"{tmp_path}/a.tfrecord at byte {records.offset[good]}"
    assert checked.digests[0] == checked.digests[-1] != 0
    (tmp_path / "a.tfrecord").unlink()
    assert {p.reason for p in check_images(split).unreadable} == {"missing"}


def test_facts_of_the_readable(tmp_path):
    grey, turned = image_zoo.readable()["grey.png"], image_zoo.readable()["colours.jpg"]
    turned = image_zoo.with_segment(turned, 0xE1, image_zoo.exif(6))
    contents = [grey, turned, grey, image_zoo.readable()["alpha.webp"], image_zoo.readable()["16 bits.png"]]
    contents += [image_zoo.readable()["cmyk, inverted as by Adobe.jpg"], image_zoo.readable()["palette.bmp"]]
    for i, content in enumerate(contents):
        (tmp_path / str(i)).write_bytes(content)
    split = split_of([*(str(tmp_path / str(i)) for i in range(len(contents))), str(tmp_path / "nowhere")])
    checked = check_images(split)
    sizes = [(image_zoo.HEIGHT, image_zoo.WIDTH)] * len(contents)
    sizes[1] = sizes[1][::-1]
    assert checked.sizes.tolist() == [*map(list, sizes), [0, 0]] and checked.digests.dtype == np.uint64
    assert checked.forms == {"PNG": 3, "JPEG": 2, "WebP": 1, "BMP": 1} | {
        "greyscale": 3, "turned by EXIF": 1, "alpha": 1, "16 bits": 1, "CMYK": 1, "palette": 1,
    }  # fmt: skip
    assert checked.digests[0] == checked.digests[2] and len(set(checked.digests[:7].tolist())) == 6 and checked.digests[7] == 0
    some = check_images(split, indices=np.array([7, 1]))
    assert some.digests.tolist() == checked.digests[[7, 1]].tolist() and some.indices.tolist() == [7, 1]
    assert [p.index for p in some.unreadable] == [7]


def test_a_jpeg_that_is_too_large_for_the_wanted_size_only(tmp_path):
    large = bytearray(image_zoo.readable()["colours.jpg"])
    at = large.index(b"\xff\xc0") + 5
    large[at : at + 4] = (12000).to_bytes(2, "big") * 2
    (tmp_path / "a.jpg").write_bytes(large)
    (problem,) = check_images(split_of([str(tmp_path / "a.jpg")]), image_size=(9000, 9000)).unreadable
    assert problem.reason.startswith("a JPEG of 12000 x 12000 pixels, of which more than 100 million would be decoded at once")
    # TensorFlow takes the grey that its decoder puts in the place of what is not there.
    split = split_of([str(tmp_path / "a.jpg")])
    assert not check_images(split, image_size=(64, 64)).unreadable and not pipeline_raises(split)


def test_pixels_have_nothing_to_check():
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)
    images[4] = images[1]
    checked = check_images(Split(images, np.zeros((5, 1), np.int32)))
    assert not checked.unreadable and not checked.forms and checked.sizes.tolist() == [[8, 6]] * 5
    assert duplicates({"train": checked.digests}).groups == ((("train", 1), ("train", 4)),)
    assert image_names(Split(images, np.zeros((5, 1), np.int32)), [3]) == ["image 3"]


def test_a_disk_that_errs_once_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(image_zoo.readable()["colours.png"])
    monkeypatch.setattr(checking, "read_encoded", lambda _: (b"\x89PNG\r\n\x1a\n" + bytes(30), None))
    (problem,) = check_images(split_of([str(tmp_path / "a.png")])).unreadable
    assert problem.reason == "could not be decoded"


def test_unreadable_images_are_left_out(tmp_path):
    split, names, reasons = zoo(tmp_path / "zoo")
    dataset = dataset_of(split)
    kept, left_out = without_unreadable(dataset, image_size=(8, 8), limit=0.5)
    good = [i for i, name in enumerate(names) if name not in reasons]
    train = kept.splits["train"]
    assert train.images.tolist() == split.images[good].tolist()
    assert train.labels.tolist() == split.labels[good].tolist() and train.extras["number"].tolist() == good
    assert {(p.split, names[p.index]) for p in left_out} == {("train", name) for name in reasons}
    assert kept.splits["test"] is dataset.splits["test"]
    # What is left is read to its end.
    assert sum(len(x) for x, _ in make_pipeline(train, image_size=(8, 8), batch_size=5, training=False)) == len(good)
    assert without_unreadable(kept, image_size=(8, 8), limit=0) == (kept, [])


def test_more_than_the_limit_is_an_error(tmp_path):
    for i in range(90):
        (tmp_path / f"{i}.png").write_bytes(image_zoo.readable()["1x1.png"])
    (tmp_path / "7.png").write_bytes(b"hello")
    train = split_of([*(str(tmp_path / f"{i}.png") for i in range(90)), *(str(tmp_path / f"gone{i}") for i in range(3))])
    dataset = dataset_of(train)  # 93 and twice 5 images, of which 4 are unreadable
    kept, left_out = without_unreadable(dataset, limit=4 / 103)
    assert len(kept.splits["train"]) == 89 and len(left_out) == 4
    first = f"{tmp_path}/7.png (not an image (JPEG, PNG, GIF, BMP and WebP are read); it begins with the bytes 68 65 6c 6c)"
    message = f"unreadable images: 4 of 103 (0.0388 of all) cannot be read, more than the 0.01 that may be left out: {first}"
    message += f", {tmp_path}/gone0 (missing), {tmp_path}/gone1 (missing), ...; repair them, or take them out of the list"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        without_unreadable(dataset)


def test_a_split_that_would_be_empty_is_an_error(tmp_path):
    dataset = dataset_of(split_of([str(tmp_path / "a"), str(tmp_path / "b")]))
    with pytest.raises(ValueError, match=r"^unreadable images: none of the 2 of train can be read, such as .*/a \(missing\), "):
        without_unreadable(dataset, limit=1)
    for limit in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=rf"limit must be a share in \[0, 1\], received {limit}"):
            without_unreadable(dataset, limit=limit)


def test_duplicates_against_counting_by_hand():
    rng = np.random.default_rng(3)
    digests = {name: rng.integers(0, 60, n).astype(np.uint64) for name, n in (("train", 80), ("validation", 15), ("test", 30))}
    found = duplicates(digests)
    places = {}
    for name, values in digests.items():
        for place, value in enumerate(values.tolist()):
            if value:
                places.setdefault(value, []).append((name, place))
    assert sorted(found.groups) == sorted(tuple(p) for p in places.values() if len(p) > 1)
    sets = {name: set(values.tolist()) - {0} for name, values in digests.items()}
    assert found.across == {
        (a, b): len(sets[a] & sets[b]) for a, b in (("train", "validation"), ("train", "test"), ("validation", "test"))
    }
    assert found.within == {name: sum(v in values[:i] for i, v in enumerate(values) if v) for name, values in digests.items()}
