"""What every dataset is, wherever it comes from: a schema, and per split the images with their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from crl_tf.schema import AttributeSchema

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Images and labels of one split, by index.

    images: uint8 [n, H, W, 3], or n file paths (str) of JPEG or PNG images that the pipeline reads.
    labels: int32 [n, L], -1 = not annotated.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        pixels = self.images.dtype == np.uint8 and self.images.ndim == 4 and self.images.shape[-1] == 3
        paths = self.images.dtype.kind == "U" and self.images.ndim == 1
        if not (pixels or paths):
            raise ValueError(
                "Split: images must be uint8 [n, H, W, 3] or a vector of file paths,"
                f" received {self.images.dtype} {list(self.images.shape)}"
            )
        if len(self.images) != len(self.labels):
            raise ValueError(f"Split: {len(self.images)} images but {len(self.labels)} rows of labels")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A named dataset: schema and the splits train, validation and test."""

    name: str
    schema: AttributeSchema
    splits: Mapping[str, Split]

    def __post_init__(self) -> None:
        if set(self.splits) != set(SPLITS):
            raise ValueError(f"Dataset {self.name!r}: splits must be {SPLITS}, received {tuple(self.splits)}")
        for name, split in self.splits.items():
            if len(split) == 0:
                raise ValueError(f"Dataset {self.name!r}: split {name!r} is empty")
            self.schema.check_labels(split.labels, f"Dataset {self.name!r}, split {name!r}")
