"""Chooses the samples of an epoch, as indices: over-, down- and class-balanced sampling.

Dong, Gong & Zhu compare with over- and down-sampling (Sec. 4); class-balanced sampling is by Kang et al.,
*Decoupling Representation and Classifier for Long-Tailed Recognition* (ICLR 2020), eq. 1 with q = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from crl_tf.imbalance import class_counts, imbalance_ratio
from crl_tf.schema import AttributeSchema

MOST_TIMES = 50
"""Over-sampling that would repeat images more often than this, on average, is refused."""
FEWEST_PER_CLASS = 2
"""Down-sampling that would leave fewer images per class that occurs, over all labels, is refused."""
FEWEST_PER_CLASS_HARSH = 1
"""The same for harsh down-sampling, which on X-Domain leaves at most 191 images for 178 classes (docs/spec.md, section 9)."""


class MeaninglessForData(ValueError):
    """These labels give a resampling no meaning, such as one image of a class."""


class Resampling(NamedTuple):
    """One way to resample.

    draw: from labels, integers [n, L] (-1 = not annotated), L class numbers and a generator to indices, int64 [m].
    every_epoch: whether each epoch has a draw of its own (then m does not change).
    rule: what is drawn, in words.
    driver: in words, which label and class cause most of the resampling; ValueError if the labels give it no meaning.
    """

    draw: Callable[[np.ndarray, Sequence[int], np.random.Generator], np.ndarray]
    every_epoch: bool
    rule: str
    driver: Callable[[np.ndarray, AttributeSchema], str]


class Resampled(NamedTuple):
    """The samples of an epoch after resampling.

    indices: int64 [m], or a function from an epoch's number to them, for `make_pipeline`. summary: one line for the user.
    """

    indices: np.ndarray | Callable[[int], np.ndarray]
    summary: str


def resample(name: str, labels: np.ndarray, schema: AttributeSchema, seed: int) -> Resampled:
    """The samples of an epoch by a row of `RESAMPLING`.

    Args:
        name: of the row.
        labels: integers [n, L], -1 = not annotated, of the training set.
        schema: names of labels and classes.
        seed: what the draws follow from.
    Raises:
        ValueError: for an unknown name; where no sample is annotated.
        MeaninglessForData: where over-sampling would make more than 50 images of one;
            where down-sampling would leave fewer than 2 images per class that occurs, harsh down-sampling fewer than 1;
            for harsh down-sampling of one label, which is down-sampling.

    >>> from crl_tf.schema import Attribute
    >>> schema = AttributeSchema((Attribute("size", ("small", "large")),))
    >>> indices, summary = resample("over_sampling", np.array([[0], [0], [0], [1]]), schema, seed=0)
    >>> indices.tolist(), summary.split("; ")[-1]
    ([0, 1, 2, 3, 3, 3], 'largest imbalance ratio 1:3.0 -> 1:1.0')
    """
    if name not in RESAMPLING:
        raise ValueError(f"resample: name must be one of {sorted(RESAMPLING)}, received {name!r}")
    row, labels, sizes = RESAMPLING[name], np.asarray(labels), schema.num_classes
    schema.check_labels(labels, "resample")
    if not (labels >= 0).any():
        raise ValueError(f"resample: {name} needs labels with an annotated sample, received {len(labels)} samples without one")
    # Columns contiguous, because everything below reads them.
    labels = np.asfortranarray(labels)
    driver = row.driver(labels, schema)

    def of_epoch(epoch: int) -> np.ndarray:
        return row.draw(labels, sizes, np.random.default_rng([seed, epoch]))

    drawn = of_epoch(0)
    ratios = (_largest_ratio(of, sizes) for of in (labels, labels.T[:, drawn].T))
    summary = "; ".join(
        [
            f"{name}: {len(labels):,} -> {len(drawn):,} images{', anew in every epoch' if row.every_epoch else ''}",
            row.rule,
            driver,
            "largest imbalance ratio " + " -> ".join(f"1:{ratio:,.1f}" for ratio in ratios),
        ]
    )
    return Resampled(of_epoch if row.every_epoch else drawn, summary)


def _largest_ratio(labels: np.ndarray, sizes: Sequence[int]) -> float:
    return max(imbalance_ratio(counts) for counts in class_counts(labels, sizes) if counts.any())


def _by_label(labels: np.ndarray, tables: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """For each label, the entry of its table for the class of every sample, float64 [n]; 0 if not annotated."""
    for column, table in zip(labels.T, tables, strict=True):
        yield np.where(column >= 0, table[column], 0.0)


def _share(part: np.ndarray, whole: np.ndarray | int) -> np.ndarray:
    """part / whole, and 0 where the whole is 0: a class without images, a label or a sample without annotation."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=np.asarray(whole) > 0)


