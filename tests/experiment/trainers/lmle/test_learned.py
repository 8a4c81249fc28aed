import csv

import numpy as np

from crl_tf.experiment.trainers.lmle.learned import Learned, keep, kept, write_history


def test_what_is_kept_comes_back_only_for_the_same_length(tmp_path):
    weights = [np.arange(3.0), np.ones((2, 2), np.float32), np.array(5)]
    keep(tmp_path / "a.npz", Learned(weights, 7, 1.5, np.ones((2, 3), np.float32), np.array([0, 1])))
    found = kept(tmp_path / "a.npz", 7)
    for mine, theirs in zip(found.weights, weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    assert (found.iterations, found.seconds) == (7, 1.5)
    assert found.centres.shape == (2, 3) and found.classes.tolist() == [0, 1]
    assert kept(tmp_path / "a.npz", 8) is None
    assert kept(tmp_path / "b.npz", 7) is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_history_says_what_is_learned_so_far(tmp_path):
    none = np.zeros(0)
    write_history(tmp_path, ["start", "colour", "light"], [Learned([], n, n / 3, none, none) for n in (4, 8)])
    with open(tmp_path / "history.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"learned": "start", "iterations": "4", "seconds": "1.333"},
            {"learned": "colour", "iterations": "8", "seconds": "2.667"},
        ]
