"""Pipes, devices and folders in place of images, files that are too large, and tables that name files of the machine."""

import os
import zlib

import numpy as np
import pytest

from crl_tf.datasets.images import decode, read
from crl_tf.datasets.images.check import check_images, without_unreadable
from crl_tf.datasets.source import Dataset, Split, file_paths
from crl_tf.datasets.sources.attribute_csv import load_attribute_csv
from crl_tf.datasets.sources.celeba import load_celeba
from crl_tf.datasets.tables.schema import read_yaml
from crl_tf.schema import Attribute, AttributeSchema


@pytest.fixture
def special(tmp_path):
    """By name, a path that is no file of an image; reading the first two would never end."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing")
    return tmp_path


REASONS = {
    "pipe.png": "a pipe, device or socket, not an image file",
    "device.png": "a pipe, device or socket, not an image file",
    "folder.png": "a folder, not an image file",
    "dangling.png": "missing",
}


def test_they_are_unreadable_with_a_reason(special):
    split = Split(file_paths(str(special / name) for name in REASONS), np.zeros((len(REASONS), 1), np.int32))
    checked = check_images(split, image_size=(8, 8))
    assert {image.name.rpartition("/")[2]: image.reason for image in checked.unreadable} == REASONS


def test_they_are_left_out_by_skip_unreadable(special, shop):
    paths = [*(str(special / name) for name in REASONS), *(str(shop / f"{i}.png") for i in range(6))]
    split = Split(file_paths(paths), np.array([[i % 2] for i in range(len(paths))], np.int32))
    schema = AttributeSchema((Attribute("a", ("x", "y")),))
    dataset = Dataset("own", schema, dict.fromkeys(("train", "validation", "test"), split))
    kept, left_out = without_unreadable(dataset, image_size=(8, 8), limit=0.5)
    assert len(kept.splits["train"]) == 6 and len(left_out) == 3 * len(REASONS)


@pytest.mark.parametrize("name", REASONS)
def test_a_table_or_list_that_names_one_is_refused_before_it_is_opened(special, name, celeba_dir):
    (special / "attributes.csv").write_text("path,a\n" + "".join(f"{name},{k}\n" for k in "xy")[: len(name) + 3])
    with pytest.raises((FileNotFoundError, ValueError), match=r"1 of 1 images (are missing|lie outside)"):
        load_attribute_csv(special)
    image = celeba_dir / "img_align_celeba" / "000001.jpg"
    image.unlink()
    (special / name).rename(image)
    with pytest.raises(FileNotFoundError, match="1 of 6 listed images are missing"):
        load_celeba(str(celeba_dir))


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    path.write_bytes(b"0" * 100)
    monkeypatch.setattr(read, "LARGEST_FILE", 99)
    assert read.read_encoded(str(path)) == (None, "a file of 100 bytes, of which at most 99 are read")


def png(height, width, depth):
    """A whole PNG of one grey value."""

    def chunk(name, content):
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, 0, 0, 0, 0])
    rows = zlib.compress(b"\0" * (height * (1 + width * depth // 8)))
    return decode.FORMS["PNG"][1] + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_the_limit_on_pixels_counts_what_they_take(monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 10_000)
    monkeypatch.setattr(decode, "LONGEST", 100)
    assert decode.fault(png(100, 100, 8), (8, 8)) is None
    assert "of which more than 0 million would be decoded at once" in decode.fault(png(100, 100, 16), (8, 8))
    assert decode.fault(png(100, 50, 16), (8, 8)) is None


def table(folder, names, schema=None):
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["path,split,a", *(f"{name},{part},{k}" for name, part, k in zip(names, ("train", "val", "test", "train"), "xyxy"))]  # noqa: B905
    (folder / "attributes.csv").write_text("\n".join(rows) + "\n")
    if schema:
        (folder / "schema.yaml").write_text(schema)
    return folder


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_images_outside_of_the_tables_folder_are_refused_and_read_on_request(tmp_path):
    folder = tmp_path / "mine"
    touch(folder / "1.png", folder / "2.png", tmp_path / "other" / "3.png", tmp_path / "other" / "4.png")
    (folder / "linked").symlink_to(tmp_path / "other")
    (folder / "link.png").symlink_to(tmp_path / "other" / "4.png")
    (folder / "inside.png").symlink_to(folder / "1.png")
    for name in (
        "../../../../../../../../etc/passwd",
        "../other/3.png",
        str(tmp_path / "other" / "3.png"),
        "linked/3.png",
        "link.png",
    ):
        table(folder, ["1.png", "2.png", name])
        with pytest.raises(ValueError, match=r"line 4: 1 of 3 images lie outside of the table's folder, the first: ") as refused:
            load_attribute_csv(folder)
        assert repr(name) in str(refused.value) and "root:x" not in str(refused.value)
        if "etc" not in name:
            assert load_attribute_csv(folder, allow_outside_root=True).splits["test"].images[0].endswith(name)
    table(folder, ["1.png", str(folder / "2.png"), "inside.png"])
    assert len(load_attribute_csv(folder).splits["test"]) == 1


def test_a_link_in_a_folder_that_forbids_listing_leads_nowhere_else(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    touch(folder / "1.png", folder / "closed" / "2.png", tmp_path / "other.png")
    (folder / "closed" / "link.png").symlink_to(tmp_path / "other.png")
    scandir = os.scandir

    def forbidden(place):  # root may list every folder
        if os.fspath(place).rstrip("/").endswith("closed"):
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", forbidden)
    table(folder, ["1.png", "closed/2.png", "closed/link.png"])
    with pytest.raises(
        ValueError, match=r"line 4: 1 of 3 images lie outside of the table's folder, the first: 'closed/link.png'"
    ):
        load_attribute_csv(folder)
    assert len(load_attribute_csv(folder, allow_outside_root=True).splits["test"]) == 1


def test_the_root_of_a_schema_that_is_named_is_inside(tmp_path):
    touch(*(tmp_path / "images" / f"{i}.png" for i in range(3)))
    folder = table(tmp_path / "table", ["0.png", "1.png", "2.png"], "root: ../images")
    assert len(load_attribute_csv(folder, schema=folder / "schema.yaml").splits["train"]) == 1
    table(folder, ["0.png", "1.png", "../2.png"])
    with pytest.raises(ValueError, match="lie outside"):
        load_attribute_csv(folder, schema=folder / "schema.yaml")


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nlabels: [*b, *b]", r"line 2: not YAML: aliases \(\*name\) must be written out"),
        ("labels: " + "[" * 50 + "]" * 50, "not YAML: more than 20 levels"),
        ("labels: " + "[" * 100_000, "not YAML"),
    ],
)
def test_yaml_that_grows_is_refused(tmp_path, text, message):
    (tmp_path / "schema.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_yaml("attribute_csv", tmp_path / "schema.yaml")


def test_a_large_yaml_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "schema.yaml", "wb") as file:
        file.truncate(20_000_000)
    with pytest.raises(ValueError, match="must have at most 10,000,000 bytes, received 20,000,000"):
        read_yaml("attribute_csv", tmp_path / "schema.yaml")
