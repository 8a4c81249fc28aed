"""Aggregates of finished runs over their seeds, as plain numbers: what tables, Markdown, CSV and figures of a report show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import false_discovery_control, ttest_1samp

from crl_tf.experiment.health import majority_vote
from crl_tf.imbalance import imbalance_ratio

SETTING = ("dataset", "model", "epochs", "seed")
"""The fields of a result that say what, beside the method, a run was made with."""

UNSEEDED = SETTING[:-1]
"""Of those, what runs that are averaged must agree on."""

SHARES = ("balanced_accuracy", "accuracy", "macro_f1", "rarest_third", "most_frequent_third")
"""The shares that a report averages, in the order it shows them."""

RANKINGS = ("auroc", "average_precision", "rarest_third_auroc", "rarest_third_average_precision")
"""What is averaged of how a run ranks; older results have none of it."""

_REQUIRED = (*SETTING, "method", "seconds", "balanced_accuracy", "rarest_third", "accuracy", "labels")

Runs = Sequence[Mapping[str, Any]]


class Aggregate(NamedTuple):
    """The runs of one method in one setting, one per seed. A number is named by its keys: "labels", "hat", "accuracy".

    setting: the fields of `UNSEEDED` that differ between the aggregates of a report. references: the baseline's runs in the
    same setting, none for the baseline itself.
    """

    method: str
    setting: Mapping[str, Any]
    runs: Runs
    baseline: str
    references: Runs

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(map(str, (self.method, *self.setting.values())))

    @property
    def name(self) -> str:
        return " · ".join(self.key)

    def mean_and_std(self, *keys: str) -> tuple[float | None, float | None]:
        """Mean and sample standard deviation; no mean if a run lacks the number, no standard deviation of one run."""
        return mean_and_std([_number(run, keys) for run in self.runs])

    def pairs(self, *keys: str) -> np.ndarray:
        """The number of the method and of the baseline, [seeds, 2], for each seed that has both."""
        of_baseline = {run["seed"]: _number(run, keys) for run in self.references}
        pairs = [(_number(run, keys), of_baseline.get(run["seed"])) for run in self.runs]
        return np.array([pair for pair in pairs if None not in pair], np.float64).reshape(-1, 2)

    def gain(self, *keys: str) -> float | None:
        """The mean difference to the baseline over the common seeds."""
        pairs = self.pairs(*keys)
        return float(np.mean(pairs[:, 0] - pairs[:, 1])) if len(pairs) else None

    def relative_gain(self, *keys: str) -> float | None:
        """The gain as a share of the baseline's mean over the same seeds."""
        of_method, of_baseline = self.pairs(*keys).T
        return float((of_method - of_baseline).mean() / of_baseline.mean()) if of_baseline.sum() > 0 else None


def aggregates(results: Runs, baseline: str | None = None, where: str = "aggregates") -> list[Aggregate]:
    """Groups runs that differ in nothing but the seed, in order of appearance.

    Args:
        results: dicts of `result.json`.
        baseline: the method to compare with; by default "ce" if it is among them, else the first.
        where: what an error names.

    Raises:
        ValueError: if results are none or incomplete, the baseline is not among them, or a method has a seed twice.
    """
    check_results(where, results)
    fields = differing_fields(results, UNSEEDED)
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for run in results:
        groups.setdefault((run["method"], *(run[field] for field in fields)), []).append(run)
    for key, runs in groups.items():
        seeds = [run["seed"] for run in runs]
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"{where}: a seed may occur once per method, but {' '.join(map(str, key))} has seeds {seeds}")
    methods = list(dict.fromkeys(key[0] for key in groups))
    if baseline is not None and baseline not in methods:
        raise ValueError(f"{where}: baseline must be one of the methods {methods}, received {baseline!r}")
    base = baseline or ("ce" if "ce" in methods else methods[0])
    return [
        Aggregate(
            method, dict(zip(fields, setting, strict=True)), runs, base, groups.get((base, *setting), []) * (method != base)
        )
        for (method, *setting), runs in groups.items()
    ]


