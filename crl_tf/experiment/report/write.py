"""The report of many methods over seeds as files: Markdown, CSV and figures, all from the same numbers."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from crl_tf.experiment.report.aggregate import RANKINGS, SHARES, Runs, interval_of, is_ranked, label_rows, method_rows, rule_names
from crl_tf.experiment.report.grid import Grid, escaped, markdown_table, text_cells
from crl_tf.experiment.report.method_figures import save_accuracy_by_rule, save_gain_by_imbalance, save_relative_gain
from crl_tf.experiment.report.tables import labels_grid, methods_grid, ranking_grid, rules_grid
from crl_tf.files import write_whole
from crl_tf.text import csv_text


def write_report(
    results: Runs,
    folder: str | os.PathLike[str],
    *,
    failed: Mapping[str, str] = MappingProxyType({}),
    command: str | None = None,
    baseline: str | None = None,
) -> list[Path]:
    """Writes report.md, report.csv, runs.csv, labels.csv and figures/*.png, each in one step, over those of an earlier report.

    - report.md: methods, decision rules, ranking, labels, what failed, the figures.
    - report.csv: `crl_tf.experiment.report.aggregate.method_rows`, a row per method. x_p is the p-value of share x against the
      baseline, x_q the same adjusted for the number of comparisons (false discovery rate); the stars of the table go by x_q.
    - runs.csv: a row per run and decision rule; "headline" is 1 for the rule that the run's own numbers are under.
      balanced_accuracy_low and _high are its interval over the test images; AUROC and average precision do not depend on a rule.
    - labels.csv: `crl_tf.experiment.report.aggregate.label_rows`, a row per method and label; auroc and average_precision are
      JSON, from class to number.
    - figures: of `crl_tf.experiment.report.method_figures`, those that have something to show.

    In CSV, shares are in [0, 1] and not rounded; an empty cell is no number.

    Args:
        results: dicts of `result.json`, in the order of the rows.
        folder: where to; it is created.
        failed: methods that have no result, each with the reason.
        command: how to make the report again, shown as it is.
        baseline: as for `crl_tf.experiment.report.aggregate.method_rows`.
    Returns:
        The paths written.
    """
    folder = Path(folder)
    rows = method_rows(results, baseline)
    grids = {"Methods": methods_grid(results, baseline)}
    if rule_names(results):
        grids["Decision rules"] = rules_grid(results)
    if is_ranked(results):
        grids["Ranking"] = ranking_grid(results)
    grids["Labels"] = labels_grid(results)
    if failed:
        cells = [text_cells([method, " ".join(str(reason).split())]) for method, reason in failed.items()]
        grids["Failed"] = Grid("runs without a result", ["method", "reason"], cells, names=2)
    figures = _save_figures(results, folder / "figures", baseline)
    texts = {
        "report.md": _markdown(grids, command, figures),
        "report.csv": _csv(rows),
        "runs.csv": _csv(_run_rows(results)),
        "labels.csv": _csv([_with_json(row) for row in label_rows(results, baseline)]),
    }
    for name, text in texts.items():
        # Bytes, so that no system makes other line ends of them.
        write_whole(folder / name, lambda partial, text=text: partial.write_bytes(text.encode("utf-8")))
    return [folder / name for name in texts] + [folder / "figures" / name for name in figures]


def _save_figures(results: Runs, folder: Path, baseline: str | None) -> dict[str, str]:
    """Name and title of the figures written; one of an earlier report that this one has nothing for is deleted."""
    gain, rules, relative = (folder / f"{name}.png" for name in ("gain_by_imbalance", "accuracy_by_rule", "relative_gain"))
    titles = {}
    if save_gain_by_imbalance(results, gain, baseline):
        titles[gain.name] = "Gain over the baseline by imbalance"
    if save_accuracy_by_rule(results, rules):
        titles[rules.name] = "Class-balanced accuracy under each decision rule"
    if save_relative_gain(results, relative, baseline):
        titles[relative.name] = "Relative gain against the imbalance level of binary labels"
    for path in (gain, rules, relative):
        if path.name not in titles:
            path.unlink(missing_ok=True)
    return titles


def _markdown(grids: Mapping[str, Grid], command: str | None, figures: Mapping[str, str]) -> str:
    parts = [f"# {escaped(grids['Methods'].title) or 'Report'}"]
    if command:
        # A fence must be longer than any within.
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
        parts.append(f"{fence}sh\n{command}\n{fence}")
    for heading, grid in grids.items():
        parts.append(f"## {heading}")
        if heading != "Methods":
            parts.append(escaped(grid.title.split("\n")[0]) + ".")
        parts.append(markdown_table(grid).rstrip("\n"))
        if grid.caption:
            parts.append(escaped(grid.caption))
    if figures:
        parts += ["## Figures", *(f"![{title}](figures/{name})" for name, title in figures.items())]
    return "\n\n".join(parts) + "\n"


def _run_rows(results: Runs) -> list[dict[str, Any]]:
    rows = []
    for run in results:
        headline = str(run.get("rule", "argmax"))
        of_run = {field: run[field] for field in ("dataset", "model", "method", "seed", "epochs", "seconds")}
        of_run["clustering_seconds"] = run.get("clustering_seconds")
        # A run without rules still has its own numbers.
        for rule, numbers in (run.get("rules") or {headline: run}).items():
            shares = {share: numbers.get(share) for share in SHARES}
            strengths = json.dumps(numbers.get("strengths", {}), ensure_ascii=False)
            low, high = interval_of(run, rule) or (None, None)
            row = of_run | {"rule": rule, "headline": int(rule == headline)} | shares | {"strengths": strengths}
            row |= {"balanced_accuracy_low": low, "balanced_accuracy_high": high}
            rows.append(row | {name: run.get(name) for name in RANKINGS})
    return rows


def _with_json(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value for key, value in row.items()}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_text(value) for key, value in row.items()} for row in rows)
    return text.getvalue()
