"""The sources as builders of tensorflow-datasets, in its own test case, on files in the publishers' layouts."""

from __future__ import annotations

import ast
import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
from dataset_files import CSV_ROWS, write_csv, write_image

import crl_tf
from crl_tf.datasets.records import builders
from crl_tf.datasets.sources.celeba import load_celeba


class OfFolder:
    """What tensorflow-datasets asks of a builder, with the dummy data that `write` leaves in a folder."""

    SPLITS: ClassVar = {"train": 3, "validation": 1, "test": 1}

    def test_session(self, *given, **named):
        return super().test_session(*given, **named)

    # It is a way to run a test, not one; as one it would skip itself.
    test_session.__test__ = False

    @classmethod
    def setUpClass(cls):
        cls.kept = tempfile.TemporaryDirectory()
        cls.EXAMPLE_DIR = cls.kept.name
        cls.write(Path(cls.EXAMPLE_DIR))
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.kept.cleanup()

    def _make_builder(self, config=None):
        return super()._make_builder(config or builders.Folder(name="dummy", folder=self.EXAMPLE_DIR))


class CelebaTest(OfFolder, tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = builders.CrlCeleba
    SPLITS: ClassVar = {"train": 3, "validation": 1, "test": 2}

    @staticmethod
    def write(folder):
        names = [f"00000{i}.jpg" for i in range(1, 7)]
        for i, name in enumerate(names):
            write_image(folder / "img_align_celeba" / name, np.full((10, 8, 3), 40 * i))
        lines = [f"{name} {'1' if i % 2 else '-1'} -1" for i, name in enumerate(names)]
        (folder / "list_attr_celeba.txt").write_text("\n".join(["6", "Bald Smiling ", *lines]) + "\n")
        parts = [f"{name} {part}\n" for name, part in zip(names, (0, 0, 0, 1, 2, 2), strict=True)]
        (folder / "list_eval_partition.txt").write_text("".join(parts))


class DeepfashionTest(OfFolder, tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = builders.CrlDeepfashion

    @staticmethod
    def write(folder):
        names = [f"img/Sheer_Blouse/img_{i:08d}.jpg" for i in range(5)]
        for i, name in enumerate(names):
            write_image(folder / "Img" / name, np.full((10, 8, 3), 40 * i))
        values = ["1 -1 0", "-1 1 0", "0 0 1", "1 1 -1", "-1 -1 1"]
        lists = {
            "Anno/list_attr_cloth.txt": ["3", "attribute_name attribute_type", "a-line   3", "button front  4", "lace 2"],
            "Anno/list_attr_img.txt": ["5", "image_name attribute_labels", *map("{}   {}".format, names, values)],
            "Eval/list_eval_partition.txt": [
                "5",
                "image_name evaluation_status",
                *map("{}   {}".format, names, ["train", "train", "train", "val", "test"]),
            ],
        }
        for name, lines in lists.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("\n".join(lines) + "\n")


class XdomainTest(OfFolder, tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = builders.CrlXdomain
    SPLITS: ClassVar = {"train": 6, "validation": 1, "test": 3}

    @staticmethod
    def write(folder):
        names = "path,Category,Colour,Collar,Button,Pattern,Shape,Length,Sleeve-Shape,Sleeve-Length"
        for i in range(10):
            write_image(folder / f"{i}.jpg", np.full((10, 8, 3), 20 * i))
        rows = [f"{i}.jpg" + "".join(f",c{(i + j) % 2}" if i != j else "," for j in range(9)) for i in range(10)]
        (folder / "manifest.csv").write_text("\n".join([names, *rows]) + "\n")


class AttributeCsvTest(OfFolder, tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = builders.CrlAttributeCsv

    @staticmethod
    def write(folder):
        for i, row in enumerate(CSV_ROWS[1:]):
            write_image(folder / row[0], np.full((6, 9, 3), 50 * i))
        write_csv(folder, CSV_ROWS)


def prepared(builder):
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(compute_stats="skip"))
    return builder.as_dataset()


def test_examples_are_what_the_loader_loads(celeba_dir, tmp_path):
    dataset = load_celeba(str(celeba_dir))
    config = builders.Folder(name="mine", folder=str(celeba_dir))
    splits = prepared(tfds.builder("crl_celeba", config=config, data_dir=str(tmp_path / "tfds")))
    for name, part in dataset.splits.items():
        found = {int(example["index"]): example for example in splits[name].as_numpy_iterator()}
        assert sorted(found) == list(range(len(part)))
        for i, path in enumerate(part.images.tolist()):
            assert found[i]["file_name"].decode() == Path(path).name
            assert [int(found[i]["attributes"][key]) for key in ("Bald", "Smiling")] == part.labels[i].tolist()
            assert abs(int(found[i]["image"][0, 0, 0]) - 40 * (int(Path(path).stem) - 1)) <= 2


def test_labels_of_one_folder_are_read_again_after_its_files_are_gone(celeba_dir, tmp_path):
    config = builders.Folder(name="mine", folder=str(celeba_dir))
    prepared(builders.CrlCeleba(config=config, data_dir=str(tmp_path / "tfds")))
    (celeba_dir / "list_attr_celeba.txt").unlink()
    again = builders.CrlCeleba(config=config, data_dir=str(tmp_path / "tfds"))
    assert sorted(again.info.features["attributes"]) == ["Bald", "Smiling"]
    assert again.info.metadata["attributes"] == ["Bald", "Smiling"]
    assert len(list(again.as_dataset(split="test"))) == 2


def test_without_a_config_files_are_in_the_manual_folder(celeba_dir, tmp_path):
    data_dir = tmp_path / "tfds"
    wanted = (
        rf"crl_celeba: pass config=.*Folder\(name=\.\.\., folder=\.\.\.\), or put the files into {data_dir}/downloads/manual$"
    )
    with pytest.raises(FileNotFoundError, match=wanted):
        builders.CrlCeleba(data_dir=str(data_dir)).info.features  # noqa: B018
    (data_dir / "downloads").mkdir(parents=True)
    (data_dir / "downloads" / "manual").symlink_to(celeba_dir)
    assert len(prepared(builders.CrlCeleba(data_dir=str(data_dir)))["train"]) == 3


def test_what_is_wrong_with_the_files_is_told_as_by_the_loader(celeba_dir, tmp_path):
    config = builders.Folder(name="mine", folder=str(celeba_dir))
    (celeba_dir / "img_align_celeba" / "000004.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"celeba: .*000004\.jpg"):
        prepared(builders.CrlCeleba(config=config, data_dir=str(tmp_path / "tfds")))
    (celeba_dir / "list_attr_celeba.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"celeba: .*list_attr_celeba\.txt"):
        builders.CrlCeleba(config=config, data_dir=str(tmp_path / "tfds")).info.features  # noqa: B018


def test_nothing_else_imports_what_imports_tensorflow_datasets():
    slow = ("tensorflow_datasets", "crl_tf.datasets.records.builders")
    for path in Path(crl_tf.__file__).parent.rglob("*.py"):
        at_import = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = [alias.name for node in at_import if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module for node in at_import if isinstance(node, ast.ImportFrom)]
        assert path.name == "builders.py" or not any(name.startswith(slow) for name in names), path
