"""DeepFashion (Liu et al. 2016), Category and Attribute Prediction Benchmark: 1,000 binary attributes in five groups."""

from __future__ import annotations

from pathlib import Path

from crl_tf.datasets.source import BINARY, Dataset
from crl_tf.datasets.sources.files import check_images_present, check_present, splits_of_files
from crl_tf.datasets.sources.lists import check_count, read_head, read_numbers, read_words, same_order
from crl_tf.schema import NOT_ANNOTATED, Attribute, AttributeSchema

ANNOTATIONS = ("Anno", "Anno_coarse")
"""The folder of the lists of attributes; the publisher renamed it on adding Anno_fine, another set of 26 attributes."""

ATTRIBUTES, LABELS, PARTITION, IMAGES = "list_attr_cloth.txt", "list_attr_img.txt", "Eval/list_eval_partition.txt", "Img"

LAYOUT = f"Anno/ or Anno_coarse/ with {ATTRIBUTES} and {LABELS}, {PARTITION}, and the images of img.zip as Img/img/... or img/..."

GROUPS = {"1": "texture", "2": "fabric", "3": "shape", "4": "part", "5": "style"}
VALUES = {1: 1, -1: 0, 0: NOT_ANNOTATED}
"""The class of each value of the list; the publisher's 0 is unknown."""

PARTS = {"train": 0, "val": 1, "test": 2}


def load_deepfashion(data_dir: str | None = None, *, check_images: bool = True) -> Dataset:
    """The benchmark in its official split, 209,222 / 40,000 / 40,000 images; one label per attribute, absent or present.

    Each attribute has its group (texture, fabric, shape, part, style), by which Table 7 measures (`crl_tf.metrics.top_of_group`).
    Nothing can be downloaded: the publisher asks for an agreement.

    Args:
        data_dir: folder in the publisher's layout: `Anno/list_attr_cloth.txt`, `Anno/list_attr_img.txt` (`Anno_coarse` in the
            newer release), `Eval/list_eval_partition.txt`, and the images as `Img/img/...` or `img/...`.
        check_images: whether a missing image file is an error; without it no image folder is needed.
    Returns:
        images as file paths; labels int8 [n, L], -1 where the list says 0 (unknown).
    Raises:
        FileNotFoundError: if a list, or an image that the lists name, is missing.
        ValueError: if data_dir is not given, a list is malformed, or the lists name different images.
    """
    if data_dir is None:
        raise ValueError(f"deepfashion: needs --data_dir, a folder with {LAYOUT} (no download: ask the publisher for access)")
    folder = Path(data_dir)
    annotations = next((name for name in ANNOTATIONS if (folder / name).is_dir()), ANNOTATIONS[0])
    attributes, labels = folder / annotations / ATTRIBUTES, folder / annotations / LABELS
    check_present("deepfashion", folder, [str(p.relative_to(folder)) for p in (attributes, labels)] + [PARTITION], LAYOUT)
    # Names in the lists begin with img/.
    root = next((root for root in (folder / IMAGES, folder) if (root / "img").is_dir()), None)
    if root is None and check_images:
        raise FileNotFoundError(f"deepfashion: data_dir must hold {LAYOUT}; {folder} has neither Img/img/ nor img/")
    schema = _read_attributes(attributes)
    listed = read_numbers("deepfashion", labels, head=True, width=len(schema), meaning=VALUES)
    if not (listed.values == VALUES[-1]).any() and (listed.values == NOT_ANNOTATED).any():
        raise ValueError(
            f"deepfashion: {labels}: 1 must mean present, -1 absent and 0 unknown, received no -1 at all: where 0 means absent,"
            " write -1 in its place"
        )
    partition = read_words("deepfashion", folder / PARTITION, PARTS, head=True)
    parts = same_order("deepfashion", labels, listed.names, folder / PARTITION, partition)
    if check_images:
        check_images_present("deepfashion", root, listed.names)
    return Dataset(
        "deepfashion", schema, splits_of_files("deepfashion", root or folder / IMAGES, listed.names, listed.values, parts)
    )


def _read_attributes(path: Path) -> AttributeSchema:
    lines = path.read_text(encoding="utf-8").splitlines()
    count = read_head("deepfashion", path, lines)
    attributes: dict[str, Attribute] = {}
    for number, line in enumerate(lines[2:], start=3):
        if not line.strip():
            continue
        # A name may hold blanks; the last word is the number of its group.
        name, _, group = line.strip().replace("\t", " ").rpartition(" ")
        name = name.strip()
        if not name or group not in GROUPS:
            types = ", ".join(f"{key} = {value}" for key, value in GROUPS.items())
            raise ValueError(
                f"deepfashion: {path}, line {number}: expected the name of an attribute and its type ({types}), received"
                f" {line.strip()!r}"
            )
        if name in attributes:
            raise ValueError(f"deepfashion: {path}, line {number}: the attribute {name!r} is listed a second time")
        attributes[name] = Attribute(name, BINARY, GROUPS[group])
    check_count("deepfashion", path, count, len(attributes), "attributes")
    return AttributeSchema(tuple(attributes.values()))
