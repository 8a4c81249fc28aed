"""Writes a small DeepFashion in its publisher's layout: six attributes in five groups, nine images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dataset_files import write_image

ATTRIBUTES = [("a-line", 3), ("abstract chevron print", 1), ("lace", 2), ("abstract", 1), ("button front", 4), ("chic", 5)]
PARTS = ["train"] * 5 + ["val"] * 2 + ["test"] * 2
VALUES = np.array([[(-1, 1, 0)[(i + 2 * j) % 3] for j in range(len(ATTRIBUTES))] for i in range(len(PARTS))])
NAMES = [f"img/Sheer_Blouse_{i % 2}/img_{i:08d}.jpg" for i in range(len(PARTS))]


def write_lists(folder: Path, annotations: str = "Anno") -> Path:
    # Padded with blanks, as the publisher's are.
    lists = {
        f"{annotations}/list_attr_cloth.txt": [
            str(len(ATTRIBUTES)),
            "attribute_name  attribute_type",
            *(f"{a:<30}{t}" for a, t in ATTRIBUTES),
        ],
        f"{annotations}/list_attr_img.txt": [
            str(len(NAMES)),
            "image_name  attribute_labels",
            *(f"{name:<60}{' '.join(f'{v:2d}' for v in row)}" for name, row in zip(NAMES, VALUES, strict=True)),
        ],
        "Eval/list_eval_partition.txt": [
            str(len(NAMES)),
            "image_name  evaluation_status",
            *(f"{name:<60}{part}" for name, part in reversed(list(zip(NAMES, PARTS, strict=True)))),
        ],
    }
    for name, lines in lists.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def write_deepfashion(folder: Path) -> Path:
    for i, name in enumerate(NAMES):
        write_image(folder / "Img" / name, np.full((6, 4, 3), 20 * i))
    return write_lists(folder)
