"""DeepFashion in the publisher's layout, written by `deepfashion_files`: six attributes, nine images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from deepfashion_files import ATTRIBUTES, NAMES, PARTS, VALUES, write_deepfashion, write_lists

from crl_tf.datasets.sources.deepfashion import load_deepfashion


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_deepfashion(tmp_path)


def test_official_split_and_groups(folder):
    dataset = load_deepfashion(str(folder))
    assert dataset.name == "deepfashion"
    assert dataset.schema.names == tuple(name for name, _ in ATTRIBUTES)
    assert all(a.classes == ("absent", "present") for a in dataset.schema.attributes)
    assert dataset.schema.groups == {"shape": (0,), "texture": (1, 3), "fabric": (2,), "part": (4,), "style": (5,)}
    for split, part in (("train", "train"), ("validation", "val"), ("test", "test")):
        rows = [i for i, p in enumerate(PARTS) if p == part]
        found = dataset.splits[split]
        assert list(found.images) == [str(folder / "Img" / NAMES[row]) for row in rows]
        assert all(Path(image).is_file() for image in found.images)
        # 1 is present, -1 absent, 0 unknown and so not annotated.
        expected = [[{1: 1, -1: 0, 0: -1}[v] for v in VALUES[row].tolist()] for row in rows]
        np.testing.assert_array_equal(found.labels, expected)
        assert found.labels.dtype == np.int8


def test_the_newer_folder_of_the_lists_and_images_beside_them(folder):
    (folder / "Anno").rename(folder / "Anno_coarse")
    (folder / "Img" / "img").rename(folder / "img")
    dataset = load_deepfashion(str(folder))
    assert dataset.splits["test"].images[0] == str(folder / NAMES[7])


def test_lists_alone_are_enough_where_images_are_not_checked(tmp_path):
    dataset = load_deepfashion(str(write_lists(tmp_path)), check_images=False)
    assert [len(s) for s in dataset.splits.values()] == [5, 2, 2]


def test_missing_folder_and_files_are_named_with_the_layout(folder, tmp_path):
    with pytest.raises(ValueError, match=r"needs --data_dir, a folder with Anno/ or Anno_coarse/ with list_attr_cloth\.txt"):
        load_deepfashion(None)
    with pytest.raises(
        FileNotFoundError, match=r"must hold Anno/ .*; .*nowhere lacks Anno/list_attr_cloth\.txt, Anno/list_attr_img"
    ):
        load_deepfashion(str(tmp_path / "nowhere"))
    (folder / NAMES[0]).parent.mkdir(parents=True)  # img/ in vain, since Img/img/ comes first
    for name in (NAMES[1], NAMES[4]):
        (folder / "Img" / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"2 of 9 listed images are missing in .*Img, the first: {NAMES[1]}"):
        load_deepfashion(str(folder))
    (folder / "Eval" / "list_eval_partition.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks Eval/list_eval_partition\.txt$"):
        load_deepfashion(str(folder))


def test_images_nowhere(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has neither Img/img/ nor img/$"):
        load_deepfashion(str(write_lists(tmp_path)))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("Anno/list_attr_cloth.txt", "6\n", "7\n", r"cloth.*the first line says 7 attributes, but 6 follow: the file is cut off"),
        ("Anno/list_attr_cloth.txt", "6\n", "x\n", r"cloth.*the first line must be the number of rows, received 'x'"),
        (
            "Anno/list_attr_cloth.txt",
            "3\n",
            "6\n",
            r"cloth.*line 3: .*its type \(1 = texture, .*5 = style\), received 'a-line +6'",
        ),
        ("Anno/list_attr_cloth.txt", "lace ", "chic ", r"cloth.*line 8: the attribute 'chic' is listed a second time"),
        ("Anno/list_attr_img.txt", "9\n", "10\n", r"attr_img.*the first line says 10 images, but 9 follow: the file is cut off"),
        ("Anno/list_attr_img.txt", " 0", " 2", r"attr_img.*line 3: .* 6 values, each 1, -1 or 0, received '2' as value 2"),
        ("Anno/list_attr_img.txt", " 0", "", r"attr_img.*line 3: .* 6 values, each 1, -1 or 0, received 5 values"),
        ("Anno/list_attr_img.txt", NAMES[3], NAMES[1], rf"attr_img.*1 images are listed more than once, the first: {NAMES[1]}"),
        ("Anno/list_attr_img.txt", NAMES[3], "img/a.jpg", r"list_attr_img.txt and list_eval.*; 2 are in only one of them"),
        ("Eval/list_eval_partition.txt", "9\n", "12\n", r"partition.*the first line says 12 images, but 9 follow"),
        (
            "Eval/list_eval_partition.txt",
            "val\n",
            "query\n",
            r"line 5: expected a file name and train, val or test, received 'img.* query'",
        ),
        ("Eval/list_eval_partition.txt", NAMES[3], NAMES[1], r"partition.*1 images are listed more than once"),
        ("Eval/list_eval_partition.txt", "test", "val", r"split 'test' is empty"),
    ],
)
def test_bad_lists_are_named(folder, file, old, new, message):
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, -1 if old == "test" else 1))
    with pytest.raises(ValueError, match=message):
        load_deepfashion(str(folder))
