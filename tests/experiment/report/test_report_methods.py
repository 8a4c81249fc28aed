"""Many methods over seeds: means, spreads, paired tests, decision rules and labels, by plain arithmetic."""

import io
import warnings

import pytest
from rich.console import Console
from scipy.stats import ttest_rel

from crl_tf.experiment.report import methods_table, ranking_table, rules_table
from crl_tf.experiment.report.aggregate import label_rows, method_rows
from crl_tf.experiment.report.grid import escaped, markdown_table
from crl_tf.experiment.report.tables import labels_grid, methods_grid

SHARES = ["balanced_accuracy", "accuracy", "macro_f1", "rarest_third", "most_frequent_third"]
ARGMAX, THRESHOLD = "balanced_accuracy_under_argmax", "balanced_accuracy_under_threshold_adjustment"


def label(balanced_accuracy, train_counts=(90, 10)):
    names = [f"c{i}" for i in range(len(train_counts))]
    return {
        "balanced_accuracy": balanced_accuracy,
        "accuracy": 0.9,
        "sensitivity": dict.fromkeys(names, balanced_accuracy),
        "confusion": [[0] * len(names)] * len(names),
        "train_counts": dict(zip(names, train_counts, strict=True)),
    }


def result(method, seed, balanced=0.8, **changes):
    run = {"dataset": "digits", "model": "small", "method": method, "loss": "ce", "seed": seed, "epochs": 30, "seconds": 100.0}
    run |= {"balanced_accuracy": balanced, "accuracy": 0.9, "macro_f1": 0.7, "rarest_third": 0.5, "most_frequent_third": 0.95}
    run["labels"] = {"hat": label(balanced)}
    return run | changes


def over_seeds(method, shares, **changes):
    return [result(method, seed, share, **changes) for seed, share in enumerate(shares)]


def column(table, head, nth=0):
    """The cells of the nth column under a heading, what is bold in angle brackets."""
    heads = [" ".join(str(c.header).split()) for c in table.columns]
    found = [c for c, name in zip(table.columns, heads, strict=True) if name == head][nth]
    cells = []
    for cell in found._cells:
        bold = [cell.plain[span.start : span.end] for span in cell.spans if span.style == "bold"]
        cells.append((f"<{bold[0]}>{cell.plain[len(bold[0]) :]}" if bold else cell.plain).rstrip())
    return cells


# method_rows


def test_means_sample_deviations_and_gains_over_common_seeds():
    runs = [*over_seeds("ce", [0.70, 0.72, 0.74]), result("crl", 2, 0.80), result("crl", 7, 0.90)]
    ce, crl = method_rows(runs)
    # Deviations -2, 0, 2: sqrt((4 + 0 + 4) / (3 - 1)) = 2 points.
    assert (ce["balanced_accuracy"], ce["balanced_accuracy_std"]) == pytest.approx((0.72, 0.02))
    assert (crl["balanced_accuracy"], crl["balanced_accuracy_std"]) == pytest.approx((0.85, 0.1 / 2**0.5))
    assert (ce["seeds"], crl["seeds"], crl["common_seeds"]) == (3, 2, 1)
    # Seed 2 alone is common: 0.80 - 0.74.
    assert crl["balanced_accuracy_gain"] == pytest.approx(0.06) and crl["balanced_accuracy_p"] is None
    assert all(ce[name] is None for name in ce if name.endswith(("_gain", "_p", "_q", "_ratio")))
    assert all(f"{share}{kind}" in ce for share in SHARES for kind in ("", "_std", "_gain", "_p", "_q"))


def test_p_values_are_those_of_a_paired_t_test():
    ce, crl = [0.70, 0.75, 0.71, 0.78], [0.73, 0.77, 0.75, 0.79]
    runs = over_seeds("ce", ce) + over_seeds("crl", crl)[::-1]  # another order of seeds
    row = method_rows(runs)[1]
    differences = [b - a for a, b in zip(ce, crl, strict=True)]
    mean = sum(differences) / 4
    std = (sum((d - mean) ** 2 for d in differences) / 3) ** 0.5
    assert row["balanced_accuracy_gain"] == pytest.approx(mean)
    assert row["balanced_accuracy_p"] == pytest.approx(ttest_rel(crl, ce).pvalue)
    # t with 3 degrees of freedom is 3.182 at p = 0.05.
    assert (mean / (std / 2) > 3.182) == (row["balanced_accuracy_p"] < 0.05)


