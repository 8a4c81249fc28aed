import io
import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from crl_tf.experiment.report import (
    comparison_table,
    label_table,
    save_class_distributions,
    save_sensitivity_by_frequency,
)

PNG = b"\x89PNG\r\n\x1a\n"


def label(train_counts, sensitivity=None, balanced_accuracy=0.5):
    names = [f"c{i}" for i in range(len(train_counts))]
    sensitivity = sensitivity if sensitivity is not None else [0.5] * len(names)
    return {
        "balanced_accuracy": balanced_accuracy,
        "accuracy": 0.9,
        "sensitivity": dict(zip(names, sensitivity, strict=True)),
        "confusion": [[0] * len(names)] * len(names),
        "train_counts": dict(zip(names, train_counts, strict=True)),
    }


def result(method="ce", balanced=0.8, rarest=0.5, accuracy=0.9, labels=None, **changes):
    run = {
        "dataset": "digits",
        "model": "small",
        "method": method,
        "seed": 1,
        "epochs": 30,
        "seconds": 100.0,
        "balanced_accuracy": balanced,
        "accuracy": accuracy,
        "rarest_third": rarest,
        "labels": labels if labels is not None else {"hat": label([90, 10])},
    }
    return run | changes


def heads(table):
    return [" ".join(str(column.header).split()) for column in table.columns]


def column(table, head, nth=0):
    """The cells of the nth column under a heading, with what is bold in asterisks."""
    found = [c for c, name in zip(table.columns, heads(table), strict=True) if name == head][nth]
    return [f"*{cell}*" if any(span.style == "bold" for span in cell.spans) else str(cell) for cell in found._cells]


@pytest.fixture
def figures(monkeypatch):
    """The figures that the code would write, instead of files."""
    drawn = []
    monkeypatch.setattr("crl_tf.experiment.report.figures.write_png", lambda figure, path: drawn.append(figure))
    return drawn


# comparison_table


def test_comparison_shows_percent_and_signed_points_and_marks_the_best():
    runs = [
        result("ce", 0.8, 0.5, 0.95, seconds=100.0),
        result("crl", 0.813, 0.56, 0.94, seconds=1234.4),
        result("focal", 0.79, 0.5, 0.95, seconds=99.6),
    ]
    table = comparison_table(runs)
    assert str(table.title) == "digits · small · 30 epochs · seed 1"
    assert column(table, "method") == ["ce", "crl", "focal"]
    assert column(table, "balanced accuracy %") == ["80.0", "*81.3*", "79.0"]
    assert column(table, "Δ points") == ["", "+1.3", "-1.0"]  # 81.3 - 80.0, 79.0 - 80.0
    assert column(table, "rarest third %") == ["50.0", "*56.0*", "50.0"]
    assert column(table, "Δ points", nth=1) == ["", "+6.0", "0.0"]
    assert column(table, "accuracy %") == ["*95.0*", "94.0", "*95.0*"]
    assert column(table, "seconds") == ["*100*", "1,234", "*100*"]  # 99.6 reads 100 as well


def test_the_seconds_of_clustering_are_told_apart_under_the_table():
    assert comparison_table([result("ce")]).caption is None
    caption = str(comparison_table([result("ce"), result("lmle", seconds=66.2, clustering_seconds=24.5)]).caption)
    assert caption == "Of the 66 seconds of lmle, 24 are clustering and the search for samples"


def test_comparison_of_one_run_has_neither_differences_nor_a_best():
    table = comparison_table([result()])
    assert heads(table) == ["method", "balanced accuracy %", "rarest third %", "accuracy %", "seconds"]
    assert not any("*" in cell for head in heads(table) for cell in column(table, head))


def test_values_that_read_the_same_are_equally_good_and_a_tiny_difference_has_no_sign():
    table = comparison_table([result(balanced=0.80001), result("crl", balanced=0.80000)])
    assert column(table, "balanced accuracy %") == ["*80.0*", "*80.0*"]
    assert column(table, "Δ points") == ["", "0.0"]


