"""Reports of finished runs, from their `result.json`: tables for the terminal, Markdown, CSV, and figures as PNG files.

A result is the dict a run leaves behind, with shares in [0, 1] and `None` for a class that the test set does not hold:

    {"dataset": str, "model": str, "method": str, "loss": str, "seed": int, "epochs": int, "seconds": float,
     "clustering_seconds": float,
     "rule": str, "balanced_accuracy": float, "accuracy": float, "macro_f1": float, "rarest_third": float,
     "most_frequent_third": float, "auroc": float | None, "average_precision": float | None,
     "rarest_third_auroc": float | None, "rarest_third_average_precision": float | None,
     "rules": {rule: {"balanced_accuracy": float | None, "accuracy": ..., "macro_f1": ..., "rarest_third": ...,
                      "most_frequent_third": ..., "strengths": {label: float}}},
     "labels": {label: {"balanced_accuracy": float, "accuracy": float, "sensitivity": {class: float | None},
                        "confusion": [[int]], "train_counts": {class: int},
                        "auroc": {class: float | None}, "average_precision": {class: float | None}}},
     "validation": {the shares, "auroc" and so on, and "rules", on the validation split},
     "intervals": {"level": 0.95, "replicates": int, "ranking_replicates": int, "seed": int,
                   "rules": {rule: {"balanced_accuracy": [low, high] | None, "rarest_third": ..., "most_frequent_third": ...}},
                   "auroc": [low, high] | None, "average_precision": ..., "rarest_third_auroc": ..., ...},
     "top5": {"balanced_accuracy": float, "groups": {group: {"balanced_accuracy": float | None, "imbalance": float}}}}

"method" is the row of a table. "rules" are the shares under each decision rule ("argmax", "threshold_adjustment",
"logit_adjustment"), and "rule" is the one that the run's own shares are under. "top5" only where attributes have groups.
"macro_f1", "most_frequent_third", "rule", "rules", "validation", "intervals", and all of AUROC and average precision may be
missing: their cells then hold a dash, and the rule is argmax.
"clustering_seconds" is the part of the seconds that a method spends on clusters, and only of those that have some.

Tables and figures show shares as percentages with one decimal, differences in points.
"""

from crl_tf.experiment.report.auto import auto_sentences, auto_tables, write_auto_report
from crl_tf.experiment.report.decision_figures import save_confusions, save_precision_recall, save_reliability
from crl_tf.experiment.report.decisions import decision_tables
from crl_tf.experiment.report.exports import exports_tables
from crl_tf.experiment.report.figures import (
    save_association,
    save_class_distributions,
    save_class_sizes,
    save_sensitivity_by_frequency,
)
from crl_tf.experiment.report.inspection import association_line, imbalance_table, rarest_table, split_table
from crl_tf.experiment.report.tables import (
    comparison_table,
    group_table,
    label_table,
    method_list,
    methods_table,
    networks_table,
    ranking_table,
    rules_table,
)
from crl_tf.experiment.report.write import write_report

__all__ = [
    "association_line",
    "auto_sentences",
    "auto_tables",
    "comparison_table",
    "decision_tables",
    "exports_tables",
    "group_table",
    "imbalance_table",
    "label_table",
    "method_list",
    "methods_table",
    "networks_table",
    "ranking_table",
    "rarest_table",
    "rules_table",
    "save_association",
    "save_class_distributions",
    "save_class_sizes",
    "save_confusions",
    "save_precision_recall",
    "save_reliability",
    "save_sensitivity_by_frequency",
    "split_table",
    "write_auto_report",
    "write_report",
]
