"""Kinds of bad input, each with the line that a user gets; writes docs/bad-input.md, which a test holds against the program.

python tools/bad_input.py
"""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from crl_tf import CRL, AlphaWarmup, ClassBalancedAccuracy, CRLModel, FocalLoss, LDAMLoss, crl_losses
from crl_tf.datasets import load_dataset
from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.compare import compare
from crl_tf.experiment.config import base_config, from_json, load_recipe, override
from crl_tf.experiment.halving import budget_seconds
from crl_tf.experiment.run import evaluate, run
from crl_tf.experiment.trainers.archive import load_trained
from crl_tf.experiment.trainers.gradient import keep_epochs
from crl_tf.experiment.workdir import read_result, started_with

PAGE = Path(__file__).parents[1] / "docs" / "bad-input.md"

HEAD = """# Bad input

What is wrong is refused in one line that names the argument, the rule and what was received, before anything is trained
or overwritten. These are kinds of bad input, and what each gets. `tools/bad_input.py` makes every one of them and writes
this page; a test holds the page against the program. FOLDER is your folder.
"""


class Case(NamedTuple):
    """A kind of bad input. what: in words. provoke: meets it in an empty folder, and raises."""

    group: str
    what: str
    provoke: Callable[[Path], Any]


ROWS = ["path,split,season", "a.png,train,Summer", "b.png,train,Winter", "c.png,val,Summer", "d.png,test,Winter"]


