"""Runs of many methods over seeds as plain numbers: what tables, Markdown and CSV of a report all show."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import ttest_rel

from crl_tf.experiment.report.runs import UNSEEDED, check_results, class_counts, seed_groups
from crl_tf.imbalance import imbalance_ratio

SHARES = ("balanced_accuracy", "accuracy", "macro_f1", "rarest_third", "most_frequent_third")
"""The shares that a report averages, in the order it shows them."""

Runs = Sequence[Mapping[str, Any]]


def method_rows(results: Runs, baseline: str | None = None) -> list[dict[str, Any]]:
    """One dict per method (and setting: runs that differ in dataset, model or epochs are never averaged), all with the same keys.

    - "dataset", "model", "epochs", "method"; "rule", what its numbers were decided by; "seeds" and "common_seeds", how many it
      has and how many of them the baseline has too.
    - For each share x of `SHARES`: x, its mean, and x_std, the sample standard deviation (ddof = 1), both in [0, 1]; x_gain, the
      mean difference to the baseline over the common seeds; x_p, the p-value of a two-sided paired t-test of these differences.
    - "seconds", "seconds_std", and "seconds_ratio", the mean over the common seeds of its seconds over the baseline's.
    - "balanced_accuracy_under_R" and "..._std" for each decision rule R of any run.

    None stands where there is no number: a mean over seeds of which one has none, a standard deviation of one seed, a p-value of
    fewer than two common seeds, and all that compares the baseline with itself.

    Args:
        results: dicts of `result.json`; shares and rules that a result lacks are None.
        baseline: the method to compare with; by default "ce" if it is among them, else the first. A setting that it was not
            run in has no comparisons.

    Raises:
        ValueError: if results are none or incomplete, the baseline is not among them, or a seed occurs twice in a row.
    """
    groups, base = grouped(results, baseline, "method_rows")
    rules = rule_names(results)
    rows = []
    for key, runs in groups.items():
        other = groups.get((base, *key[1:]), []) if key[0] != base else []
        row = {field: runs[0][field] for field in UNSEEDED} | {"method": key[0]}
        row["rule"] = " | ".join(dict.fromkeys(str(r.get("rule", "argmax")) for r in runs))
        row |= {"seeds": len(runs), "common_seeds": len(_pairs(runs, other, lambda r: r["seconds"]))}
        for share in SHARES:
            pairs = _pairs(runs, other, lambda r, share=share: r.get(share))
            row[share], row[f"{share}_std"] = _mean_and_std([r.get(share) for r in runs])
            row[f"{share}_gain"] = float(np.mean([a - b for a, b in pairs])) if pairs else None
            row[f"{share}_p"] = paired_p_value([a - b for a, b in pairs])
        row["seconds"], row["seconds_std"] = _mean_and_std([r["seconds"] for r in runs])
        ratios = [a / b for a, b in _pairs(runs, other, lambda r: r["seconds"]) if b > 0]
        row["seconds_ratio"] = float(np.mean(ratios)) if ratios else None
        for rule in rules:
            name = f"balanced_accuracy_under_{rule}"
            row[name], row[f"{name}_std"] = _mean_and_std([_under(r, rule, "balanced_accuracy") for r in runs])
        rows.append(row)
    return rows


def label_rows(results: Runs, baseline: str | None = None) -> list[dict[str, Any]]:
    """One dict per method and label: its imbalance, and its class-balanced accuracy over the seeds.

    Keys: "dataset", "model", "epochs", "method", "label", "classes" (how many), "imbalance" (largest over smallest training
    class of the first run; None where nothing was trained on), "balanced_accuracy", "balanced_accuracy_std" and
    "balanced_accuracy_gain" as in `method_rows`, and "relative_gain", the gain as a share of the baseline's mean over the same
    seeds. Args and errors as for `method_rows`.
    """
    groups, base = grouped(results, baseline, "label_rows")
    rows = []
    for key, runs in groups.items():
        other = groups.get((base, *key[1:]), []) if key[0] != base else []
        for label in dict.fromkeys(name for r in runs for name in r["labels"]):
            counts = class_counts(next(r["labels"][label] for r in runs if label in r["labels"]))
            pairs = _pairs(runs, other, lambda r, label=label: _of_label(r, label))
            mean, std = _mean_and_std([_of_label(r, label) for r in runs])
            gain = float(np.mean([a - b for a, b in pairs])) if pairs else None
            below = float(np.mean([b for _, b in pairs])) if pairs else 0.0
            rows.append(
                {field: runs[0][field] for field in UNSEEDED}
                | {"method": key[0], "label": label, "classes": int(counts.size)}
                | {"imbalance": float(imbalance_ratio(counts)) if counts.any() else None}
                | {"balanced_accuracy": mean, "balanced_accuracy_std": std, "balanced_accuracy_gain": gain}
                | {"relative_gain": gain / below if below > 0 else None}
            )
    return rows


def class_gains(results: Runs, label: str, baseline: str | None = None) -> dict[tuple[Any, ...], list[float | None]]:
    """The gain in sensitivity of each class of a label, by the key of `seed_groups`, in the order of the first run that has it.

    A mean over the common seeds, None where there is none; the baseline itself is left out.
    """
    groups, base = grouped(results, baseline, "class_gains")
    names = list(next(r["labels"][label] for r in results if label in r["labels"])["train_counts"])
    gains: dict[tuple[Any, ...], list[float | None]] = {}
    for key, runs in groups.items():
        if key[0] == base:
            continue
        other = groups.get((base, *key[1:]), [])
        gains[key] = []
        for name in names:
            pairs = _pairs(runs, other, lambda r, name=name: r["labels"].get(label, {}).get("sensitivity", {}).get(name))
            gains[key].append(float(np.mean([a - b for a, b in pairs])) if pairs else None)
    return gains


def grouped(results: Runs, baseline: str | None, where: str) -> tuple[dict[tuple[Any, ...], list[Mapping[str, Any]]], str]:
    """`seed_groups` of checked results, and the name of the baseline."""
    check_results(where, results)
    groups = seed_groups(results)
    for key, runs in groups.items():
        seeds = [r["seed"] for r in runs]
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"{where}: a seed may occur once per method, but {' '.join(map(str, key))} has seeds {seeds}")
    methods = [key[0] for key in groups]
    if baseline is not None and baseline not in methods:
        raise ValueError(f"{where}: baseline must be one of the methods {list(dict.fromkeys(methods))}, received {baseline!r}")
    return groups, baseline or ("ce" if "ce" in methods else methods[0])


def rule_names(results: Runs) -> list[str]:
    """The decision rules that any of the runs was measured under, in order of appearance, argmax first."""
    return sorted(dict.fromkeys(rule for r in results for rule in r.get("rules", {})), key=lambda rule: rule != "argmax")


def paired_p_value(differences: Sequence[float]) -> float | None:
    """Two-sided paired t-test that the mean difference is 0; None for fewer than two.

    Without any spread the test has no statistic. Decision, ours: equal differences that are not 0 have p = 0, and differences
    that are all 0 have p = 1.

    >>> [paired_p_value(d) for d in ([0.1], [0.1, 0.1], [0.0, 0.0])]
    [None, 0.0, 1.0]
    >>> round(paired_p_value([0.1, 0.2, 0.3]), 4)  # t = 0.2 / (0.1 / sqrt(3)), 2 degrees of freedom
    0.0742
    """
    if len(differences) < 2:
        return None
    values = np.asarray(differences, np.float64)
    # Differences of shares are exact to about 1e-16.
    if np.ptp(values) < 1e-12:
        return 1.0 if np.abs(values).max() < 1e-12 else 0.0
    return float(ttest_rel(values, np.zeros_like(values)).pvalue)


def _of_label(run: Mapping[str, Any], label: str) -> float | None:
    return run["labels"].get(label, {}).get("balanced_accuracy")


def _under(run: Mapping[str, Any], rule: str, share: str) -> float | None:
    return run.get("rules", {}).get(rule, {}).get(share)


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _pairs(runs: Runs, other: Runs, value: Callable[[Mapping[str, Any]], float | None]) -> list[tuple[float, float]]:
    """The value of both, for each seed that both have it for."""
    of_other = {r["seed"]: value(r) for r in other}
    pairs = [(value(r), of_other.get(r["seed"])) for r in runs]
    return [(a, b) for a, b in pairs if _known(a) and _known(b)]


def _mean_and_std(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    if not all(map(_known, values)):
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
