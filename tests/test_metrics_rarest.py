import math

import pytest

from crl_tf.metrics import most_frequent_third, rarest_third


def label(train_counts, sensitivity):
    names = [f"c{i}" for i in range(len(train_counts))]
    return {
        "sensitivity": dict(zip(names, sensitivity, strict=True)),
        "train_counts": dict(zip(names, train_counts, strict=True)),
    }


def test_rarest_third_pools_labels_and_leaves_out_classes_the_test_set_lacks():
    labels = {
        "a": label([100, 3, 50], [0.9, None, 0.8]),
        "b": label([5, 70, 60, 4], [0.2, 0.7, 0.6, 0.4]),
    }
    # Six classes occur in the test set (a's 3 does not): the ceil(6/3) = 2 rarest have 4 and 5 samples.
    assert rarest_third(labels) == pytest.approx((0.4 + 0.2) / 2)


def test_rarest_third_rounds_up():
    # ceil(4/3) = 2: counts 1 and 2.
    assert rarest_third({"a": label([1, 2, 3, 4], [0.1, 0.3, 1.0, 1.0])}) == pytest.approx((0.1 + 0.3) / 2)


def test_rarest_third_breaks_ties_by_order_and_counts_untrained_classes_as_rarest():
    assert rarest_third({"a": label([10, 10], [0.3, 0.9]), "b": label([10], [0.6])}) == pytest.approx(0.3)
    assert rarest_third({"a": label([10, 0, 1], [0.9, 0.0, 0.5])}) == 0.0


def test_rarest_third_of_no_class_is_nan():
    assert math.isnan(rarest_third({"a": label([1, 2], [None, None])}))
    assert math.isnan(rarest_third({}))


def test_rarest_third_refuses_a_class_without_a_training_count():
    with pytest.raises(KeyError, match="y"):
        rarest_third({"a": {"sensitivity": {"y": 0.5}, "train_counts": {"x": 1}}})


def test_most_frequent_third_pools_labels_and_leaves_out_classes_the_test_set_lacks():
    labels = {
        "a": label([100, 3, 500], [0.9, 0.1, None]),
        "b": label([5, 70, 60, 4], [0.2, 0.7, 0.6, 0.4]),
    }
    # Six classes occur in the test set (a's 500 does not): the ceil(6/3) = 2 most frequent have 100 and 70 samples.
    assert most_frequent_third(labels) == pytest.approx((0.9 + 0.7) / 2)


def test_most_frequent_third_rounds_up_and_breaks_ties_from_the_end():
    # ceil(4/3) = 2: counts 3 and 4.
    assert most_frequent_third({"a": label([4, 2, 3, 1], [0.1, 1.0, 0.3, 1.0])}) == pytest.approx((0.1 + 0.3) / 2)
    assert most_frequent_third({"a": label([10, 10], [0.3, 0.9]), "b": label([10], [0.6])}) == pytest.approx(0.6)
    assert most_frequent_third({"a": label([7], [0.25])}) == 0.25


def test_most_frequent_third_of_no_class_is_nan():
    assert math.isnan(most_frequent_third({"a": label([1, 2], [None, None])}))
    assert math.isnan(most_frequent_third({}))