@pytest.mark.parametrize(
    ("crl", "tested", "shown"),
    [
        ([0.71, 0.75, 0.73], False, ""),  # always 0.01 more: no spread to compare it with
        ([0.70, 0.74, 0.72], False, ""),  # the same
        ([0.70, 0.80, 0.71], True, ""),
        ([0.71, 0.75, 0.7301], True, "*"),
    ],
)
def test_what_is_marked(crl, tested, shown):
    runs = over_seeds("ce", [0.70, 0.74, 0.72]) + over_seeds("crl", crl)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scipy warns of data without spread
        table = methods_table(runs)
        row = method_rows(runs)[1]
    expected = pytest.approx(ttest_rel(crl, [0.70, 0.74, 0.72]).pvalue) if tested else None
    assert row["balanced_accuracy_p"] == expected and row["balanced_accuracy_q"] == expected  # a single comparison
    assert row["accuracy_p"] is None and row["accuracy_q"] is None
    assert column(table, "balanced accuracy %")[1].endswith("*") == bool(shown)
    assert not column(table, "accuracy %")[1].endswith("*")  # 0.9 in all


def test_p_values_of_a_share_are_adjusted_together_for_the_number_of_comparisons():
    ce = [0.70, 0.75, 0.71, 0.78]
    others = {
        "a": [0.73, 0.77, 0.75, 0.79],
        "b": [0.71, 0.76, 0.72, 0.80],
        "same": ce,
        "worse": [0.60, 0.66, 0.62, 0.66],
        "noise": [0.69, 0.78, 0.70, 0.77],
    }
    runs = over_seeds("ce", ce) + [run for method, shares in others.items() for run in over_seeds(method, shares)]
    # Another number of epochs is another setting, but its comparison stands in the same column.
    runs += over_seeds("ce", ce, epochs=60) + over_seeds("late", [0.72, 0.78, 0.72, 0.80], epochs=60)
    rows = [row for row in method_rows(runs) if row["balanced_accuracy_p"] is not None]
    assert [row["method"] for row in rows] == ["a", "b", "worse", "noise", "late"]
    # Benjamini & Hochberg 1995: p times the number of tests over its rank, and no less than that of a smaller rank.
    expected, smallest = {}, 1.0
    for rank, row in sorted(
        enumerate(sorted(rows, key=lambda row: row["balanced_accuracy_p"]), start=1), reverse=True, key=lambda x: x[0]
    ):
        smallest = min(smallest, row["balanced_accuracy_p"] * 5 / rank)
        expected[row["method"]] = smallest
    assert {row["method"]: row["balanced_accuracy_q"] for row in rows} == pytest.approx(expected)


def test_the_star_goes_by_the_adjusted_p_value_and_the_caption_says_which_are_adjusted_together():
    # Differences to ce of 2, 3, 4 points in all: t = 0.03 / (0.01 / sqrt(3)) = 5.2, p = 0.035.
    ce, more = [0.7, 0.72, 0.74], [0.72, 0.75, 0.78]
    table = methods_table(over_seeds("ce", ce) + over_seeds("crl", more))
    assert column(table, "balanced accuracy %")[1].endswith("*")
    # Four more methods that tell nothing: q = 0.035 * 5.
    noise = [run for place in range(4) for run in over_seeds(f"n{place}", [0.71, 0.71, 0.75])]
    table = methods_table(over_seeds("ce", ce) + over_seeds("crl", more) + noise)
    assert not any(cell.endswith("*") for cell in column(table, "balanced accuracy %"))
    assert "adjusted for all comparisons with ce in the same column (Benjamini-Hochberg, false discovery rate)" in str(
        table.caption
    )


