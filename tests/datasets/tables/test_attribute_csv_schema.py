"""What the YAML beside a table says, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import write_csv

from crl_tf.datasets.sources.attribute_csv import load_attribute_csv

COLUMNS = ["file_name", "part", "season", "usage", "smiling", "tags", "notes", "person_id"]
ROWS = [
    ["a.png", "train", "Winter", "home", "1", "striped|dotted", "first", "p1"],
    ["b.png", "train", "Spring", "sport", "0", "dotted", "second", "p1"],
    ["c.png", "train", "NA", "home", "", "", "third", "p2"],
    ["d.png", "val", "Summer", "NA", "1", " striped | ", "fourth", "p3"],
    ["e.png", "test", "Fall", "sport", "0", "NA", "fifth", "p4"],
]
YAML = """
path: file_name
root: images
split: part
group: person_id
missing: ["", "NA"]
labels:
  season: [Spring, Summer, Fall, Winter]
  usage:
  smiling: {absent: 0, present: 1}
  tags: {separator: "|", classes: [striped, dotted]}
"""


def write(folder: Path, yaml: str, rows: list[list[str]] = ROWS, columns: list[str] = COLUMNS) -> Path:
    (folder / "schema.yaml").write_text(yaml, encoding="utf-8")
    write_csv(folder, [columns, *rows])
    return folder


def load(folder: Path, **settings):
    return load_attribute_csv(folder, check_images=False, **settings)


@pytest.mark.filterwarnings("ignore:attribute_csv")
def test_every_key(tmp_path):
    dataset = load(write(tmp_path, YAML))
    assert dict(zip(dataset.schema.names, (a.classes for a in dataset.schema.attributes), strict=True)) == {
        "season": ("Spring", "Summer", "Fall", "Winter"),
        "usage": ("home", "sport"),
        "smiling": ("absent", "present"),
        "tags=striped": ("absent", "present"),
        "tags=dotted": ("absent", "present"),
    }
    assert dataset.splits["train"].labels.tolist() == [[3, 0, 1, 1, 1], [0, 1, 0, 0, 1], [-1, 0, -1, -1, -1]]
    assert dataset.splits["validation"].labels.tolist() == [[1, -1, 1, 1, 0]]
    assert dataset.splits["test"].labels.tolist() == [[2, 1, 0, -1, -1]]
    assert dataset.splits["train"].images.tolist() == [f"{tmp_path}/images/{n}.png" for n in "abc"]
    assert dataset.splits["train"].extras["group"].tolist() == [0, 0, 1]


@pytest.mark.filterwarnings("ignore:attribute_csv")
def test_elsewhere_and_classes_discovered(tmp_path):
    yaml = "path: file_name\nsplit: part\nignore: [notes, person_id, season]\nlabels:\n  tags: {separator: '|'}\n  season:\n"
    other = tmp_path / "other.yaml"
    write(tmp_path, "nonsense: 1").joinpath("schema.yaml").rename(other)
    other.write_text(yaml)
    dataset = load(tmp_path, schema=other)
    # Nothing but the empty cell is missing here, so that NA is a class.
    assert dataset.schema.names == ("tags=NA", "tags=dotted", "tags=striped", "season")
    assert dataset.schema.attributes[3].classes == ("Fall", "NA", "Spring", "Summer", "Winter")
    assert dataset.splits["train"].labels[:, :3].tolist() == [[0, 1, 1], [0, 1, 0], [-1, -1, -1]]


@pytest.mark.filterwarnings("ignore:attribute_csv")
def test_discovered_labels_are_all_other_columns(tmp_path):
    dataset = load(write(tmp_path, "path: file_name\nsplit: part\ngroup: person_id\nignore: [notes]\n"))
    assert dataset.schema.names == ("season", "usage", "smiling", "tags")


def test_empty_cell_can_mean_no_class_at_all(tmp_path):
    rows = [[f"{i}.png", ("", "striped", "NA")[i % 3]] for i in range(30)]
    write(tmp_path, "missing: [NA]\nlabels:\n  tags: {separator: ','}\n", rows, ["path", "tags"])
    labels = np.concatenate([split.labels for split in load(tmp_path).splits.values()])
    assert np.bincount(labels[:, 0] + 1).tolist() == [10, 10, 10]


def test_shares_and_a_column_called_split(tmp_path):
    """With shares the column `split` is neither obeyed nor learnt; the schema says nothing of labels."""
    rows = [[f"{i}.png", "train", "ab"[i % 2]] for i in range(100)]
    write(tmp_path, "split: {test: 0.3, train: 0.5, val: 0.2}", rows, ["path", "split", "label"])
    dataset = load(tmp_path)
    assert dataset.schema.names == ("label",)
    assert {name: np.bincount(s.labels[:, 0]).tolist() for name, s in dataset.splits.items()} == {
        "train": [25, 25],
        "validation": [10, 10],
        "test": [15, 15],
    }


def test_yaml_values_are_the_texts_of_the_table(tmp_path):
    """01, No and 1.50 are not made into numbers and truth values; a list given settles that nan is a class."""
    rows = [[f"{i}.png", ["01", "1", "1.50"][i % 3], ["No", "Yes"][i % 2], ["nan", "rye"][i % 2]] for i in range(60)]
    yaml = "labels:\n  n: [1.50, 01, 1]\n  yes: {absent: No, present: Yes}\n  bread: [nan, rye]\n"
    write(tmp_path, yaml, rows, ["path", "n", "yes", "bread"])
    dataset = load(tmp_path)
    assert [a.classes for a in dataset.schema.attributes] == [("1.50", "01", "1"), ("absent", "present"), ("nan", "rye")]
    for split in dataset.splits.values():
        number = [int(Path(path).stem) for path in split.images.tolist()]
        assert split.labels.tolist() == [[[1, 2, 0][i % 3], i % 2, i % 2] for i in number]


def test_class_without_an_image_is_kept_and_warned_of(tmp_path):
    rows = [[f"{i}.png", "ab"[i % 2]] for i in range(30)]
    write(tmp_path, "labels:\n  label: [a, rare, b]\n", rows, ["path", "label"])
    with pytest.warns(UserWarning, match=r"attribute_csv: 1 class has no image: label=rare$"):
        assert load(tmp_path).schema.attributes[0].classes == ("a", "rare", "b")


def replaced(old: str, new: str) -> str:
    assert old in YAML
    return YAML.replace(old, new)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        (
            YAML + "lables: [x]\n",
            r"unknown key 'lables'; known are path, root, suffix, split, group, missing, labels, ignore, normalize, long",
        ),
        (replaced("file_name", "[a]"), r"path must be a text, received \['a'\]"),
        (replaced("file_name", "nix"), r"missing column\(s\) \['nix'\], received \['file_name', "),
        (replaced("split: part", "split: nix"), r"missing column\(s\) \['nix'\]"),
        (replaced("  usage:", "  use:"), r"missing column\(s\) \['use'\]"),
        (replaced("  usage:", "  file_name:"), r"labels: 'file_name' is the column of the image paths"),
        (YAML + "ignore: [note]\n", r"ignore must name columns of the table, received \['note'\]; there are \['file_name'"),
        (YAML + "ignore: notes\n", r"ignore must be a list of texts, received 'notes'"),
        (replaced('["", "NA"]', "{a: b}"), r"missing must be a list of texts, received \{'a': 'b'\}"),
        (
            replaced("split: part", "split: {train: 0.9, val: 0.1}"),
            r"split must be a column, or the shares of train, validation and",
        ),
        (
            replaced("split: part", "split: {train: 0.9, val: 0.1, test: 0.1}"),
            r"positive and 1 in all; received \{'train': '0\.9'",
        ),
        (replaced("split: part", "split: {train: 1, val: 0, test: 0}"), r"positive and 1 in all"),
        (replaced("split: part", "split: {train: x, val: 0, test: 0}"), r"positive and 1 in all"),
        (replaced("split: part", "split: [train]"), r"positive and 1 in all; received \['train'\]"),
        (
            replaced("present: 1", "there: 1"),
            r"labels: smiling must be nothing \(classes discovered\), a list of classes, \{absent",
        ),
        (replaced("present: 1", "present: 0"), r"smiling: absent and present must be two different texts, received"),
        (replaced("Fall, Winter]", "Fall, Fall]"), r"season must be distinct, repeated: \['Fall'\]"),
        (replaced("[Spring, Summer, Fall, Winter]", "[Spring]"), r"season needs at least 2 classes, received \['Spring'\]"),
        (replaced('separator: "|"', 'separator: ""'), r"tags: separator must be a text, received ''"),
        (
            replaced("Fall, Winter]", "Fall]"),
            r"line 2: label 'season' must be one of \['Spring', 'Summer', 'Fall'\], received 'Winter'",
        ),
        (replaced("absent: 0", "absent: 2"), r"line 3: label 'smiling' must be one of \['2', '1'\], received '0'"),
        (
            replaced("classes: [striped, dotted]", "classes: [striped]"),
            r"line 2: label 'tags' must be some of \['striped'\], received 'dotted' in 'striped\|dotted'",
        ),
        (
            replaced('missing: ["", "NA"]', "missing: [NA]"),
            r"line 4: label 'smiling' must be one of .*, received ''; to leave it unannotated, list '' under missing",
        ),
        ("path: [a\n", r"schema\.yaml, line 2: not YAML: expected ',' or '\]'"),
        ("path: a\npath: b\n", r"schema\.yaml, line 2: not YAML: key 'path' is given twice|not YAML: key 'path' is given twice"),
        ("just words", r"schema\.yaml: must be a mapping of keys to values, received 'just words'"),
        ("labels: [a]", r"labels must be a mapping of columns to their classes, received \['a'\]"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, yaml, message):
    write(tmp_path, yaml)
    with pytest.raises(ValueError, match=message) as raised:
        load(tmp_path)
    assert str(raised.value).startswith("attribute_csv: ") and "\n" not in str(raised.value)


def test_schema_that_is_not_there(tmp_path):
    write(tmp_path, "")
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.yaml"):
        load(tmp_path, schema=tmp_path / "nowhere.yaml")


def test_a_class_that_stands_under_missing_is_refused(tmp_path):
    write(tmp_path, YAML.replace('missing: ["", "NA"]', 'missing: ["", "NA", "0"]'))
    with pytest.raises(
        ValueError, match=r"label 'smiling' has the class '0', which stands under missing as well; take it out of"
    ):
        load(tmp_path)


@pytest.mark.parametrize("first, second", [("/x/a.png", "//x/a.png"), ("/x/a.png", "/x/a.png/"), ("/x/a.png", "/x//a.png")])
def test_one_path_written_in_two_ways_is_refused(tmp_path, first, second):
    rows = [[first, *ROWS[0][1:]], *ROWS[1:4], [second, *ROWS[4][1:]]]
    with pytest.raises(ValueError, match=r"is in train and in test, first on line 2 as '/x/a\.png'"):
        load(write(tmp_path, YAML, rows))


def test_groups_are_numbered_by_their_first_row(tmp_path):
    """A Parquet dictionary may list them in any order: the numbers, and with them the seeded split, stay."""
    table = pa.table({"path": [f"{i}.png" for i in range(60)], "label": [str(i % 2) for i in range(60)]})
    group = pa.array([f"g{9 - i // 6}" for i in range(60)])
    found = []
    for name, column in (("plain", group), ("sorted", pa.DictionaryArray.from_arrays(
        pa.array([9 - i // 6 for i in range(60)]), pa.array([f"g{i}" for i in range(10)])))):  # fmt: skip
        pq.write_table(table.append_column("group", column), tmp_path / f"{name}.parquet")
        found.append(load(tmp_path / f"{name}.parquet", seed=3))
    for split in ("train", "validation", "test"):
        assert found[0].splits[split].images.tolist() == found[1].splits[split].images.tolist()
    groups = np.concatenate([found[1].splits[split].extras["group"] for split in ("train", "validation", "test")])
    rows = np.concatenate([found[1].splits[split].images for split in ("train", "validation", "test")]).tolist()
    assert {int(Path(row).stem) // 6 for row, g in zip(rows, groups, strict=True) if g == 0} == {0}
