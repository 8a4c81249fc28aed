"""A run and its data belong together: labels, classes and rows that changed since it was started are refused and named."""

import csv
import shutil

import numpy as np
import pytest

from crl_tf.datasets.source import Dataset, Split
from crl_tf.experiment import run as experiment
from crl_tf.experiment.config import from_json, override
from crl_tf.experiment.same_data import check_same_data, described, digests, schema_differences
from crl_tf.files import read_json, write_json
from crl_tf.schema import Attribute, AttributeSchema

SCHEMA = AttributeSchema((Attribute("hue", ("red", "blue")), Attribute("size", ("s", "l"))))


@pytest.fixture(scope="module")
def trained(shop, tmp_path_factory):
    """A folder with a copy of the data, and the finished run of one epoch on it."""
    folder = tmp_path_factory.mktemp("together")
    shutil.copytree(shop, folder / "data")
    recipe = from_json(
        {
            "dataset": "attribute_csv",
            "model": "cifarnet",
            "method": "ce",
            "network": {"width": 0.1},
            "data": {"dir": str(folder / "data"), "image_size": [16, 16]},
            "train": {"epochs": 1, "batch_size": 16, "learning_rate": 0.001},
        }
    )
    experiment.run(recipe, folder / "run", export=False)
    return folder, recipe


@pytest.fixture
def together(trained, tmp_path):
    """A copy of that run in its place, whose table `edit` changes; what it was is put back afterwards."""
    folder, recipe = trained
    shutil.copytree(folder / "run", tmp_path / "run")
    table = folder / "data" / "attributes.csv"
    before = table.read_bytes()

    def edit(change):
        with open(table, newline="") as file:
            rows = list(csv.reader(file))
        with open(table, "w", newline="") as file:
            csv.writer(file).writerows(change(rows))

    yield tmp_path / "run", recipe, edit
    table.write_bytes(before)


def more_epochs(recipe):
    return override(recipe, {"train.epochs": 2})


def with_colour(rows, old, new, most=99):
    """The rows with another name for a colour, in the first `most` rows that have it."""
    places = [place for place, row in enumerate(rows) if row[2] == old][:most]
    return [[*row[:2], new, *row[3:]] if place in places else row for place, row in enumerate(rows)]


CHANGES = {
    "two cells of a new class": (lambda rows: with_colour(rows, "red", "brown", 2), "'colour' has the new class 'brown'"),
    "a class renamed": (
        lambda rows: with_colour(rows, "red", "a red"),
        "'colour' lacks the class 'red' and has the new class 'a red'",
    ),
    "a label more": (
        lambda rows: [[*rows[0], "kind"], *([*row, ("x", "y")[place % 2]] for place, row in enumerate(rows[1:]))],
        "'kind' new",
    ),
    "a label less": (lambda rows: [row[:3] for row in rows], "'size' missing"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_labels_or_classes_are_refused_even_where_rows_may_change(together, change):
    workdir, recipe, edit = together
    edit(CHANGES[change][0])
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=f"resume .*the labels are not those .*: {CHANGES[change][1]}"):
        experiment.run(more_epochs(recipe), workdir, resume=True, changed_rows=True)
    with pytest.raises(ValueError, match=f"evaluate .*the labels are not those .*: {CHANGES[change][1]}"):
        experiment.evaluate(workdir, changed_rows=True)
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before


ROWS = {
    "a training image less": (lambda rows: rows[:1] + rows[2:], "train had 36 images and has 35"),
    "a test label changed": (
        lambda rows: [*rows[:-1], [*rows[-1][:2], "red" if rows[-1][2] != "red" else "blue", rows[-1][3]]],
        "test has as many images, 12, but other files, pixels, labels or another order",
    ),
    "another order": (lambda rows: [rows[0], rows[2], rows[1], *rows[3:]], "train has as many images, 36, but"),
}


@pytest.mark.parametrize("change", ROWS)
def test_other_rows_are_refused_unless_they_are_meant(together, change, caplog):
    workdir, recipe, edit = together
    edit(ROWS[change][0])
    refusal = f"{ROWS[change][1]}.*Pass --allow_changed_rows to go on"
    with pytest.raises(ValueError, match=refusal):
        experiment.evaluate(workdir)
    with pytest.raises(ValueError, match=refusal):
        experiment.run(more_epochs(recipe), workdir, resume=True)
    experiment.evaluate(workdir, changed_rows=True)
    assert "going on, as --allow_changed_rows says" in caplog.text
    experiment.run(more_epochs(recipe), workdir, resume=True, changed_rows=True, export=False)
    experiment.evaluate(workdir)  # config.json holds the rows that it ended with


def test_what_older_versions_did_not_write_is_not_compared(together):
    workdir, recipe, _ = together
    content = read_json(workdir / "config.json")
    write_json(workdir / "config.json", {key: content[key] for key in ("recipe", "versions")})
    assert experiment.run(more_epochs(recipe), workdir, resume=True, export=False)["epochs"] == 2


def test_differences_of_schemas_are_named():
    def differ(*attributes):
        return schema_differences(SCHEMA, AttributeSchema(tuple(Attribute(*one) for one in attributes)))

    hue, size = ("hue", ("red", "blue")), ("size", ("s", "l"))
    assert differ(hue, size) == []
    assert differ(size, hue) == ["the labels are in another order: size, hue instead of hue, size"]
    assert differ(("hue", ("blue", "red")), size) == ["'hue' has its classes in another order: blue, red instead of red, blue"]
    assert differ(("hue", ("red", "gray")), ("size", ("s", "l", "m"))) == [
        "'hue' lacks the class 'blue' and has the new class 'gray'",
        "'size' has the new class 'm'",
    ]
    assert differ(hue, ("sizes", ("s", "l"))) == ["'size' missing", "'sizes' new"]


def test_a_set_that_moved_has_the_same_digest_and_one_with_another_pixel_has_not():
    labels = np.array([[0, 1], [1, -1]], np.int32)

    def of(images, labels=labels):
        split = Split(images, labels)
        return digests(Dataset("a", SCHEMA, dict.fromkeys(("train", "validation", "test"), split)))["train"]

    assert of(np.array(["/here/a/1.png", "/here/b/2.png"])) == of(np.array(["/there/x/a/1.png", "/there/x/b/2.png"]))
    assert of(np.array(["/here/a/1.png", "/here/b/2.png"])) != of(np.array(["/here/a/1.png", "/here/c/2.png"]))
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    other = pixels.copy()
    other[1, 3, 3, 2] = 1
    assert of(pixels) == of(pixels.copy()) != of(other)
    assert of(pixels) != of(pixels, labels[::-1])
    assert of(pixels, labels.astype(np.int8)) == of(pixels)


def test_digests_are_compared_only_where_both_are_known():
    split = Split(np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 2), np.int32))
    dataset = Dataset("a", SCHEMA, dict.fromkeys(("train", "validation", "test"), split))
    kept = described(dataset, {"train": "a"})
    check_same_data(kept, dataset, {}, where="resume")
    check_same_data({}, dataset, {"train": "a"}, where="resume")
    with pytest.raises(ValueError, match=r"resume: the rows are not those.*Pass --allow_changed_rows"):
        check_same_data(kept, dataset, {"train": "b"}, where="resume")
    check_same_data(kept, dataset, {"train": "b"}, where="resume", changed_rows=True)
    with pytest.raises(ValueError, match=r"Scores on other rows cannot be compared: begin anew"):
        check_same_data(kept, dataset, {"train": "b"}, where="resume", changed_rows=None)
