"""Predictions of files: what is written, in which form, and what becomes of images that cannot be read."""

import csv
import json
import os

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from crl_tf.progress import Progress
from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.serving.export import export_saved_model
from crl_tf.serving.predict import predict_files
from crl_tf.serving.scoring import Scoring
from crl_tf.serving.served import load_served

SCHEMA = AttributeSchema((Attribute("hue", ("red", "green", "blue")), Attribute("=odd", ("+no", "yes"))))
SIZE = (8, 6)
COUNT = 23


def exported(folder, scoring=None, schema=SCHEMA):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((*SIZE, 3))
    features = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(5, kernel_initializer="normal")(features))
    pooled = keras.Model(inputs, features)
    export_saved_model(
        model, schema, SIZE, folder, scoring=scoring, features_and_logits=lambda images: (pooled(images), model(images))
    )
    return load_served(folder)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("served") / "export")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of several sizes and forms, and three that cannot be read, the last one at the end."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        image = rng.integers(0, 256, (rng.integers(5, 40), rng.integers(5, 40), 3), np.uint8)
        keras.utils.save_img(folder / f"{number:02}.{'png' if number % 2 else 'jpg'}", image, scale=False)
    (folder / "05a.jpg").write_bytes(b"no image")
    os.mkfifo(folder / "05b.jpg")
    (folder / "99.png").write_bytes((folder / "01.png").read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def paths(folder):
    return [str(path) for path in sorted(folder.iterdir())]


def rows_of(path):
    if path.suffix == ".csv":
        return list(csv.DictReader(path.open(newline="", encoding="utf-8")))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return pq.read_table(path).to_pylist()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_form_holds_the_same(served, paths, folder, tmp_path, suffix):
    output = tmp_path / f"out{suffix}"
    summary = predict_files(served, paths, output, scores=True, features=True, batch_size=4)
    rows = rows_of(output)
    assert summary.predicted == COUNT and len(rows) == len(paths)
    broken = {str(folder / name) for name in ("05a.jpg", "05b.jpg", "99.png")}
    assert {path for path, _ in summary.unreadable} == broken and all(reason for _, reason in summary.unreadable)
    assert [row["path"] for row in rows] == paths
    assert list(rows[0])[-1] == "error"
    for row in rows:
        if row["path"] in broken:
            assert row["error"] and all(value in (None, "") for name, value in row.items() if name not in ("path", "error"))
        else:
            assert row["error"] in (None, "")
    rows = [row for row in rows if row["path"] not in broken]
    odd = "'=odd" if suffix == ".csv" else "=odd"
    assert list(rows[0])[:9] == [
        "path",
        "hue",
        "hue_score",
        "hue=red",
        "hue=green",
        "hue=blue",
        odd,
        f"{odd}_score",
        f"{odd}=+no",
    ]
    for row in rows:
        content = tf.io.read_file(row["path"])[tf.newaxis]
        answers = served.answer("image_bytes", image_bytes=content)
        scores = [float(row[f"hue={name}"]) for name in ("red", "green", "blue")]
        np.testing.assert_allclose(scores, answers["hue_scores"][0], atol=1e-6)
        assert row["hue"] == SCHEMA.attributes[0].classes[int(np.argmax(scores))]
        assert float(row["hue_score"]) == max(scores)
        features = [float(row[f"feature_{i}"]) for i in range(3)] if suffix == ".csv" else row["features"]
        np.testing.assert_allclose(features, served.answer("features_of_bytes", image_bytes=content)["features"][0], rtol=1e-5)
        assert row[odd] in (("'+no" if suffix == ".csv" else "+no"), "yes")


def test_the_batch_size_changes_nothing(served, paths, tmp_path):
    for size in (1, 3, 100):
        predict_files(served, paths, tmp_path / f"{size}.jsonl", scores=True, batch_size=size)
    one, three, many = (rows_of(tmp_path / f"{size}.jsonl") for size in (1, 3, 100))
    assert [row["hue"] for row in one] == [row["hue"] for row in three] == [row["hue"] for row in many]
    assert [row["error"] for row in one] == [row["error"] for row in three] == [row["error"] for row in many]
    red = [np.array([row["hue=red"] for row in rows], float) for rows in (one, many)]
    np.testing.assert_allclose(red[0], red[1], atol=1e-6)


def test_classes_that_reach_their_threshold_are_named(paths, tmp_path):
    thresholds = np.array([0.3, 0.3, 0.9, 0.5, 0.5])
    served = exported(tmp_path / "export", Scoring(thresholds=thresholds, decision_offsets=-np.log(thresholds)))
    predict_files(served, paths, tmp_path / "out.jsonl", scores=True)
    predict_files(served, paths, tmp_path / "out.csv")
    for row, of_csv in zip(rows_of(tmp_path / "out.jsonl"), rows_of(tmp_path / "out.csv"), strict=True):
        if row["error"]:
            assert row["hue_detected"] is None and of_csv["hue_detected"] == ""
            continue
        scores = np.array([row[f"hue={name}"] for name in ("red", "green", "blue")])
        expected = [name for name, s, t in zip(("red", "green", "blue"), scores, thresholds, strict=False) if s >= np.float32(t)]
        assert row["hue_detected"] == expected and of_csv["hue_detected"] == "|".join(expected)
        assert row["hue"] == ("red", "green", "blue")[int(np.argmax(scores / thresholds[:3]))]


def test_without_a_readable_image_every_row_says_why(served, folder, tmp_path):
    summary = predict_files(served, [str(folder / "05a.jpg"), ""], tmp_path / "out.csv", names=["a", "b"], features=True)
    assert summary.predicted == 0 and [reason for _, reason in summary.unreadable][1] == "missing"
    rows = rows_of(tmp_path / "out.csv")
    assert [row["path"] for row in rows] == ["a", "b"] and rows[1]["error"] == "missing" and rows[1]["feature_0"] == ""
    predict_files(served, [], tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text().startswith('"path","hue","hue_score"') and not rows_of(tmp_path / "none.csv")


def test_progress_sees_every_path_once(served, paths, tmp_path):
    class Counting(Progress):
        def track(self, items, what, total=None):
            seen = list(items)
            self.seen, self.total = seen, total
            return iter(seen)

    progress = Counting()
    predict_files(served, paths, tmp_path / "out.csv", batch_size=4, progress=progress)
    assert progress.seen == list(range(len(paths))) and progress.total == len(paths)


def test_an_output_that_exists_is_kept_and_a_failed_one_is_not_left(served, paths, tmp_path):
    (tmp_path / "old.csv").write_text("precious")
    with pytest.raises(ValueError, match=r"output must be a new file, or --overwrite given, received .*old.csv"):
        predict_files(served, paths, tmp_path / "old.csv")
    with pytest.raises(ValueError, match=r"output must end in .csv, .parquet, .jsonl, received"):
        predict_files(served, paths, tmp_path / "out.txt")

    class Stopping(Progress):
        def track(self, items, what, total=None):
            for place, item in enumerate(items):
                if place == 10:
                    raise KeyboardInterrupt
                yield item

    with pytest.raises(KeyboardInterrupt):
        predict_files(served, paths, tmp_path / "new.csv", batch_size=2, progress=Stopping())
    assert (tmp_path / "old.csv").read_text() == "precious" and [p.name for p in tmp_path.iterdir()] == ["old.csv"]
    with pytest.raises(KeyboardInterrupt):
        predict_files(served, paths, tmp_path / "old.csv", overwrite=True, progress=Stopping())
    assert (tmp_path / "old.csv").read_text() == "precious"
    predict_files(served, paths, tmp_path / "old.csv", overwrite=True)
    assert len(rows_of(tmp_path / "old.csv")) == len(paths)


@pytest.mark.parametrize(
    ("labels", "twice"), [(("error", "b"), "error"), (("hue", "hue_score"), "hue_score"), (("a", "feature_0"), "feature_0")]
)
def test_columns_of_one_name_are_refused(paths, tmp_path, labels, twice):
    schema = AttributeSchema((Attribute(labels[0], ("red", "green", "blue")), Attribute(labels[1], ("no", "yes"))))
    served = exported(tmp_path / "export", schema=schema)
    with pytest.raises(ValueError, match=f"output must have columns of different names, but a label .* a second '{twice}'"):
        predict_files(served, paths, tmp_path / "out.csv", features=True)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_name_that_is_no_text_is_written_with_its_bytes(served, folder, tmp_path, suffix):
    name = os.fsencode(tmp_path) + b"/\xe9.png"
    with open(name, "wb") as file:
        file.write((folder / "01.png").read_bytes())
    summary = predict_files(served, [os.fsdecode(name)], tmp_path / f"out{suffix}")
    assert summary.predicted == 1 and rows_of(tmp_path / f"out{suffix}")[0]["path"] == f"{tmp_path}/\\xe9.png"


def test_an_output_below_a_file_is_refused(served, paths, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"output must lie in a folder that can be written to, received '.*/file/more/out.csv'"):
        predict_files(served, paths, tmp_path / "file" / "more" / "out.csv")
