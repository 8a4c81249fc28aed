"""The report as files, and its figures."""

import csv
import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from crl_tf.experiment.report import write_report
from crl_tf.experiment.report.aggregate import method_rows
from crl_tf.experiment.report.method_figures import save_accuracy_by_rule, save_gain_by_imbalance, save_relative_gain

PNG = b"\x89PNG\r\n\x1a\n"


def label(train_counts, sensitivity):
    names = [f"c{i}" for i in range(len(train_counts))]
    known = [share for share in sensitivity if share is not None]
    return {
        "balanced_accuracy": sum(known) / len(known) if known else None,
        "accuracy": 0.9,
        "sensitivity": dict(zip(names, sensitivity, strict=True)),
        "confusion": [[0] * len(names)] * len(names),
        "train_counts": dict(zip(names, train_counts, strict=True)),
    }


def result(method, seed=0, balanced=0.7, labels=None, rules=(0.0, 0.05), **changes):
    run = {"dataset": "digits", "model": "small", "method": method, "loss": "ce", "seed": seed, "epochs": 3, "seconds": 10.0}
    run |= {"balanced_accuracy": balanced, "accuracy": 0.9, "macro_f1": 0.6, "rarest_third": None, "most_frequent_third": 0.95}
    names = ("argmax", "threshold_adjustment")
    run["rules"] = {
        name: {"balanced_accuracy": balanced + more, "accuracy": 0.9 - more, "strengths": {"hat": more}}
        for name, more in zip(names, rules, strict=False)
    }
    run["labels"] = labels or {
        "hat": label([90, 10], [0.9, balanced - 0.2]),
        "coat": label([60, 40], [0.8, balanced]),
    }
    return run | {"rule": "argmax"} | changes


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def figures(monkeypatch):
    """The figures that the code would write, instead of files."""
    drawn = []
    monkeypatch.setattr("crl_tf.experiment.report.method_figures.write_png", lambda figure, path: drawn.append(figure))
    return drawn


def shown(figure):
    return [panel for panel in figure.axes if panel.get_visible()]


def names_below(panel):
    return [tick.get_text() for tick in panel.get_xticklabels()]


# write_report

RUNS = [result("ce", 0), result("ce", 1, 0.72), result("crl|*", 0, 0.78), result("crl|*", 1, 0.79)]


def test_every_file_is_written_and_nothing_else(tmp_path):
    folder = tmp_path / "new" / "report"
    paths = write_report(RUNS, folder)
    names = {"report.md", "report.csv", "runs.csv", "labels.csv"}
    pictures = {"gain_by_imbalance.png", "accuracy_by_rule.png", "relative_gain.png"}
    assert {str(p.relative_to(folder)) for p in paths} == names | {f"figures/{name}" for name in pictures}
    assert sorted(p for p in folder.rglob("*") if p.is_file()) == sorted(paths)
    assert all((folder / "figures" / name).read_bytes().startswith(PNG) for name in pictures)


def test_csv_of_methods_holds_the_rows(tmp_path):
    write_report(RUNS, tmp_path)
    read_back = read(tmp_path / "report.csv")
    assert [row["method"] for row in read_back] == ["ce", "crl|*"]
    crl = read_back[1]
    assert float(crl["balanced_accuracy"]) == pytest.approx(0.785)
    assert float(crl["balanced_accuracy_gain"]) == pytest.approx((0.08 + 0.07) / 2)
    assert (crl["seeds"], crl["rarest_third"], crl["seconds_ratio"]) == ("2", "", "1.0")
    assert float(crl["balanced_accuracy_q"]) == float(crl["balanced_accuracy_p"]) > 0  # one comparison
    for row, cells in zip(method_rows(RUNS), read_back, strict=True):
        assert cells == {name: "" if value is None else str(value) for name, value in row.items()}


def test_csv_of_runs_has_a_row_per_run_and_rule(tmp_path):
    old = {key: value for key, value in result("old", 5, 0.6).items() if key not in ("rule", "rules")}
    write_report([*RUNS, result("ta", 0, rule="threshold_adjustment"), old], tmp_path)
    rows = read(tmp_path / "runs.csv")
    assert [(r["method"], r["seed"], r["rule"], r["headline"]) for r in rows] == [
        *(
            (method, seed, rule, headline)
            for method in ("ce", "crl|*")
            for seed in "01"
            for rule, headline in (("argmax", "1"), ("threshold_adjustment", "0"))
        ),
        ("ta", "0", "argmax", "0"),
        ("ta", "0", "threshold_adjustment", "1"),
        ("old", "5", "argmax", "1"),
    ]
    assert float(rows[1]["balanced_accuracy"]) == pytest.approx(0.75) and float(rows[1]["accuracy"]) == pytest.approx(0.85)
    assert json.loads(rows[1]["strengths"]) == {"hat": 0.05} and rows[1]["macro_f1"] == ""
    assert float(rows[-1]["balanced_accuracy"]) == 0.6 and float(rows[-1]["macro_f1"]) == 0.6


