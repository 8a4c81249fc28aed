"""Folders of classes, with and without splits; and what a folder is taken for that another dataset was looked for in."""

import os
import subprocess
import warnings

import numpy as np
import pytest
from dataset_files import CSV_ROWS, write_csv, write_image

from crl_tf.datasets import load_dataset
from crl_tf.datasets.sources.image_folder import load_image_folder


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def images(split, root):
    return {os.path.relpath(path, root): int(label) for path, label in zip(split.images, split.labels[:, 0], strict=True)}


def test_folders_are_classes_and_the_split_keeps_each_in_every_part(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.png" for name, count in (("dog", 20), ("cat", 60)) for i in range(count)))
    dataset = load_image_folder(tmp_path, seed=1)
    assert [(a.name, a.classes) for a in dataset.schema.attributes] == [("class", ("cat", "dog"))]
    counts = {name: np.bincount(split.labels[:, 0]).tolist() for name, split in dataset.splits.items()}
    assert counts == {"train": [48, 16], "validation": [6, 2], "test": [6, 2]}
    everything = {path: label for split in dataset.splits.values() for path, label in images(split, tmp_path).items()}
    assert len(everything) == 80 and all(label == (path.split("/")[0] == "dog") for path, label in everything.items())


def test_train_val_and_test_above_the_classes_are_the_splits(tmp_path):
    for part, count in (("Train", 5), ("valid", 2), ("test", 3)):
        touch(tmp_path, *(f"{part}/{name}/{i}.JPG" for name in ("b", "a") for i in range(count)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = load_image_folder(tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 10, "validation": 4, "test": 6}
    assert images(dataset.splits["validation"], tmp_path) == {f"valid/{n}/{i}.JPG": n == "b" for n in "ab" for i in (0, 1)}


@pytest.mark.parametrize("part, missing", [("val", "test"), ("test", "validation")])
def test_a_split_without_a_folder_is_carved_out_of_training(tmp_path, part, missing):
    touch(tmp_path, *(f"train/{name}/{i}.png" for name in "ab" for i in range(20)), *(f"{part}/{n}/x.png" for n in "ab"))
    with pytest.warns(UserWarning, match=f"no folder for {missing}: a tenth of every class of train stands in"):
        dataset = load_image_folder(tmp_path)
    assert np.bincount(dataset.splits[missing].labels[:, 0]).tolist() == [2, 2]
    assert len(dataset.splits["train"]) == 36
    assert not set(dataset.splits["train"].images) & set(dataset.splits[missing].images)


def test_below_a_class_everything_counts_but_hidden_files_and_other_files(tmp_path):
    touch(tmp_path, "a/deep/er/1.webp", "a/2.gif", "a/.hidden.png", "a/Thumbs.db", "a/.git/3.png", ".cache/x/4.png")
    touch(tmp_path, *(f"b/{i}.bmp" for i in range(10)), *(f"a/{i}.jpeg" for i in range(10)))
    (tmp_path / "a" / "round").symlink_to(tmp_path / "a")
    touch(tmp_path / ".elsewhere", "5.png")
    (tmp_path / "b" / "linked").symlink_to(tmp_path / ".elsewhere")
    (tmp_path / "b" / "up").symlink_to("..")
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "lost.png", "a/scan.TIFF", "b/photo.heic")
    with pytest.warns(UserWarning) as warned:
        dataset = load_image_folder(tmp_path)
    texts = [str(warning.message) for warning in warned]
    assert any("no image in empty, which is left out" in text for text in texts)
    assert any("1 images are in no folder of a class" in text for text in texts)
    assert any("2 images are of other forms than .jpg" in text and "a/scan.TIFF" in text for text in texts)
    found = {path for split in dataset.splits.values() for path in images(split, tmp_path)}
    assert {"a/deep/er/1.webp", "a/2.gif", "b/linked/5.png"} <= found
    assert len(found) == 10 + 2 + 10 + 1
    assert dataset.schema.attributes[0].classes == ("a", "b")


@pytest.mark.parametrize("link, target", [("c", "a"), ("a/deep", "b"), ("a/twice", "a/once")])
def test_a_folder_in_two_places_is_refused(tmp_path, link, target):
    touch(tmp_path, *(f"{folder}/{i}.png" for folder in ("a", "a/once", "b") for i in range(9)))
    (tmp_path / link).symlink_to(tmp_path / target)
    with pytest.raises(ValueError, match="must be two folders, received links to the same one"):
        load_image_folder(tmp_path)


def test_a_test_part_that_is_a_link_to_training_is_refused(tmp_path):
    touch(tmp_path, *(f"train/{name}/{i}.png" for name in "ab" for i in range(9)))
    (tmp_path / "test").symlink_to("train")
    with pytest.raises(ValueError, match="must be two folders, received links to the same one"):
        load_image_folder(tmp_path)


def test_a_folder_beside_those_of_the_splits_is_refused_where_it_holds_images(tmp_path):
    touch(tmp_path, *(f"{part}/{name}/{i}.png" for part in ("train", "val", "test") for name in "ab" for i in range(3)))
    touch(tmp_path, "__MACOSX/train/a/._0.png", "notes/read.txt")
    assert set(load_image_folder(tmp_path).schema.attributes[0].classes) == {"a", "b"}
    touch(tmp_path, "extra/7.png")
    with pytest.raises(ValueError, match="either the folders of splits or those of classes, received 'extra' beside train"):
        load_image_folder(tmp_path)


def test_deep_folders_are_gone_into(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.png" for name in "ab" for i in range(9)))
    here, levels = os.getcwd(), 1500
    try:
        os.chdir(tmp_path / "a")
        for _ in range(levels):
            os.mkdir("x")
            os.chdir("x")
        open("1.png", "w").close()
        os.chdir(here)
        found = {path for split in load_image_folder(tmp_path).splits.values() for path in images(split, tmp_path)}
        assert f"a/{'x/' * levels}1.png" in found
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-r", tmp_path / "a"], check=True)  # Python's own fails by its recursion


def test_classes_that_only_the_test_has_and_names_that_are_nearly_the_same_are_said(tmp_path):
    touch(tmp_path, *(f"{part}/{name}/{i}.png" for part in ("train", "val", "test") for name in ("cat", "dog") for i in range(3)))
    touch(tmp_path, "test/Dog/9.png")
    with pytest.warns(UserWarning) as warned:
        load_image_folder(tmp_path)
    text = " ".join(str(warning.message) for warning in warned)
    assert "1 class is in validation or test and never in train, so nothing can learn it: class=Dog" in text
    assert "learned apart: class: 'Dog' (1 images), 'dog' (9 images)" in text


@pytest.mark.parametrize(
    "names, error, message",
    [
        ([], FileNotFoundError, r"has no image \(\.jpg, .*\) in a folder"),
        (["a/notes.txt"], FileNotFoundError, "has no image"),
        (["a/1.png", "a/2.png"], ValueError, r"must hold 2 classes or more, received \['a'\]"),
        (["a/1.png", "b/2.png"], ValueError, "at least as many samples, received 2; give more images"),
        (["train/a/1.png", "training/b/1.png", "test/a/2.png"], ValueError, "one folder for train, received two"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_read_is_named(tmp_path, names, error, message):
    touch(tmp_path, *names)
    with pytest.raises(error, match=message):
        load_dataset("image_folder", data_dir=str(tmp_path))


def test_the_form_that_a_folder_has_is_named(tmp_path, celeba_dir):
    with pytest.raises(FileNotFoundError, match="it seems to hold CelebA, which --dataset=celeba reads"):
        load_dataset("attribute_csv", data_dir=str(celeba_dir))
    classes = tmp_path / "classes"
    touch(classes, *(f"{name}/{i}.png" for name in "ab" for i in range(9)))
    for name in ("attribute_csv", "celeba", "cifar100", "deepfashion", "xdomain"):
        with pytest.raises(FileNotFoundError, match="a folder of images for each class, which --dataset=image_folder reads"):
            load_dataset(name, data_dir=str(classes))
    table = tmp_path / "table"
    table.mkdir()
    write_csv(table, CSV_ROWS)
    with pytest.raises(FileNotFoundError, match="a table of images and labels, which --dataset=attribute_csv reads"):
        load_dataset("image_folder", data_dir=str(table))
    # Images that are missing are no other dataset.
    with pytest.raises(FileNotFoundError) as missing:
        load_dataset("attribute_csv", data_dir=str(table))
    assert "seems" not in str(missing.value)
    for row in CSV_ROWS[1:]:
        write_image(table / row[0], np.zeros((4, 4, 3)))
    assert load_dataset("attribute_csv", data_dir=str(table)).name == "attribute_csv"
