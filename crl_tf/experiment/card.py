"""What an export says of its model: how it was trained, on how much, and how well it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crl_tf.experiment.deciding import Decision
from crl_tf.version import __version__

SHARES = ("balanced_accuracy", "accuracy", "rarest_third", "most_frequent_third")
OF_A_LABEL = ("balanced_accuracy", "accuracy", "sensitivity", "train_counts", "auroc", "average_precision")


def card(result: Mapping[str, Any], decision: Decision) -> dict[str, Any]:
    """The part of an export's `model.json` that a run adds: program version, training, test numbers, decisions."""
    of_labels = {name: {key: facts[key] for key in OF_A_LABEL if key in facts} for name, facts in result["labels"].items()}
    return {
        "program": f"crl_tf {__version__}",
        **{key: result[key] for key in ("dataset", "model", "method", "rule", "seed", "epochs")},
        "test": {**{share: result[share] for share in SHARES}, "labels": of_labels},
        "decision": decision.numbers,
    }
