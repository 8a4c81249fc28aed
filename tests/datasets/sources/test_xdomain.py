"""X-Domain from a manifest: the nine attributes, and the paper's sizes at random."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import write_image

from crl_tf.datasets.sources.xdomain import ATTRIBUTES, load_xdomain
from crl_tf.experiment.config import load_recipe

# Sizes between 6 and 55 that come to 178; the publisher's own are not known to us.
CLASSES = (20, 55, 25, 12, 27, 10, 6, 16, 7)


def cell(row: int, attribute: int) -> str:
    return "" if row % 50 == attribute else f"{ATTRIBUTES[attribute]} {row % 3}"


def write_manifest(folder: Path, count: int = 300, columns=("path", *ATTRIBUTES)) -> Path:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([f"{row}.jpg", *(cell(row, a) for a in range(9))][: len(columns)] for row in range(count))
    return folder


def test_smaller_manifest(tmp_path):
    with pytest.warns(UserWarning, match=r"the paper has 245,467 images, the manifest 300 rows; divided .*: 190 / 12 / 98"):
        dataset = load_xdomain(write_manifest(tmp_path), seed=4, check_images=False)
    assert dataset.name == "xdomain" and dataset.schema.names == ATTRIBUTES
    assert [len(split) for split in dataset.splits.values()] == [190, 12, 98]
    rows = [int(Path(path).stem) for split in dataset.splits.values() for path in split.images.tolist()]
    assert sorted(rows) == list(range(300))
    labels = np.concatenate([split.labels for split in dataset.splits.values()])
    assert labels.tolist() == [[-1 if row % 50 == a else row % 3 for a in range(9)] for row in rows]


@pytest.mark.filterwarnings("ignore:xdomain")
def test_seed(tmp_path):
    write_manifest(tmp_path)
    first, again, other = (load_xdomain(tmp_path, seed=s, check_images=False).splits["test"].images.tolist() for s in (1, 1, 2))
    assert first == again != other


def test_the_papers_numbers(tmp_path):
    count = 245_467
    columns = {"path": pa.array([f"{i}.jpg" for i in range(count)])}
    for name, classes in zip(ATTRIBUTES, CLASSES, strict=True):
        columns[name] = pa.array([f"c{i}" for i in range(classes)]).take(pa.array(np.arange(count) % classes))
    pq.write_table(pa.table(columns), tmp_path / "manifest.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = load_xdomain(tmp_path, check_images=False)
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 155_467,
        "validation": 10_000,
        "test": 80_000,
    }
    assert dataset.schema.num_classes == CLASSES and dataset.schema.width == 178
    columns["Shape"] = columns["Length"]
    pq.write_table(pa.table(columns), tmp_path / "manifest.parquet")
    with pytest.warns(UserWarning, match=r"the paper has 178 classes, .*manifest\.parquet has 174"):
        load_xdomain(tmp_path, check_images=False)


@pytest.mark.filterwarnings("ignore:xdomain")
def test_order_of_classes_from_yaml(tmp_path):
    write_manifest(tmp_path, columns=("path", *ATTRIBUTES))
    (tmp_path / "classes.yaml").write_text("Length: [Length 2, Length 0, Length 1]\nColour:\n")
    schema = load_xdomain(tmp_path, check_images=False).schema
    assert schema.attributes[6].classes == ("Length 2", "Length 0", "Length 1")
    assert schema.attributes[1].classes == ("Colour 0", "Colour 1", "Colour 2")


@pytest.mark.filterwarnings("ignore:xdomain")
@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("Size: [a, b]", r"attributes must be some of \['Category', .*, received \['Size'\]"),
        ("Length: {absent: a, present: b}", r"classes\.yaml: Length must be a list of classes, or nothing"),
        (
            "Length: [Length 0, Length 1]",
            r"line 4: label 'Length' must be one of \['Length 0', 'Length 1'\], received 'Length 2'",
        ),
    ],
)
def test_wrong_classes(tmp_path, yaml, message):
    (write_manifest(tmp_path) / "classes.yaml").write_text(yaml)
    with pytest.raises(ValueError, match=message) as raised:
        load_xdomain(tmp_path, check_images=False)
    assert str(raised.value).startswith("xdomain: ")


def test_wrong_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"xdomain: no file .*manifest\.csv, nor manifest\.parquet beside it"):
        load_xdomain(tmp_path)
    with pytest.raises(ValueError, match=r"xdomain: data_dir must be a table .*received None"):
        load_xdomain(None)
    write_manifest(tmp_path, columns=("path", *ATTRIBUTES[:-1]))
    with pytest.raises(ValueError, match=r"xdomain: .*missing column\(s\) \['Sleeve-Length'\]"):
        load_xdomain(tmp_path)
    write_manifest(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"xdomain: .*300 of 300 images are missing, the first: '0\.jpg' \(line 2\)"):
        load_xdomain(tmp_path)
    write_manifest(tmp_path, count=2)
    with pytest.raises(ValueError, match=r"column 'Category' must hold at least 2 classes|at least 3 rows are needed"):
        load_xdomain(tmp_path, check_images=False)


@pytest.mark.filterwarnings("ignore:xdomain")
def test_images_are_looked_for(tmp_path):
    write_manifest(tmp_path, count=6)
    for row in range(6):
        write_image(tmp_path / f"{row}.jpg", np.zeros((2, 2, 3)))
    assert [len(split) for split in load_xdomain(tmp_path).splits.values()] == [3, 1, 2]


def test_recipe_is_the_papers():
    recipe = load_recipe("xdomain_paper")
    train = recipe.train
    assert (recipe.dataset, train.batch_size, train.epochs, recipe.crl.eta) == ("xdomain", 128, 256, 0.01)
    assert (train.learning_rate, train.weight_decay, train.momentum) == (0.001, 0.0005, 0.9)
