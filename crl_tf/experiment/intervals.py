"""How sure a measured number is: bootstrap intervals over the test images, of one run and of the difference of two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from crl_tf.experiment.predictions import Outputs, Predictions
from crl_tf.layout import Layout
from crl_tf.metrics import most_frequent_of, rarest_of
from crl_tf.ranking import class_rankings, label_columns

LEVEL = 0.95
"""The share of replicates within an interval; as many lie below as above."""

REPLICATES, FEWEST = 1000, 100
"""How often the weights of the images are drawn, at most and at least; between them as `replicates_for` says."""

DECISION_CELLS, RANKING_CELLS = 2 * 10**10, 2 * 10**8
"""Images * classes * replicates that cost some seconds of one core."""

SHARES = ("balanced_accuracy", "rarest_third", "most_frequent_third")
"""The shares that have an interval."""

RANKINGS = ("auroc", "average_precision", "rarest_third_auroc", "rarest_third_average_precision")
"""The numbers of the ranking of a model as a whole."""

_BLOCK = 256
_CHUNK = 2**22


class Difference(NamedTuple):
    """A difference of shares a - b, in [-1, 1], and its 95 % interval; None where there is no number."""

    difference: float | None
    low: float | None
    high: float | None


def replicates_for(images: int, classes: int, cells: int) -> int:
    """How many replicates cost at most `cells` images * classes * replicates, from `FEWEST` to `REPLICATES`.

    >>> [replicates_for(n, 100, 2 * 10**8) for n in (100, 10_000, 1_000_000)]
    [1000, 200, 100]
    """
    return min(REPLICATES, max(FEWEST, cells // max(1, images * classes)))


def drawn_weights(images: int, replicates: int, seed: int = 0) -> Iterator[np.ndarray]:
    """What each image counts for in each replicate, in blocks of float32 [images, replicates of the block]; 1 on average.

    The Bayesian bootstrap (Rubin 1981): exponential weights. Where images are drawn with replacement instead, a class with one
    or two of them is missing from 37 or 14 % of the replicates, and a mean over the other classes is another number. A smaller
    number of replicates gives the first ones.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, replicates, _BLOCK):
        weights = rng.standard_exponential((min(_BLOCK, replicates - start), images), np.float32)
        yield np.ascontiguousarray(weights.T)