def test_csv_of_labels(tmp_path):
    write_report(RUNS, tmp_path)
    rows = read(tmp_path / "labels.csv")
    assert [(row["method"], row["label"], row["imbalance"]) for row in rows] == [
        ("ce", "hat", "9.0"),
        ("ce", "coat", "1.5"),
        ("crl|*", "hat", "9.0"),
        ("crl|*", "coat", "1.5"),
    ]
    # Of hat, balanced accuracy is (0.9 + b - 0.2) / 2: half of what b gains.
    assert (
        float(rows[2]["balanced_accuracy_gain"]) == pytest.approx((0.08 + 0.07) / 4) and rows[0]["balanced_accuracy_gain"] == ""
    )


def test_ranking_and_intervals_are_in_every_file(tmp_path):
    rules = {"argmax": {"balanced_accuracy": [0.6, 0.8]}, "threshold_adjustment": {"balanced_accuracy": [0.65, 0.85]}}
    new = {"auroc": 0.9, "average_precision": 0.5, "rarest_third_auroc": 0.7, "rarest_third_average_precision": 0.25}
    new |= {"intervals": {"rules": rules}}
    of_class = {"auroc": {"c0": 0.75, "c1": 0.75}, "average_precision": {"c0": 0.5, "c1": None}}
    labels = {"hat": label([90, 10], [0.9, 0.5]) | of_class}
    write_report([result("old", 0), result("crl", 0, labels=labels, **new)], tmp_path)
    old, _, *of_crl = read(tmp_path / "runs.csv")
    assert [(r["balanced_accuracy_low"], r["balanced_accuracy_high"]) for r in of_crl] == [("0.6", "0.8"), ("0.65", "0.85")]
    assert {r["rarest_third_average_precision"] for r in of_crl} == {"0.25"} and old["auroc"] == old[
        "balanced_accuracy_low"
    ] == ""
    crl = read(tmp_path / "report.csv")[1]
    assert (crl["auroc"], crl["balanced_accuracy_low"], crl["rarest_third_auroc"]) == ("0.9", "0.6", "0.7")
    rows = {(row["method"], row["label"]): row for row in read(tmp_path / "labels.csv")}
    assert json.loads(rows["crl", "hat"]["auroc"]) == {"c0": 0.75, "c1": 0.75}
    assert json.loads(rows["crl", "hat"]["average_precision"]) == {"c0": 0.5, "c1": None}
    assert json.loads(rows["old", "hat"]["auroc"]) == {"c0": None, "c1": None}
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## Ranking" in text and "| 60.0–80.0 | 70.0 | 25.0 | 90.0 | 50.0 |" in text
    write_report([result("old", 0)], tmp_path)
    assert "## Ranking" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_markdown_has_command_tables_failures_and_relative_figures(tmp_path):
    write_report(RUNS, tmp_path, failed={"lm|le": "ValueError: a\nb *c*"}, command="run --x=`y` ```z```")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# digits · small · 3 epochs\n\n````sh\nrun --x=`y` ```z```\n````\n")
    assert r"| crl\|\* | **78.5 ± 0.7**" in text
    assert r"| lm\|le | ValueError: a b \*c\* |" in text
    assert "![Gain over the baseline by imbalance](figures/gain_by_imbalance.png)" in text
    assert (
        "| coat | 1:1.5 | 75.5 ± 0.7 | **79.2 ± 0.4** |" in text
    )  # (0.8 + 0.7) / 2, (0.8 + 0.72) / 2; (0.8 + 0.785) / 2 = 79.25
    assert "strengths were chosen on validation images" in text and r"q \< 0.05" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4  # methods, rules, labels, failed
    for lines in tables:
        assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1


def test_tables_of_many_methods_have_the_best_in_bold_and_failures(tmp_path):
    labels = {f"label number {i}": label([9, 1], [0.5, 0.5]) for i in range(15)}
    runs = [result(f"method_{i:02}", 0, 0.5 + i / 100, labels) for i in range(16)]
    write_report(runs, tmp_path, failed={"lmle": "no memory"}, command="again")
    lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    assert any("| **65.0** |" in line and "method_15" in line for line in lines)
    assert any(line.split(" | ") == ["| method_07", *["**50.0**"] * 14, "**50.0** |"] for line in lines)  # all are best
    assert "| lmle | no memory |" in lines


