"""The sources as builders of tensorflow-datasets. Importing this file registers them.

    import crl_tf.datasets.records.builders as builders
    import tensorflow_datasets as tfds

    config = builders.Folder(name="mine", folder="~/celeba")
    train = tfds.load("crl_celeba", split="train", builder_kwargs={"config": config})

Without a config, the files must be in tensorflow-datasets' folder for manual downloads, `<data_dir>/downloads/manual/`. Another
`manual_dir` cannot be used: labels and classes are read from the files before tensorflow-datasets says where it is.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from crl_tf.datasets import SPLITS, Dataset, load_dataset
from crl_tf.datasets.records.examples import CHUNK, Examples
from crl_tf.datasets.records.prepare import VERSION


@dataclasses.dataclass
class Folder(tfds.core.BuilderConfig):
    """The folder of the publisher's files.

    name: of the config, and of the folder that holds what is prepared from these files.
    folder: what `load_dataset` calls data_dir.
    schema: the YAML file of attribute_csv that says what its columns mean.
    seed: of splits that no list gives.
    """

    folder: str | None = None
    schema: str | None = None
    seed: int = 0


class FromSource(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder of the dataset that `load_dataset` loads, with its features and splits.

    Raises:
        ValueError, FileNotFoundError: as the source's loader does.
    """

    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS: ClassVar[list[Folder]] = []
    SOURCE: ClassVar[str]
    DESCRIPTION: ClassVar[str]

    def _info(self) -> tfds.core.DatasetInfo:
        # A prepared dataset describes itself; the source files may be gone.
        if (Path(self.data_dir) / "features.json").exists():
            features, names = tfds.features.FeaturesDict.from_config(str(self.data_dir)), []
        else:
            dataset = self._load(check_images=False)
            features, names = Examples(dataset).features, list(dataset.schema.names)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=features,
            metadata=tfds.core.MetadataDict({"attributes": names}),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        examples = Examples(self._load(check_images=True))
        return {split: self._generate_examples(examples, split) for split in SPLITS}

    def _generate_examples(self, examples: Examples, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        count = examples.count(split)
        for start in range(0, count, CHUNK):
            for example in examples.of(split, np.arange(start, min(start + CHUNK, count))):
                yield example["index"], example

    def _load(self, *, check_images: bool) -> Dataset:
        config = self.builder_config
        folder = getattr(config, "folder", None) or self._manual_folder
        options = {"schema": getattr(config, "schema", None), "seed": getattr(config, "seed", 0)}
        return load_dataset(self.SOURCE, data_dir=str(Path(folder).expanduser()), check_images=check_images, **options)

    @functools.cached_property
    def _manual_folder(self) -> Path:
        folder = Path(self._data_dir_root) / "downloads" / "manual"
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{self.name}: pass config=crl_tf.datasets.records.builders.Folder(name=..., folder=...), or put the files into"
                f" {folder}"
            )
        return folder


class CrlCeleba(FromSource):
    """crl_celeba: CelebA in the publisher's layout, 40 binary attributes."""

    SOURCE, DESCRIPTION = "celeba", "CelebA (Liu et al. 2015): 40 binary attributes of faces, in the official partition."


class CrlDeepfashion(FromSource):
    """crl_deepfashion: DeepFashion's Category and Attribute Prediction Benchmark in the publisher's layout."""

    SOURCE, DESCRIPTION = (
        "deepfashion",
        "DeepFashion (Liu et al. 2016): 1,000 binary attributes of clothes, in the official split.",
    )


class CrlXdomain(FromSource):
    """crl_xdomain: X-Domain by its manifest."""

    SOURCE, DESCRIPTION = "xdomain", "X-Domain (Chen et al. 2015): nine multi-class attributes of clothes, split by a seed."


class CrlAttributeCsv(FromSource):
    """crl_attribute_csv: anybody's images with class labels in a table."""

    SOURCE, DESCRIPTION = "attribute_csv", "Images with class labels from a table."
