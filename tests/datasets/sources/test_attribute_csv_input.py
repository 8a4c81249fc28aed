"""What is wrong with a table is said in one line, with the row."""

from __future__ import annotations

import copy

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import CSV_ROWS, write_csv

from crl_tf.datasets import load_dataset
from crl_tf.datasets.sources.attribute_csv import load_attribute_csv


def changed(line: int, column: int, value: str) -> list[list[str]]:
    rows = copy.deepcopy(CSV_ROWS)
    rows[line - 1][column] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (changed(1, 0, "file"), ValueError, r"missing column\(s\) \['path'\], received \['file', 'split'"),
        (changed(1, 3, "colour"), ValueError, r"line 1: column names must be distinct, repeated: \['colour'\]"),
        (changed(1, 1, "Split"), ValueError, r"column 'Split' is no label but nearly 'split': rename it, write split: Split in"),
        (changed(1, 3, " "), ValueError, r"column 4 has no name, and does not number the rows"),
        (changed(4, 1, "dev"), ValueError, r"line 4: split must be one of .*received 'dev'"),
        (changed(4, 1, ""), ValueError, r"line 4: split must be one of .*received ''"),
        (
            changed(5, 1, "train"),
            ValueError,
            r"every split needs at least one row, none for \['validation'\]; for a split drawn from the seed,"
            r" take the column 'split' out, or write split: \{train",
        ),
        (changed(3, 0, "images/x.jpg"), FileNotFoundError, r"1 of 5 images are missing, the first: 'images/x\.jpg' \(line 3\)"),
        (
            changed(3, 0, "nowhere/x.jpg"),
            FileNotFoundError,
            r"nowhere/x\.jpg. \(line 3\), looked for at /.*/nowhere/x\.jpg; --skip_unreadable leaves out what is missing$",
        ),
        (changed(3, 0, "images"), FileNotFoundError, r"the first: 'images' \(line 3\)"),
        (changed(3, 0, ""), ValueError, r"line 3: column 'path' must name an image, received nothing"),
        (
            changed(6, 0, "images/a.png"),
            ValueError,
            r"line 6: image 'images/a\.png' is in train and in test, first on line 2; keep one of the rows",
        ),
        (
            changed(3, 0, "images/../images//./a.png"),
            ValueError,
            r"line 3: image 'images/../images//./a\.png' is listed twice, first on line 2 as 'images/a\.png'; keep one",
        ),
        (
            [*CSV_ROWS, *CSV_ROWS[1:]],
            ValueError,
            r"line 7: image 'images/a\.png' is listed twice, first on line 2; so are 4 more rows",
        ),
        ([row[:2] for row in CSV_ROWS], ValueError, r"at least one column beside path and split must be a label"),
        ([*CSV_ROWS[:2], CSV_ROWS[2][:3], *CSV_ROWS[3:]], ValueError, r"line 3: 4 values expected, received 3"),
        (
            changed(3, 2, "NaN"),
            ValueError,
            r"line 3: label 'colour' holds 'NaN'; leave the cell empty .*, or list 'NaN' under missing",
        ),
        (
            [[*row[:3], "same"] for row in CSV_ROWS],
            ValueError,
            r"column 'same' must hold at least 2 classes, received \['same'\]",
        ),
        ([*CSV_ROWS[:1], *([*row[:3], ""] for row in CSV_ROWS[1:])], ValueError, r"column 'size' must hold .* received \[\]"),
        (CSV_ROWS[:1], ValueError, r"holds no row below its header"),
        ([], ValueError, r"attributes\.csv is empty"),
        (
            [["path", "colour"], ["images/a.png", "red"], ["images/b.jpg", "blue"]],
            ValueError,
            r"3 parts need at least as many samples, received 2; give a split column or more rows",
        ),
    ],
)
def test_malformed(csv_dir, rows, error, message):
    write_csv(csv_dir, rows)
    with pytest.raises(error, match=message) as raised:
        load_dataset("attribute_csv", data_dir=str(csv_dir))
    assert str(raised.value).startswith("attribute_csv: ") and "\n" not in str(raised.value)


