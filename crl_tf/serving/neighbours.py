"""Finds the training images nearest to an image, by the cosine of their features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

MOST = 12
"""Neighbours that are given at most."""


class Neighbour(NamedTuple):
    """A training image: its place among the `Neighbours`, and the cosine of its features with those asked for."""

    index: int
    similarity: float


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Training images that may be shown, with their features.

    Args:
        features: of every image as the export's signature `features` gives them, float [n, D] or [n, L, D]; no NaN.
        thumbnail: from an image's place to a small encoded JPEG or PNG. It is called in several threads.
        captions: a short text for every image, as its file's name.
        labels: for every image the class it is annotated with, by label; what is not annotated is left out.
    Raises:
        ValueError: features, captions and labels of other numbers of images, or features with NaN.
    """

    features: np.ndarray
    thumbnail: Callable[[int], bytes]
    captions: Sequence[str]
    labels: Sequence[Mapping[str, str]]
    _unit: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        features = np.asarray(self.features, np.float32)
        if not len(features) == len(self.captions) == len(self.labels) or features.ndim < 2:
            counts = f"{list(features.shape)}, {len(self.captions)} and {len(self.labels)}"
            raise ValueError(f"features [n, ...], captions and labels must be of the same images, received {counts}")
        if not np.isfinite(features).all():
            raise ValueError("features must be finite, received some that are not")
        object.__setattr__(self, "_unit", _unit(features))

    def __len__(self) -> int:
        return len(self._unit)

    def nearest(self, features: np.ndarray, count: int) -> list[Neighbour]:
        """The nearest images, the nearest first; none if the features are NaN.

        Args:
            features: of one image, [D] or [L, D].
            count: how many; at most `MOST`.
        """
        wanted = np.asarray(features, np.float32)
        count = min(count, MOST, len(self))
        if not np.isfinite(wanted).all() or count < 1:
            return []
        similarity = self._unit @ _unit(wanted[np.newaxis])[0]
        # The sort is stable: of equal ones the first.
        candidates = np.sort(np.argpartition(-similarity, count - 1)[:count])
        order = candidates[np.argsort(-similarity[candidates], kind="stable")]
        return [Neighbour(int(index), float(similarity[index])) for index in order]


def _unit(features: np.ndarray) -> np.ndarray:
    """Each row flat and of length 1; a row of zeros stays one."""
    flat = features.reshape(len(features), int(np.prod(features.shape[1:])))
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