def test_the_seconds_of_clustering_are_averaged_and_told_apart():
    runs = [result("ce", 0), *(result("lmle", seed, seconds=60.0, clustering_seconds=20.0 + 4 * seed) for seed in (0, 1))]
    assert [row["clustering_seconds"] for row in method_rows(runs)] == [None, 22.0]
    assert "Of the 60 seconds of lmle, 22 are clustering and the search for samples." in str(methods_table(runs).caption)
    assert "clustering" not in str(methods_table(runs[:1]).caption)


def test_seconds_and_their_ratio_paired_by_seed():
    runs = [result("ce", 0, seconds=10.0), result("ce", 1, seconds=40.0)]
    runs += [result("crl", 1, seconds=60.0), result("crl", 0, seconds=20.0), result("crl", 5, seconds=1000.0)]
    row = method_rows(runs)[1]
    assert row["seconds"] == 360 and row["seconds_ratio"] == pytest.approx((60 / 40 + 20 / 10) / 2)
    assert column(methods_table(runs), "ratio") == ["1.00", "1.75"]
    assert column(methods_table(runs), "seconds") == ["<25 ± 21>", "360 ± 555"]  # sqrt(15^2 * 2) = 21.2


def test_the_baseline_is_ce_or_the_first_or_the_one_named():
    def ratios(methods, **named):
        return [row["seconds_ratio"] for row in method_rows([result(method, 1) for method in methods], **named)]

    assert ratios(["crl", "ce"]) == [1.0, None]
    assert ratios(["crl", "focal"]) == [None, 1.0]
    assert ratios(["crl", "ce"], baseline="crl") == [None, 1.0]
    with pytest.raises(ValueError, match=r"baseline must be one of the methods \['crl'\], received 'ce'"):
        method_rows([result("crl", 1)], baseline="ce")


def test_a_seed_counts_once_and_settings_are_not_averaged():
    with pytest.raises(ValueError, match=r"a seed may occur once per method, but ce has seeds \[1, 1\]"):
        method_rows([result("ce", 1), result("ce", 1)])
    runs = [result("ce", 1, 0.7), result("crl", 1, 0.8), result("crl", 1, 0.6, epochs=60), result("ce", 1, 0.55, epochs=60)]
    rows = method_rows([*runs, result("focal", 1, 0.5, epochs=90)])
    assert [(row["method"], row["epochs"], row["seeds"]) for row in rows][1:3] == [("crl", 30, 1), ("crl", 60, 1)]
    # Each against the baseline of its setting; there is none at 90 epochs.
    gains = [row["balanced_accuracy_gain"] for row in rows]
    assert gains[1:3] == pytest.approx([0.1, 0.05]) and gains[4] is None
    table = methods_table(runs)
    assert str(table.title) == "digits · small" and column(table, "epochs") == ["30", "30", "60", "60"]
    assert column(table, "balanced accuracy %") == ["70.0", "<80.0>", "<60.0>", "55.0"]


# methods_table


def test_cells_of_the_table():
    runs = over_seeds("ce", [0.70, 0.72, 0.74]) + over_seeds("crl", [0.805, 0.835, 0.835], rarest_third=0.6)
    table = methods_table(runs)
    assert str(table.title) == "digits · small · 30 epochs"
    assert column(table, "method") == ["ce", "crl"]
    # Differences 0.105, 0.115, 0.095: mean 0.105, deviation 0.01, t = 0.105 / (0.01 / sqrt(3)) = 18.
    assert column(table, "balanced accuracy %") == ["72.0 ± 2.0", "<82.5 ± 1.7>*"]
    # Always 10 points more: without spread, there is no test.
    assert column(table, "rarest third %") == ["50.0 ± 0.0", "<60.0 ± 0.0>"]
    assert column(table, "macro F1 %") == ["<70.0 ± 0.0>", "<70.0 ± 0.0>"]
    assert column(table, "most freq. third %") == ["<95.0 ± 0.0>", "<95.0 ± 0.0>"]
    caption = str(table.caption)
    assert "over 3 seeds" in caption and "*: differs from ce" in caption and "q < 0.05" in caption
    assert "With 3 common seeds little can be significant" in caption


