"""Majority votes by hand, dead labels, and losses beyond any sense."""

import numpy as np
import pytest

from crl_tf.experiment.health import judged, majority_vote, without_skill
from crl_tf.experiment.measure import measure
from crl_tf.schema import Attribute, AttributeSchema

SCHEMA = AttributeSchema((Attribute("hat", ("no", "yes")), Attribute("hue", ("red", "green", "blue"))))
COUNTS = [np.array([70, 30]), np.array([5, 40, 10])]


def labels_of(hat, hue, aurocs=((0.5, 0.5), (0.5, 0.5, 0.5))):
    rankings = [(np.array(auroc), np.array(auroc)) for auroc in aurocs]
    return measure(SCHEMA, [np.array(hat), np.array(hue)], COUNTS, rankings=rankings)["labels"]


def history(folder, losses):
    path = folder / "history.csv"
    path.write_text("epoch,loss,val_loss\n" + "".join(f"{epoch},{loss},1.0\n" for epoch, loss in enumerate(losses)))
    return path


def test_majority_votes_by_hand():
    """hat: 6 of 10 are "no". hue: "green" is the most frequent in training; 2 of the 8 images are green, none is blue."""
    votes = majority_vote(labels_of([[3, 3], [0, 4]], [[6, 0, 0], [0, 0, 2], [0, 0, 0]]))
    assert votes["labels"] == {"hat": 0.5, "hue": 0.5}  # 1 of 2 classes that occur, each
    assert votes["accuracy"] == pytest.approx((6 / 10 + 2 / 8) / 2)
    assert votes["macro_f1"] == pytest.approx((2 * 6 / (6 + 10) / 2 + 2 * 2 / (2 + 8) / 2) / 2)
    # The classes by training images: red 5, yes 30, green 40, no 70; a third of four, rounded up, is two.
    assert (votes["rarest_third"], votes["most_frequent_third"]) == (0.0, 1.0)


def test_a_label_without_images_has_no_vote():
    votes = majority_vote(labels_of([[0, 0], [0, 0]], [[0, 0, 0], [0, 1, 0], [0, 0, 0]]))
    assert votes["labels"] == {"hat": None, "hue": 1.0} and votes["accuracy"] == 1.0  # the only image is green


def test_only_labels_whose_scores_tell_nothing_are_without_skill():
    majority = [[6, 0], [4, 0]], [[0, 6, 0], [0, 2, 0], [0, 1, 0]]
    assert without_skill(labels_of(*majority)) == ["hat", "hue"]
    # The largest score is the majority's everywhere, but the scores rank: a decision rule helps there.
    assert without_skill(labels_of(*majority, aurocs=((0.8, 0.8), (0.5, 0.54, 0.5)))) == ["hue"]
    assert without_skill(labels_of([[5, 1], [3, 1]], majority[1])) == ["hue"]  # recalls 5/6 and 1/4: above 1/2


def test_a_dead_network_and_an_exploded_loss_are_no_result(tmp_path):
    dead = labels_of([[6, 0], [4, 0]], [[0, 6, 0], [0, 2, 0], [0, 1, 0]])
    learned = labels_of([[6, 0], [1, 3]], [[6, 0, 0], [0, 2, 0], [0, 0, 1]], aurocs=((0.9, 0.9), (1, 1, 1)))
    healthy = history(tmp_path, [2.0, 1.5])
    assert judged(learned, healthy) == {"is_result": True, "complaints": []}
    assert judged(learned, tmp_path / "none.csv")["is_result"]  # other trainers write no history
    verdict = judged(dead, healthy)
    assert not verdict["is_result"] and "the network is dead" in verdict["complaints"][0]
    # ln 2 + ln 3 = 1.79, times 100
    assert judged(learned, history(tmp_path, [170.0, 1.0]))["is_result"]
    verdict = judged(learned, history(tmp_path, [3.7e18, 1.0]))
    assert not verdict["is_result"] and "the loss reached 3.7e+18, where equal scores have 1.79" in verdict["complaints"][0]
    assert not judged(learned, history(tmp_path, ["nan", 1.0]))["is_result"]


def test_some_labels_at_majority_vote_are_named_and_the_rest_is_a_result(tmp_path):
    labels = labels_of([[6, 0], [4, 0]], [[6, 0, 0], [0, 2, 0], [0, 0, 1]], aurocs=((0.5, 0.5), (1, 1, 1)))
    verdict = judged(labels, history(tmp_path, [2.0]))
    assert verdict["is_result"] and "1 of 2 labels are decided no better than by majority vote: hat." in verdict["complaints"][0]
