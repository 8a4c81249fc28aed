"""Looks at data before training: how imbalanced each label is, which classes can be rectified, and what is wrong."""

from __future__ import annotations

import csv
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict
from scipy.stats import hypergeom

from crl_tf.datasets.images.check import check_splits, duplicates, image_names, without_images
from crl_tf.datasets.ordering import paired, rarest_class
from crl_tf.datasets.source import SPLITS, Dataset, Split
from crl_tf.experiment.data import load_source
from crl_tf.experiment.proposal import proposal
from crl_tf.experiment.report import save_association, save_class_distributions, save_class_sizes
from crl_tf.experiment.workdir import refuse_file
from crl_tf.files import write_json, write_whole
from crl_tf.imbalance import class_counts, imbalance_measure, imbalance_ratio
from crl_tf.losses.crl.profiling import minority_classes
from crl_tf.progress import SILENT, Progress
from crl_tf.schema import AttributeSchema
from crl_tf.text import csv_text

SIMULATED_BATCHES = 1000
"""Batches drawn to see how often a class is in the minority: the share has an error of at most sqrt(0.25 / 1000), 1.6 points."""

MOST_PAIRED = 5000
"""Classes, above which pairs of them are not counted: 200 MB for so many, and 34 GB for 65,000."""

STRONGEST = 50
"""Pairs of labels that are named, those which tell most of one another."""


INSPECTION = "inspection.json"


def inspect(config: ConfigDict, workdir: Path, *, check_images: bool = True, progress: Progress = SILENT) -> dict[str, Any]:
    """Looks at the dataset of a configuration; leaves inspection.json, co_occurrence.csv and figures in `workdir`.

    Args:
        config: of its training, only batch_size, eta and rho are looked at.
        workdir: a new or empty folder, or one that an earlier inspection left, which is overwritten.
        check_images: also read every image that is there.
    Returns:
        what `inspect_dataset` returns, with "images": what `inspect_images` returns, and "proposal": what to begin with.
    """
    workdir = Path(workdir)
    refuse_file(workdir)
    if workdir.is_dir() and any(workdir.iterdir()) and not (workdir / INSPECTION).is_file():
        raise ValueError(f"workdir {workdir} is not empty and holds no inspection: pass another --workdir")
    dataset = load_source(config.dataset, config.data, seed=config.seed, check_images=False, progress=progress)
    images = inspect_images(dataset, tuple(config.data.image_size), progress=progress) if check_images else {}
    if config.data.skip_unreadable:
        unreadable = images.get("unreadable", [])
        dataset = without_images(dataset, {name: [i["index"] for i in unreadable if i["split"] == name] for name in SPLITS})
    facts = inspect_dataset(dataset, batch_size=config.train.batch_size, eta=config.crl.eta, rho=config.crl.rho, seed=config.seed)
    facts["findings"] += images.pop("findings", [])
    facts["images"] = images
    facts["proposal"] = proposal(facts, config)
    pairs = dataset.schema.width <= MOST_PAIRED
    together = co_occurrence(dataset.splits["train"].labels, dataset.schema) if pairs else None
    if pairs:
        save_co_occurrence(together, dataset.schema, workdir / "co_occurrence.csv")
    figures = workdir / "figures"
    save_class_sizes(facts, figures / "class_sizes.png")
    counts = {n: {"train_counts": {k: c["train"] for k, c in f["classes"].items()}} for n, f in facts["labels"].items()}
    save_class_distributions(counts, figures / "class_distributions.png")
    if pairs and len(dataset.schema) > 1:
        save_association(dataset.schema.names, association(together, dataset.schema), figures / "co_occurrence.png")
    write_json(workdir / INSPECTION, facts)
    return facts