def test_what_was_not_measured_is_left_open_and_never_marked():
    runs = over_seeds("ce", [0.7, 0.7, 0.7], macro_f1=None) + over_seeds("crl", [0.8, 0.801, None])
    for run in runs:
        del run["most_frequent_third"]
    table = methods_table(runs)
    # Seeds 0 and 1 differ by 10 and by 10.1 points, but crl has no mean to mark.
    assert method_rows(runs)[1]["balanced_accuracy_q"] < 0.05
    assert column(table, "balanced accuracy %") == ["70.0 ± 0.0", "–"]
    assert column(table, "macro F1 %") == ["–", "70.0 ± 0.0"]
    assert column(table, "most freq. third %") == ["–", "–"]


def test_one_method_and_one_seed_compare_nothing():
    table = methods_table([result("ce", 1)])
    assert column(table, "balanced accuracy %") == ["80.0"] and column(table, "ratio") == ["1.00"]
    assert str(table.caption) == "1 seed."
    assert "there is no test" in str(methods_table([result("ce", 1), result("crl", 1)]).caption)


def test_unequal_numbers_of_seeds_are_a_column_and_other_rules_are_named():
    runs = [
        *over_seeds("ce", [0.7, 0.8]),
        result("threshold_adjustment", 0, rule="threshold_adjustment"),
        result("x", 0, rule="y"),
    ]
    table = methods_table(runs)
    assert column(table, "seeds") == ["2", "1", "1"] and "over 1 to 2 seeds" in str(table.caption)
    assert "Decided by the largest logit, but for threshold_adjustment, x (y)" in str(table.caption)


def test_a_narrow_terminal_cuts_no_number_and_reads_no_markup():
    console = Console(file=io.StringIO(), width=80)
    console.print(methods_table(over_seeds("ce[bold]", [0.7, 0.72]) + over_seeds("crl[/red]", [0.812, 0.8345])))
    printed = console.file.getvalue()
    assert "…" not in printed and max(map(len, printed.splitlines())) <= 80
    assert "ce[bold]" in printed.replace("\n", "") and printed.count("±") == 13  # 6 columns of 2 rows, and the caption


def test_a_terminal_of_80_columns_breaks_names_between_their_parts_alone():
    console = Console(file=io.StringIO(), width=80)
    name = "class_rel+gated+logit_adjusted_base+pairs"
    console.print(methods_table(over_seeds("logit_adjustment", [0.7, 0.72]) + over_seeds(name, [0.812, 0.8345])))
    printed = console.file.getvalue()
    firsts = [line.split()[0] for line in printed.splitlines() if line.split()]
    assert max(map(len, printed.splitlines())) <= 80
    assert {"logit_adjustment", "class_rel+gated", "+logit_adjusted_base", "+pairs"} <= set(firsts)
    assert "81.2" not in printed and "82.3" in printed  # the mean of both seeds, in one piece


# rules


def with_rules(method, seed, argmax, threshold, on_validation=(0.5, 0.6)):
    shares = {"argmax": argmax, "threshold_adjustment": threshold}
    rules = {rule: {"balanced_accuracy": share, "strengths": {"hat": 0.5}} for rule, share in shares.items() if share != "absent"}
    kept = {rule: {"balanced_accuracy": share} for rule, share in zip(shares, on_validation, strict=True)}
    return result(method, seed, argmax, rules=rules, validation={"rules": kept})


def test_rules_by_method_with_the_best_of_table_and_row():
    runs = [with_rules("ce", 0, 0.60, 0.70), with_rules("ce", 1, 0.62, 0.74), with_rules("crl", 0, 0.73, 0.69)]
    table = rules_table(runs)
    assert "strengths were chosen on validation images" in str(table.title)
    assert column(table, "argmax") == ["61.0 ± 1.4", "<73.0>"]  # 1.4: 0.01 * sqrt(2)
    # ^ goes by the validation images: for crl the test images would choose the other rule.
    assert column(table, "threshold adjustment") == ["72.0 ± 2.8^", "69.0^"]
    assert "^: the rule of a method that is best on the validation images" in str(table.caption)
    unknown = rules_table([{key: value for key, value in run.items() if key != "validation"} for run in runs])
    assert column(unknown, "threshold adjustment") == ["72.0 ± 2.8", "69.0"]
    rows = method_rows(runs)
    assert rows[0][THRESHOLD] == pytest.approx(0.72) and rows[1][f"{ARGMAX}_std"] is None