def method_rows(results: Runs, baseline: str | None = None) -> list[dict[str, Any]]:
    """One dict per method (and setting: runs that differ in dataset, model or epochs are never averaged), all with the same keys.

    - "dataset", "model", "epochs", "method"; "rule", what its numbers were decided by; "is_result",
      whether no run of it is dead or exploded (`crl_tf.experiment.health`); "seeds" and "common_seeds", how many it
      has and how many of them the baseline has too.
    - For each x of `SHARES` and `RANKINGS`: x, its mean, and x_std, the sample standard deviation (ddof = 1), both in [0, 1];
      x_gain, the mean difference to the baseline over the common seeds; x_p, the p-value of a two-sided paired t-test of these
      differences; x_q, that p-value adjusted for the number of comparisons (Benjamini & Hochberg, false discovery rate). The
      p-values that are adjusted together are all x_p of this x: of every method, in every setting.
    - "balanced_accuracy_low" and "..._high": the bounds of the interval over test images, each a mean over the seeds.
    - "seconds", "seconds_std", and "seconds_ratio", the mean over the common seeds of its seconds over the baseline's;
      "clustering_seconds", the mean of those that were clustering, None for a method that has none.
    - "balanced_accuracy_under_R" and "..._std", "accuracy_under_R", and "validation_under_R", class-balanced accuracy on the
      validation images, for each decision rule R of any run.

    None where there is no number: a mean over seeds of which one has none, a standard deviation of one seed, a p-value of
    fewer than two common seeds or of differences that are all equal, and all that compares the baseline with itself.

    Args:
        results: dicts of `result.json`; shares and rules that a result lacks are None.
        baseline: as for `aggregates`. A setting that it was not run in has no comparisons.

    Raises:
        ValueError: as `aggregates`.
    """
    rows = []
    for aggregate in aggregates(results, baseline, "method_rows"):
        row = {field: aggregate.runs[0][field] for field in UNSEEDED} | {"method": aggregate.method}
        row["is_result"] = all(run.get("is_result", True) for run in aggregate.runs)
        row["rule"] = " | ".join(dict.fromkeys(str(run.get("rule", "argmax")) for run in aggregate.runs))
        seconds = aggregate.pairs("seconds")
        row |= {"seeds": len(aggregate.runs), "common_seeds": len(seconds)}
        for share in (*SHARES, *RANKINGS):
            row[share], row[f"{share}_std"] = aggregate.mean_and_std(share)
            row[f"{share}_gain"] = aggregate.gain(share)
            row[f"{share}_p"] = paired_p_value(aggregate.pairs(share) @ [1, -1])
            row[f"{share}_q"] = None
        bounds = [interval_of(run) for run in aggregate.runs]
        for place, name in enumerate(("low", "high")):
            row[f"balanced_accuracy_{name}"] = None if None in bounds else float(np.mean([bound[place] for bound in bounds]))
        row["seconds"], row["seconds_std"] = aggregate.mean_and_std("seconds")
        ratios = [mine / of_baseline for mine, of_baseline in seconds if of_baseline > 0]
        row["clustering_seconds"], _ = aggregate.mean_and_std("clustering_seconds")
        row["seconds_ratio"] = float(np.mean(ratios)) if ratios else None
        for rule in rule_names(results):
            name = f"balanced_accuracy_under_{rule}"
            row[name], row[f"{name}_std"] = aggregate.mean_and_std("rules", rule, "balanced_accuracy")
            row[f"accuracy_under_{rule}"], _ = aggregate.mean_and_std("rules", rule, "accuracy")
            row[f"validation_under_{rule}"], _ = aggregate.mean_and_std("validation", "rules", rule, "balanced_accuracy")
        rows.append(row)
    for share in (*SHARES, *RANKINGS):
        tested = [row for row in rows if row[f"{share}_p"] is not None]
        adjusted = false_discovery_control([row[f"{share}_p"] for row in tested]) if tested else []
        for row, q_value in zip(tested, adjusted, strict=True):
            row[f"{share}_q"] = float(q_value)
    return rows


def label_rows(results: Runs, baseline: str | None = None) -> list[dict[str, Any]]:
    """One dict per method and label: its imbalance, and its class-balanced accuracy over the seeds.

    Keys: "dataset", "model", "epochs", "method", "label", "classes" (how many), "imbalance" (largest over smallest training
    class of the first run; None where nothing was trained on), "balanced_accuracy", "balanced_accuracy_std" and
    "balanced_accuracy_gain" as in `method_rows`, "relative_gain", the gain as a share of the baseline's mean over the same
    seeds, and "auroc" and "average_precision", each a dict from class to the mean over the seeds (None where a run has no
    number). Args and errors as for `method_rows`.
    """
    rows = []
    for aggregate in aggregates(results, baseline, "label_rows"):
        for name, label in first_labels(aggregate.runs).items():
            counts, keys = class_counts(label), ("labels", name, "balanced_accuracy")
            row = {field: aggregate.runs[0][field] for field in UNSEEDED} | {"method": aggregate.method, "label": name}
            row |= {"classes": int(counts.size), "imbalance": imbalance_ratio(counts) if counts.any() else None}
            row["balanced_accuracy"], row["balanced_accuracy_std"] = aggregate.mean_and_std(*keys)
            row["balanced_accuracy_gain"] = aggregate.gain(*keys)
            row["relative_gain"] = aggregate.relative_gain(*keys)
            for ranking in RANKINGS[:2]:
                means = {c: aggregate.mean_and_std("labels", name, ranking, c)[0] for c in label["train_counts"]}
                row[ranking] = means
            rows.append(row)
    return rows


