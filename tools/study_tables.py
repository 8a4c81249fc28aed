"""Turns `study_results.json` into the tables of README and docs/results.md, and writes them between their markers.

python tools/study_tables.py            writes the tables
python tools/study_tables.py --check    tells whether they are what the results say (a test does the same)
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from documents import ROOT, markdown, write

RESULTS = Path(__file__).with_name("study_results.json")
DOCUMENTS = {"study-summary": ROOT / "README.md", "study-tables": ROOT / "docs" / "results.md"}
"""Which document holds the table of each marker."""

COLUMNS = {
    "by the largest score": ("argmax", "balanced_accuracy"),
    "best rule": ("best", "balanced_accuracy"),
    "rarest third": ("best", "rarest_third"),
    "frequent third": ("best", "most_frequent_third"),
    "AUROC, rarest third": ("ranking", "rarest_third_auroc"),
    "average precision, rarest third": ("ranking", "rarest_third_average_precision"),
}
"""Headings, and where a run has the number: test numbers by the largest score, under its best rule (chosen on validation
images), or of its ranking."""


def mean_and_spread(values: Sequence[float]) -> str:
    """In %, with the standard deviation over seeds.

    >>> mean_and_spread([0.5, 0.51, 0.52]), mean_and_spread([0.5])
    ('51.0 ± 1.0', '50.0')
    """
    percent = [100 * value for value in values]
    spread = f" ± {statistics.stdev(percent):.1f}" if len(percent) > 1 else ""
    return f"{statistics.mean(percent):.1f}{spread}"


def interval(difference: Mapping[str, float]) -> str:
    """A difference in points with its 95 % interval; bold where the interval does not hold 0.

    >>> interval({"difference": 0.012, "low": 0.004, "high": 0.02})
    '**+1.2 [+0.4, +2.0]**'
    """
    text = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * difference[key] for key in ("difference", "low", "high")))
    return f"**{text}**" if difference["low"] > 0 or difference["high"] < 0 else text


def runs_by_method(results: Mapping[str, Any], study: str) -> dict[str, list[dict[str, Any]]]:
    """The runs of a data set by method, in the order of the recipe; each sorted by seed."""
    by_method: dict[str, list[dict[str, Any]]] = {}
    for run in results["runs"]:
        if run["study"] == study:
            by_method.setdefault(run["method"], []).append(run)
    return {method: sorted(runs, key=lambda run: run["seed"]) for method, runs in by_method.items()}


def of_study(results: Mapping[str, Any], study: str) -> str:
    """The whole table of one data set."""
    differences = {(d["method"], d["against"]): d for d in results["differences"] if d["study"] == study}
    against = "logit_adjusted"
    rows = []
    for method, runs in runs_by_method(results, study).items():
        cells = [mean_and_spread([run["test"][where][share] for run in runs]) for where, share in COLUMNS.values()]
        of_method = differences.get((method, against))
        rows.append([f"`{method}`", str(len(runs)), *cells, interval(of_method["balanced_accuracy"]) if of_method else ""])
    headings = ["method", "seeds", *COLUMNS, f"above `{against}`, best rule"]
    return f"**{results['studies'][study]['title']}**\n\n{markdown(headings, rows)}"


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """The text of every marker of `DOCUMENTS`."""
    begun = [study for study in results["studies"] if runs_by_method(results, study)]
    return {"study-tables": "\n\n".join(of_study(results, study) for study in begun), "study-summary": summary(results)}


def summary(results: Mapping[str, Any]) -> str:
    """The short table of README: per data set, cross-entropy, logit adjustment, and rectification on adjusted scores.

    Without data sets where rectification has one seed.
    """
    rows = []
    for study, facts in results["studies"].items():
        by_method, form = runs_by_method(results, study), facts["form"]
        if not {"ce", "logit_adjusted", form} <= set(by_method) or len(by_method[form]) < 2:
            continue
        differences = {d["against"]: d for d in results["differences"] if d["study"] == study and d["method"] == form}
        cells = [
            mean_and_spread([run["test"][where]["balanced_accuracy"] for run in by_method[method]])
            for method, where in (("ce", "argmax"), ("ce", "best"), ("logit_adjusted", "best"), (form, "best"))
        ]
        gains = [interval(differences["logit_adjusted"][share]) for share in ("balanced_accuracy", "rarest_third")]
        rows.append([facts["title"], *cells, *gains])
    headings = [
        "class-balanced accuracy, %",
        "`ce`",
        "`ce`, best rule",
        "`logit_adjusted`",
        "the same with rectification",
        "gain of rectification",
        "gain, rarest third",
    ]
    return markdown(headings, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, and writes or checks the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a document differs")
    flags = parser.parse_args(arguments)
    write(tables(json.loads(RESULTS.read_text(encoding="utf-8"))), DOCUMENTS, check=flags.check, of=RESULTS.name)


if __name__ == "__main__":
    main()
