"""Builds the parts of each of the paper's tables from finished runs, beside the printed numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from paper import printed
from paper.content import UNREADABLE, Paragraph, Part, Table, measured, number
from paper.material import LISTS, Material, Row, listed, ratio_words, run_table, training_counts
from paper.planning import CELEBA

NAMES = {
    "triplet_knn": "Triplet-kNN", "panda": "PANDA", "anet": "ANet", "ce": "cross-entropy", "over_sampling": "over-sampling",
    "down_sampling": "down-sampling", "cost_sensitive": "cost-sensitive", "threshold_adjustment": "threshold-adjustment",
    "lmle": "LMLE", "crl": "CRL", "ddan": "DDAN", "fashionnet": "FashionNet", "darn": "DARN",
}  # fmt: skip
NETWORKS = {"cifarnet": "CifarNet", "resnet32": "ResNet32", "densenet": "DenseNet"}
FORMS = {
    f"{level}_{short}": f"{level} level, {long}"
    for level in ("instance", "class")
    for short, long in (("abs", "absolute"), ("rel", "relative"), ("dis", "distribution"))
}


def statistics(material: Material) -> list[Part]:
    """Table 2, of the lists at hand."""
    lines = []
    for name, spec in material.specs.items():
        known = printed.TABLE_2[name]
        words = {"celeba": "CelebA", "xdomain": "X-Domain (paper), fashion products (ours)", "cifar100": "CIFAR-100"}[name]
        paper = [f"{value:,}" for value in (known.total, known.training, known.test)]
        per_class = "to".join(f" {value:,} " for value in known.per_class).strip()
        lines.append([f"{words}: paper", f"{known.labels}", known.classes, *paper, per_class])
        if spec.data not in material.request.folders and not (spec.data == CELEBA and LISTS in material.request.folders):
            lines.append([f"{words}: ours", *[number(None)] * 6])
            continue
        dataset = listed(material.request, spec)
        sizes = sorted(dataset.schema.num_classes)
        splits = {split: len(samples) for split, samples in dataset.splits.items()}
        counts = [count for of_label in training_counts(material.request, spec).values() for count in of_label.values() if count]
        classes = str(sizes[0]) if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
        images = (sum(splits.values()), splits["train"], splits["test"])
        ours = [str(len(sizes)), classes, *(f"{value:,}" for value in images), f"{min(counts):,} to {max(counts):,}"]
        lines.append([f"{words}: ours", *ours])
    columns = ["dataset", "labels", "classes", "images", "training images", "test images", "training images per class"]
    note = (
        "The paper counts CelebA's 40 attributes by their positives and, as ours for CelebA, training images with the"
        " validation images that it takes from them. Ours are as the lists at hand have them; classes without a training"
        " image are not counted."
    )
    return [Table(columns, lines), Paragraph(note)]


def methods(material: Material, means: Mapping[str, float | None], digits: int = 1) -> list[Part]:
    """The first part of Tables 3 and 5: a row per method, with the mean over all labels."""
    base = means.get("ce")
    rows = [
        Row(
            NAMES[name],
            name,
            means.get(name),
            None if name == "ce" else "ce",
            None if name == "ce" or None in (base, means.get(name)) else means[name] - base,
            printed.HOURS.get(("celeba" if digits == 0 else "xdomain", name)),
        )
        for name in material.specs
    ]
    return [run_table(material, rows, digits=digits, title="Mean over all labels")]


def table_3(material: Material) -> list[Part]:
    """Table 3: CelebA's attributes by all methods."""
    spec = material.specs["ce"]
    known = spec.data in material.request.folders or LISTS in material.request.folders
    ratios = material.ratios(spec) if known else {}
    columns = ["attribute", "1:x, ours", "1:x, paper", *(f"{NAMES[name]}: ours (paper)" for name in material.specs)]
    lines = []
    for label in printed.BOTTOM_20 + printed.TOP_20:
        cells = [
            f"{measured(list(material.accuracies(name, label).values()))} ({_printed(printed.TABLE_3[name][label])})"
            for name in material.specs
        ]
        lines.append([label.replace("_", " "), ratio_words(ratios.get(label)), str(printed.CELEBA_RATIOS[label]), *cells])
    unreadable = f"{UNREADABLE}: the paper has a number that cannot be read in our text of it; {number(None)}: there is none."
    note = f"The means of LMLE and CRL are those of the paper's text. {unreadable}"
    return [*methods(material, printed.TABLE_3_MEAN, 0), Table(columns, lines, "By attribute, %"), Paragraph(note)]


