"""What the seeded splits guarantee, on many random problems."""

from __future__ import annotations

import time

import numpy as np
import pytest

from crl_tf.datasets.splitting import random_split, stratified_split

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def problem(number: int):
    """Labels with long tails and gaps, shares of two to four parts, and groups (some samples in none) or not."""
    rng = np.random.default_rng(number)
    n, num_labels = int(rng.integers(4, 120)), int(rng.integers(1, 7))
    columns = []
    for _ in range(num_labels):
        law = rng.power(0.3, int(rng.integers(1, 9)))
        columns.append(rng.choice(len(law), n, p=law / law.sum()))
    labels = np.stack(columns, axis=1)
    labels[rng.random(labels.shape) < rng.choice([0.0, 0.3])] = -1
    shares = rng.dirichlet(np.full(int(rng.integers(2, 5)), 3.0)) + 0.02
    groups = rng.integers(-1, max(4, n // 3), n) if number % 2 else None
    return labels, {f"part {i}": share for i, share in enumerate(shares / shares.sum())}, groups


def units_of(groups, n):
    return np.arange(n) if groups is None else np.where(groups < 0, np.arange(n) + n + groups.max() + 1, groups)


def assigned(parts, n):
    part = np.full(n, -1)
    for number, rows in enumerate(parts.values()):
        part[rows] = number
    return part


@pytest.mark.parametrize("start", range(0, 400, 100))
def test_guarantees(start):
    stuck = 0
    for number in range(start, start + 100):
        labels, shares, groups = problem(number)
        n, units = len(labels), units_of(groups, len(labels))
        if len(set(units)) < len(shares):
            continue
        parts = stratified_split(labels, shares, seed=number, groups=groups)
        assert list(parts) == list(shares)
        # Disjoint, complete, none empty, in order, groups whole.
        assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(n))
        assert all(len(rows) and (np.diff(rows) > 0).all() for rows in parts.values())
        part = assigned(parts, n)
        assert all(len(set(part[units == unit])) == 1 for unit in set(units))
        # Coverage, by its definition.
        members = {
            (label, value): {units[i] for i in np.flatnonzero(labels[:, label] == value)}
            for label in range(labels.shape[1])
            for value in set(labels[:, label]) - {-1}
        }
        due = {key: of for key, of in members.items() if len(of) >= len(shares)}
        due["any"] = set(units)
        part_of = dict(zip(units.tolist(), part.tolist(), strict=True))
        alone = {u for of in due.values() for u in of if sum(part_of[v] == part_of[u] for v in of) == 1}
        for key, of in due.items():
            if {part_of[u] for u in of} != set(range(len(shares))):
                assert of <= alone, (number, key)
                assert labels.shape[1] > 1 or groups is not None, (number, key)
                stuck += 1
    assert stuck < 25


def test_one_to_each_where_it_can_only_be_so():
    """Three samples of a class, of which each has another rare class: neither may keep the other from being everywhere."""
    labels = np.zeros((60, 3), int)
    labels[[0, 1, 2], 0] = 1
    labels[[0, 1, 2], 1] = [1, 2, 3]
    labels[[2, 3, 4], 2] = 1
    for seed in range(50):
        part = assigned(stratified_split(labels, SHARES, seed), 60)
        assert set(part[:3]) == {0, 1, 2} and set(part[2:5]) == {0, 1, 2}


def test_class_too_rare_for_every_part_is_trained_on():
    labels = np.zeros((100, 2), int)
    labels[7, 0], labels[[8, 9], 1] = 1, 1
    for seed in range(50):
        part = assigned(stratified_split(labels, SHARES, seed), 100)
        assert part[7] == 0 and 0 in part[8:10] and part[8] != part[9]


def test_one_label_gets_its_shares_exactly():
    labels = np.repeat([0, 1, 2], [1000, 100, 10])[:, None]
    parts = stratified_split(labels, SHARES, seed=3)
    assert {name: np.bincount(labels[rows, 0]).tolist() for name, rows in parts.items()} == {
        "train": [800, 80, 8],
        "validation": [100, 10, 1],
        "test": [100, 10, 1],
    }


def test_rounding_does_not_add_up():
    """200 classes of 14 samples: 11.2, 1.4 and 1.4 of each, so that rounding each class alike would leave 200 or 400 for test."""
    labels = np.repeat(np.arange(200), 14)[:, None]
    sizes = [len(rows) for rows in stratified_split(labels, SHARES, seed=0).values()]
    np.testing.assert_allclose(sizes, [2240, 280, 280], atol=2)


@pytest.mark.parametrize(
    "sizes, grouped",
    [
        ([2] * 3000 + [4000], False),
        ([1] * 4000 + [6000], False),
        ([2] * 500 + [1000] * 9, False),
        ([4] * 500, True),  # each class is a group
    ],
)
def test_classes_too_rare_for_every_part_do_not_take_parts_from_their_shares(sizes, grouped):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    parts = stratified_split(labels[:, None], SHARES, seed=0, groups=labels if grouped else None)
    for name, rows in parts.items():
        assert len(rows) / len(labels) == pytest.approx(SHARES[name], abs=0.02)
    # A class of two is trained on as long as there is room: nine in ten of them here.
    if sizes[0] == 2:
        trained = np.isin(np.arange(len(sizes)), labels[parts["train"]])
        assert trained.mean() > 0.9


@pytest.mark.parametrize("grouped", [False, True])
def test_shares_of_many_labels(grouped):
    rng = np.random.default_rng(0)
    n, law = 20_000, np.array([0.9, 0.07, 0.02, 0.01])
    labels = np.stack([rng.choice(4, n, p=law) for _ in range(10)], axis=1)
    # Groups of 1 to 40 samples, as identities have.
    groups = np.repeat(np.arange(n), rng.integers(1, 41, n))[:n] if grouped else None
    parts = stratified_split(labels, SHARES, seed=1, groups=groups)
    for name, rows in parts.items():
        assert len(rows) / n == pytest.approx(SHARES[name], abs=0.02 if grouped else 0.001)
        for column in labels.T:
            share = np.bincount(column[rows], minlength=4) / np.bincount(column, minlength=4)
            np.testing.assert_allclose(share, SHARES[name], atol=0.05 if grouped else 0.01)


def test_same_seed_same_split():
    labels, shares, _ = problem(2)
    first, again, other = (stratified_split(labels, shares, seed) for seed in (5, 5, 6))
    for name in shares:
        np.testing.assert_array_equal(first[name], again[name])
    assert any(len(first[name]) != len(other[name]) or (first[name] != other[name]).any() for name in shares)


def test_samples_that_nobody_annotated_are_divided_too():
    parts = stratified_split(np.full((1000, 2), -1), SHARES, seed=0)
    assert [len(rows) for rows in parts.values()] == [800, 100, 100]


def test_a_long_manifest_takes_seconds():
    rng = np.random.default_rng(0)
    labels = np.stack([rng.choice(8, 100_000, p=np.array([128, 64, 32, 16, 8, 4, 2, 1]) / 255) for _ in range(40)]).astype(
        np.int16
    )
    started = time.process_time()
    parts = stratified_split(labels.T, SHARES, seed=0, groups=np.arange(100_000) // 5)
    assert time.process_time() - started < 5  # 0.6 s measured, a loop over 100,000 samples of 40 labels would take tens
    assert len(parts["test"]) == pytest.approx(10_000, rel=0.1)


def test_arguments():
    with pytest.raises(ValueError, match=r"shares must be positive and 1 in all, received \{'a': 0\.5, 'b': 0\.6\}"):
        stratified_split(np.zeros((9, 1), int), {"a": 0.5, "b": 0.6}, 0)
    with pytest.raises(ValueError, match=r"3 parts need at least as many groups, received 2"):
        stratified_split(np.zeros((9, 1), int), SHARES, 0, groups=np.arange(9) // 5)
    with pytest.raises(ValueError, match=r"sizes must add up to 9, received \{'a': 4, 'b': 6\}"):
        random_split(9, {"a": 4, "b": 6}, 0)


def test_random_split():
    sizes = {"a": 50, "b": 30, "c": 20}
    first, again, other = (random_split(100, sizes, seed) for seed in (1, 1, 2))
    assert {name: len(rows) for name, rows in first.items()} == sizes
    assert sorted(np.concatenate(list(first.values())).tolist()) == list(range(100))
    assert all((first[name] == again[name]).all() and (first[name] != other[name]).any() for name in sizes)
    # Each sample comes to each part as often as its size says: 400 draws, within five standard deviations.
    held = np.sum([np.isin(np.arange(100), random_split(100, sizes, seed)["c"]) for seed in range(400)], axis=0)
    assert np.abs(held - 80).max() < 5 * np.sqrt(400 * 0.2 * 0.8)
