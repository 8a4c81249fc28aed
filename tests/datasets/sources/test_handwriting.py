from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from crl_tf.datasets import SPLITS, load_dataset
from crl_tf.datasets.sources.handwriting import split_digits, training_sizes
from crl_tf.imbalance import class_counts, imbalance_ratio, power_law_counts


def test_sizes_and_imbalance(handwriting):
    assert {name: len(split) for name, split in handwriting.splits.items()} == {"train": 10000, "validation": 960, "test": 3000}
    assert handwriting.schema.num_classes == (10, 12, 10, 4, 2)
    counts = class_counts(handwriting.splits["train"].labels, handwriting.schema.num_classes)
    digit, ink, small_digit, _place, _stroke = counts
    assert [imbalance_ratio(c) for c in counts] == [5119 / 100, 5251 / 5, 6053 / 25, 2500 / 2500, 9950 / 50]
    assert all(c.min() >= 4 for c in counts)
    # The tail is the paper's law; the largest class takes what rounding leaves over.
    for sizes, gamma in ((digit, 2.0), (ink, 4.0), (small_digit, 3.0)):
        law = power_law_counts(len(sizes), gamma, int(sizes[0]), int(sizes[-1]))
        assert abs(sizes - law).max() <= 1


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_is_balanced(handwriting, split):
    labels = handwriting.splits[split].labels
    for counts in class_counts(labels, handwriting.schema.num_classes):
        assert set(counts) == {len(labels) // len(counts)}


def test_labels_are_independent_of_each_other(handwriting):
    labels = handwriting.splits["test"].labels
    correlation = np.corrcoef(labels.T) - np.eye(labels.shape[1])
    # 3,000 independent pairs correlate by 1/sqrt(3000) = 0.018 on average: 0.08 is beyond four of these.
    assert abs(correlation).max() < 0.08


def test_splits_use_different_digits():
    values = load_digits().target
    pools = split_digits(values, np.random.default_rng(0))
    together = np.concatenate(pools)
    assert sorted(together) == list(range(1797))
    for pool, share in zip(pools, (0.6, 0.2, 0.2), strict=True):
        # About 180 images of each value; rounding moves either end by at most one.
        assert abs(np.bincount(values[pool]) - share * np.bincount(values)).max() <= 1


def test_no_image_twice(handwriting):
    images = np.concatenate([handwriting.splits[name].images for name in SPLITS])
    assert len({image.tobytes() for image in images}) == 13960


def test_large_digit_shows_its_ink(handwriting):
    split = handwriting.splits["test"]
    green, blue = (split.images[split.labels[:, 1] == k, 8:24, 8:24].mean((0, 1, 2)) for k in (1, 2))
    assert green[1] > green[2] + 15
    assert blue[2] > blue[1] + 15


def test_small_digit_lies_in_its_corner(handwriting):
    split = handwriting.splits["test"]
    corners = {0: np.s_[:, 2:11, 2:11], 1: np.s_[:, 2:11, 21:30], 2: np.s_[:, 21:30, 2:11], 3: np.s_[:, 21:30, 21:30]}
    for place, corner in corners.items():
        brightness = [split.images[split.labels[:, 3] == k][corner].mean() for k in range(4)]
        assert int(np.argmax(brightness)) == place


def test_strokes_slant_as_labelled(handwriting):
    split = handwriting.splits["test"]
    gray = split.images.mean(-1)
    gray -= gray.mean((1, 2), keepdims=True)
    # Along a stroke, pixels resemble each other: three steps down and right for a backslash, down and left for a slash.
    falling = (gray[:, :-3, :-3] * gray[:, 3:, 3:]).mean((1, 2))
    rising = (gray[:, :-3, 3:] * gray[:, 3:, :-3]).mean((1, 2))
    slash, backslash = (np.mean((falling - rising)[split.labels[:, 4] == k]) for k in (0, 1))
    error = np.std(falling - rising) * np.sqrt(2 / 1500)
    assert backslash - slash > 5 * error


def test_seed_matters(handwriting):
    other = load_dataset("handwriting", seed=1)
    assert (other.splits["train"].labels != handwriting.splits["train"].labels).any()
    assert (other.splits["test"].images != handwriting.splits["test"].images).any()


def test_training_sizes_sum_up():
    for total in (100, 101, 9999):
        sizes = training_sizes(5, total, smallest=3, gamma=2.0)
        assert sizes.sum() == total
        assert sizes[-1] == 3
        assert (np.diff(sizes) <= 0).all()


def test_data_dir_is_refused():
    with pytest.raises(ValueError, match=r"data_dir must be None.*received '/somewhere'"):
        load_dataset("handwriting", data_dir="/somewhere")
