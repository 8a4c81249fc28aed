"""tools/study_tables.py: the tables say what the results say, and README and docs/results.md hold these tables."""

import json

import documents
import pytest
import study_tables

RANKING = {"rarest_third_auroc": 0.8, "rarest_third_average_precision": 0.2}


def run(method, seed, argmax, best):
    of = {"balanced_accuracy": argmax, "rarest_third": 0.1, "most_frequent_third": 0.7}
    better = {**of, "balanced_accuracy": best, "rarest_third": 0.3}
    return {"study": "a", "method": method, "seed": seed, "test": {"argmax": of, "best": better, "ranking": RANKING}}


def gain(low, middle, high):
    return {"difference": middle, "low": low, "high": high}


RESULTS = {
    "studies": {"a": {"title": "a set", "form": "class_rel"}},
    "runs": [
        run("ce", 0, 0.5, 0.6),
        run("logit_adjusted", 0, 0.6, 0.61),
        run("class_rel", 1, 0.62, 0.65),
        run("class_rel", 0, 0.6, 0.63),
    ],
    "differences": [
        {
            "study": "a",
            "method": "class_rel",
            "against": "logit_adjusted",
            "balanced_accuracy": gain(0.001, 0.03, 0.05),
            "rarest_third": gain(-0.01, 0.0, 0.01),
        }
    ],
}


def test_the_tables_hold_means_deviations_and_intervals():
    tables = study_tables.tables(RESULTS)
    # 63 and 65: mean 64, deviation with n - 1: sqrt(2).
    row = "| `class_rel` | 2 | 61.0 ± 1.4 | 64.0 ± 1.4 | 30.0 ± 0.0 | 70.0 ± 0.0 | 80.0 ± 0.0 | 20.0 ± 0.0 |"
    assert f"{row} **+3.0 [+0.1, +5.0]** |" in tables["study-tables"].splitlines()
    assert "| a set | 50.0 | 60.0 | 61.0 | 64.0 ± 1.4 | **+3.0 [+0.1, +5.0]** | +0.0 [-1.0, +1.0] |" in tables["study-summary"]


def test_a_data_set_without_runs_has_no_table_and_one_without_the_form_no_line_in_the_summary():
    studies = {**RESULTS["studies"], "b": {"title": "another", "form": "class_rel"}}
    more = {**RESULTS, "studies": studies}
    assert study_tables.tables(more) == study_tables.tables(RESULTS)
    begun = {**more, "runs": [*RESULTS["runs"], {**run("ce", 0, 0.5, 0.6), "study": "b"}]}
    assert "another" in study_tables.tables(begun)["study-tables"]
    assert study_tables.tables(begun)["study-summary"] == study_tables.tables(RESULTS)["study-summary"]


@pytest.mark.parametrize("low, high, bold", [(0.001, 0.1, True), (-0.001, 0.1, False), (-0.1, -0.001, True)])
def test_only_a_difference_whose_interval_excludes_0_is_bold(low, high, bold):
    assert study_tables.interval(gain(low, (low + high) / 2, high)).startswith("**") == bold


def test_readme_and_results_hold_what_the_study_found():
    """Whoever runs the study again writes the tables again: python tools/study_tables.py."""
    results = json.loads(study_tables.RESULTS.read_text(encoding="utf-8"))
    assert not documents.differing(study_tables.tables(results), study_tables.DOCUMENTS)
    assert {run["study"] for run in results["runs"]} <= set(results["studies"])