def test_rules_that_a_run_lacks_are_left_open():
    runs = [with_rules("ce", 0, 0.6, 0.7), with_rules("ce", 1, 0.6, None), with_rules("crl", 0, 0.8, "absent"), result("x", 0)]
    table = rules_table(runs)
    assert column(table, "threshold adjustment") == ["–", "–", "–"]
    assert column(table, "argmax") == ["60.0 ± 0.0", "<80.0>", "–"]  # alone in its row, it is not the best of it
    with pytest.raises(ValueError, match="rules_table: no result has 'rules'"):
        rules_table([result("ce", 0)])


# labels


def test_labels_with_gain_over_the_baseline():
    ce = [result("ce", s, labels={"hat": label(b), "coat": label(0.5, (8, 0, 20))}) for s, b in ((0, 0.70), (1, 0.74))]
    crl = [result("crl", s, labels={"hat": label(b), "shoe": label(None, (0, 0))}) for s, b in ((0, 0.75), (1, 0.80))]
    rows = {(row["method"], row["label"]): row for row in label_rows(ce + crl)}
    assert list(rows) == [("ce", "hat"), ("ce", "coat"), ("crl", "hat"), ("crl", "shoe")]
    hat = rows["crl", "hat"]
    assert (hat["imbalance"], hat["classes"], rows["ce", "coat"]["imbalance"]) == (9, 2, 2.5)
    assert hat["balanced_accuracy"] == pytest.approx(0.775) and hat["balanced_accuracy_std"] == pytest.approx(0.05 / 2**0.5)
    assert hat["balanced_accuracy_gain"] == pytest.approx((0.05 + 0.06) / 2)
    assert hat["relative_gain"] == pytest.approx(0.055 / 0.72)
    assert rows["ce", "hat"]["balanced_accuracy_gain"] is None and rows["crl", "shoe"]["imbalance"] is None


def test_the_longer_of_labels_and_methods_is_the_rows():
    labels = {"rare": label(0.6, (99, 1)), "even": label(0.7, (5, 5)), "none": label(None, (0, 0))}
    grid = labels_grid([result("ce", 0, labels=labels), result("crl", 0, labels=labels | {"rare": label(0.65, (99, 1))})])
    assert grid.headings == ["label", "imbalance", "ce", "crl"]
    assert [[cell.text for cell in row] for row in grid.rows] == [
        ["even", "1:1", "70.0", "70.0"],
        ["rare", "1:99", "60.0", "65.0"],
        ["none", "–", "–", "–"],
    ]
    assert [cell.bold for cell in grid.rows[1]] == [False, False, False, True]
    turned = labels_grid([result(method, 0, labels=labels) for method in ("ce", "crl", "focal", "lmle")])
    assert turned.headings == ["method", "even\n1:1", "rare\n1:99", "none\n–"] and len(turned.rows) == 4


# Markdown


def test_markdown_escapes_names_and_keeps_marks_apart_from_bold():
    runs = over_seeds("c*|e*", [0.70, 0.72]) + over_seeds("_crl_rel_", [0.80, 0.8201])
    lines = markdown_table(methods_grid(runs)).splitlines()
    assert lines[0].startswith("| method | balanced accuracy % |") and lines[1].startswith("| --- | ---: |")
    assert lines[2].startswith(r"| c\*\|e\* | 71.0 ± 1.4 |")
    assert lines[3].startswith(r"| \_crl_rel\_ | **81.0 ± 1.4**\* |")
    assert escaped("a\nb`[x](y)<i>\\") == r"a b\`\[x\](y)\<i\>\\"