def table(rows: Sequence[str] = ROWS, schema: str | None = None, images: bool = True) -> Callable[[Path], Any]:
    """Loads a table of these lines, all of whose images are there (empty files)."""

    def provoke(folder: Path) -> None:
        (folder / "attributes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        if schema is not None:
            (folder / "schema.yaml").write_text(schema)
        for name in "abcd" if images else "":
            (folder / f"{name}.png").touch()
        load_dataset("attribute_csv", data_dir=str(folder))

    return provoke


def changed(line: int, text: str) -> list[str]:
    return [*ROWS[: line - 1], text, *ROWS[line:]]


def raw(content: bytes, name: str = "attributes.csv") -> Callable[[Path], Any]:
    """Loads a table of these bytes."""

    def provoke(folder: Path) -> None:
        (folder / name).write_bytes(content)
        load_dataset("attribute_csv", data_dir=str(folder / name))

    return provoke


def special(make: Callable[[Path], Any], name: str = "a.png") -> Callable[[Path], Any]:
    """Loads the table with a file that is none in the place of an image."""

    def provoke(folder: Path) -> None:
        (folder / "attributes.csv").write_text("\n".join(ROWS) + "\n")
        for other in "abcd":
            (folder / f"{other}.png").touch()
        (folder / name).unlink()
        make(folder / name)
        load_dataset("attribute_csv", data_dir=str(folder))

    return provoke


def files(dataset: str, **contents: bytes | str) -> Callable[[Path], Any]:
    """Loads a dataset from a folder of these files; __ in a name is a slash, and _dot_ a dot."""

    def provoke(folder: Path) -> None:
        for name, content in contents.items():
            path = folder / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        load_dataset(dataset, data_dir=str(folder))

    return provoke


def setting(key: str, value: Any) -> Callable[[Path], Any]:
    return lambda _: override(base_config(), {key: value})


def recipe(**settings: Any) -> Callable[[Path], Any]:
    """Assembles a configuration; __ in a name is a dot."""
    return lambda _: assemble(override(base_config(), {key.replace("__", "."): value for key, value in settings.items()}))


def in_folder(content: dict[str, str], use: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Uses a folder that holds these files."""

    def provoke(folder: Path) -> None:
        for name, text in content.items():
            (folder / name).write_text(text)
        use(folder)

    return provoke


def _cifar(train: Any) -> Callable[[Path], Any]:
    content = train if isinstance(train, bytes) else pickle.dumps(train, protocol=2)
    names = pickle.dumps({"fine_label_names": [f"c{k}" for k in range(100)]}, protocol=2)
    return files("cifar100", train=content, test=content, meta=names)


def _bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / "model.keras", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.weights.h5", b"\0" * (400 << 20))
    settings = {"network.pretrained": str(folder / "model.keras"), "model": "cifarnet"}
    assemble(override(base_config(), settings)).check_weights()


def _warm_up(_: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", loss=CRL(2, alpha=0.3))
    model.fit(np.zeros((4, 4)), np.zeros(4), verbose=0, callbacks=[AlphaWarmup(CRL(2, alpha=0.3), 1)])


def _out_of_range(_: Path) -> None:
    inputs = keras.Input((4,))
    model = CRLModel(keras.Model(inputs, {"features": inputs, "logits": keras.layers.Dense(3)(inputs)}))
    model.compile("sgd", loss=FocalLoss(3), jit_compile=True)
    model.fit(tf.data.Dataset.from_tensors((np.zeros((4, 4)), np.full(4, 3))), verbose=0)


def _linked_split(folder: Path) -> None:
    for name in "ab":
        (folder / "train" / name).mkdir(parents=True)
        (folder / "train" / name / "1.jpg").touch()
    (folder / "test").symlink_to("train")
    load_dataset("image_folder", data_dir=str(folder))


def _load_table(folder: Path) -> None:
    load_dataset("attribute_csv", data_dir=str(folder), check_images=False)


def _load_celeba_of(folder: Path, name: str) -> None:
    """Loads a CelebA whose lists name this image, which is there."""
    (folder / "a" / "img_align_celeba").mkdir(parents=True)
    (folder / "1.jpg").touch()
    (folder / "a" / "list_attr_celeba.txt").write_text(f"1\nBald Smiling\n{name} 1 -1\n")
    (folder / "a" / "list_eval_partition.txt").write_text(f"{name} 0\n")
    load_dataset("celeba", data_dir=str(folder / "a"))


def _busy(folder: Path) -> None:
    from crl_tf.experiment.workdir import held

    with held(folder / "run"):
        run(override(load_recipe("handwriting"), {}), folder / "run")


def _of_another_recipe(folder: Path) -> None:
    # As a run writes it: with a precision in place of auto.
    config = override(base_config(), {"train.epochs": 3, "train.precision": "float32"})
    text = json_of({"recipe": config.to_dict()})
    (folder / "config.json").write_text(text)
    run(override(config, {"train.batch_size": 7}), folder, resume=True)


def json_of(content: Any) -> str:
    import json

    return json.dumps(content)


_COCO = {
    "images": [{"id": 1, "file_name": "a.png"}],
    "annotations": [{"image_id": [1], "category_id": 1}],
    "categories": [{"id": 1, "name": "cat"}],
}

TABLE, OTHERS, SETTINGS, FOLDERS, KERAS = (
    "Your table",
    "Other data",
    "Settings",
    "Folders of runs, and weights",
    "In a Keras project",
)
CELEBA = {"list_eval_partition_dot_txt": "1.jpg 0\n2.jpg 1\n3.jpg 2\n", "img_align_celeba__1_dot_jpg": b""}

CASES = (
    Case(TABLE, "no such folder or file", lambda folder: load_dataset("attribute_csv", data_dir=str(folder / "none"))),
    Case(TABLE, "an empty file", raw(b"")),
    Case(TABLE, "a header alone", table(ROWS[:1])),
    Case(TABLE, "semicolons between the values", table(["path;season", "a.png;x"])),
    Case(TABLE, "a column that is there twice", table(changed(1, "path,season,season"))),
    Case(TABLE, "a column without a name that numbers nothing", table(changed(1, "path,split,"))),
    Case(TABLE, "no column of paths", table(changed(1, "file,split,season"))),
    Case(TABLE, "a column that is nearly `split`", table(changed(1, "path,Split,season"))),
    Case(TABLE, "a row with too few values", table(changed(3, "b.png,train"))),
    Case(TABLE, "a quotation mark that is not closed", table(changed(3, 'b.png,train,"Winter'))),
    Case(TABLE, "UTF-16", raw("path,a\n".encode("utf-16"))),
    Case(TABLE, "Latin-1 with accents", raw(b"path,season\na.png,\xe9t\xe9\n")),
    Case(TABLE, "an Excel workbook", raw(b"PK\x03\x04rest")),
    Case(TABLE, "packed by gzip", raw(b"\x1f\x8b\x08rest")),
    Case(TABLE, "a broken Parquet file", raw(b"PAR1rest", "attributes.parquet")),
    Case(TABLE, "a split of another name", table(changed(4, "c.png,dev,Summer"))),
    Case(TABLE, "no row for a split", table(changed(4, "c.png,train,Summer"))),
    Case(TABLE, "an empty path", table(changed(3, ",train,Winter"))),
    Case(TABLE, "one image in two splits", table(changed(5, "a.png,test,Winter"))),
    Case(TABLE, "images that are missing", table(images=False)),
    Case(TABLE, "a pipe in place of an image", special(os.mkfifo)),
    Case(TABLE, "a device in place of an image", special(lambda path: path.symlink_to("/dev/zero"))),
    Case(TABLE, "a path that leaves the folder", table(changed(3, "../../../../../../etc/passwd,train,Winter"))),
    Case(TABLE, "a label of one class", table([row.replace("Winter", "Summer") for row in ROWS])),
    Case(TABLE, "nan where nothing is known", table(changed(3, "b.png,train,nan"))),
    Case(TABLE, "lists in some cells only", table(changed(3, "b.png,train,['Winter']"))),
    Case(
        TABLE,
        "a list that is none",
        table(
            [
                "path,split,tags",
                *(f"{n}.png,{s},[a b" + "]" for n, s in zip("abcd", ("train", "train", "val", "test"), strict=True)),
            ]
        ),
    ),
    Case(TABLE, "a class that the schema does not name", table(schema="labels: {season: [Summer, Spring]}")),
    Case(TABLE, "an unknown key in the schema", table(schema="lables: {}")),
    Case(TABLE, "a key that is given twice in the schema", table(schema="path: path\npath: file")),
    Case(TABLE, "shares that are not 1 in all", table(schema="split: {train: 0.8, validation: 0.1, test: 0.2}")),
    Case(TABLE, "aliases in the schema, which grow", table(schema="a: &a [x]\nb: [*a, *a]")),
    Case(TABLE, "a schema that is no YAML", table(schema="labels: [")),
    Case(TABLE, "COCO's JSON without categories", raw(b'{"images": [], "annotations": []}', "coco.json")),
    Case(TABLE, "an annotation of COCO's JSON of a list", raw(json_of(_COCO).encode(), "coco.json")),
    Case(TABLE, "JSON that is no UTF-8", raw(b'{"images": "\xe9"}', "coco.json")),
    Case(TABLE, "a schema of another name", in_folder({"attributes.csv": "\n".join(ROWS), "schema.yml": ""}, _load_table)),
    Case(TABLE, "a schema whose images are elsewhere", table(schema="root: /etc")),
    Case(
        TABLE,
        "lists of items that no two images share",
        in_folder({"attributes.csv": "\n".join(["path,user", *(f"{n}.png,['u{n}']" for n in range(1200))])}, _load_table),
    ),
    Case(OTHERS, "folders of classes for `attribute_csv`", files("attribute_csv", a__1_dot_jpg=b"", b__2_dot_jpg=b"")),
    Case(OTHERS, "one folder of images for `image_folder`", files("image_folder", a__1_dot_jpg=b"", a__2_dot_jpg=b"")),
    Case(OTHERS, "no image for `image_folder`", files("image_folder", a__notes_dot_txt=b"")),
    Case(
        OTHERS,
        "a folder of images beside those of the splits",
        files("image_folder", train__a__1_dot_jpg=b"", val__a__1_dot_jpg=b"", more__1_dot_jpg=b""),
    ),
    Case(OTHERS, "a test folder that is a link to the training", _linked_split),
    Case(OTHERS, "CelebA without its lists", files("celeba", img_align_celeba__1_dot_jpg=b"")),
    Case(OTHERS, "CelebA with a value of 2", files("celeba", **CELEBA, list_attr_celeba_dot_txt="1\nBald Smiling\n1.jpg 1 2\n")),
    Case(OTHERS, "CelebA cut off", files("celeba", **CELEBA, list_attr_celeba_dot_txt="3\nBald Smiling\n1.jpg 1 -1\n")),
    Case(OTHERS, "a list of CelebA that names a file elsewhere", lambda folder: _load_celeba_of(folder, "../../1.jpg")),
    Case(OTHERS, "a pickle that names a command", _cifar(b"cos\nsystem\n(S'true'\ntR.")),
    Case(OTHERS, "a pickle of images of 64 x 64", _cifar({"data": np.zeros((2, 12288), np.uint8), "fine_labels": [0, 1]})),
    Case(OTHERS, "a pickle that is cut off", _cifar(pickle.dumps({"data": [1]}, protocol=2)[:-1])),
    Case(OTHERS, "an unknown dataset", lambda _: load_dataset("celebs")),
    Case(SETTINGS, "an unknown setting", setting("train.epoch", 3)),
    Case(SETTINGS, "a number out of its range", setting("crl.rho", 2.0)),
    Case(SETTINGS, "no number at all", setting("train.learning_rate", float("nan"))),
    Case(SETTINGS, "NaN for a parameter of a loss", setting("focal.gamma", float("nan"))),
    Case(SETTINGS, "a number beyond all sense", setting("train.batch_size", 10**20)),
    Case(SETTINGS, "text for a number", setting("train.epochs", "ten")),
    Case(SETTINGS, "an unknown method", recipe(method="class_relative")),
    Case(SETTINGS, "methods that set the same part", recipe(method="focal+ldam")),
    Case(SETTINGS, "an unknown network", recipe(model="resnet23")),
    Case(SETTINGS, "images too small for the network", recipe(data__image_size=(8, 8))),
    Case(SETTINGS, "a warm-up as long as the training", recipe(train__warmup_epochs=10.0)),
    Case(SETTINGS, "ImageNet's weights for a network of the paper", recipe(network__pretrained="imagenet")),
    Case(SETTINGS, "weights in a file that is not there", recipe(network__pretrained="none.h5")),
    Case(
        SETTINGS,
        "a setting without meaning for the dataset",
        lambda _: assemble(override(load_recipe("handwriting"), {"data.gamma": 2.0})).load(),
    ),
    Case(SETTINGS, "a method twice in a comparison", lambda folder: compare(base_config(), ["ce", "ce"], folder / "runs")),
    Case(SETTINGS, "a budget without a unit", lambda _: budget_seconds("30")),
    Case(SETTINGS, "an unknown recipe", lambda _: load_recipe("celebs")),
    Case(SETTINGS, "a config.json that is none", lambda _: from_json(["ce"])),
    Case(FOLDERS, "a folder that holds something else", in_folder({"notes.txt": ""}, lambda folder: run(base_config(), folder))),
    Case(FOLDERS, "nothing to resume", in_folder({"notes.txt": ""}, started_with)),
    Case(FOLDERS, "a run of another recipe", _of_another_recipe),
    Case(
        FOLDERS,
        "epochs of null in config.json",
        in_folder({"config.json": '{"recipe": {"method": "ce", "train": {"epochs": null}}}'}, started_with),
    ),
    Case(FOLDERS, "config.json cut off", in_folder({"config.json": '{"recipe": {'}, started_with)),
    Case(FOLDERS, "an empty result.json", in_folder({"result.json": "{}"}, read_result)),
    Case(FOLDERS, "a changed auto.json", in_folder({"auto.json": '{"finished": true}'}, evaluate)),
    Case(FOLDERS, "a damaged model.keras", in_folder({"model.keras": "PK"}, lambda folder: load_trained(folder / "model.keras"))),
    Case(
        FOLDERS,
        "history.csv without its columns",
        in_folder({"history.csv": "epoch,loss\n0,1\n"}, lambda folder: keep_epochs(folder / "history.csv", 1)),
    ),
    Case(
        FOLDERS,
        "a comparison that names another folder",
        in_folder({"comparison.json": '{"methods": ["../../home"], "seeds": null}'}, evaluate),
    ),
    Case(FOLDERS, "evaluating what is not finished", in_folder({"config.json": "{}"}, evaluate)),
    Case(FOLDERS, "two runs in one folder at once", _busy),
    Case(FOLDERS, "a .keras file that unpacks to 400 MB", _bomb),
    Case(KERAS, "no counts and no alpha", lambda _: CRL(3)),
    Case(KERAS, "counts of another number of classes", lambda _: CRL(3, class_counts=[[5, 5]])),
    Case(KERAS, "a text for eta", lambda _: CRL(3, class_counts=[5, 3, 1], eta="0.1")),
    Case(KERAS, "classes of another kind", lambda _: CRL(None, alpha=0.5)),
    Case(KERAS, "alpha above 1", lambda _: CRL(3, alpha=1.5)),
    Case(KERAS, "an unknown comparison", lambda _: CRL(3, alpha=0.5, comparison="relativ")),
    Case(KERAS, "targets of another width", lambda _: CRL([2, 3], alpha=0.5)(np.zeros((4, 3)), np.zeros((4, 5)))),
    Case(KERAS, "targets of other samples", lambda _: CRL(3, alpha=0.5)(np.zeros(1), np.zeros((4, 3)))),
    Case(KERAS, "a class out of range, in a pipeline under XLA", _out_of_range),
    Case(KERAS, "targets that are texts", lambda _: CRL(2, alpha=0.5)(tf.constant(["a", "b"]), np.zeros((2, 2)))),
    Case(KERAS, "a class out of range", lambda _: FocalLoss(2)(np.array([0, 2]), np.zeros((2, 2)))),
    Case(KERAS, "logits of another width", lambda _: ClassBalancedAccuracy(3)([0, 1], np.zeros((2, 2)))),
    Case(KERAS, "a weight for each label", lambda _: FocalLoss([2, 2])(np.zeros((4, 2)), np.zeros((4, 4)), np.ones((4, 2)))),
    Case(KERAS, "a network without features", lambda _: CRLModel(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))),
    Case(KERAS, "a warm-up of another loss", _warm_up),
    Case(KERAS, "a negative count", lambda _: LDAMLoss(2, [5, -1])),
    Case(KERAS, "counts that name other outputs", lambda _: crl_losses({"a": 2}, class_counts={"b": [5, 5]})),
)


def line_of(case: Case, folder: Path) -> str:
    """What the case gets, with the folder as FOLDER.

    Raises:
        AssertionError: nothing was raised.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            case.provoke(folder)
        except (ValueError, OSError) as error:
            text = str(error)
        except tf.errors.InvalidArgumentError as error:
            # TensorFlow adds the operation, and what was received, to an assertion.
            text = error.message.replace("\n", " ")
        else:
            raise AssertionError(f"{case.what}: nothing was raised")
    return text.replace(str(folder), "FOLDER")


def page(lines: Sequence[str]) -> str:
    """The page, from the line of every case."""
    parts, group = [HEAD], None
    for case, line in zip(CASES, lines, strict=True):
        if case.group != group:
            parts.append(f"\n## {case.group}\n\n| bad input | what it gets |\n|---|---|\n")
            group = case.group
        text = " ".join(line.split()).replace("|", "\\|")
        fence = "``" if "`" in text else "`"
        parts.append(f"| {case.what} | {fence}{text}{fence} |\n")
    return "".join(parts)


def main() -> None:
    """Writes the page."""
    import tempfile

    lines = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(line_of(case, Path(folder)))
    PAGE.write_text(page(lines), encoding="utf-8")
    print(f"{len(lines)} kinds of bad input in {PAGE.name}")


if __name__ == "__main__":
    main()
