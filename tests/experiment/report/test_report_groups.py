"""The table by groups of attributes (Table 7)."""

import pytest

from crl_tf.experiment.report.tables import group_table


def result(method, groups, total, **changes):
    run = {"dataset": "deepfashion", "model": "deepid2", "method": method, "seed": 0, "epochs": 2, "seconds": 1.0}
    run |= {"balanced_accuracy": 0.5, "accuracy": 0.9, "rarest_third": 0.1}
    run["labels"] = {"lace": {"train_counts": {"absent": 9, "present": 1}}}
    if groups is not None:
        of_groups = {name: {"balanced_accuracy": share, "imbalance": ratio} for name, (share, ratio) in groups.items()}
        run["top5"] = {"balanced_accuracy": total, "groups": of_groups}
    return run | changes


def rows(table):
    def text(cell):
        return f"*{cell}*" if any(span.style == "bold" for span in cell.spans) else str(cell)

    return [[text(cell) for cell in row] for row in zip(*(column._cells for column in table.columns), strict=True)]


def test_groups_and_their_mean_with_the_best_run_of_each():
    ce = result("ce", {"texture": (0.5329, 733.4), "fabric": (0.5286, 2.5)}, 0.522)
    crl = result("class_rel", {"texture": (0.5537, 733.4), "fabric": (0.5286, 2.5)}, 0.5456)
    table = group_table([ce, crl])
    assert [" ".join(str(c.header).split()) for c in table.columns] == ["group", "imbalance", "ce", "class_rel"]
    assert rows(table) == [
        ["texture", "1:733", "53.3", "*55.4*"],
        ["fabric", "1:2.5", "*52.9*", "*52.9*"],
        ["mean over attributes", "", "52.2", "*54.6*"],
    ]
    assert "deepfashion · deepid2 · 2 epochs · seed 0" in str(table.title)


def test_what_was_not_measured_is_left_open():
    runs = [result("ce", {"few": (None, None), "shape": (0.6, 3.0)}, 0.6), result("crl", None, None)]
    assert rows(group_table(runs)) == [
        ["few", "–", "–", "–"],
        ["shape", "1:3", "60.0", "–"],
        ["mean over attributes", "", "60.0", "–"],
    ]


def test_no_groups_and_no_results_are_refused():
    with pytest.raises(ValueError, match=r"group_table: no result has 'top5', which is measured where attributes have groups"):
        group_table([result("ce", None, None)])
    with pytest.raises(ValueError, match="group_table: needs a sequence of at least one result, received none"):
        group_table([])