def _printed(value: float | None) -> str:
    return UNREADABLE if value is None else f"{value:g}"


def table_4(material: Material) -> list[Part]:
    """Table 4: the gains over DeepID2 on CelebA's less and more imbalanced half."""
    parts = {"bottom 20 (1:1 to 1:5)": printed.BOTTOM_20, "top 20 (1:6 to 1:43)": printed.TOP_20}
    return [split_gains(material, parts, printed.TABLE_4, 0)]


def table_5(material: Material) -> list[Part]:
    """Table 5: the stand-in's labels by all methods; the paper's labels are others, so only the means stand side by side."""
    means = {name: values[-1] for name, values in printed.TABLE_5.items()}
    ratios = material.ratios(material.specs["ce"]) if material.jobs.get("ce") else {}
    ordered = sorted(ratios, key=lambda label: ratios[label])
    ours = [
        [
            label,
            ratio_words(ratios[label]),
            *(measured(list(material.accuracies(name, label).values())) for name in material.specs),
        ]
        for label in ordered
    ]
    theirs = [
        [label, ratio_words(printed.XDOMAIN_RATIOS[label]), *(f"{printed.TABLE_5[name][place]:.2f}" for name in material.specs)]
        for place, label in enumerate(printed.XDOMAIN)
    ]
    columns = ["attribute", "1:x", *(NAMES[name] for name in material.specs)]
    return [
        *methods(material, means, 2),
        Table(columns, ours, "Ours, by attribute of the stand-in, %"),
        Table(columns, theirs, "Paper, by attribute of X-Domain, %"),
    ]


def table_6(material: Material) -> list[Part]:
    """Table 6: the gains over MTCT up to an imbalance of 1:5 and above, on the stand-in."""
    ratios = material.ratios(material.specs["ce"]) if material.jobs.get("ce") else {}
    low = [label for label, ratio in ratios.items() if round(ratio) <= 5]
    high = [label for label in ratios if label not in low]
    words = [f"{name} 1:5, {len(labels)} attributes" for name, labels in (("up to", low), ("above", high))]
    note = "In the paper one attribute is up to 1:5 and eight are above."
    table = split_gains(material, dict(zip(words, (low, high), strict=True)), printed.TABLE_6, 2)
    return [table, Paragraph(f"Ours up to 1:5: {', '.join(low) or 'none'}. {note}")]


def split_gains(
    material: Material, parts: Mapping[str, Sequence[str]], paper: Mapping[str, Sequence[float]], digits: int
) -> Table:
    """Gains over cross-entropy of LMLE and CRL, as a mean over each part of the labels."""
    lines = []
    for name, of_paper in paper.items():
        cells = []
        for labels, theirs in zip(parts.values(), of_paper, strict=True):
            gains = material.gains(name, "ce", labels) if labels else []
            cells += [measured(gains, signed=True), number(theirs, digits, signed=True)]
        lines.append([NAMES[name], *cells])
    columns = ["gain in points", *(f"{words}: {whose}" for words in parts for whose in ("ours", "paper"))]
    return Table(columns, lines)


def table_7(material: Material) -> list[Part]:
    """Table 7: ResNet50 with and without CRL on the stand-in."""
    lines = []
    for label in material.labels():
        ce, crl = (list(material.accuracies(name, label).values()) for name in ("ce", "crl"))
        gain = measured(material.gains("crl", "ce", label), signed=True)
        lines.append([label, measured(ce), measured(crl), gain])
    names = [name or "(unreadable)" for name in printed.TABLE_7_GROUPS]
    theirs = [
        [f"{name}, 1:{ratio}", f"{ce:.2f}", f"{crl:.2f}", f"{crl - ce:+.2f}"]
        for name, ratio, ce, crl in zip(
            names, printed.TABLE_7_RATIOS, printed.TABLE_7["ce"], printed.TABLE_7["crl"], strict=False
        )
    ]
    means = {name: values[-1] for name, values in printed.TABLE_7.items()}
    rows = [
        Row("ResNet50", "ce", means["ce"]),
        Row("ResNet50 with CRL", "crl", means["crl"], "ce", means["crl"] - means["ce"]),
    ]
    columns = ["", "without CRL", "with CRL", "gain"]
    note = (
        "The stand-in has seven attributes of several classes each, and no groups: its numbers are class-balanced accuracies of"
        " the largest score, the paper's are by the top 5 attributes of an image."
    )
    return [
        run_table(material, rows, digits=2, first=""),
        Table(columns, lines, "Ours, by attribute of the stand-in, %"),
        Table(columns, theirs, "Paper, by group of DeepFashion, %"),
        Paragraph(note),
    ]