def test_what_runs_disagree_on_becomes_a_column():
    table = comparison_table([result(seed=1), result(seed=2, dataset="digits-imb")])
    assert str(table.title) == "small · 30 epochs"
    assert heads(table)[:3] == ["method", "dataset", "seed"]
    assert column(table, "seed") == ["1", "2"]


def test_brackets_in_names_are_not_markup():
    console = Console(file=io.StringIO(), width=120)
    console.print(comparison_table([result("crl[bold]", model="net[/red]")]))
    assert "crl[bold]" in console.file.getvalue() and "net[/red]" in console.file.getvalue()


def test_a_comparison_fits_a_terminal_of_80_columns_without_cutting_a_number():
    console = Console(file=io.StringIO(), width=80)
    console.print(comparison_table([result("cross-entropy"), result("crl_class_relative", 0.812, seconds=12345.0)]))
    printed = console.file.getvalue()
    assert "…" not in printed and "12,345" in printed and "+1.2" in printed


def test_a_comparison_of_our_methods_needs_less_than_80_columns_and_two_lines_of_heading():
    console = Console(file=io.StringIO(), width=200)
    table = comparison_table([result("instance_rel"), result("instance_dis", 0.812, seconds=12345.0)])
    console.print(table)
    assert max(len(line.rstrip()) for line in console.file.getvalue().splitlines()) < 80
    assert max(str(c.header).count("\n") for c in table.columns) == 1


# label_table


def test_labels_with_classes_imbalance_and_the_balanced_accuracy_of_each_run():
    runs = [
        result("ce", labels={"hat": label([90, 10], balanced_accuracy=0.7), "coat": label([8, 0, 20])}),
        result("crl", labels={"hat": label([90, 10], balanced_accuracy=0.75), "shoe": label([3, 3])}),
    ]
    table = label_table(runs)
    assert column(table, "label") == ["hat", "coat", "shoe"]
    assert column(table, "classes") == ["2", "3", "2"]
    assert column(table, "imbalance") == ["1:9", "1:2.5, 1 empty", "1:1"]  # 90/10, 20/8, 3/3
    assert column(table, "ce") == ["70.0", "50.0", "–"]
    assert column(table, "crl") == ["*75.0*", "–", "50.0"]


def test_different_training_counts_are_both_shown_and_seeds_tell_runs_apart():
    runs = [result(seed=s, labels={"hat": label(c)}) for s, c in ((1, [400, 1]), (2, [50, 50]))]
    table = label_table(runs)
    assert column(table, "imbalance") == ["1:400 | 1:1"]
    assert heads(table)[3:] == ["ce seed 1", "ce seed 2"]


def test_no_label_is_left_out_and_a_label_nobody_trained_on_has_no_imbalance():
    table = label_table([result(labels={f"l{i}": label([0, 0]) for i in range(70)})])
    assert table.row_count == 70
    assert set(column(table, "imbalance")) == {"–"}


# figures


@pytest.mark.parametrize("labels", [1, 5, 40])
def test_distribution_has_a_panel_per_label_on_one_log_scale(labels, figures):
    save_class_distributions({f"l{i}": label([10, 1000 - i]) for i in range(labels)}, "unused.png")
    panels = [panel for panel in figures[0].axes if panel.get_visible()]
    assert len(panels) == labels
    assert {panel.get_yscale() for panel in panels} == {"log"}
    assert len({panel.get_ylim() for panel in panels}) == 1
    assert panels[0].get_title() == "l0\n1:100"


def test_distribution_sorts_bars_names_few_classes_and_counts_many(figures):
    save_class_distributions({"few": label([5, 0, 500]), "many": label(range(1, 138))}, "unused.png")
    few, many = figures[0].axes
    assert [tick.get_text() for tick in few.get_xticklabels()] == ["c2", "c0", "c1"]
    tops = [bar.get_y() + bar.get_height() for bar in few.patches]
    # A class of 0 has no bar: its top is its base.
    assert tops == pytest.approx([500, 5, few.patches[2].get_y()])
    assert many.get_xlabel() == "137 classes" and len(many.get_xticks()) == 0
    heights = many.patches[0].get_data().values
    assert heights.tolist() == sorted(range(1, 138), reverse=True)