def test_a_single_method_has_no_figure_of_gains_and_old_ones_go(tmp_path):
    write_report(RUNS, tmp_path)
    paths = write_report(RUNS[:2], tmp_path)
    assert [p.name for p in (tmp_path / "figures").iterdir()] == ["accuracy_by_rule.png"]
    assert paths[-1].name == "accuracy_by_rule.png"
    assert "gain_by_imbalance" not in (tmp_path / "report.md").read_text()


def test_runs_without_rules_have_neither_table_nor_figure_of_them(tmp_path):
    write_report([r | {"rules": {}} for r in RUNS], tmp_path)
    assert not (tmp_path / "figures" / "accuracy_by_rule.png").exists()
    assert "Decision rules" not in (tmp_path / "report.md").read_text()


def test_a_failed_write_keeps_the_old_report(tmp_path, monkeypatch):
    write_report(RUNS, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def half(self, target, **_):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        write_report(RUNS[:1] + RUNS[2:3], tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_no_results_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one result, received none"):
        write_report([], tmp_path)
    assert not list(tmp_path.iterdir())


# figures


def test_gain_has_a_bar_per_label_by_rising_imbalance(figures):
    assert save_gain_by_imbalance(RUNS, "unused.png")
    (panel,) = shown(figures[0])
    assert panel.get_title() == "crl|* (78.5 %)"
    assert [bar.get_height() for bar in panel.patches] == pytest.approx([7.5 / 2, 7.5 / 2])
    assert names_below(panel) == ["coat\n1:1.5", "hat\n1:9"]


def test_a_loss_has_another_colour_than_a_gain_and_a_gap_says_so(figures):
    ce = {"up": label([3, 1], [0.5, 0.5]), "down": label([4, 1], [0.5, 0.5]), "gone": label([5, 1], [0.5, 0.5])}
    crl = {"up": label([3, 1], [0.6, 0.6]), "down": label([4, 1], [0.3, 0.5]), "gone": label([5, 1], [None, None])}
    save_gain_by_imbalance([result("ce", labels=ce), result("crl", labels=crl)], "unused.png")
    (panel,) = shown(figures[0])
    assert [bar.get_height() for bar in panel.patches] == pytest.approx([10, -10, 0])
    colours = [bar.get_facecolor() for bar in panel.patches]
    assert colours[0] != colours[1]
    assert [(note.get_text(), note.xy[0]) for note in panel.texts] == [("–", 2)]


def test_of_many_methods_the_best_six_and_crl_and_lmle_are_drawn(figures):
    shares = {"ce": 0.9, "class_rel": 0.41, "lmle": 0.4} | {f"m{i}": 0.5 + i / 100 for i in range(10)}
    runs = [result(method, 0, share) for method, share in shares.items()]
    for save in (save_gain_by_imbalance, save_relative_gain):
        assert save(runs, "unused.png")
    for figure in figures:
        titles = [panel.get_title().split()[0] for panel in shown(figure)]
        assert titles == ["m9", "m8", "m7", "m6", "m5", "m4", "class_rel", "lmle"]
        assert "best 6 of 12 methods" in figure.get_suptitle() and "class_rel, lmle" in figure.get_suptitle()


def test_a_single_label_is_drawn_by_class_from_frequent_to_rare(figures):
    def runs(method, shares):
        return [
            result(method, seed, labels={"a": label([5, 50, 0], [s, s, None if seed else s])}) for seed, s in enumerate(shares)
        ]

    save_gain_by_imbalance(runs("ce", [0.5, 0.5]) + runs("crl", [0.6, 0.8]), "unused.png")
    (panel,) = shown(figures[0])
    assert names_below(panel) == ["c1\n50", "c0\n5", "c2\n0"]
    # (10 + 30) / 2; of c2, which seed 1 did not test, 10.
    assert [bar.get_height() for bar in panel.patches] == pytest.approx([20, 20, 10])


def test_many_classes_are_a_line_over_rank_with_a_mean_per_frequency_bin(figures):
    # From 256 to 1 in 8 bins of a factor of 2: of 41 classes, 20 have 256, one 1, and 20 have 3.
    counts = [3] * 20 + [1] + [256] * 20
    gains = [0.1] * 20 + [0.3] + list(np.linspace(0, 0.19, 20))
    runs = [result("ce", labels={"a": label(counts, [0.5] * 41)})]
    runs += [result("crl", labels={"a": label(counts, [0.5 + gain for gain in gains])})]
    save_gain_by_imbalance(runs, "unused.png")
    (panel,) = shown(figures[0])
    assert not panel.patches
    assert panel.lines[0].get_ydata() == pytest.approx([*np.linspace(0, 19, 20), *[10] * 20, 30])
    segments = [bar.get_segments()[0] for bar in panel.collections]
    assert [s[0, 1] for s in segments] == pytest.approx([9.5, 10, 30])
    assert [(s[0, 0], s[1, 0]) for s in segments] == [(-0.5, 19.5), (19.5, 39.5), (39.5, 40.5)]
    assert names_below(panel)[0] == "1\n256" and names_below(panel)[-1] == "41\n1"


@pytest.mark.parametrize(("count", "columns", "bars"), [(5, 3, 5), (40, 1, 40), (1000, 1, 0)])
def test_gain_reads_at_few_and_at_many_labels(count, columns, bars, figures):
    def labels(more):
        return {f"l{i}": label([1000, 1 + i], [0.5, 0.5 + more]) for i in range(count)}

    save_gain_by_imbalance(
        [result("ce", labels=labels(0))] + [result(f"m{i}", labels=labels(0.1)) for i in range(3)], "unused.png"
    )
    panels = shown(figures[0])
    assert len(panels) == 3 and [len(p.patches) for p in panels] == [bars] * 3
    assert {p.get_subplotspec().colspan.start for p in panels} == set(range(columns))
    # Most imbalanced last: 1 + 0 of 1000.
    assert names_below(panels[-1])[-1].split()[-1] == "1:1,000"
    assert max(figures[0].get_size_inches()) < 20


def test_relative_gain_of_binary_labels_against_their_distance_from_half(figures):
    ce = {"hat": label([90, 10], [0.5, 0.5]), "kind": label([5, 3, 1], [0.5] * 3), "even": label([5, 5], [0.8, 0.8])}
    crl = {"hat": label([90, 10], [0.6, 0.6]), "kind": label([5, 3, 1], [0.9] * 3), "even": label([5, 5], [0.6, 0.6])}
    runs = [result("ce", labels=ce), result("crl", labels=crl)]
    assert save_relative_gain(runs, "unused.png")
    (panel,) = shown(figures[0])
    # |10 - 50| = 40: 0.1 of 0.5 is 20 %; |50 - 50| = 0: -0.2 of 0.8 is -25 %.
    assert np.asarray(panel.collections[0].get_offsets()) == pytest.approx(np.array([[40, 20], [0, -25]]))
    only = [r | {"labels": {"kind": r["labels"]["kind"]}} for r in runs]
    assert not save_relative_gain(only, "unused.png") and len(figures) == 1


def test_rules_are_markers_by_method_best_argmax_on_top(figures):
    runs = [result("low", 0, 0.5), result("high", 0, 0.70), result("high", 1, 0.74), result("mid", 0, 0.6, rules=(0.0,))]
    assert save_accuracy_by_rule([*runs, result("none", rules=())], "unused.png")
    (panel,) = figures[0].axes
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["low", "mid", "high"]
    argmax, threshold = panel.lines
    assert argmax.get_xdata() == pytest.approx([50, 60, 72]) and threshold.get_xdata() == pytest.approx([55, 77])
    assert [round(y) for y in argmax.get_ydata()] == [0, 1, 2] and [round(y) for y in threshold.get_ydata()] == [0, 2]
    assert argmax.get_marker() != threshold.get_marker()
    ends = panel.collections[0].get_segments()[2][:, 0]
    assert ends == pytest.approx([72 - 2 * 2**0.5, 72 + 2 * 2**0.5])  # deviations of 2: sqrt(8 / 1)
    assert not save_accuracy_by_rule([result("none", rules=())], "unused.png")


@pytest.mark.parametrize("save", [save_gain_by_imbalance, save_relative_gain, save_accuracy_by_rule])
def test_awkward_names_and_counts_still_give_a_whole_png(save, tmp_path):
    labels = {"$\\broken{ [red]": label([10**6, 1], [0.5, 0.5]), "_": label([7, 7], [0.0, 0.0])}
    path = tmp_path / "new" / "figure.png"
    assert save([result("_cost $x_{", labels=labels), result("$y^{", labels=labels)], path)
    assert path.read_bytes().startswith(PNG) and list(path.parent.iterdir()) == [path]
