import numpy as np
import pytest

from crl_tf.experiment.trainers.lmle.anchors import class_costs, draw_anchors


def test_classes_are_drawn_equally_within_a_batch_and_over_all():
    classes = np.repeat([0, 1, 2, 7], [500, 40, 3, 1])
    usable = classes != 7
    usable[0] = False
    drawn = draw_anchors(classes, usable, batches=30, size=7, rng=np.random.default_rng(0))
    assert drawn.shape == (30, 7) and usable[drawn].all()
    for batch in classes[drawn]:
        counts = np.bincount(batch, minlength=3)
        assert counts.min() >= 1 and counts.max() <= 4  # 7 anchors of 3 classes, a turn cut at either end
    assert np.bincount(classes[drawn].ravel()).tolist() == [70, 70, 70]
    assert set(drawn[classes[drawn] == 2]) == {540, 541, 542}


def test_more_classes_than_anchors_take_turns_across_batches():
    classes = np.arange(6)
    drawn = draw_anchors(classes, np.ones(6, bool), batches=3, size=2, rng=np.random.default_rng(0))
    assert sorted(drawn.ravel()) == list(range(6))


def test_it_follows_from_the_generator():
    classes, usable = np.repeat([0, 1], [50, 5]), np.ones(55, bool)
    draws = [draw_anchors(classes, usable, batches=4, size=5, rng=np.random.default_rng(s)) for s in (0, 0, 1)]
    assert (draws[0] == draws[1]).all() and (draws[0] != draws[2]).any()


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="usable must hold at least one sample, received none"):
        draw_anchors(np.zeros(3, int), np.zeros(3, bool), batches=1, size=1, rng=np.random.default_rng(0))


def test_costs_make_the_classes_of_a_batch_weigh_the_same():
    costs = class_costs(np.array([[0, 0, 0, 4], [1, 1, 1, 1], [2, 2, 0, 0]]))
    np.testing.assert_allclose(costs, [[4 / 6, 4 / 6, 4 / 6, 4 / 2], [1] * 4, [1] * 4], rtol=1e-6)
    assert costs.dtype == np.float32
