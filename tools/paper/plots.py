"""Builds the parts of each of the paper's figures from finished runs, by the functions of the figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crl_tf.imbalance import imbalance_ratio
from crl_tf.schema import NOT_ANNOTATED
from paper import printed
from paper.content import Paragraph, Part, Picture
from paper.figures import FeatureMap, class_imbalance, class_size_curves, feature_maps, gain_by_label, relative_gain
from paper.material import LISTS, Material, training_counts
from paper.observations import Run, gains_over, labels_over_setting, level, over_epochs, over_setting, power_law_sizes, read_runs
from paper.outputs import Outputs, changed_rows, feature_map, mined_rows, outputs_of, rare_and_frequent
from paper.pictures import PictureRow, picture_rows
from paper.planning import CELEBA
from paper.style import Series
from paper.sweeps import accuracy_over, accuracy_over_loss_weight
from paper.tables import NAMES

SHOWN_CLASSES = 4
"""Rows of images in Figs. 5, 7 and 9."""

PRODUCT_LABEL = "subCategory"
SHOWN_PRODUCTS = ("Bags", "Belts", "Flip Flops", "Sandal", "Shoe Accessories", "Shoes", "Wallets", "Watches")
"""Fashion products that are photographed alone; clothes are worn by people, whom no figure shows."""

ONLY_PRODUCTS = "Only bags, belts, shoes, wallets and watches are shown and counted: other products are worn by people."


def _runs(material: Material, *names: str) -> list[Run]:
    """The finished runs of some names.

    Raises:
        LookupError: a name without a finished run.
    """
    for name in names:
        if not material.folders(name):
            raise LookupError(f"no run of {name!r} is finished")
    return read_runs([folder for name in names for folder in material.folders(name)])


def figure_1(material: Material) -> list[Part]:
    """Fig. 1: class sizes of the lists at hand."""
    titles = {"xdomain": "X-Domain's stand-in: fashion products", "celeba": "CelebA"}
    at_hand = material.request.folders
    datasets = {
        titles[name]: {label: list(of_label.values()) for label, of_label in training_counts(material.request, spec).items()}
        for name, spec in material.specs.items()
        if spec.data in at_hand or (spec.data == CELEBA and LISTS in at_hand)
    }
    if not datasets:
        raise LookupError("no data")
    paper = {titles[name]: printed.TABLE_2[name].per_class for name in titles}
    words = "training images of every class of every label, the largest class first"
    return [Picture(class_imbalance(datasets, {title: paper[title] for title in datasets}), words)]


def figure_2(material: Material) -> list[Part]:
    """Fig. 2: features of two frequent classes and a rare one, of the first seed, by PCA and t-SNE."""
    names = {"bln": "balanced data", "imb": "imbalanced data", "crl": "imbalanced, with CRL"}
    folders = [_runs(material, name)[0].folder for name in names]
    of_runs = outputs_of(folders)
    label = of_runs[0].data.dataset.schema.names[0]
    classes = rare_and_frequent(of_runs[1], label, 1, 2)
    shown = [of_runs[0].classes(label)[of_class] for of_class in classes]
    maps: list[FeatureMap] = [
        feature_map(outputs, label, classes, f"{title}, {words}", method)
        for outputs, title in zip(of_runs, names.values(), strict=True)
        for method, words in (("pca", "PCA"), ("tsne", "t-SNE"))
    ]
    words = f"features of the test images of {', '.join(shown)}; the last is the rarest class in training"
    return [Picture(feature_maps(maps, shown), words)]


def _gain_figure(material: Material, names: Sequence[str], paper: dict[str, list[float | None]] | None) -> list[Part]:
    gains = gains_over(_runs(material, "ce", *names), "ce")
    points = {NAMES[name]: of for name, of in zip(names, gains.points.values(), strict=True)}
    known = None if paper is None else {NAMES[name]: [dict_of[label] for label in gains.names] for name, dict_of in paper.items()}
    words = f"gain of {' and '.join(points)} over cross-entropy by label, in points of class-balanced accuracy"
    ratios = material.ratios(material.specs["ce"])
    return [
        Picture(gain_by_label(gains.names, [ratios.get(name) for name in gains.names], points, "cross-entropy", known), words)
    ]


def figure_6(material: Material) -> list[Part]:
    """Fig. 6: gains over DeepID2 at CelebA's attributes; the paper's are differences of Table 3's numbers, where readable."""
    names = [name for name in ("lmle", "crl") if material.folders(name)]
    if not names:
        raise LookupError("neither a run of LMLE nor of CRL is finished")
    base = printed.TABLE_3["ce"]
    paper = {
        name: {
            label: None if None in (value, base[label]) else value - base[label] for label, value in printed.TABLE_3[name].items()
        }
        for name in names
    }
    return [
        *_gain_figure(material, names, paper),
        Paragraph("The paper's gains are differences of the numbers of Table 3; those of the twenty more imbalanced attributes"
                  " cannot be read in our text of it."),
    ]  # fmt: skip