def test_distribution_of_results_draws_each_label_once_from_the_first_run_that_has_it(figures):
    runs = [result(labels={"hat": label([4, 2])}), result(labels={"hat": label([9, 1]), "coat": label([3, 1])})]
    save_class_distributions(runs, "unused.png")
    assert [panel.get_title() for panel in figures[0].axes] == ["hat\n1:2", "coat\n1:3"]


def test_sensitivity_has_a_panel_per_method_with_every_class_and_the_binned_mean(figures):
    # From 1 to 256 in 8 bins: each bin is a factor of 2, so 1 and 1 share a bin, 64 and 100 share one, 256 is in the last.
    labels = {"a": label([1, 1, 64, 100, 256], [0.2, 0.4, 0.5, 0.7, 1.0])}
    runs = [result("ce", labels=labels), result("crl", labels=labels), result("crl", labels=labels, seed=2)]
    save_sensitivity_by_frequency(runs, "unused.png")
    ce, crl = figures[0].axes
    assert (ce.get_title(), crl.get_title()) == ("ce", "crl")
    assert ce.get_xlim() == crl.get_xlim() and ce.get_xscale() == "log"
    assert (len(ce.collections[0].get_offsets()), len(crl.collections[0].get_offsets())) == (5, 10)
    (mean,) = ce.lines
    assert mean.get_xdata() == pytest.approx([1, math.sqrt(64 * 100), 256])
    assert mean.get_ydata() == pytest.approx([(0.2 + 0.4) / 2, (0.5 + 0.7) / 2, 1.0])
    assert len(crl.lines) == 2  # the baseline's mean beside its own


def test_sensitivity_of_untrained_classes_stands_apart_at_a_tick_named_0(figures):
    save_sensitivity_by_frequency([result(labels={"a": label([0, 0, 8, 800], [0.1, 0.3, 0.5, None])})], "unused.png")
    (panel,) = figures[0].axes
    line, untrained = panel.lines
    assert line.get_xdata() == pytest.approx([8]) and untrained.get_ydata() == pytest.approx([(0.1 + 0.3) / 2])
    places = panel.collections[0].get_offsets()[:, 0]
    assert np.unique(places).size == 2 and places.min() == untrained.get_xdata()[0] > panel.get_xlim()[0] > 0
    figures[0].canvas.draw()
    ticks = dict(zip(panel.get_xticks(), (t.get_text() for t in panel.get_xticklabels()), strict=True))
    assert ticks[places.min()] == "0"


def test_sensitivity_needs_a_class_in_the_test_set(figures):
    with pytest.raises(ValueError, match="at least one class must occur"):
        save_sensitivity_by_frequency([result(labels={"a": label([1, 2], [None, None])})], "unused.png")


@pytest.mark.parametrize("counts", [[0, 0], [7, 7], [1, 0], [10**6, 1]])
@pytest.mark.parametrize("save", [save_class_distributions, save_sensitivity_by_frequency])
def test_extreme_counts_and_awkward_names_still_give_a_whole_png(save, counts, tmp_path):
    path = tmp_path / "new" / "folder" / "figure.png"
    save([result("_cost $x_{", labels={"$\\broken{ [red]": label(counts)}), result("b", labels={"c": label(counts)})], path)
    assert path.read_bytes().startswith(PNG)
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"]


@pytest.mark.parametrize("save", [save_class_distributions, save_sensitivity_by_frequency])
def test_a_failed_write_keeps_the_old_file_and_leaves_no_rubbish(save, tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def half(self, target, **_):
        assert target != path
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        save([result()], path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


# errors


@pytest.mark.parametrize(
    "make",
    [
        comparison_table,
        label_table,
        lambda results: save_class_distributions(results, "unused.png"),
        lambda results: save_sensitivity_by_frequency(results, "unused.png"),
    ],
)
def test_results_must_be_there_and_complete(make):
    with pytest.raises(ValueError, match="at least one result, received none"):
        make([])
    with pytest.raises(ValueError, match=r"result 1 lacks \['seed'\]"):
        make([result(), {key: value for key, value in result().items() if key != "seed"}])
    with pytest.raises(ValueError, match="result 0 has no labels"):
        make([result(labels={})])
    with pytest.raises(ValueError, match="sequence of"):
        make(result())