def inspect_dataset(dataset: Dataset, *, batch_size: int, eta: float, rho: float = 0.5, seed: int = 0) -> dict[str, Any]:
    """Describes the labels of a dataset, ready for JSON.

    Args:
        dataset: its images are not touched.
        batch_size: of training (n_bs).
        eta: alpha = eta * Omega (eq. 8).
        rho: of eq. 3.
        seed: of the simulated batches.
    Returns:
        {"dataset", "batch_size", "eta", "rho",
         "splits": {split: {"images", "missing", "smallest_class", "largest_class", and where all labels are binary
                            "smallest_present", "largest_present"}},
         "labels": {label: {"classes": {class: {"train", "validation", "test": counts, "share", "two_in_batch", "rectified",
                                                "rectified_in_pairs"}},
                            "ratio", "omega", "alpha", "missing": {split: share}, "group"}},
         "co_occurrence": [[label, label, Cramér's V], ...], strongest first,
         "findings": [one sentence each]}

        "share" is the class's of the annotated training samples; "two_in_batch" the probability that a batch holds at least
        two of it, below which nothing rectifies it (footnote 2); "rectified" the share of simulated batches in which it is
        a minority class as well, which is the share of steps in which CRL acts on it; "rectified_in_pairs" the same with the
        method `pairs`. Shares lie in [0, 1]; a ratio is None where no training sample is annotated.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, received {batch_size}")
    schema = dataset.schema
    counts = {split: class_counts(dataset.splits[split].labels, schema.num_classes) for split in SPLITS}
    two = [two_in_batch(c, len(dataset.splits["train"]), batch_size) for c in counts["train"]]
    rectified, in_pairs = (_rectified(dataset, batch_size, rho, seed, pairs=pairs) for pairs in (False, True))
    labels = {}
    for j, attribute in enumerate(schema.attributes):
        train = counts["train"][j]
        omega = imbalance_measure(train) if train.any() else None
        labels[attribute.name] = {
            "classes": {
                name: {
                    **{split: int(counts[split][j][k]) for split in SPLITS},
                    "share": float(train[k] / max(train.sum(), 1)),
                    "two_in_batch": float(two[j][k]),
                    "rectified": float(rectified[j][k]),
                    "rectified_in_pairs": float(in_pairs[j][k]),
                }
                for k, name in enumerate(attribute.classes)
            },
            "ratio": imbalance_ratio(train) if train.any() else None,
            "omega": omega,
            "alpha": None if omega is None else min(1.0, eta * omega),
            "missing": {split: _missing(dataset.splits[split].labels[:, j]) for split in SPLITS},
            **({"group": attribute.group} if attribute.group else {}),
        }
    facts = {
        "dataset": dataset.name,
        "batch_size": batch_size,
        "eta": eta,
        "rho": rho,
        "splits": {split: _split_facts(dataset, split, counts[split]) for split in SPLITS},
        "labels": labels,
        "co_occurrence": [],
    }
    sentences = findings(facts)
    if schema.width <= MOST_PAIRED:
        facts["co_occurrence"] = strongest_pairs(schema, co_occurrence(dataset.splits["train"].labels, schema))
    else:
        sentences.append(f"pairs of classes were not counted: {schema.width:,} classes are more than {MOST_PAIRED:,}")
    return {**facts, "findings": sentences}


def two_in_batch(counts: np.ndarray, total: int, batch_size: int) -> np.ndarray:
    """Probability that a batch drawn without replacement from `total` samples holds at least two of a class.

    Args:
        counts: samples of each class, [C].

    >>> two_in_batch(np.array([2, 1]), total=4, batch_size=2)  # 1 pair of the 6 is that of the class
    array([0.16666667, 0.        ])
    """
    return hypergeom.sf(1, total, np.asarray(counts), min(batch_size, total))


def co_occurrence(labels: np.ndarray, schema: AttributeSchema) -> np.ndarray:
    """Samples that have both classes, for every pair of classes of all labels.

    Args:
        labels: integers [n, L], -1 = not annotated.
    Returns:
        int64 [sum(num_classes), sum(num_classes)], symmetric; the diagonal counts each class.
    """
    together = np.zeros((schema.width, schema.width), np.float64)
    offsets = np.cumsum((0, *schema.num_classes[:-1]))
    # A few thousand samples at a time: as one matrix, members of a million samples and 40 labels would take gigabytes.
    for start in range(0, len(labels), 8192):
        part = labels[start : start + 8192]
        members = np.zeros((len(part), schema.width), np.float32)
        row, label = np.nonzero(part >= 0)
        members[row, offsets[label] + part[row, label]] = 1
        together += members.T @ members
    return together.astype(np.int64)


def association(together: np.ndarray, schema: AttributeSchema) -> np.ndarray:
    """Cramér's V of every pair of labels, [L, L]: 0 where one tells nothing of the other, 1 where it tells all of it.

    Over samples annotated for both; NaN where a label of the pair has a single class among those.
    """
    values = np.full((len(schema), len(schema)), np.nan)
    columns = [schema.columns(name) for name in schema.names]
    for i, rows in enumerate(columns):
        for j in range(i, len(columns)):
            table = together[rows, columns[j]].astype(np.float64)
            table = table[table.sum(1) > 0][:, table.sum(0) > 0]
            if min(table.shape) > 1:
                expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
                chi2 = ((table - expected) ** 2 / expected).sum()
                values[i, j] = values[j, i] = np.sqrt(chi2 / table.sum() / (min(table.shape) - 1))
    return values


def strongest_pairs(schema: AttributeSchema, together: np.ndarray) -> list[list[Any]]:
    """The pairs of labels with the largest association, [name, name, Cramér's V], at most `STRONGEST`."""
    values = association(together, schema)
    pairs = [(i, j) for i, j in zip(*np.triu_indices(len(schema), k=1), strict=True) if np.isfinite(values[i, j])]
    pairs.sort(key=lambda pair: -values[pair])
    return [[schema.names[i], schema.names[j], round(float(values[i, j]), 4)] for i, j in pairs[:STRONGEST]]


def findings(facts: dict[str, Any]) -> list[str]:
    """What a user should know or change before training, a sentence each."""
    classes = [(label, name, c) for label, of_label in facts["labels"].items() for name, c in of_label["classes"].items()]
    batch_size, sentences = facts["batch_size"], []

    def say(some: Sequence[tuple[str, str, Any]], what: str) -> None:
        if some:
            named = ", ".join(f"{label}={name}" for label, name, _ in some[:3])
            sentences.append(f"{len(some)} of {len(classes)} classes {what}: {named}{', …' if len(some) > 3 else ''}")

    say([c for c in classes if not any(c[2][split] for split in SPLITS)], "have no image in any split")
    say(
        [c for c in classes if not c[2]["train"] and (c[2]["validation"] or c[2]["test"])],
        "have no training image but stand in validation or test, and cannot be learned",
    )
    say([c for c in classes if c[2]["train"] and not c[2]["test"]], "have no test image, and are not measured")
    rare = [c for c in classes if c[2]["train"] and c[2]["two_in_batch"] < 0.5]
    say(
        sorted(rare, key=lambda c: c[2]["two_in_batch"]),
        f"have two images in fewer than half of the batches of {batch_size}; CRL cannot act on them in the others"
        " (a larger batch_size, or +pairs at the method, as in class_rel+pairs, helps)",
    )
    signs = [label for label, of_label in facts["labels"].items() if _has_no_negative(of_label)]
    if signs:
        sentences.append(
            f"{len(signs)} binary labels have images of one class and not annotated ones, none of the other:"
            f" {', '.join(signs[:3])}{', …' if len(signs) > 3 else ''}; where -1 means no, write 0 for it"
        )
    empty = [label for label, of_label in facts["labels"].items() if of_label["ratio"] is None]
    if empty:
        sentences.append(f"no training image is annotated for {', '.join(empty)}: drop the label")
    return sentences


def _has_no_negative(label: Mapping[str, Any]) -> bool:
    """Whether a label has two classes, the first of which never occurs while some images are not annotated."""
    first, *others = label["classes"].values()
    negatives, positives = (sum(sum(c[split] for split in SPLITS) for c in some) for some in ([first], others))
    return len(others) == 1 and not negatives and positives > 0 and any(label["missing"].values())


def _split_facts(dataset: Dataset, split: str, counts: Sequence[np.ndarray]) -> dict[str, Any]:
    labels = dataset.splits[split].labels
    every = np.concatenate(counts)
    facts = {
        "images": len(labels),
        "missing": _missing(labels),
        "smallest_class": int(every.min()),
        "largest_class": int(every.max()),
    }
    if set(dataset.schema.num_classes) == {2}:
        # Table 2 counts only these of the binary attributes.
        present = [int(c[1]) for c in counts]
        facts |= {"smallest_present": min(present), "largest_present": max(present)}
    return facts


def _missing(labels: np.ndarray) -> float:
    return float((labels < 0).mean())


def _rectified(dataset: Dataset, batch_size: int, rho: float, seed: int, *, pairs: bool) -> np.ndarray:
    """Share of simulated batches in which each class is a minority class with two samples or more, [L, largest].

    Args:
        pairs: whether images of a class come in pairs (`crl_tf.datasets.ordering.paired`).
    """
    labels, rng = dataset.splits["train"].labels, np.random.default_rng(seed)
    sizes = list(dataset.schema.num_classes)
    group = rarest_class(labels, sizes) if pairs else None

    @tf.function
    def chosen(batch: tf.Tensor) -> tf.Tensor:
        return minority_classes(batch, sizes, rho=rho)

    size = min(batch_size, len(labels))

    def batches() -> Iterator[np.ndarray]:
        """Those of whole epochs in pairs, without end; or single ones, which is faster."""
        while group is not None:
            order = paired(rng.permutation(len(labels)), group, int(rng.integers(2**32)))
            yield from (order[start : start + size] for start in range(0, len(order) - size + 1, size))
        while True:
            yield rng.choice(len(labels), size, replace=False, shuffle=False)

    draws = (labels[batch].astype(np.int32) for batch in itertools.islice(batches(), SIMULATED_BATCHES))
    return np.mean([chosen(tf.constant(batch)).numpy() for batch in draws], axis=0)


def inspect_images(dataset: Dataset, image_size: tuple[int, int], *, progress: Progress = SILENT) -> dict[str, Any]:
    """Reads every image once: finds unreadable and repeated images, their sizes and forms.

    Args:
        image_size: height and width that training resizes to.
    Returns:
        {"read": count, "unreadable": [{"split", "index", "image", "reason"}], "repeated": [[names of one picture], ...] that
         stands in several splits, "repeated_within": {split: images that repeat another of it}, "forms": {form: count},
         "sizes": {"smallest", "median", "largest": [H, W]}, "findings"}; "findings" alone where no image file is there.
    """
    if _lists_alone(dataset):
        first = next(split.images[0] for split in dataset.splits.values())
        return {"findings": [f"none of the images is there, such as {first}: this was counted from the lists alone"]}
    checked = check_splits(dataset, SPLITS, image_size=image_size, progress=progress)
    unreadable = [
        {"split": name, "index": image.index, "image": image.name, "reason": image.reason}
        for name, c in checked.items()
        for image in c.unreadable
    ]
    for c in checked.values():
        # Two empty files are not a repeated picture.
        c.digests[[image.index for image in c.unreadable]] = 0
    same = duplicates({name: c.digests for name, c in checked.items()})
    repeated = [
        [_name(name, dataset.splits[name], place) for name, place in group]
        for group in same.groups
        if len({name for name, _ in group}) > 1
    ]
    sizes = np.concatenate([c.sizes for c in checked.values()])
    sizes = sizes[sizes[:, 0] > 0]
    return {
        "read": sum(len(c.indices) for c in checked.values()),
        "unreadable": unreadable,
        "repeated": repeated,
        "repeated_within": same.within,
        "forms": dict(sum((Counter(c.forms) for c in checked.values()), Counter())),
        "sizes": _size_facts(sizes),
        "findings": _image_findings(unreadable, repeated, same.within, sum(len(c.indices) for c in checked.values())),
    }


def _name(split: str, images: Split, place: int) -> str:
    (name,) = image_names(images, [place])
    return f"{name} of {split}" if images.decoded else name


def _size_facts(sizes: np.ndarray) -> dict[str, list[int]]:
    if not len(sizes):
        return {}
    by_area = sizes[np.argsort(sizes.prod(axis=1, dtype=np.int64), kind="stable")].tolist()
    return {"smallest": by_area[0], "median": by_area[len(by_area) // 2], "largest": by_area[-1]}


def _image_findings(
    unreadable: Sequence[Mapping[str, str]], repeated: Sequence[Sequence[str]], within: Mapping[str, int], images: int
) -> list[str]:
    sentences = []
    if unreadable:
        first = unreadable[0]
        sentences.append(
            f"{len(unreadable)} of {images} images cannot be read, the first: {first['image']} ({first['reason']});"
            " --skip_unreadable leaves them out"
        )
    if repeated:
        what = "1 picture stands" if len(repeated) == 1 else f"{len(repeated)} pictures stand"
        sentences.append(
            f"{what} in several splits, so that what is tested was trained on: {' = '.join(repeated[0])}; inspection.json names"
            " them all; where the split is drawn, rows of one group (schema.yaml: group) stay together"
        )
    if any(within.values()):
        sentences.append(
            f"pictures that repeat another of their split: {', '.join(f'{n} in {name}' for name, n in within.items() if n)}"
        )
    return sentences


def save_co_occurrence(together: np.ndarray, schema: AttributeSchema, path: Path) -> None:
    """Writes the counts of every pair of classes as a CSV whose first row and column name them, label=class."""
    names = [csv_text(f"{attribute.name}={name}") for attribute in schema.attributes for name in attribute.classes]

    def write(partial: Path) -> None:
        with partial.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["", *names])
            rows.writerows([name, *counts] for name, counts in zip(names, together.tolist(), strict=True))

    write_whole(path, write)


def _lists_alone(dataset: Dataset) -> bool:
    """Whether the dataset has lists only: of a sample of its image files, none exists."""
    rng = np.random.default_rng(0)
    paths = [p for s in dataset.splits.values() if s.in_files for p in s.images[rng.integers(len(s), size=64)].tolist()]
    return bool(paths) and not any(map(os.path.exists, paths))
