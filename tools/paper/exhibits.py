"""The table of exhibits: every table and figure of the paper that can be repeated, with its runs and how it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from paper import plots, printed, tables
from paper.content import Part
from paper.material import Material
from paper.planning import CELEBA, CIFAR, FASHION, Spec

STAND_IN = "fashion product images stand in for X-Domain, which is not to be had"
_STAND_IN_SETTINGS = (("dataset", "attribute_csv"), ("data.image_size", (80, 60)))


@dataclass(frozen=True)
class Exhibit:
    """A table or figure.

    name: "Table 9". title: what it shows, with the stand-in for data that are not to be had. runs: by a name that `build` knows.
    build: from what the runs left to the parts that are shown. needs: data that it is built of beside its runs.
    trains: whether its runs are trained; without, they only name data.
    """

    name: str
    title: str
    runs: Mapping[str, Spec]
    build: Callable[[Material], Sequence[Part]]
    needs: Sequence[str] = ()
    trains: bool = True


def celeba(method: str, **settings: object) -> Spec:
    """A run of Sec. 4.1."""
    return Spec(CELEBA, "celeba_paper", method, _dotted(settings))


def fashion(method: str, recipe: str = "xdomain_paper", **settings: object) -> Spec:
    """A run of Sec. 4.2, or of Sec. 4.4 on its data, on the stand-in: the images as large as they are."""
    return Spec(FASHION, recipe, method, _STAND_IN_SETTINGS + _dotted(settings))


def cifar(recipe: str, method: str, **settings: object) -> Spec:
    """A run of Sec. 4.3."""
    return Spec(CIFAR, recipe, method, _dotted(settings))


def _dotted(settings: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    return tuple((key.replace("__", "."), value) for key, value in settings.items())


_OFFICIAL = {"data__celeba_validation": "official"}
"""Statistics count the training images before the validation images are taken from them."""

_BALANCED = {"cifarnet": "cifar100_paper", "resnet32": "cifar100_resnet32_paper", "densenet": "cifar100_densenet_paper"}
_IMBALANCED = {name: recipe.replace("cifar100", "cifar100_imb") for name, recipe in _BALANCED.items()}

_OF_CELEBA = {
    "triplet_knn": celeba("triplet_knn"),
    "panda": celeba("ce", model="panda"),
    "anet": celeba("ce", model="anet"),
    "ce": celeba("ce"),
    "over_sampling": celeba("over_sampling"),
    "down_sampling": celeba("down_sampling"),
    "cost_sensitive": celeba("cost_sensitive"),
    "threshold_adjustment": celeba("threshold_adjustment"),
    "lmle": celeba("lmle"),
    "crl": celeba("instance_rel"),
}
"""Table 3, whose CRL mines at instance level."""

_OF_XDOMAIN = {
    "ddan": fashion("ce", model="ddan"),
    "fashionnet": fashion("ce", model="fashionnet"),
    "darn": fashion("ce", model="darn"),
    "ce": fashion("ce"),
    "over_sampling": fashion("over_sampling"),
    "down_sampling": fashion("down_sampling"),
    "cost_sensitive": fashion("cost_sensitive"),
    "threshold_adjustment": fashion("threshold_adjustment"),
    "lmle": fashion("lmle"),
    "crl": fashion("class_rel"),
}
"""Table 5."""


def _some(runs: Mapping[str, Spec], *names: str) -> dict[str, Spec]:
    return {name: runs[name] for name in names}


def _table_9() -> dict[str, Spec]:
    runs = {}
    for network, recipe in _IMBALANCED.items():
        runs[f"{network} bln"] = cifar(recipe, "ce", dataset="cifar100_bln")
        runs[f"{network} imb"] = cifar(recipe, "ce")
        runs[f"{network} crl"] = cifar(recipe, "class_rel")
    runs["hog_knn bln"] = cifar("cifar100_imb_paper", "hog_knn", dataset="cifar100_bln")
    return runs | {"hog_knn imb": cifar("cifar100_imb_paper", "hog_knn")}


TABLES = (
    Exhibit(
        "Table 2",
        f"statistics of the data ({STAND_IN})",
        {"celeba": celeba("ce", **_OFFICIAL), "xdomain": fashion("ce"), "cifar100": cifar("cifar100_paper", "ce")},
        tables.statistics,
        trains=False,
    ),
    Exhibit("Table 3", "facial attributes, CelebA, DeepID2", _OF_CELEBA, tables.table_3),
    Exhibit(
        "Table 4", "gains over DeepID2 by imbalance, CelebA", _some(_OF_CELEBA, "ce", "lmle", "crl"), tables.table_4
    ),
    Exhibit("Table 5", f"clothing attributes, MTCT ({STAND_IN})", _OF_XDOMAIN, tables.table_5),
    Exhibit(
        "Table 6", f"gains over MTCT by imbalance ({STAND_IN})", _some(_OF_XDOMAIN, "ce", "lmle", "crl"), tables.table_6
    ),
    Exhibit(
        "Table 7",
        "clothing attributes, ResNet50 (fashion product images stand in for DeepFashion, which is not to be had)",
        {"ce": fashion("ce", "deepfashion_paper"), "crl": fashion("class_rel", "deepfashion_paper")},
        tables.table_7,
    ),
    Exhibit(
        "Table 8",
        "object categories, CIFAR-100",
        {f"{name} {key}": cifar(recipe, method)
         for name, recipe in _BALANCED.items() for key, method in (("ce", "ce"), ("crl", "class_rel"))},
        tables.table_8,
    ),
    Exhibit("Table 9", "imbalanced training data, CIFAR-100-imb(1)", _table_9(), tables.table_9),
    Exhibit(
        "Table 10",
        f"CRL's forms: mining and comparison, CelebA and X-Domain ({STAND_IN})",
        {f"{data} {method}": make(method)
         for data, make in (("celeba", celeba), ("xdomain", fashion)) for method in ("ce", *printed.TABLE_10[data])},
        tables.table_10,
    ),
    Exhibit(
        "Table 11",
        f"hard mining and joint learning, X-Domain ({STAND_IN})",
        {name: fashion(name) for name in ("ce", *printed.TABLE_11)},
        tables.table_11,
    ),
    Exhibit(
        "Table 12",
        f"class scope, X-Domain ({STAND_IN})",
        {name: fashion(name) for name in printed.TABLE_12},
        tables.table_12,
    ),
    Exhibit(
        "Table 13",
        f"minority class criterion, X-Domain ({STAND_IN})",
        {name: fashion(name) for name in ("ce", *printed.TABLE_13)},
        tables.table_13,
    ),
)  # fmt: skip

FIGURES = (
    Exhibit(
        "Fig. 1",
        f"training images per class ({STAND_IN})",
        {"xdomain": fashion("ce"), "celeba": celeba("ce", **_OFFICIAL)},
        plots.figure_1,
        trains=False,
    ),
    Exhibit(
        "Fig. 2",
        "features of three classes, CIFAR-100, ResNet32",
        {key: _table_9()[f"resnet32 {key}"] for key in ("bln", "imb", "crl")},
        plots.figure_2,
    ),
    Exhibit(
        "Fig. 5",
        f"hardest samples of rare classes (fashion product images in place of faces; {STAND_IN})",
        _some(_OF_XDOMAIN, "crl"),
        plots.figure_5,
    ),
    Exhibit("Fig. 6", "gains over DeepID2 by attribute, CelebA", _some(_OF_CELEBA, "ce", "lmle", "crl"), plots.figure_6),
    Exhibit(
        "Fig. 7",
        "images right with CRL and wrong without, CIFAR-100-imb(1) in place of CelebA's faces, which are not shown",
        {"ce": _table_9()["cifarnet imb"], "crl": _table_9()["cifarnet crl"]},
        plots.changed_images,
    ),
    Exhibit("Fig. 8", f"gains over MTCT by attribute ({STAND_IN})", _some(_OF_XDOMAIN, "ce", "lmle", "crl"), plots.figure_8),
    Exhibit(
        "Fig. 9", f"images right with CRL and wrong without ({STAND_IN})", _some(_OF_XDOMAIN, "ce", "crl"), plots.changed_images
    ),
    Exhibit("Fig. 10a", "class sizes of CIFAR-100-imb(gamma)", {}, plots.figure_10a, trains=False),
    Exhibit(
        "Fig. 10b",
        "ResNet32 with and without CRL by gamma, CIFAR-100-imb(gamma)",
        {
            f"{method} {gamma:g}": cifar(_IMBALANCED["resnet32"], method, data__gamma=gamma)
            for gamma in printed.GAMMAS
            for method in ("ce", "class_rel")
        },
        plots.figure_10b,
    ),
    Exhibit(
        "Fig. 11",
        f"weight eta of rectification, X-Domain ({STAND_IN})",
        {"ce": fashion("ce"), **{f"eta {eta:g}": fashion("class_rel", crl__eta=eta) for eta in printed.ETAS}},
        plots.figure_11,
    ),
    Exhibit(
        "Fig. 12",
        f"number kappa of hard samples, X-Domain ({STAND_IN})",
        {"ce": fashion("ce"), **{f"kappa {kappa}": fashion("class_rel", crl__kappa=kappa) for kappa in printed.KAPPAS}},
        plots.figure_12,
    ),
    Exhibit(
        "Fig. slides",
        "relative gains against imbalance, CelebA (slide 7 of LMLE's talk, CVPR 2016)",
        _some(_OF_CELEBA, "triplet_knn", "panda", "anet", "lmle", "crl"),
        plots.slides,
    ),
)

EXHIBITS: dict[str, Exhibit] = {exhibit.name: exhibit for exhibit in (*TABLES, *FIGURES)}
"""Every exhibit by its name. A new one is a row here."""


def find(kind: str, number: str) -> Exhibit:
    """The exhibit of a number: ("Table", "9"), ("Fig.", "10b").

    Raises:
        ValueError: there is none; it names those that there are.
    """
    name = f"{kind} {number.strip().lower()}"
    if name not in EXHIBITS:
        known = [key.split(" ", 1)[1] for key in EXHIBITS if key.startswith(kind)]
        flag = {"Table": "table", "Fig.": "figure"}[kind]
        raise ValueError(f"{flag} must be one of {', '.join(known)}, received {number!r}")
    return EXHIBITS[name]