def table_8(material: Material) -> list[Part]:
    """Table 8: balanced CIFAR-100."""
    rows = []
    for name, (ce, gain) in printed.TABLE_8.items():
        rows.append(Row(NETWORKS[name], f"{name} ce", ce))
        rows.append(Row(f"{NETWORKS[name]} with CRL", f"{name} crl", ce + gain, f"{name} ce", gain))
    return [run_table(material, rows)]


def table_9(material: Material) -> list[Part]:
    """Table 9: CIFAR-100 at gamma 1, balanced and imbalanced."""
    rows = []
    for name, (balanced, imbalanced, crl) in printed.TABLE_9.items():
        words = NETWORKS.get(name, "HOG + kNN")
        rows.append(Row(f"{words}, balanced", f"{name} bln", balanced))
        rows.append(Row(f"{words}, imbalanced", f"{name} imb", imbalanced, f"{name} bln", imbalanced - balanced))
        if crl is not None:
            rows.append(Row(f"{words}, imbalanced, with CRL", f"{name} crl", crl, f"{name} imb", crl - imbalanced))
    note = "Gains: of imbalanced over balanced training data, and of CRL over cross-entropy on imbalanced ones."
    return [run_table(material, rows, first="network, training data"), Paragraph(note)]


def table_10(material: Material) -> list[Part]:
    """Table 10: the gains of CRL's six forms, on CelebA and on the stand-in for X-Domain."""
    parts: list[Part] = []
    for data, title, base in (
        ("celeba", "CelebA: gain over DeepID2", 81),
        ("xdomain", "Stand-in for X-Domain: gain over MTCT", 73.53),
    ):
        rows = [Row("cross-entropy", f"{data} ce", base)]
        for form, words in FORMS.items():
            rows.append(Row(words, f"{data} {form}", None, f"{data} ce", printed.TABLE_10[data][form]))
        parts.append(run_table(material, rows, digits=2, title=title, first="CRL"))
    return parts


def _sweep(
    words: Mapping[str, str], means: Mapping[str, float | None], times: Mapping[str, float | None] | None = None
) -> list[Row]:
    base = means.get("ce")
    return [
        Row(
            text,
            name,
            means.get(name),
            None if name == "ce" else "ce",
            None if base is None or name == "ce" or means.get(name) is None else means[name] - base,
            (times or {}).get(name),
        )
        for name, text in words.items()
    ]


def table_11(material: Material) -> list[Part]:
    """Table 11: CRL with and without mining, and LMLE."""
    words = {"class_rel": "CRL, mining and joint learning", "class_rel_unmined": "CRL, joint learning alone", "lmle": "LMLE"}
    return [run_table(material, _sweep({"ce": "cross-entropy", **words}, {"ce": 73.53, **printed.TABLE_11}), digits=2)]


def table_12(material: Material) -> list[Part]:
    """Table 12: which classes are rectified."""
    words = {"ce": "none: cross-entropy", "class_rel": "minority classes", "class_rel_all": "all classes"}
    means, times = ({name: values[place] for name, values in printed.TABLE_12.items()} for place in (0, 1))
    parts: list[Part] = [run_table(material, _sweep(words, means, times), digits=2, first="CRL's class scope")]
    minority, every = material.seconds("class_rel"), material.seconds("class_rel_all")
    if minority and every:
        extra = 100 * (float(np.mean(every)) / float(np.mean(minority)) - 1)
        parts.append(Paragraph(f"All classes took {extra:+.1f} % time of training; in the paper +28.5 %."))
    return parts


def table_13(material: Material) -> list[Part]:
    """Table 13: rho."""
    words = {"class_rel_rho_10": "rho = 10 %", "class_rel_rho_30": "rho = 30 %", "class_rel": "rho = 50 %"}
    return [
        run_table(
            material,
            _sweep({"ce": "none: cross-entropy", **words}, {"ce": 73.53, **printed.TABLE_13}),
            digits=2,
            first="minority classes hold at most",
        )
    ]
