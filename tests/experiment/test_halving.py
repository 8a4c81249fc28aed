"""Successive halving within a budget: epochs and candidates per rung, worked by hand."""

import itertools
import math
import random

import pytest

from crl_tf.experiment.halving import (
    Speed,
    better_half,
    budget_seconds,
    duration_text,
    first_rungs,
    next_rungs,
    rungs_to,
    seconds_of,
)

SPEED = Speed(start=7.0, epoch=4.0)
"""Of the embedded digits on a slow core: a training of one epoch takes 11 s, of two 15 s, of three 19 s, of six 31 s."""


@pytest.mark.parametrize(
    "text, seconds", [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5h", 5400), ("1h30m", 5400), (" 4M ", 240), ("2m5s", 125)]
)
def test_a_budget_is_a_duration(text, seconds):
    assert budget_seconds(text) == seconds
    assert budget_seconds(duration_text(seconds)) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "m", "0s", "-5m", "5 m", "5d", "1e3s", "30m!", "infh", "five minutes", "9" * 400 + "h"]
)
def test_a_budget_that_is_no_duration_is_one_clear_error(text):
    with pytest.raises(ValueError, match=r"budget must be a duration above 0 such as 90s, 30m or 2h, received"):
        budget_seconds(text)


def test_the_better_half_is_rounded_up_and_the_last_rung_takes_two():
    assert [better_half(n) for n in range(8)] == [0, 1, 2, 2, 2, 3, 3, 4]


@pytest.mark.parametrize(
    "last, challengers, above, expected",
    [
        (16, 16, 0, [(16, 2), (8, 4), (4, 8), (2, 16)]),
        (12, 9, 0, [(9, 2), (5, 3), (3, 6), (2, 12)]),  # 12 / 8 is rounded up
        (5, 14, 0, [(14, 1), (7, 2), (4, 3), (2, 5)]),
        # Not 1, 1, 2, 4: the second rung of one epoch would repeat the first.
        (4, 14, 0, [(14, 1), (4, 2), (2, 4)]),
        (1, 14, 0, [(14, 1)]),
        (6, 2, 0, [(2, 6)]),
        (6, 0, 0, [(0, 6)]),
        # After a rung of two epochs, all are longer.
        (5, 4, 2, [(4, 3), (2, 5)]),
        (4, 4, 2, [(4, 4)]),
        (2, 4, 2, []),
    ],
)
def test_rungs_halve_the_challengers_and_double_the_epochs(last, challengers, above, expected):
    assert [tuple(rung) for rung in rungs_to(last, challengers, above=above)] == expected


def test_the_reference_is_in_every_rung():
    # 5 trainings of 19 s and 3 of 31 s; with challengers half as slow again: 19 + 4 * 28.5 and 31 + 2 * 46.5.
    assert seconds_of(rungs_to(6, 4), SPEED) == 188
    assert seconds_of(rungs_to(6, 4), SPEED, 1.5) == pytest.approx(133 + 124)


@pytest.mark.parametrize(
    "seconds, expected",
    [
        # 17 * 11 + 9 * 15 + 5 * 19 + 3 * 31 = 510 s. To 7 epochs (1, 2, 4, 7): 187 + 135 + 115 + 105 = 542 s.
        (510, [(16, 1), (8, 2), (4, 3), (2, 6)]),
        (541, [(16, 1), (8, 2), (4, 3), (2, 6)]),
        (542, [(16, 1), (8, 2), (4, 4), (2, 7)]),
        # One second too few for all 16: 15 to 6 epochs take 16 * 11 + 9 * 15 + 5 * 19 + 3 * 31 = 499 s.
        (509, [(15, 1), (8, 2), (4, 3), (2, 6)]),
        # To half of the recipe's 12 epochs: 4 challengers take 188 s, 5 take 6 * 15 + 4 * 19 + 3 * 31 = 259 s.
        (188, [(4, 3), (2, 6)]),
        (258, [(4, 4), (2, 8)]),  # 5 * 23 + 3 * 39 = 232; to 9 epochs (5, 9): 5 * 27 + 3 * 43 = 264
        # Not even 4 to half of the epochs; to a quarter, 3: 5 * 15 + 3 * 19 = 132 s. 5 (1, 2, 3): 66 + 60 + 57 = 183 s.
        (187, [(5, 1), (3, 2), (2, 3)]),
        (132, [(4, 2), (2, 3)]),
        # One epoch: of 4, 55 s; of 3, 44 s; of 1, 22 s.
        (55, [(4, 1)]),
        (54, [(3, 1)]),
        (22, [(1, 1)]),
        (21.9, []),
        # However long, the last rung stops at 4 times the recipe's epochs.
        (100_000, [(16, 6), (8, 12), (4, 24), (2, 48)]),
    ],
)
def test_who_starts_and_for_how_long_within_a_budget(seconds, expected):
    assert [tuple(rung) for rung in first_rungs([1.0] * 16, seconds, SPEED, epochs=12)] == expected