def over_sampling_copies(labels: np.ndarray, num_classes: Sequence[int]) -> np.ndarray:
    """The number of copies of each sample, float64 [n], at least 1: the mean over its annotated labels of h_max,j / h_j[a_ij].

    For several labels the paper says only that it replicates "by label-set weights". A sample without annotation has one copy.

    >>> over_sampling_copies(np.array([[0, 0], [0, 1], [0, 1], [1, 1]]), [2, 2])  # 3/3, 3/1 and 3/1, 3/3, each by halves
    array([2., 1., 1., 2.])
    """
    wanted = sum(_by_label(labels, [_share(h.max(), h) for h in class_counts(labels, num_classes)]))
    annotated = (labels >= 0).sum(axis=1)
    return np.where(annotated > 0, _share(wanted, annotated), 1.0)


def _over_sampled(labels: np.ndarray, num_classes: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    if labels.shape[1] == 1:
        copies = np.ones(len(labels), np.int64)
        counts = class_counts(labels, num_classes)[0]
        for k in np.flatnonzero(counts):
            members = np.flatnonzero(labels[:, 0] == k)
            copies[members], rest = divmod(int(counts.max()), len(members))
            copies[rng.choice(members, rest, replace=False)] += 1
    else:
        wanted = over_sampling_copies(labels, num_classes)
        copies = np.floor(wanted).astype(np.int64)
        copies += rng.random(len(wanted)) < wanted - copies
    return np.repeat(np.arange(len(labels)), copies)


class _Driver(NamedTuple):
    """The label and class that cause most of the copies beyond the first, and the share that each causes."""

    what: str
    of_label: float
    of_class: float


def _driver(labels: np.ndarray, schema: AttributeSchema) -> _Driver:
    # A sample's copies beyond the first are a mean over its labels: each label's part, added up by class.
    part = _share(1.0, (labels >= 0).sum(axis=1))
    extra, counts = [], class_counts(labels, schema.num_classes)
    for column, h in zip(labels.T, counts, strict=True):
        annotated = column >= 0
        parts = np.bincount(column[annotated], weights=part[annotated], minlength=len(h))
        extra.append(parts * np.maximum(_share(h.max(), h) - 1, 0))
    j = int(np.argmax([of_label.sum() for of_label in extra]))
    k = int(np.argmax(extra[j]))
    what = f"label {schema.names[j]!r}, class {schema.attributes[j].classes[k]!r} (images: {int(counts[j][k]):,})"
    total = sum(of_label.sum() for of_label in extra) or 1.0
    return _Driver(what, extra[j].sum() / total, extra[j][k] / total)


def _driver_of_copies(labels: np.ndarray, schema: AttributeSchema) -> str:
    wanted, driver = over_sampling_copies(labels, schema.num_classes).sum(), _driver(labels, schema)
    if wanted > MOST_TIMES * len(labels):
        raise MeaninglessForData(
            f"resample: over_sampling must make at most {MOST_TIMES} images of one, and would make {wanted:,.0f} of"
            f" {len(labels):,}; what asks for most of them is {driver.what}"
        )
    if not driver.of_label:
        return "nothing to balance"
    return f"most copies come from {driver.what}: its label {driver.of_label:.0%} of them, the class {driver.of_class:.0%}"


def down_sampling_probability(labels: np.ndarray, num_classes: Sequence[int]) -> np.ndarray:
    """The probability with which each sample is kept, float64 [n].

    One label: h_min / h[a_i], with h_min its smallest class that occurs, which balances it. Several labels: the sample's copies
    under over-sampling relative to their mean over all samples, at most 1. (The largest of h_min,j / h_j[a_ij] would keep nearly
    everything if one label is nearly balanced; the smallest would keep nothing if one class is very rare.) A sample without
    annotation is not kept.

    >>> down_sampling_probability(np.array([[0], [0], [0], [1]]), [2])
    array([0.33333333, 0.33333333, 0.33333333, 1.        ])
    >>> down_sampling_probability(np.array([[0, 0], [0, 1], [0, 1], [1, 1]]), [2, 2])  # copies 2, 1, 1, 2 of mean 1.5
    array([1.        , 0.66666667, 0.66666667, 1.        ])
    """
    if len(num_classes) == 1:
        h = class_counts(labels, num_classes)[0]
        return next(_by_label(labels, [_share(h[h > 0].min(initial=h.max()), h)]))
    copies, annotated = over_sampling_copies(labels, num_classes), (labels >= 0).any(axis=1)
    return np.where(annotated, np.minimum(1.0, copies / copies[annotated].mean()), 0.0)


def harsh_down_sampling_probability(labels: np.ndarray, num_classes: Sequence[int]) -> np.ndarray:
    """The probability with which each sample is kept, float64 [n]: so few that every label could be balanced.

    Left without repeating one, label j is balanced with at most C_j * min_k h_jk samples, C_j its classes that occur. The
    sample's copies under over-sampling are scaled until no label keeps more annotated samples than that, on average. A sample
    without annotation is not kept.

    >>> harsh_down_sampling_probability(np.array([[0, 0], [0, 1], [0, 1], [1, 1]]), [2, 2])  # at most 2 * 1; copies 2, 1, 1, 2
    array([0.66666667, 0.33333333, 0.33333333, 0.66666667])
    """
    copies, annotated = over_sampling_copies(labels, num_classes), (labels >= 0).any(axis=1)
    _, scales = _harsh_limits(labels, num_classes, copies)
    return np.where(annotated, np.minimum(1.0, scales.min() * copies), 0.0)


def _harsh_limits(labels: np.ndarray, num_classes: Sequence[int], copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many samples of each label can be balanced, int64 [L], and by what the copies are scaled to keep as many, float64 [L].

    A label without an annotated sample has 0 and infinity.
    """
    counts = class_counts(labels, num_classes)
    most = np.array([np.count_nonzero(h) * h[h > 0].min() if h.any() else 0 for h in counts])
    wanted = np.array([copies[column >= 0].sum() for column in labels.T])
    return most, np.where(most > 0, most / np.maximum(wanted, 1.0), np.inf)


def _down_sampled(labels: np.ndarray, num_classes: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    if labels.shape[1] > 1:
        return np.flatnonzero(rng.random(len(labels)) < down_sampling_probability(labels, num_classes))
    counts = class_counts(labels, num_classes)[0]
    occurring = np.flatnonzero(counts)
    kept = [rng.choice(np.flatnonzero(labels[:, 0] == k), counts[occurring].min(), replace=False) for k in occurring]
    return np.sort(np.concatenate(kept))


def _harshly_down_sampled(labels: np.ndarray, num_classes: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    return np.flatnonzero(rng.random(len(labels)) < harsh_down_sampling_probability(labels, num_classes))


def _driver_of_kept(labels: np.ndarray, schema: AttributeSchema) -> str:
    _check_enough("down_sampling", down_sampling_probability(labels, schema.num_classes).sum(), labels, schema, FEWEST_PER_CLASS)
    driver = _driver(labels, schema)
    return (
        f"most of the need is of {driver.what}: its label {driver.of_label:.0%} of it"
        if driver.of_label
        else "nothing to balance"
    )


def _driver_of_harshly_kept(labels: np.ndarray, schema: AttributeSchema) -> str:
    if len(schema) == 1:
        raise MeaninglessForData(
            "resample: harsh_down_sampling needs several labels; of one label down_sampling leaves as many as can be balanced"
        )
    kept = harsh_down_sampling_probability(labels, schema.num_classes).sum()
    _check_enough("harsh_down_sampling", kept, labels, schema, FEWEST_PER_CLASS_HARSH)
    most, scales = _harsh_limits(labels, schema.num_classes, over_sampling_copies(labels, schema.num_classes))
    j = int(scales.argmin())
    return f"label {schema.names[j]!r} decides: balanced, it has at most {most[j]:,} images"


def _check_enough(name: str, kept: float, labels: np.ndarray, schema: AttributeSchema, fewest: int) -> None:
    """Refuses to keep fewer than so many images per class that occurs."""
    counts = class_counts(labels, schema.num_classes)
    classes = sum(int((h > 0).sum()) for h in counts)
    if kept < fewest * classes:
        smallest, j, k = min((int(h[k]), j, int(k)) for j, h in enumerate(counts) for k in np.flatnonzero(h))
        raise MeaninglessForData(
            f"resample: {name} must leave at least {fewest} images per class that occurs, and would leave"
            f" {kept:,.0f} for {classes:,} classes; the smallest is {schema.attributes[j].classes[k]!r} of label"
            f" {schema.names[j]!r}, images: {smallest:,}"
        )


def class_balanced_probability(labels: np.ndarray, num_classes: Sequence[int]) -> np.ndarray:
    """The probability of each sample in one draw, float64 [n] of sum 1: the mean over the labels of 1 / (C_j h_j[a_ij]).

    C_j: classes of label j that occur. This draws a label at random, then one of its classes, then one of its samples. Kang et
    al. have one label. Labels without an annotated sample are left out.

    >>> class_balanced_probability(np.array([[0], [0], [0], [1]]), [2])
    array([0.16666667, 0.16666667, 0.16666667, 0.5       ])
    """
    counts = class_counts(labels, num_classes)
    tables = [_share(1.0, (h > 0).sum() * h) for h in counts]
    return sum(_by_label(labels, tables)) / sum(bool(h.any()) for h in counts)


def _class_balanced(labels: np.ndarray, num_classes: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    # Draws are independent, so that this is the same as drawing label, class and sample one after the other.
    return rng.choice(len(labels), len(labels), p=class_balanced_probability(labels, num_classes))


RESAMPLING: dict[str, Resampling] = {
    "over_sampling": Resampling(
        _over_sampled,
        False,
        "copies of an image = mean over its labels of largest class / its class",
        _driver_of_copies,
    ),
    "down_sampling": Resampling(
        _down_sampled,
        False,
        "one label: each class as large as the smallest; several: an image stays as far as its copies under over_sampling reach"
        " their mean",
        _driver_of_kept,
    ),
    "harsh_down_sampling": Resampling(
        _harshly_down_sampled,
        False,
        "as few images as a set has in which every label is balanced; an image stays in proportion to its copies under"
        " over_sampling",
        _driver_of_harshly_kept,
    ),
    "class_balanced_sampling": Resampling(
        _class_balanced,
        True,
        "a label at random, a class of it at random, one of its images at random",
        lambda labels, schema: "all labels alike",
    ),
}
