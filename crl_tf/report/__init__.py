"""What finished runs found: tables for the terminal and figures as PNG files, made from their `result.json` dicts.

A result is the dict a run leaves behind, with shares in [0, 1] and `None` for a class that the test set does not hold:

    {"dataset": str, "model": str, "loss": str, "seed": int, "epochs": int, "seconds": float,
     "balanced_accuracy": float, "accuracy": float, "rarest_third": float,
     "labels": {label: {"balanced_accuracy": float, "accuracy": float, "sensitivity": {class: float | None},
                        "confusion": [[int]], "train_counts": {class: int}}},
     "top5": {"balanced_accuracy": float, "groups": {group: {"balanced_accuracy": float | None, "imbalance": float}}}}

"top5" only where attributes have groups.

Tables and figures show shares as percentages with one decimal, differences in points.
"""

from crl_tf.report.figures import FREQUENCY_BINS, NAMED_CLASSES, save_class_distributions, save_sensitivity_by_frequency
from crl_tf.report.inspection import (
    association_line,
    imbalance_table,
    rarest_table,
    save_association,
    save_class_sizes,
    split_table,
)
from crl_tf.report.networks import networks_table
from crl_tf.report.runs import ABSENT
from crl_tf.report.tables import comparison_table, group_table, label_table, seeds_table

__all__ = [
    "ABSENT",
    "FREQUENCY_BINS",
    "NAMED_CLASSES",
    "association_line",
    "comparison_table",
    "group_table",
    "imbalance_table",
    "label_table",
    "networks_table",
    "rarest_table",
    "save_association",
    "save_class_distributions",
    "save_class_sizes",
    "save_sensitivity_by_frequency",
    "seeds_table",
    "split_table",
]
