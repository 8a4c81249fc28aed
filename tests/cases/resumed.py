"""What a training that was stopped and resumed is compared by."""

import csv

import numpy as np


def rows_of(workdir):
    """The history without the seconds."""
    with open(workdir / "history.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def assert_same(resumed, whole, folder):
    """Weights, optimizer, facts and the histories in stopped/ and whole/ of a folder, bit for bit."""
    for ours, theirs in ((resumed.model, whole.model), (resumed.model.optimizer, whole.model.optimizer)):
        for one, other in zip(ours.variables, theirs.variables, strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)
    assert rows_of(folder / "stopped") == rows_of(folder / "whole")
    assert resumed.facts == whole.facts
