"""CelebA's files as its publisher names them, and laying out in this way what tensorflow-datasets has fetched."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from crl_tf.datasets.source import SPLITS
from crl_tf.datasets.sources.download import prepared_builder

IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
IDENTITY, LANDMARKS = "identity_CelebA.txt", "list_landmarks_align_celeba.txt"

COORDINATES = tuple(f"{part}_{axis}" for part in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy")
"""The columns of the list of landmarks, in pixels of the aligned image."""

LAYOUT = (
    f"{IMAGES}/ (000001.jpg, 000002.jpg, ... from img_align_celeba.zip), {ATTRIBUTES} and {PARTITION}"
    f" (and, used where present, {IDENTITY} and {LANDMARKS})"
)


def lay_out_from_tfds(tfds_dir: str | None = None) -> Path:
    """Writes the images of tensorflow-datasets' `celeb_a`, still encoded, in the publisher's layout; returns the folder.

    Its records no longer hold the publisher's file names: images are called after their part and place in it.
    Everything goes into a temporary folder that is renamed at the end, so that a folder of the final name is whole.

    Args:
        tfds_dir: the folder of tensorflow-datasets, None for its own choice. Records that are prepared there are taken
            without the network; what is laid out goes to `crl_tf/` in it, and a second call takes that as it is.
    Raises:
        OSError: if the download fails, with what to make by hand instead.
    """
    builder = prepared_builder("celeba", "celeb_a", tfds_dir, LAYOUT)
    stored = Path(builder.data_dir)
    target = stored.parents[1] / "crl_tf" / f"celeb_a-{stored.name}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # A folder left by an interrupted run is never taken up again; tempfile gives every run its own.
    with tempfile.TemporaryDirectory(prefix=f"{target.name}-incomplete-", dir=target.parent) as temporary:
        whole = Path(temporary) / "whole"
        (whole / IMAGES).mkdir(parents=True)
        _write_layout(builder, whole)
        try:
            whole.rename(target)
        except OSError:
            # Another process was faster; its folder is as good as ours.
            if not target.exists():
                raise
    return target


def _write_layout(builder: Any, folder: Path) -> None:
    import tensorflow_datasets as tfds

    names = sorted(builder.info.features["attributes"])
    attributes, parts, identities, landmarks = [], [], [], []
    for number, split in enumerate(SPLITS):
        examples = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        for index, example in enumerate(tfds.as_numpy(examples)):
            file = f"{split}-{index + 1:06d}.jpg"
            (folder / IMAGES / file).write_bytes(example["image"])
            attributes.append(" ".join([file, *("1" if example["attributes"][name] else "-1" for name in names)]))
            parts.append(f"{file} {number}")
            identities.append(f"{file} {example['identity']['Identity_No']}")
            landmarks.append(" ".join([file, *(str(example["landmarks"][name]) for name in COORDINATES)]))
    count = str(len(attributes))
    _write_lines(folder / ATTRIBUTES, [count, " ".join(names), *attributes])
    _write_lines(folder / PARTITION, parts)
    _write_lines(folder / IDENTITY, identities)
    _write_lines(folder / LANDMARKS, [count, " ".join(COORDINATES), *landmarks])


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
