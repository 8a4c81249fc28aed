"""The recipe of the study "when does rectification help?": data sets, settings, methods, seeds.

Networks, lengths and rates were chosen on the validation images of seed 0, with cross-entropy; what differs in the later rows
was fixed before they ran, as alpha = 0.4 and the methods were. The decision rule of every run is chosen on its validation
images. `tools/study.py` runs it; its results stand in `tools/study_results.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

SEEDS = (0, 1, 2)

REFERENCES = ("ce", "logit_adjusted")
"""What every form of rectification has to beat."""


class Study(NamedTuple):
    """One data set of the study.

    title: what it is, in words. base: a recipe of configs/. settings: what differs from it, by dotted key.
    folder: what the folder of the data is called below the root of all data. methods: in the order in which they run, the
    references first, then the form of rectification that was thought to be the best. compared_with: the data set of the study
    whose references are meant, where settings differ that concern rectification alone; such a study has none of its own.
    """

    title: str
    base: str
    settings: Mapping[str, Any]
    folder: str
    methods: Sequence[str]
    compared_with: str | None = None

    @property
    def form(self) -> str:
        """The form of rectification that README's table shows."""
        return self.methods[0 if self.compared_with else len(REFERENCES)]


COMMON: Mapping[str, Any] = {
    "train.batch_size": 128,
    "train.precision": "mixed_bfloat16",
    "train.schedule": "cosine",
    "train.optimizer": "adamw",
    "train.learning_rate": 0.001,
    "data.cache": "memory",
    "crl.alpha": 0.4,
    "crl.alpha_warmup_epochs": 5,
}

AS_BEFORE: Mapping[str, Any] = {
    "model": "deepid2",
    "train.weight_decay": 0.0005,
    "train.clip_norm": None,
    "train.least_steps": 0,
    "train.keep": "last",
    "train.patience": None,
}
"""Of the recipe attribute_csv as it was when the study began."""

ON_ADJUSTED = "class_rel+gated+logit_adjusted_base"
"""Gated rectification on scores that are balanced already: the lead of earlier single runs."""

STUDIES: dict[str, Study] = {
    "celeba": Study(
        "CelebA, 9,385 training images of 64 x 78, DeepID2, 30 epochs",
        "celeba",
        {**COMMON, "train.epochs": 30, "data.augment": ("flip",)},
        "celeba",
        (*REFERENCES, ON_ADJUSTED, "class_dis+logit_adjusted_base", "class_rel+gated", "class_rel"),
    ),
    "cifar100_imb": Study(
        "CIFAR-100-imb(1), CifarNet, 40 epochs",
        "cifar100_imb",
        {**COMMON, "train.epochs": 40, "data.augment": ("flip", "crop")},
        "",
        (*REFERENCES, f"{ON_ADJUSTED}+pairs", "class_rel+pairs", "class_dis+logit_adjusted_base", "class_rel"),
    ),
    "fashion": Study(
        "fashion products (7 labels, 251 classes), 15,555 training images, DeepID2 at 48 x 36, 20 epochs",
        "attribute_csv",
        {**COMMON, **AS_BEFORE, "data.image_size": (48, 36), "train.epochs": 20, "data.augment": ("flip",)},
        "fashion_product/attributes.csv",
        (*REFERENCES, f"{ON_ADJUSTED}+pairs", "class_dis+logit_adjusted_base", "class_rel+gated", "class_rel"),
    ),
}
"""Methods: fixed before any run of this study, by the leads of earlier single runs; where most classes are twice in a batch
anyway, without pairs."""

STUDIES["fashion_to_the_end"] = STUDIES["fashion"]._replace(
    title="the same products, 40 epochs without augmentation, to a training accuracy of 99 %",
    settings={**STUDIES["fashion"].settings, "data.augment": (), "train.epochs": 40},
    methods=(*REFERENCES, f"{ON_ADJUSTED}+pairs", "class_rel", "class_rel+gated", "class_rel+pairs"),
)
STUDIES["celeba_to_the_end"] = STUDIES["celeba"]._replace(
    title="the same faces, 60 epochs without augmentation, to a training accuracy of 100 %",
    settings={**STUDIES["celeba"].settings, "data.augment": (), "train.epochs": 60},
    methods=(*REFERENCES, ON_ADJUSTED, "class_rel", "class_rel+gated"),
)


def _variant(name: str, title: str, settings: Mapping[str, Any], methods: Sequence[str]) -> Study:
    """A study of other settings of rectification, against the references of a data set."""
    study = STUDIES[name]
    settings = {**study.settings, **settings}
    return study._replace(title=f"{study.title}; {title}", settings=settings, methods=methods, compared_with=name)


BY_OMEGA: Mapping[str, Any] = {"crl.alpha": None, "crl.eta": 0.01}
STUDIES["celeba_eta"] = _variant("celeba", "alpha = 0.01 Omega", BY_OMEGA, ("class_rel", "class_rel+per_anchor"))
STUDIES["celeba_alpha_0.1"] = _variant("celeba", "alpha = 0.1", {"crl.alpha": 0.1}, (ON_ADJUSTED, "class_rel"))
for _alpha in (0.1, 0.8):
    STUDIES[f"fashion_alpha_{_alpha}"] = _variant(
        "fashion", f"alpha = {_alpha}", {"crl.alpha": _alpha}, (f"{ON_ADJUSTED}+pairs", "class_rel")
    )
STUDIES["fashion_level"] = _variant(
    "fashion", "instance level", {}, ("instance_rel+logit_adjusted_base", "instance_rel", "class_rel+logit_adjusted_base")
)
STUDIES["fashion_batch_512"] = STUDIES["fashion"]._replace(
    title=f"{STUDIES['fashion'].title}; batches of 512 images, learning rate 0.002",
    settings={**STUDIES["fashion"].settings, "train.batch_size": 512, "train.learning_rate": 0.002},
    methods=(*REFERENCES, f"{ON_ADJUSTED}+pairs"),
)
"""More images of each class in a batch. The rate: twice that of a quarter of the batch, by the square root, as for Adam."""