def test_lines_are_counted_as_an_editor_does(csv_dir):
    """A row's line is the one on which it begins, whatever empty lines and values of two lines stand before it."""
    two = '"one\ntwo"'
    text = f"\npath,split,note,colour\n\nimages/a.png,train,{two},red\nimages/b.jpg,val,,blue\n\nimages/c.jpg,tset,{two},red\n"
    (csv_dir / "attributes.csv").write_text(text)
    assert text.splitlines()[7].startswith("images/c.jpg")
    with pytest.raises(ValueError, match=r"line 8: split must be one of .*received 'tset'"):
        load_attribute_csv(csv_dir)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("blue", "bl\xff", r"line 3: the byte 0xff is no UTF-8; save it as UTF-8"),
        ("images/b.jpg", "images/\xff.jpg", r"line 3: the byte 0xff is no UTF-8; save it as UTF-8"),
        # A quotation mark that is never closed takes in the rest of the file.
        (",blue", ',"blue', r"line 3: unexpected end of data"),
        # Two of them: what lies between becomes one value, of a row of the right width.
        (",blue,9\nimages/c.jpg,train,,9", ',"blue,9\nimages/c.jpg,train,"x,9', r"line 3: ',' expected after '\"'"),
    ],
)
def test_text_that_is_no_csv(csv_dir, old, new, message):
    path = csv_dir / "attributes.csv"
    text = path.read_text().replace("\r\n", "\n")
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode("latin1"))
    with pytest.raises(ValueError, match=message):
        load_attribute_csv(csv_dir)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1.0, 2.0, float("nan"), 1.0]), r"row 3: column 'label' holds NaN; write null where nothing is annotated"),
        (pa.array([1.0, 2.5, None, 1.0]), r"row 2: column 'label' holds 2\.5; a class is text or a whole number"),
        (pa.array([1.0, 2.0, None, float("inf")]), r"row 4: column 'label' holds inf; a class is"),
        (pa.array(["a", "b", None, "nan"]), r"row 4: label 'label' holds 'nan'; leave the cell empty"),
        (pa.array([["a"], ["b"], [], ["c"]]), r"column 'label' must hold text, truth values or whole numbers, received list<"),
        (pa.array([None] * 4), r"column 'label' must hold at least 2 classes, received \[\]"),
        (pa.array(["a", "a", None, "a"]), r"column 'label' must hold at least 2 classes, received \['a'\]"),
    ],
)
def test_parquet_values_that_are_no_class(tmp_path, column, message):
    pq.write_table(pa.table({"path": list("abcd"), "label": column}), tmp_path / "attributes.parquet")
    with pytest.raises(ValueError, match=message):
        load_attribute_csv(tmp_path, check_images=False)


def test_parquet_columns_of_the_wrong_kind(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"path": [1, 2], "label": ["a", "b"]}), path)
    with pytest.raises(ValueError, match=r"column 'path' must hold text, received int64"):
        load_attribute_csv(path)
    pq.write_table(pa.table({"path": ["a", "b"], "split": ["train", None], "label": ["a", "b"]}), path)
    with pytest.raises(ValueError, match=r"row 2: split must be one of .*, received nothing"):
        load_attribute_csv(path)
    pq.write_table(pa.table({"path": ["a", None], "label": ["a", "b"]}), path)
    with pytest.raises(ValueError, match=r"row 2: column 'path' must name an image"):
        load_attribute_csv(path)
    pq.write_table(pa.table({"path": pa.array([], pa.string()), "label": pa.array([], pa.string())}), path)
    with pytest.raises(ValueError, match=r"t\.parquet holds no row$"):
        load_attribute_csv(path)


def test_file_that_is_no_parquet(csv_dir):
    path = (csv_dir / "attributes.csv").rename(csv_dir / "attributes.parquet")
    with pytest.raises(ValueError, match=r"attributes\.parquet is not a readable Parquet file: .*magic bytes"):
        load_attribute_csv(path)
    pq.write_table(pa.table({"path": ["a"] * 99, "label": [str(i % 7) for i in range(99)]}), path, compression="none")
    whole = path.read_bytes()
    path.write_bytes(b"PAR1" + b"\x00" * 60 + whole[64:])
    with pytest.raises(ValueError, match=r"attributes\.parquet is not a readable Parquet file: "):
        load_attribute_csv(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"attributes\.csv is empty$"),
        (
            "path;split;size\na.png;train;10\n",
            r"line 1: values must be separated by commas, received 'path;split;size'; save it with",
        ),
        ("path\tsplit\na.png\ttrain\n", r"line 1: values must be separated by commas, received 'path\\tsplit'"),
    ],
)
def test_empty_or_not_separated_by_commas(csv_dir, text, message):
    (csv_dir / "attributes.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_attribute_csv(csv_dir)


def test_what_data_dir_must_be(csv_dir, tmp_path):
    with pytest.raises(
        ValueError, match=r"data_dir must be a table .*or a folder with attributes\.csv or attributes\.parquet, received None"
    ):
        load_dataset("attribute_csv")
    with pytest.raises(FileNotFoundError, match=r"no file .*/images/attributes\.csv, nor attributes\.parquet beside it"):
        load_attribute_csv(csv_dir / "images")
    (csv_dir / "attributes.parquet").touch()
    with pytest.raises(ValueError, match=r"holds attributes\.csv and attributes\.parquet; name one of them as data_dir"):
        load_attribute_csv(csv_dir)
