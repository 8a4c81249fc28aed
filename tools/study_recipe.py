"""The recipe of the study "when does rectification help?": data sets, settings, methods, seeds.

Everything is chosen on validation images of seed 0 (`CHOICES`), and then run with all seeds. The test images are measured once,
by the final settings. `tools/study.py` runs it; its results stand in `tools/study_results.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

SEEDS = (0, 1, 2)


class Study(NamedTuple):
    """One data set of the study.

    title: what it is, in words. base: a recipe of configs/. settings: what differs from it, by dotted key.
    folder: what the folder of the data is called below the root of all data. methods: in the order in which they run.
    """

    title: str
    base: str
    settings: Mapping[str, Any]
    folder: str
    methods: Sequence[str]


REFERENCES = ("ce", "logit_adjusted")
"""What every form of rectification has to beat."""

COMMON: Mapping[str, Any] = {
    "train.batch_size": 128,
    "train.precision": "mixed_bfloat16",
    "train.schedule": "cosine",
    "data.augment": ("flip", "crop"),
    "data.cache": "memory",
    "crl.alpha": 0.4,
    "crl.alpha_warmup_epochs": 5,
}

METHODS = (
    *REFERENCES,
    "class_rel+gated+logit_adjusted_base+pairs",
    "class_rel+pairs",
    "class_rel",
    "class_rel+gated+logit_adjusted_base",
    "class_dis+logit_adjusted_base",
    "class_rel+gated",
)
"""The leads of earlier single runs, fixed before any run of this study; the first rows are run with all seeds first."""

STUDIES: dict[str, Study] = {
    "cifar100_imb": Study(
        "CIFAR-100-imb(1), CifarNet at half width, 60 epochs",
        "cifar100_imb",
        {**COMMON, "model": "cifarnet", "network.width": 0.5, "train.epochs": 60, "train.learning_rate": 0.02},
        "",
        METHODS,
    ),
    "celeba": Study(
        "CelebA, 9,385 training images of 64 x 78, DeepID2, 40 epochs",
        "celeba",
        {**COMMON, "train.epochs": 40, "train.learning_rate": 0.02, "data.augment": ("flip",)},
        "celeba",
        METHODS,
    ),
    "fashion": Study(
        "fashion products, 15,555 training images, CifarNet at half width, 24 epochs",
        "attribute_csv",
        {
            **COMMON,
            "model": "cifarnet",
            "network.width": 0.5,
            "data.image_size": (40, 30),
            "train.epochs": 24,
            "train.learning_rate": 0.02,
        },
        "fashion_product/attributes.csv",
        METHODS,
    ),
}
