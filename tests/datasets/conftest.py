"""Small copies of every publisher's layout, written afresh for each test."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from dataset_files import CSV_ROWS, write_csv, write_image

from crl_tf.datasets import load_dataset


@pytest.fixture(scope="session")
def handwriting():
    return load_dataset("handwriting")


@pytest.fixture
def celeba_dir(tmp_path: Path) -> Path:
    """Six images in parts 0, 0, 0, 1, 2, 2; listed in another order in the attributes than in the partition."""
    rows = {f"00000{i}.jpg": (i % 2 == 0, i > 4) for i in range(1, 7)}
    for i, name in enumerate(rows):
        write_image(tmp_path / "img_align_celeba" / name, np.full((10, 8, 3), 40 * i))
    signs = {True: " 1", False: "-1"}
    lines = [f"{name} {signs[a]} {signs[b]}" for name, (a, b) in reversed(rows.items())]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(["6", "Bald Smiling ", *lines]) + "\n")
    parts = [f"{name} {part}" for name, part in zip(rows, (0, 0, 0, 1, 2, 2), strict=True)]
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return tmp_path


@pytest.fixture(scope="session")
def cifar_dir(tmp_path_factory) -> Path:
    """CIFAR-100 in its full numbers, as the long tails need them; the first pixel of an image counts it."""
    folder = tmp_path_factory.mktemp("cifar")
    for name, per_class in (("train", 500), ("test", 100)):
        labels = np.random.default_rng(per_class).permutation(np.repeat(np.arange(100), per_class))
        data = np.zeros((len(labels), 3072), np.uint8)
        # Red, green and blue of pixel (0, 0) lie 1,024 apart; pixel (0, 1) follows the first red.
        data[:, 0], data[:, 1024], data[:, 1] = np.arange(len(labels)) % 256, np.arange(len(labels)) // 256, labels
        with (folder / name).open("wb") as file:
            pickle.dump({"data": data, "fine_labels": labels.tolist()}, file, protocol=2)
    names = {"fine_label_names": [f"thing{k}" for k in range(100)]}
    (folder / "meta").write_bytes(pickle.dumps(names, protocol=2))
    return folder


@pytest.fixture
def csv_dir(tmp_path: Path) -> Path:
    for i, row in enumerate(CSV_ROWS[1:]):
        write_image(tmp_path / row[0], np.full((6, 9, 3), 50 * i))
    write_csv(tmp_path, CSV_ROWS)
    return tmp_path
