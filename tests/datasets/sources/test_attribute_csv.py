"""What a table without YAML comes to: CSV and Parquet, paths, the split from the seed, warnings."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import CSV_ROWS, write_csv, write_image

from crl_tf.datasets import load_dataset
from crl_tf.datasets.sources.attribute_csv import load_attribute_csv
from crl_tf.imbalance import class_counts, imbalance_ratio


def load(path: Path):
    return load_dataset("attribute_csv", data_dir=str(path))


def test_reads_classes_and_labels(csv_dir):
    dataset = load(csv_dir)
    # Words in alphabetical order; integers by their value, where the alphabet would put 10 and 100 before 9.
    assert [a.classes for a in dataset.schema.attributes] == [("blue", "green", "red"), ("9", "10", "100")]
    assert dataset.splits["train"].labels.tolist() == [[2, 1], [0, 0], [-1, 0]]
    assert dataset.splits["validation"].labels.tolist() == [[2, -1]]
    assert dataset.splits["test"].labels.tolist() == [[1, 2]]
    assert dataset.splits["train"].images.tolist() == [str(csv_dir / "images" / n) for n in ("a.png", "b.jpg", "c.jpg")]


def test_path_of_the_csv_itself(csv_dir):
    renamed = (csv_dir / "attributes.csv").rename(csv_dir / "other.csv")
    assert len(load(renamed).splits["train"]) == 3
    with pytest.raises(FileNotFoundError, match=r"no file .*attributes\.csv"):
        load(csv_dir)


def test_spreadsheet_habits(csv_dir):
    """Byte order mark, CRLF, quotes, spaces and empty lines change nothing."""
    text = (csv_dir / "attributes.csv").read_text().replace("red", '" red "').replace("\n", "\n\n", 1)
    (csv_dir / "attributes.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load(csv_dir).schema.attributes[0].classes == ("blue", "green", "red")


def test_parquet_of_any_sensible_type_is_the_csv(csv_dir):
    expected = load(csv_dir)
    columns = list(zip(*CSV_ROWS[1:], strict=True))
    text = {name: [value or None for value in column] for name, column in zip(CSV_ROWS[0], columns, strict=True)}
    sizes = [None if s is None else int(s) for s in text["size"]]
    (csv_dir / "attributes.csv").unlink()
    for as_colour, as_size in (
        (pa.array(text["colour"]), pa.array(text["size"])),
        (pa.array(text["colour"], pa.large_string()).dictionary_encode(), pa.array(sizes, pa.int8())),
        # A category that no row has, and one with a space.
        (
            pa.DictionaryArray.from_arrays(pa.array([2, 0, None, 2, 1]), pa.array(["blue", "green", " red", "none"])),
            pa.array(sizes, pa.float64()),
        ),
    ):
        table = {"path": text["path"], "split": text["split"], "colour": as_colour, "size": as_size}
        # Row groups of two, so that a column comes in pieces.
        pq.write_table(pa.table(table), csv_dir / "attributes.parquet", row_group_size=2)
        found = load(csv_dir)
        assert found.schema == expected.schema
        for name, split in found.splits.items():
            np.testing.assert_array_equal(split.labels, expected.splits[name].labels)
            np.testing.assert_array_equal(split.images, expected.splits[name].images)


def test_parquet_truth_values_and_integers(tmp_path):
    table = {
        "path": [f"{i}.png" for i in range(30)],
        "worn": [i % 3 == 0 for i in range(30)],
        "n": [i % 2 - 1 for i in range(30)],
    }
    pq.write_table(pa.table(table), tmp_path / "attributes.parquet")
    dataset = load_attribute_csv(tmp_path, check_images=False)
    assert [a.classes for a in dataset.schema.attributes] == [("false", "true"), ("-1", "0")]
    for split in dataset.splits.values():
        number = [int(Path(path).stem) for path in split.images.tolist()]
        assert split.labels.tolist() == [[int(i % 3 == 0), i % 2] for i in number]


def test_paths_of_every_kind(tmp_path):
    """Absolute, relative, with spaces, accents and detours: all open, and are the paths that were written."""
    folder = tmp_path / "ta ble"
    names = ["bl\u00e5 f\u00e4rg/\u00fc 1.png", "./b.png", "x/../c.png", "\u56fe/d.png", str(tmp_path / "else where" / "e.png")]
    (folder / "x").mkdir(parents=True)
    for name in names:
        write_image(folder / name, np.zeros((2, 2, 3)))
    rows = [
        [name, split, label]
        for name, split, label in zip(names, ["train", "train", "train", "val", "test"], "ababa", strict=True)
    ]
    write_csv(folder, [["path", "split", "label"], *rows])
    with pytest.raises(ValueError, match=r"line 6: 1 of 5 images lie outside of the table's folder.*--allow_outside_root reads"):
        load(folder)
    splits = load_attribute_csv(folder, allow_outside_root=True).splits.values()
    assert [p for s in splits for p in s.images.tolist()] == [os.path.join(folder, name) for name in names]


def test_relative_data_dir(csv_dir, monkeypatch):
    monkeypatch.chdir(csv_dir)
    for data_dir in (".", "attributes.csv"):
        assert all(os.path.isfile(path) for path in load(data_dir).splits["train"].images.tolist())


def test_a_file_that_cannot_be_listed_is_asked_for(csv_dir, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(load(csv_dir).splits["train"]) == 3
    (csv_dir / "images" / "c.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 5 images are missing, the first: 'images/c\.jpg' \(line 4\)"):
        load(csv_dir)


def test_each_folder_is_listed_once_and_no_file_asked_for(tmp_path, monkeypatch):
    names = [f"{folder}/{i}.png" for i in range(20) for folder in ("one", "two")]
    for name in names:
        write_image(tmp_path / name, np.zeros((1, 1, 3)))
    write_csv(tmp_path, [["path", "label"], *([name, name[:3]] for name in names)])
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(str(folder)) or scandir(folder))
    asked, isfile = [], os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: asked.append(str(path)) or isfile(path))
    load_attribute_csv(tmp_path / "attributes.csv")
    assert sorted(listed) == [f"{tmp_path}/one/", f"{tmp_path}/two/"]
    assert not [path for path in asked if path.endswith("png")]


def test_missing_images_are_let_pass_on_request(csv_dir):
    (csv_dir / "images" / "a.png").unlink()
    assert len(load_attribute_csv(csv_dir, check_images=False).splits["train"]) == 3


def write_unsplit(folder: Path, count: int = 200) -> None:
    """Colours at 1:9, sizes at 1:3, three rows of one person in a row."""
    rows = [[f"{i}.png", "red" if i % 10 == 0 else "blue", "ab"[i % 4 == 0], f"person {i // 3}"] for i in range(count)]
    write_csv(folder, [["path", "colour", "size", "group"], *rows])


def test_split_from_the_seed(tmp_path):
    write_unsplit(tmp_path)
    first, again, other = (load_attribute_csv(tmp_path, seed=seed, check_images=False) for seed in (1, 1, 2))
    assert first.schema.names == ("colour", "size")
    paths = {name: split.images.tolist() for name, split in first.splits.items()}
    assert paths == {name: split.images.tolist() for name, split in again.splits.items()}
    assert paths["test"] != other.splits["test"].images.tolist()
    assert sorted(path for of in paths.values() for path in of) == sorted(f"{tmp_path}/{i}.png" for i in range(200))
    persons = {name: {int(Path(path).stem) // 3 for path in of} for name, of in paths.items()}
    for name, split in first.splits.items():
        # Group numbers are those of the persons, in both directions.
        stems = [int(Path(path).stem) // 3 for path in paths[name]]
        assert split.extras["group"].dtype == np.int32
        assert len(set(zip(stems, split.extras["group"].tolist(), strict=True))) == len(persons[name])
        assert set(split.labels[:, 0]) == {0, 1} and set(split.labels[:, 1]) == {0, 1}
    assert not persons["train"] & persons["validation"] and not persons["test"] & (persons["train"] | persons["validation"])
    assert 150 <= len(first.splits["train"]) <= 170


def test_rows_without_a_group_stand_alone(tmp_path):
    rows = [[f"{i}.png", "ab"[i % 2], "g" if i < 4 else ""] for i in range(40)]
    write_csv(tmp_path, [["path", "label", "group"], *rows])
    splits = load_attribute_csv(tmp_path, check_images=False).splits
    groups = np.concatenate([split.extras["group"] for split in splits.values()])
    assert sorted(groups.tolist()) == [-1] * 36 + [0] * 4
    assert sum((split.extras["group"] == 0).any() for split in splits.values()) == 1


def test_groups_across_the_splits_of_the_table_are_counted(csv_dir):
    groups = ["group", "a", "a", "b", "b", "c"]
    write_csv(csv_dir, [[*row, group] for row, group in zip(CSV_ROWS, groups, strict=True)])
    with pytest.warns(UserWarning, match=r"1 of 3 groups stand in more than one split of the table"):
        assert load(csv_dir).splits["train"].extras["group"].tolist()[:2] == [0, 0]


def test_class_that_is_never_in_train_is_warned_of(csv_dir):
    with pytest.warns(UserWarning, match=r"2 classes are in validation or test and never in train.*: colour=green, size=100$"):
        load(csv_dir)
    write_csv(csv_dir, [row if i < 3 else [*row[:2], "red", "10"] for i, row in enumerate(CSV_ROWS)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(csv_dir)


def test_column_of_names_is_warned_of(tmp_path):
    write_csv(tmp_path, [["path", "label", "note"], *([f"{i}.png", "ab"[i % 2], f"note {i}"] for i in range(300))])
    with pytest.warns(UserWarning, match=r"column 'note' has 300 classes in 300 rows; if it is no label, ignore it"):
        load_attribute_csv(tmp_path, check_images=False)


def test_real_fashion_products(real_data):
    dataset = load(real_data / "fashion_product")
    assert [len(s) for s in dataset.splits.values()] == [15555, 2210, 4456]
    # Distinct values of the CSV's columns; season and usage have empty cells, which are no class.
    assert dict(zip(dataset.schema.names, dataset.schema.num_classes, strict=True)) == {
        "gender": 5,
        "masterCategory": 7,
        "subCategory": 44,
        "articleType": 137,
        "baseColour": 46,
        "season": 4,
        "usage": 8,
    }
    counts = class_counts(dataset.splits["train"].labels, dataset.schema.num_classes)
    assert imbalance_ratio(counts[-1]) > 1000
    assert (dataset.splits["train"].labels == -1).any()
