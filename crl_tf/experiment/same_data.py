"""Holds a run to the data that it was started with: the same labels and classes, and the same rows in every split."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from crl_tf.datasets.source import Dataset, Records, Split
from crl_tf.schema import AttributeSchema

MOVED = (
    "A split that is drawn by the seed is drawn anew from other rows: images of the training may then be test images, which makes"
    " the numbers too good"
)

_log = logging.getLogger(__name__)


def digests(dataset: Dataset) -> dict[str, str]:
    """A digest of the rows of every split: of its labels, and of its files' names below their common folder, or its pixels.

    A set that was moved as a whole has the same digests. Images in files and records are told by their names and places.
    """
    return {name: _digest(split) for name, split in dataset.splits.items()}


def _digest(split: Split) -> str:
    content = hashlib.blake2b(digest_size=16)
    labels = np.ascontiguousarray(split.labels, np.int32)
    content.update(str(labels.shape).encode())
    content.update(labels.tobytes())
    images = split.images
    if isinstance(images, Records):
        content.update("\0".join(os.path.basename(shard) for shard in images.shards).encode("utf-8", "surrogateescape"))
        for part in (images.shard, images.offset, images.length):
            content.update(np.ascontiguousarray(part, np.int64).tobytes())
    elif images.dtype.kind in "UT":
        paths = images.tolist()
        folders = {os.path.dirname(path) for path in paths}
        common = os.path.commonpath(folders) if folders and all(map(os.path.isabs, folders)) else ""
        content.update("\0".join(path.removeprefix(common) for path in paths).encode("utf-8", "surrogateescape"))
    else:
        content.update(str(images.shape).encode())
        for start in range(0, len(images), 4096):
            content.update(np.ascontiguousarray(images[start : start + 4096]).tobytes())
    return content.hexdigest()


def described(dataset: Dataset, of_rows: Mapping[str, str]) -> dict[str, Any]:
    """What a run keeps of its data, for `check_same_data`: labels, images per split, digests of the splits."""
    images = {name: len(split) for name, split in dataset.splits.items()}
    return {"schema": dataset.schema.to_config(), "images": images, "digests": dict(of_rows)}


def check_same_data(
    kept: Mapping[str, Any], dataset: Dataset, of_rows: Mapping[str, str], *, where: str, changed_rows: bool | None = False
) -> None:
    """Refuses data that are not those that `described` was called with.

    Args:
        kept: what it returned; what older versions did not keep is not compared.
        dataset, of_rows: the data now, and the digests of its splits.
        where: what the error names first: the flag or the mode, and the folder.
        changed_rows: True: other rows are meant, and only logged; None: they can have no meaning. Other labels or classes are
            refused all the same, because the network's outputs have a meaning.
    Raises:
        ValueError: what differs.
    """
    different = schema_differences(AttributeSchema.from_config(kept["schema"]), dataset.schema) if "schema" in kept else []
    if different:
        raise ValueError(
            f"{where}: the labels are not those that the run was started with: {'; '.join(different)}. The outputs of a trained"
            " network keep their meaning: train anew on changed labels"
        )
    rows = []
    for name, count in {name: len(split) for name, split in dataset.splits.items()}.items():
        before, digest = kept.get("images", {}).get(name, count), kept.get("digests", {}).get(name)
        if before != count:
            rows.append(f"{name} had {before:,} images and has {count:,}")
        elif None not in (digest, of_rows.get(name)) and digest != of_rows[name]:
            rows.append(f"{name} has as many images, {count:,}, but other files, pixels, labels or another order")
    if not rows:
        return
    text = f"{where}: the rows are not those that the run was started with: {'; '.join(rows)}"
    if changed_rows is None:
        raise ValueError(f"{text}. Scores on other rows cannot be compared: begin anew with another --workdir")
    if not changed_rows:
        raise ValueError(f"{text}. Pass --allow_changed_rows to go on with them. {MOVED}")
    _log.warning("%s; going on, as --allow_changed_rows says. %s", text, MOVED)


def schema_differences(before: AttributeSchema, now: AttributeSchema) -> list[str]:
    """What differs between two schemas, a text for each label.

    >>> from crl_tf.schema import Attribute
    >>> before, now = (AttributeSchema((Attribute("hue", classes),)) for classes in (("red", "blue"), ("blue", "red", "gray")))
    >>> schema_differences(before, now)
    ["'hue' has the new class 'gray'"]
    """
    if before.names != now.names:
        gone = [repr(name) for name in before.names if name not in now.names]
        new = [repr(name) for name in now.names if name not in before.names]
        texts = [f"{', '.join(gone)} missing"] * bool(gone) + [f"{', '.join(new)} new"] * bool(new)
        return texts or [f"the labels are in another order: {', '.join(now.names)} instead of {', '.join(before.names)}"]
    texts = []
    for old, label in zip(before.attributes, now.attributes, strict=True):
        gone = [repr(name) for name in old.classes if name not in label.classes]
        new = [repr(name) for name in label.classes if name not in old.classes]
        parts = [f"lacks the class {', '.join(gone)}"] * bool(gone) + [f"has the new class {', '.join(new)}"] * bool(new)
        if not parts and old.classes != label.classes:
            parts = [f"has its classes in another order: {', '.join(label.classes)} instead of {', '.join(old.classes)}"]
        texts += [f"{old.name!r} {' and '.join(parts)}"] if parts else []
    return texts
