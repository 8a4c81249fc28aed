"""The row of majority votes, accuracy beside balanced accuracy, and trainings that are no result: marked, never the best."""

import io

import numpy as np
from rich.console import Console

from crl_tf.experiment.measure import measure
from crl_tf.experiment.report import comparison_table, methods_table, rules_table
from crl_tf.experiment.report.grid import Cell, Grid, markdown_table, rich_table
from crl_tf.schema import Attribute, AttributeSchema

SCHEMA = AttributeSchema((Attribute("hat", ("no", "yes")),))


def run(method, confusion, seed=0, **changes):
    numbers = measure(SCHEMA, [np.array(confusion)], [np.array([70, 30])])
    shares = {name: numbers[name] for name in ("balanced_accuracy", "accuracy")}
    rules = {"argmax": {**shares, "strengths": {}}, "logit_adjustment": {**shares, "strengths": {}}}
    fixed = {"dataset": "digits", "model": "small", "epochs": 3, "seconds": 9.0}
    return {**fixed, "method": method, "seed": seed, **numbers, "rules": rules, "validation": {"rules": rules}, **changes}


def cells(table):
    """The rows, with what is bold in asterisks."""
    columns = [
        [f"*{cell}*" if any(s.style == "bold" for s in cell.spans) else str(cell) for cell in c._cells] for c in table.columns
    ]
    return [[cell.replace("\n", " ") for cell in row] for row in zip(*columns, strict=True)]


def test_every_table_ends_with_the_majority_vote():
    runs = [run("ce", [[8, 0], [1, 1]]), run("crl", [[6, 2], [0, 2]])]
    # Majority: recalls 1 and 0, accuracy 8 of 10, F1 of "no" 2 * 8 / (8 + 10), of "yes" 0; the rarest third of two is "yes".
    assert cells(comparison_table(runs))[-1] == ["majority vote", "50.0", "", "0.0", "", "80.0", ""]
    assert cells(methods_table(runs))[-1] == ["majority vote", "50.0", "80.0", "44.4", "0.0", "100.0", "", ""]
    assert [[cell.strip() for cell in row] for row in cells(rules_table(runs))] == [
        ["ce", "75.0 (90.0)^", "75.0 (90.0)^"],
        ["crl", "*87.5 (80.0)^*", "*87.5 (80.0)^*"],
        ["majority vote", "50.0 (80.0)", ""],
    ]


def test_runs_on_other_images_have_no_common_majority_vote():
    assert cells(methods_table([run("ce", [[8, 0], [1, 1]]), run("crl", [[7, 0], [1, 1]])]))[-1][0] == "crl"


def test_a_run_that_is_no_result_is_marked_and_never_the_best():
    exploded = run("crl", [[8, 0], [0, 2]], is_result=False, complaints=["the loss reached 4e+18: lower it."], seconds=1.0)
    for table in (comparison_table, methods_table, rules_table):
        rows = cells(table([run("ce", [[8, 0], [1, 1]]), exploded]))
        assert rows[1][0].strip() == "crl†", table
        assert not any("*" in cell for cell in rows[1]), table
    caption = str(methods_table([run("ce", [[8, 0], [1, 1]]), exploded]).caption)
    assert caption.endswith(". † crl, seed 0: the loss reached 4e+18: lower it.")
    assert "† crl, seed 0" in str(comparison_table([run("ce", [[8, 0], [1, 1]]), exploded]).caption)


def test_a_method_of_several_parts_breaks_between_them_in_a_terminal_of_80_columns():
    name = "class_rel+gated+logit_adjusted_base"
    grid = Grid("", ["method", *["points"] * 6], [[Cell(name), *[Cell("12.3")] * 6]])
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(rich_table(grid))
    lines = [line.split()[0] for line in console.file.getvalue().splitlines() if "class" in line or "adjusted" in line]
    assert lines == ["class_rel+gated", "+logit_adjusted_base"]
    assert name in markdown_table(grid)