def figure_8(material: Material) -> list[Part]:
    """Fig. 8: gains over MTCT at the labels of the stand-in."""
    names = [name for name in ("lmle", "crl") if material.folders(name)]
    if not names:
        raise LookupError("neither a run of LMLE nor of CRL is finished")
    paper = {name: [f - b for f, b in zip(printed.TABLE_5[name], printed.TABLE_5["ce"], strict=True)] for name in names}
    text = "; ".join(
        f"{NAMES[name]}: " + ", ".join(f"{label} {gain:+.2f}" for label, gain in zip(printed.XDOMAIN, gains, strict=False))
        for name, gains in paper.items()
    )
    return [*_gain_figure(material, names, None), Paragraph(f"The paper's gains on X-Domain, from Table 5: {text}.")]


def figure_10a(material: Material) -> list[Part]:
    """Fig. 10a: the class sizes that Sec. 4.3 simulates."""
    sizes = {gamma: [int(size) for size in of] for gamma, of in power_law_sizes(printed.GAMMAS).items()}
    note = (
        "At most 490 of a class's images are trained on: the others are the validation images. The paper says gamma 0.2 to 1; the"
        " steps between are ours."
    )
    return [Picture(class_size_curves(sizes), "training images of each of 100 classes, by gamma"), Paragraph(note)]


def figure_10b(material: Material) -> list[Part]:
    """Fig. 10b: ResNet32 with and without CRL over gamma."""
    runs = _runs(material, *(name for name in material.specs if material.folders(name)))
    series = over_setting(runs, "data.gamma", names={"ce": "cross-entropy", "class_rel": "with CRL"})
    note = (
        "Paper, from Table 9: 42.1 without and 45.2 with CRL at gamma 1. The other values of Fig. 10(b) cannot be read in our"
        " text of it."
    )
    figure = accuracy_over(series, "gamma")
    return [Picture(figure, "class-balanced accuracy over gamma, with and without CRL"), Paragraph(note)]


def figure_11(material: Material) -> list[Part]:
    """Fig. 11: accuracy over eta, by label."""
    runs = _runs(material, *(name for name in material.specs if name != "ce" and material.folders(name)))
    etas, by_label = labels_over_setting(runs, "crl.eta")
    levels = [level(_runs(material, "ce"), "cross-entropy")] if material.folders("ce") else []
    note = (
        "Paper: 0.01 is the best of eta from 0.001 to 0.1, with a mean of 80.42 (Table 5). Its other values cannot be read in our"
        " text of it; the steps of eta between are ours."
    )
    figure = accuracy_over_loss_weight(etas, by_label, levels)
    return [Picture(figure, "class-balanced accuracy over the weight eta of rectification"), Paragraph(note)]


def figure_12(material: Material) -> list[Part]:
    """Fig. 12: accuracy over kappa, and over the epochs for some kappas."""
    kappas = {kappa: f"kappa {kappa}" for kappa in printed.KAPPAS if material.folders(f"kappa {kappa}")}
    if not kappas:
        raise LookupError("no run is finished")
    series = over_setting(_runs(material, *kappas.values()), "crl.kappa", names={"class_rel": "CRL"})
    series += [level(_runs(material, "ce"), "cross-entropy")] if material.folders("ce") else []
    parts: list[Part] = [
        Picture(accuracy_over(series, "kappa"), "class-balanced accuracy over kappa, the number of hard samples")
    ]
    shown = [kappa for kappa in (1, 25, 175) if kappa in kappas]
    histories: list[Series] = [over_epochs(_runs(material, kappas[kappa]), f"kappa = {kappa}") for kappa in shown]
    if any(len(one.places or ()) > 1 for one in histories):
        words = "class-balanced accuracy on the validation images over the epochs"
        parts.append(Picture(accuracy_over(histories, "epoch", "validation, class-balanced accuracy, %"), words))
    note = (
        "Paper: with kappa = 1 the model fails to converge well; from 25 on there is no further improvement, and 25 is used"
        " everywhere (80.42, Table 5). Its other values cannot be read in our text of it."
    )
    return [*parts, Paragraph(note)]


