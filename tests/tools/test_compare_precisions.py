"""The comparison of precisions: its table, of runs that are made up."""

import compare_precisions

from crl_tf.files import write_json


def result(accuracy, rarest):
    rule = {"balanced_accuracy": accuracy, "rarest_third": rarest}
    adjusted = {"balanced_accuracy": accuracy + 0.1, "rarest_third": rarest + 0.2}
    rules = {"argmax": rule, "logit_adjustment": adjusted}
    return {"rules": rules, "validation": {"rules": rules}, "rarest_third_auroc": 0.8}


def test_the_table_has_means_spreads_and_differences_of_finished_seeds(tmp_path, capsys):
    for seed in (0, 1, 2):
        for precision, more in (("float32", 0.0), ("mixed_bfloat16", 0.01)):
            if (seed, precision) != (2, "mixed_bfloat16"):  # not finished yet
                folder = tmp_path / "handwriting" / f"seed{seed}" / precision
                write_json(folder / "result.json", result(0.5 + 0.1 * seed + more, 0.1))
    compare_precisions.main([f"--runs={tmp_path}", "--show"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].endswith("(2 seeds) | float32 | 55.0 ± 7.1 | 65.0 ± 7.1 | 30.0 ± 0.0 | 80.0 ± 0.0 |")
    assert lines[4].endswith("| difference, seed by seed | +1.0 ± 0.0 | +1.0 ± 0.0 | +0.0 ± 0.0 | +0.0 ± 0.0 |")
    assert len(lines) == 5
