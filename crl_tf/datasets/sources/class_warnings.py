"""Warns of classes that nothing can be learned or measured of, and of two spellings that are probably one class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from crl_tf.datasets.spelling import spellings
from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.text import listed

SHOWN = 8
"""Classes that a warning names."""


def warn_of_classes(owner: str, schema: AttributeSchema, counts: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Warns of classes without an image, of classes that are never in training, and of spellings of the same.

    Args:
        owner: the dataset, with which warnings begin.
        counts: by split, images per class, one array per label.
    """
    without, untrained = [], []
    for place, attribute in enumerate(schema.attributes):
        train, others = counts["train"][place], counts["validation"][place] + counts["test"][place]
        without += _named(attribute, (train + others) == 0)
        untrained += _named(attribute, (train == 0) & (others > 0))
    if without:
        warnings.warn(f"{owner}: {_counted(without, 'has', 'have')} no image: {listed(without, SHOWN)}", stacklevel=4)
    if untrained:
        warnings.warn(
            f"{owner}: {_counted(untrained, 'is', 'are')} in validation or test and never in train, so nothing can learn it:"
            f" {listed(untrained, SHOWN)}",
            stacklevel=4,
        )
    _warn_of_spellings(owner, schema, counts)


def _warn_of_spellings(owner: str, schema: AttributeSchema, counts: Mapping[str, Sequence[np.ndarray]]) -> None:
    found = []
    for place, attribute in enumerate(schema.attributes):
        images = sum(of_split[place] for of_split in counts.values())
        number = dict(zip(attribute.classes, images.tolist(), strict=True))
        for same in spellings(attribute.classes):
            found.append(f"{attribute.name}: {', '.join(f'{name!r} ({number[name]:,} images)' for name in same)}")
    if found:
        warnings.warn(
            f"{owner}: classes that differ only in case, spaces or the spelling of a number are learned apart:"
            f" {'; '.join(found[:SHOWN])}{'; ...' if len(found) > SHOWN else ''}. Correct them (for a table also by normalize:"
            " true in the YAML)",
            stacklevel=5,
        )


def _counted(classes: Sequence[str], one: str, many: str) -> str:
    return f"1 class {one}" if len(classes) == 1 else f"{len(classes)} classes {many}"


def _named(attribute: Attribute, chosen: np.ndarray) -> list[str]:
    return [f"{attribute.name}={attribute.classes[index]}" for index in np.flatnonzero(chosen)]