def figure_5(material: Material) -> list[Part]:
    """Fig. 5: the hardest samples of rare classes by the trained model, of both levels; never of people."""
    outputs = _without_people(outputs_of([_runs(material, "crl")[0].folder])[0])
    label = _most_imbalanced(outputs)
    classes = rare_and_frequent(outputs, label, SHOWN_CLASSES, 0)
    words = f"{label}: hardest samples mined at {{}} level"
    parts = [
        _pictures(mined_rows(outputs, label, classes, level), outputs, words.format(level)) for level in ("class", "instance")
    ]
    return [*parts, Paragraph(ONLY_PRODUCTS)]


def changed_images(material: Material) -> list[Part]:
    """Figs. 7 and 9: images of rare classes that are right with CRL and wrong without, and the other way round."""
    before, after = (_without_people(of) for of in outputs_of([_runs(material, name)[0].folder for name in ("ce", "crl")]))
    label = _most_imbalanced(before)
    rows = changed_rows(before, after, label, rare_and_frequent(before, label, SHOWN_CLASSES, 0))
    part = _pictures([row for row in rows if row.pictures], before, f"{label}: images whose decision changes with CRL")
    return [part, Paragraph(ONLY_PRODUCTS)] if len(before.data.dataset.schema) > 1 else [part]


def _most_imbalanced(outputs: Outputs) -> str:
    names = outputs.data.dataset.schema.names
    return max(names, key=lambda label: imbalance_ratio(outputs.counts(label)))


def _without_people(outputs: Outputs) -> Outputs:
    """The same, but images that may show people count as not annotated, so that none of them is chosen.

    Raises:
        LookupError: there is no saying which images show people.
    """
    dataset = outputs.data.dataset
    if dataset.name.startswith("cifar100"):  # whose classes of people the pictures leave out
        return outputs
    if PRODUCT_LABEL not in dataset.schema.names:
        raise LookupError(f"there is no label {PRODUCT_LABEL!r} that says which images show no people")
    products = np.array([*outputs.classes(PRODUCT_LABEL), ""])[outputs.truth(PRODUCT_LABEL)]
    allowed = np.isin(products, SHOWN_PRODUCTS)
    return outputs._replace(labels=np.where(allowed[:, None], outputs.labels, NOT_ANNOTATED))


def _pictures(rows: Sequence[PictureRow], outputs: Outputs, words: str) -> Part:
    if not any(row.pictures for row in rows):
        raise LookupError("none of the images that may be shown is such a one")
    dataset = outputs.data.dataset
    return Picture(picture_rows(rows, dataset.name, dataset.schema.names), words)


def slides(material: Material) -> list[Part]:
    """The gain plot of LMLE's slides, with CRL beside LMLE: relative gains over ANet, PANDA and Triplet-kNN."""
    parts: list[Part] = []
    for base in ("anet", "panda", "triplet_knn"):
        methods = [name for name in ("lmle", "crl") if material.folders(name)]
        if not material.folders(base) or not methods:
            continue
        # Runs of one method, ce, of several networks: told apart by their names in the exhibit.
        runs = [
            run._replace(result={**run.result, "method": name, "model": "any"})
            for name in (base, *methods)
            for run in _runs(material, name)
        ]
        gains = gains_over(runs, base)
        relative = {NAMES[name]: of for name, of in zip(methods, gains.relative.values(), strict=True)}
        words = f"relative gain over {NAMES[base]} against the imbalance of an attribute"
        parts.append(Picture(relative_gain(gains.levels, relative, NAMES[base]), words))
    if not parts:
        raise LookupError("no runs of ANet, PANDA or Triplet-kNN beside LMLE or CRL are finished")
    return parts