def test_methods_that_are_slow_make_room_by_being_fewer():
    # The fifth takes four times as long as cross-entropy: with it, the mean of five is 1.6.
    factors = [1.0, 1.0, 1.0, 1.0, 4.0]
    # 15 * (1 + 5 * 1.6) + 19 * (1 + 3 * 1.6) + 31 * (1 + 2 * 1.6) = 135 + 110.2 + 130.2 = 375.4 s.
    assert first_rungs(factors, 375.3, SPEED, epochs=12)[0].challengers == 4
    assert first_rungs(factors, 375.5, SPEED, epochs=12)[0].challengers == 5


def test_few_methods_and_none_at_all():
    assert [tuple(rung) for rung in first_rungs([1.0], 100, SPEED, epochs=12)] == [(1, 10)]  # 2 * (7 + 40) = 94 s
    assert [tuple(rung) for rung in first_rungs([], 100, SPEED, epochs=12)] == [(0, 23)]  # 7 + 92 = 99 s


@pytest.mark.parametrize(
    "count, seconds, expected",
    [
        (4, 188, [(4, 3), (2, 6)]),
        # 4 challengers to 5 epochs (3, 5): 5 * 19 + 3 * 27 = 176; to 4 epochs at once: 5 * 23 = 115; to 3: 95.
        (4, 176, [(4, 3), (2, 5)]),
        (4, 175, [(4, 4)]),
        # Too little for four: the best two go to the last rung, 3 * 19 = 57 s.
        (4, 94, [(2, 6)]),  # 3 * 31 = 93
        (4, 57, [(2, 3)]),
        # Nothing longer than the two epochs before fits: the halving ends.
        (4, 56, []),
        (0, 19, [(0, 3)]),
        (0, 18, []),
    ],
)
def test_the_next_rung_is_planned_by_the_time_that_is_left(count, seconds, expected):
    planned = next_rungs([1.0] * count, seconds, SPEED, longest=48, above=2)
    assert [tuple(rung) for rung in planned] == expected


def test_every_plan_fits_and_halves():
    """A slow re-computation of 200 random plans."""
    draws = random.Random(0)
    for _ in range(200):
        count, epochs = draws.randint(0, 20), draws.randint(1, 30)
        speed, budget = Speed(draws.uniform(0, 20), draws.uniform(0.1, 60)), draws.uniform(1, 5000)
        plan = first_rungs([1.0] * count, budget, speed, epochs=epochs)
        spent = 0.0
        for rung in plan:
            for _ in range(1 + rung.challengers):
                spent += speed.start + rung.epochs * speed.epoch
        assert spent <= budget
        assert all(1 <= rung.epochs <= 4 * epochs for rung in plan)
        for before, after in itertools.pairwise(plan):
            assert before.epochs < after.epochs <= 2 * before.epochs
            assert after.challengers <= max(2, math.ceil(before.challengers / 2))
        if not plan:
            assert (2 if count else 1) * (speed.start + speed.epoch) > budget