def bootstrap_intervals(
    outputs: Outputs,
    predictions: Predictions,
    *,
    replicates: int | None = None,
    ranking_replicates: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The 95 % percentile intervals of a run over its test images: "intervals" of `result.json`.

    An image counts with all its labels. A class with one test image has the same sensitivity in every replicate.

    Args:
        outputs, predictions: of the same images.
        replicates, ranking_replicates: how many; None: as many as `replicates_for` says. Both use the same draws.
    Returns:
        {"level", "replicates", "ranking_replicates", "seed", "rules": {rule: {share: [low, high]}}, "auroc": [low, high],
        "average_precision": ..., "rarest_third_auroc": ..., "rarest_third_average_precision": ...}; None in place of a pair
        where there is no number.
    """
    images, classes = outputs.logits.shape
    replicates = replicates or replicates_for(images, classes, DECISION_CELLS)
    ranking_replicates = min(replicates, ranking_replicates or replicates_for(images, classes, RANKING_CELLS))
    averages = Averages.of(predictions)
    rules = list(predictions.decided)
    values: dict[str, list[dict[str, np.ndarray]]] = {rule: [] for rule in rules}
    blocks, kept = [], 0
    for counts in drawn_weights(images, replicates, seed) if images else ():
        of_rules = _sensitivities(predictions.labels, list(predictions.decided.values()), averages.layout, counts)
        for rule, sensitivities in zip(rules, of_rules, strict=True):
            values[rule].append(averages.shares(sensitivities))
        if kept < ranking_replicates:
            blocks.append(np.ascontiguousarray(counts[:, : ranking_replicates - kept]))
            kept += blocks[-1].shape[1]
    ranking = _ranking_replicates(outputs, averages, blocks) if blocks else {}
    return {
        "level": LEVEL,
        "replicates": replicates,
        "ranking_replicates": ranking_replicates,
        "seed": seed,
        "rules": {rule: {share: _interval([v[share] for v in values[rule]]) for share in SHARES} for rule in rules},
        **{name: _interval([ranking[name]] if ranking else []) for name in RANKINGS},
    }


def _ranking_replicates(outputs: Outputs, averages: Averages, blocks: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    of_labels = [
        class_rankings(outputs.labels[:, index], outputs.logits[:, columns], blocks)
        for index, columns in enumerate(label_columns(averages.layout.sizes))
    ]
    auroc, precision = (np.concatenate(parts) for parts in zip(*of_labels, strict=True))
    return averages.rankings(auroc, precision)


def paired_difference(
    a: Predictions | Sequence[Predictions],
    b: Predictions | Sequence[Predictions],
    share: str = "balanced_accuracy",
    *,
    rule_a: str | None = None,
    rule_b: str | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Difference:
    """The difference a - b of a share between two runs on the same test images, with its paired bootstrap interval.

    In a replicate an image counts the same for all runs. With several runs on a side (one per seed, in the same order on both),
    it is the difference of the means over the seeds. The interval says how sure the difference is given these trained models
    and other test images; it does not say how other seeds would differ.

    Args:
        a, b: what runs left in `predictions.npz` (`crl_tf.experiment.predictions.load_predictions`).
        share: one of `SHARES`.
        rule_a, rule_b: the decision rule of each side; None: each run's own.
    Raises:
        ValueError: the numbers of runs differ, the test labels of two runs differ, a rule or share is unknown; for the thirds
            also if the runs' training counts differ, because the thirds are chosen by them.

    >>> labels, counts = np.array([[0], [0], [1], [1]]), (np.array([5, 5]),)
    >>> right, wrong = (Predictions(labels, {"argmax": d}, "argmax", (2,), counts) for d in (labels, 1 - labels))
    >>> paired_difference(right, wrong)
    Difference(difference=1.0, low=1.0, high=1.0)
    """
    sides = [[side] if isinstance(side, Predictions) else list(side) for side in (a, b)]
    _check_pairs(*sides, share)
    first = sides[0][0]
    decided = [_decided_by(run, rule) for side, rule in zip(sides, (rule_a, rule_b), strict=True) for run in side]
    signs = np.repeat([1 / len(sides[0]), -1 / len(sides[1])], [len(sides[0]), len(sides[1])])
    averages = Averages.of(first)

    def differences(counts: np.ndarray) -> np.ndarray:
        sensitivities = _sensitivities(first.labels, decided, averages.layout, counts)
        return signs @ np.stack([averages.shares(of_run)[share] for of_run in sensitivities])

    images = len(first.labels)
    observed = differences(np.ones((images, 1), np.float32))[0]
    interval = _interval([differences(counts) for counts in drawn_weights(images, replicates, seed)]) or (None, None)
    return Difference(float(observed) if np.isfinite(observed) else None, *interval)


def _check_pairs(a: Sequence[Predictions], b: Sequence[Predictions], share: str) -> None:
    if share not in SHARES:
        raise ValueError(f"paired_difference: share must be one of {list(SHARES)}, received {share!r}")
    if not a or len(a) != len(b):
        raise ValueError(f"paired_difference: a and b must be as many runs, one or more, received {len(a)} and {len(b)}")
    first = a[0]
    for run in (*a[1:], *b):
        if run.num_classes != first.num_classes or not np.array_equal(run.labels, first.labels):
            raise ValueError(
                "paired_difference: all runs must be measured on the same test images, received test labels that differ"
                f" ({list(first.labels.shape)} and {list(run.labels.shape)})"
            )
        same_counts = all(map(np.array_equal, run.train_counts, first.train_counts))
        if share != "balanced_accuracy" and not same_counts:
            raise ValueError(f"paired_difference: {share} needs runs with the same training counts, received others")


def _decided_by(run: Predictions, rule: str | None) -> np.ndarray:
    rule = rule or run.rule
    if rule not in run.decided:
        raise ValueError(f"paired_difference: rule must be one of {list(run.decided)}, received {rule!r}")
    return run.decided[rule]


class Averages:
    """Means over classes and labels of numbers per class, float [sum(num_classes), R]; NaN is left out.

    Args:
        num_classes: of each label.
        train_counts: of each label, training samples per class, [C].
        occurring: bool [sum(num_classes)], which classes the split holds; the thirds are chosen among them.
    """

    def __init__(self, num_classes: Sequence[int], train_counts: Sequence[np.ndarray], occurring: np.ndarray) -> None:
        self.layout = Layout.of(num_classes)
        pool = np.flatnonzero(occurring)
        counts = np.concatenate(train_counts)[pool]
        self._thirds = {"rarest_third": pool[rarest_of(counts)], "most_frequent_third": pool[most_frequent_of(counts)]}

    @classmethod
    def of(cls, predictions: Predictions) -> Averages:
        """Those of the images of some predictions."""
        columns = zip(predictions.labels.T, predictions.num_classes, strict=True)
        occurring = [np.bincount(labels[labels >= 0], minlength=size) > 0 for labels, size in columns]
        return cls(predictions.num_classes, predictions.train_counts, np.concatenate(occurring))

    def shares(self, sensitivities: np.ndarray) -> dict[str, np.ndarray]:
        """Those of `SHARES`, each [R]."""
        thirds = {name: mean_of_known(sensitivities[columns]) for name, columns in self._thirds.items()}
        return {"balanced_accuracy": self.mean_of_labels(sensitivities), **thirds}

    def rankings(self, auroc: np.ndarray, precision: np.ndarray) -> dict[str, np.ndarray]:
        """Those of `RANKINGS`, each [R]."""
        rarest = self._thirds["rarest_third"]
        means = [self.mean_of_labels(auroc), self.mean_of_labels(precision)]
        return dict(zip(RANKINGS, [*means, mean_of_known(auroc[rarest]), mean_of_known(precision[rarest])], strict=True))

    def mean_of_labels(self, values: np.ndarray) -> np.ndarray:
        """The mean over labels of the mean over a label's classes; what is NaN is left out."""
        return mean_of_known(np.stack([mean_of_known(values[columns]) for columns in label_columns(self.layout.sizes)]))


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """The mean over axis 0 of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)


def _sensitivities(labels: np.ndarray, decided: Sequence[np.ndarray], layout: Layout, counts: np.ndarray) -> list[np.ndarray]:
    """Of each of several decisions [N, L]: the sensitivity of every class in every replicate, [sum(num_classes), R].

    counts: what each image counts for, float32 [N, R].
    """
    sums = np.zeros((1 + len(decided), layout.width, counts.shape[1]))
    rows = max(1, _CHUNK // layout.width)
    for start in range(0, len(labels), rows):
        chunk = slice(start, start + rows)
        truth = (labels[chunk][:, layout.column_label] == layout.column_class).astype(np.float32)
        sums[0] += truth.T @ counts[chunk]
        for place, one in enumerate(decided, 1):
            right = (one[chunk] == labels[chunk])[:, layout.column_label]
            sums[place] += (truth * right).T @ counts[chunk]
    with np.errstate(divide="ignore", invalid="ignore"):
        return list(sums[1:] / sums[0])


def _interval(blocks: Sequence[np.ndarray]) -> list[float] | None:
    """The percentile interval over replicates; those without a number are left out."""
    values = np.concatenate([*blocks, np.zeros(0)])
    values = values[np.isfinite(values)]
    tail = 50 * (1 - LEVEL)
    return [float(v) for v in np.percentile(values, [tail, 100 - tail])] if values.size else None
