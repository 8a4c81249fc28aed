"""Decision rules: what is added to the logits of a trained model before the largest decides, and how strongly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from crl_tf.imbalance import class_priors


class Rule(NamedTuple):
    """A row of `RULES`.

    offsets: from training samples per class [C] to what is added to each class's logit, per unit of strength, [C].
    strengths: the candidates that are tried on the validation images, ascending. source: paper and equation.
    """

    offsets: Callable[[np.ndarray], np.ndarray]
    strengths: tuple[float, ...]
    source: str


def _share(counts: np.ndarray) -> np.ndarray:
    return counts / max(1, counts.sum())


# All of them are additive in the logits: p exp(-r)^T is the softmax of log p - T r, once it is normalised.
RULES: dict[str, Rule] = {
    "argmax": Rule(lambda counts: np.zeros(len(counts)), (0.0,), "eq. 1"),
    "threshold_adjustment": Rule(lambda counts: -_share(counts), (1.0, 2.0, 3.0, 4.0, 5.0), "p exp(-r)^T, Dong et al., Sec. 4.1"),
    "logit_adjustment": Rule(
        lambda counts: -np.log(class_priors(counts)),
        (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
        "logits - tau log(prior), Menon et al. 2021, Sec. 4.1",
    ),
}
"""The strengths of logit adjustment include 0, for models whose loss has adjusted the logits already."""


BEST = "best"
"""In place of a rule: the one with the largest class-balanced accuracy on validation images, of equal ones the first."""


def best_rule(shares: Mapping[str, Mapping[str, Any]]) -> str:
    """The rule with the largest class-balanced accuracy, of equal ones the first.

    Args:
        shares: by rule, as "rules" of `result.json` has them.

    >>> best_rule({"argmax": {"balanced_accuracy": 0.5}, "logit_adjustment": {"balanced_accuracy": 0.6}})
    'logit_adjustment'
    """
    return max(shares, key=lambda name: shares[name]["balanced_accuracy"] or 0.0)


def check_rule(name: str) -> None:
    if name not in RULES:
        raise ValueError(f"rule must be one of {list(RULES)}, received {name!r}")


def rule_offsets(name: str, train_counts: Sequence[np.ndarray], strengths: Sequence[float]) -> np.ndarray:
    """What a rule adds to the concatenated logits, float32 [sum(num_classes)].

    Args:
        name: a row of `RULES`.
        train_counts: training samples per class of every label.
        strengths: T or tau of every label.

    >>> rule_offsets("threshold_adjustment", [np.array([75, 25])], [2.0]).tolist()  # -2 * 0.75, -2 * 0.25
    [-1.5, -0.5]
    """
    check_rule(name)
    parts = [s * RULES[name].offsets(np.asarray(c)) for c, s in zip(train_counts, strengths, strict=True)]
    return np.concatenate(parts).astype(np.float32)


def candidates(train_counts: Sequence[np.ndarray]) -> dict[tuple[str, float], np.ndarray]:
    """The offsets of every rule at every strength, the same for all labels, by (rule, strength)."""
    labels = len(train_counts)
    return {(name, s): rule_offsets(name, train_counts, [s] * labels) for name, rule in RULES.items() for s in rule.strengths}


def chosen_strengths(accuracies: Mapping[tuple[str, float], Sequence[float]], labels: int) -> dict[str, list[float]]:
    """Chooses, for every rule and label, the strength with the highest class-balanced accuracy on validation images.

    Each label has a strength of its own. Of equally good strengths the weakest is taken, and also for a label without an
    annotated validation image (NaN).

    Args:
        accuracies: of every candidate, class-balanced accuracy per label, [L], NaN where there is none.
    """
    chosen = {}
    for name, rule in RULES.items():
        table = np.array([accuracies[name, s] for s in rule.strengths], np.float64).reshape(-1, labels)
        best = np.argmax(np.where(np.isfinite(table), table, -1.0), axis=0)
        chosen[name] = [rule.strengths[i] for i in best]
    return chosen