def imbalance_by_label(results: Runs) -> dict[str, float | None]:
    """The labels by rising imbalance ratio, of the first run that has the label; None, and last, where nothing was trained on."""
    counts = {name: class_counts(label) for name, label in first_labels(results).items()}
    ratios = {name: imbalance_ratio(of_label) if of_label.any() else None for name, of_label in counts.items()}
    return dict(sorted(ratios.items(), key=lambda item: math.inf if item[1] is None else item[1]))


def majority_votes(results: Runs) -> dict[str, Any] | None:
    """The numbers of majority votes (`crl_tf.experiment.health`) where all runs have the same, on the same images; else None."""
    votes = [majority_vote(run["labels"]) for run in results]
    return votes[0] if votes[0]["balanced_accuracy"] is not None and all(vote == votes[0] for vote in votes) else None


def check_results(where: str, results: Runs) -> None:
    """Raises a ValueError, naming `where`, unless results is a sequence of at least one complete result."""
    if isinstance(results, Mapping) or not results:
        received = "a mapping" if isinstance(results, Mapping) else "none"
        raise ValueError(f"{where}: needs a sequence of at least one result, received {received}")
    for index, result in enumerate(results):
        missing = [key for key in _REQUIRED if key not in result]
        if missing:
            raise ValueError(f"{where}: result {index} lacks {missing}; it has {list(result)}")
        if not result["labels"]:
            raise ValueError(f"{where}: result {index} has no labels")


def differing_fields(results: Runs, fields: Sequence[str]) -> list[str]:
    """Those of the fields that the runs do not all agree on, in the order given."""
    return [field for field in fields if len({result[field] for result in results}) > 1]


def rule_names(results: Runs) -> list[str]:
    """The decision rules that any of the runs was measured under, in order of appearance, argmax first."""
    return sorted(dict.fromkeys(rule for run in results for rule in run.get("rules", {})), key=lambda rule: rule != "argmax")


def interval_of(run: Mapping[str, Any], rule: str | None = None) -> tuple[float, float] | None:
    """The interval of class-balanced accuracy over the test images, under a rule, by default the run's own; None without one."""
    rules = run.get("intervals", {}).get("rules", {})
    bounds = rules.get(rule or run.get("rule", "argmax"), {}).get("balanced_accuracy")
    return None if bounds is None else (bounds[0], bounds[1])


def is_ranked(results: Runs) -> bool:
    """Whether any of the runs has AUROC or an interval; results of older versions have neither."""
    return any(run.get("auroc") is not None or interval_of(run) is not None for run in results)


def first_labels(results: Runs) -> dict[str, Mapping[str, Any]]:
    """The labels of all runs in order of appearance, each as the first run that has it."""
    labels: dict[str, Mapping[str, Any]] = {}
    for run in results:
        for name, label in run["labels"].items():
            labels.setdefault(name, label)
    return labels


def class_counts(label: Mapping[str, Any]) -> np.ndarray:
    """Training samples per class, [C], of one label of a result."""
    return np.array(list(label["train_counts"].values()), np.int64)


def mean_and_std(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (ddof = 1); (None, None) if a value is None, no standard deviation of one value.

    >>> mean_and_std([0.7, 0.75, 0.8]), mean_and_std([0.7]), mean_and_std([0.7, None])
    ((0.75, 0.050000000000000044), (0.7, None), (None, None))
    """
    if None in values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def paired_p_value(differences: Sequence[float]) -> float | None:
    """Two-sided paired t-test that the mean difference is 0; None for fewer than two, or without spread (no statistic).

    >>> [paired_p_value(d) for d in ([0.1], [0.1, 0.1], [0.0, 0.0])]
    [None, None, None]
    >>> round(paired_p_value([0.1, 0.2, 0.3]), 4)  # t = 0.2 / (0.1 / sqrt(3)), 2 degrees of freedom
    0.0742
    """
    # Differences of shares are exact to about 1e-16.
    if len(differences) < 2 or np.ptp(differences) < 1e-12:
        return None
    return float(ttest_1samp(differences, 0.0).pvalue)


def _number(run: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    """The number under the keys; None if a key is missing or the number is not finite."""
    value: Any = run
    for key in keys:
        if key not in value:
            return None
        value = value[key]
    return value if value is not None and math.isfinite(value) else None