@pytest.mark.parametrize("make", [method_rows, label_rows, methods_table, rules_table])
def test_results_must_be_there_and_complete(make):
    with pytest.raises(ValueError, match=f"{make.__name__}: needs a sequence of at least one result, received none"):
        make([])
    with pytest.raises(ValueError, match=rf"{make.__name__}: result 0 lacks \['method'\]"):
        make([{key: value for key, value in result("ce", 0).items() if key != "method"}])


# ranking and intervals

RANKED = {"auroc": 0.9, "average_precision": 0.4, "rarest_third_auroc": 0.8, "rarest_third_average_precision": 0.2}


def ranked(method, seed, balanced, low, high, rule="argmax", **changes):
    rules = {"argmax": {"balanced_accuracy": [0.0, 0.1]}, rule: {"balanced_accuracy": [low, high]}}
    of_label = {"auroc": {"c0": 0.9, "c1": 0.9 - seed / 10}, "average_precision": {"c0": 0.9, "c1": None}}
    run = result(method, seed, balanced, rule=rule, intervals={"rules": rules}, **(RANKED | changes))
    return run | {"labels": {"hat": label(balanced) | of_label}}


def test_the_ranking_table_shows_means_spreads_and_bounds_averaged_over_seeds():
    runs = [ranked("ce", 0, 0.7, 0.68, 0.72), ranked("ce", 1, 0.72, 0.69, 0.75, auroc=0.92)]
    runs += [ranked("crl", seed, 0.8, 0.7, 0.9, "logit_adjustment") for seed in (0, 1)] + over_seeds("old", [0.5, 0.6])
    table = ranking_table(runs)
    assert column(table, "95 % interval") == ["68.5–73.5", "70.0–90.0", "–"]
    assert column(table, "all AUROC %") == ["<91.0 ± 1.4>", "90.0 ± 0.0", "–"]
    assert column(table, "rarest AUROC %") == ["<80.0 ± 0.0>", "<80.0 ± 0.0>", "–"]
    assert column(table, "rarest AP %")[2] == column(table, "all AP %")[2] == "–"
    ce, crl, old = method_rows(runs)
    assert (crl["balanced_accuracy_low"], crl["balanced_accuracy_high"]) == pytest.approx((0.7, 0.9))
    assert crl["auroc_gain"] == pytest.approx(-0.01) and ce["auroc"] == pytest.approx(0.91)
    assert old["auroc"] is None and old["balanced_accuracy_low"] is None


def test_the_ranking_table_of_our_methods_fits_100_columns():
    runs = [ranked(name, seed, 0.7 + seed / 20, 0.6, 0.8) for name in ("logit_adjusted", "class_rel") for seed in (0, 1)]
    console = Console(file=io.StringIO(), width=200)
    console.print(ranking_table([run | {"auroc": 0.8 + run["seed"] / 10} for run in runs]))
    lines = [line.rstrip() for line in console.file.getvalue().splitlines() if "±" in line or "AUROC" in line]
    assert len(lines) == 3 and max(map(len, lines)) <= 100
    # The two runs of one seed fit a terminal of 80.
    console = Console(file=io.StringIO(), width=200)
    console.print(ranking_table([ranked(name, 0, 0.7, 0.6, 0.8) for name in ("logit_adjusted", "class_rel")]))
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert any("60.0–80.0" in line for line in lines)
    assert max(len(line) for line in lines if "bootstrap" not in line and "AP:" not in line) <= 80


def test_classes_of_a_label_have_their_ranking_as_means_over_seeds():
    (row,) = label_rows([ranked("ce", 0, 0.7, 0.6, 0.8), ranked("ce", 1, 0.7, 0.6, 0.8)])
    assert row["auroc"] == {"c0": pytest.approx(0.9), "c1": pytest.approx(0.85)}
    assert row["average_precision"] == {"c0": pytest.approx(0.9), "c1": None}
    (old,) = label_rows([result("ce", 0)])
    assert old["auroc"] == old["average_precision"] == {"c0": None, "c1": None}
