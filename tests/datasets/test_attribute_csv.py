from __future__ import annotations

import copy
from pathlib import Path

import pytest
from dataset_files import CSV_ROWS, write_csv

from crl_tf.datasets import load_dataset
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


def changed(line: int, column: int, value: str) -> list[list[str]]:
    rows = copy.deepcopy(CSV_ROWS)
    rows[line - 1][column] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (changed(1, 0, "file"), ValueError, r"line 1: missing column\(s\) \['path'\], received \['file', 'split'"),
        (changed(1, 1, "part"), ValueError, r"line 1: missing column\(s\) \['split'\]"),
        (changed(1, 3, "colour"), ValueError, r"line 1: column names must be distinct, repeated: \['colour'\]"),
        (changed(1, 3, " "), ValueError, r"line 1: column 4 has no name"),
        (changed(4, 1, "dev"), ValueError, r"line 4: split must be one of .*received 'dev'"),
        (changed(5, 1, "train"), ValueError, r"every split needs at least one row, none for \['validation'\]"),
        (changed(3, 0, "images/x.jpg"), FileNotFoundError, r"1 of 5 images are missing, the first: 'images/x\.jpg' \(line 3\)"),
        (changed(6, 0, "images/a.png"), ValueError, r"line 6: image 'images/a\.png' is in train and in test"),
        ([row[:2] for row in CSV_ROWS], ValueError, r"line 1: at least one column beside path and split"),
        ([*CSV_ROWS[:2], CSV_ROWS[2][:3], *CSV_ROWS[3:]], ValueError, r"line 3: 4 values expected, received 3"),
        (
            [[*row[:3], "same"] for row in CSV_ROWS],
            ValueError,
            r"column 'same' must hold at least 2 classes, received \['same'\]",
        ),
        ([*CSV_ROWS[:1], *([*row[:3], ""] for row in CSV_ROWS[1:])], ValueError, r"column 'size' must hold .* received \[\]"),
        (CSV_ROWS[:1], ValueError, r"holds no row below its header"),
        ([], ValueError, r"line 1: missing column\(s\) \['path', 'split'\], received \[\]"),
    ],
)
def test_malformed(csv_dir, rows, error, message):
    write_csv(csv_dir, rows)
    with pytest.raises(error, match=message):
        load(csv_dir)


def test_text_that_is_no_csv(csv_dir):
    path = csv_dir / "attributes.csv"
    path.write_bytes(path.read_bytes().replace(b"blue", b"bl\xffue"))
    with pytest.raises(ValueError, match=r"attribute_csv: .*attributes\.csv, after line \d+: 'utf-8' codec"):
        load(csv_dir)


def test_data_dir_is_needed():
    with pytest.raises(ValueError, match=r"data_dir must be a CSV file or a folder with attributes\.csv, received None"):
        load_dataset("attribute_csv")


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
