"""The order of an epoch: full shuffles, shuffles by the shard, pairs, and shares of its batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from crl_tf.datasets import Records, Split
from crl_tf.datasets.ordering import paired, rarest_class, shuffled, shuffled_by_shard
from crl_tf.datasets.pipeline import Shares, make_pipeline


def records(num_shards=20, per_shard=50):
    shard = np.random.default_rng(1).permutation(np.repeat(np.arange(num_shards), per_shard))
    where = np.arange(len(shard), dtype=np.int64)
    return Records(tuple(f"{i}.tfrecord" for i in range(num_shards)), shard.astype(np.int32), where, where)


def order_of(split, **arguments):
    pipeline = make_pipeline(split, **{"image_size": (2, 2), "batch_size": 4, "training": True, **arguments})
    return np.concatenate([labels[:, 0].numpy() for _, labels in pipeline])


def numbered(n):
    return Split(np.zeros((n, 2, 2, 3), np.uint8), np.arange(n, dtype=np.int32)[:, np.newaxis])


def test_a_shuffle_is_a_permutation_that_follows_from_its_key():
    indices = np.array([5, 5, 9, 2, 7])
    assert sorted(shuffled(indices, 3)) == [2, 5, 5, 7, 9]
    np.testing.assert_array_equal(shuffled(np.arange(100), 3), shuffled(np.arange(100), 3))
    assert (shuffled(np.arange(100), 3) != shuffled(np.arange(100), 4)).any()


@pytest.mark.parametrize("open_shards", [1, 3, 20, 50])
def test_only_so_many_shards_are_read_at_a_time(open_shards):
    where = records()
    order = shuffled_by_shard(np.arange(1000), where, open_shards, key=0)
    assert sorted(order) == list(range(1000))
    # The groups follow one another: within one, at most open_shards shards; no shard is in two of them.
    shards, size = where.shard[order], 50 * min(open_shards, 20)
    groups = [set(shards[start : start + size]) for start in range(0, 1000, size)]
    assert all(len(group) <= open_shards for group in groups)
    assert sum(map(len, groups)) == 20
    # Shuffled within: 50 of a shard next to each other would be in their first order otherwise.
    assert (np.diff(order) < 0).mean() > 0.4
    other = shuffled_by_shard(np.arange(1000), where, open_shards, key=1)
    assert (other != order).any()


def test_a_subset_is_shuffled_by_its_own_shards():
    indices = np.array([3, 900, 3, 17])
    assert sorted(shuffled_by_shard(indices, records(), 2, key=5)) == [3, 3, 17, 900]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("parts", "machines"), [(2, 2), (3, 1), (4, 2), (7, 7)])
def test_shares_of_batches_are_the_batches(training, parts, machines):
    """23 samples in batches of 5, of which the last has 3: more parts than samples leave some empty."""
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (23, 16, 16, 3)).astype(np.uint8), np.arange(23, dtype=np.int32)[:, np.newaxis])
    options = {"image_size": (16, 16), "batch_size": 5, "training": training, "seed": 4, "augment": ("flip", "crop")}
    options["first_batch"] = 1
    whole = make_pipeline(split, **options)
    here = parts // machines
    of_machines = [make_pipeline(split, shares=Shares(i * here, here, parts), **options) for i in range(machines)]
    assert {int(pipeline.cardinality()) for pipeline in of_machines} == {4 * here}
    for _ in range(2):  # epochs
        elements = [list(pipeline.as_numpy_iterator()) for pipeline in of_machines]
        for number, (images, labels) in enumerate(whole.as_numpy_iterator()):
            shares = [of[number * here + k] for of in elements for k in range(here)]
            sizes = [len(of_share) for _, of_share in shares]
            assert max(sizes) - min(sizes) <= 1
            np.testing.assert_array_equal(np.concatenate([of_share for _, of_share in shares]), labels)
            np.testing.assert_array_equal(np.concatenate([of_share for of_share, _ in shares]), images)


def test_bad_arguments():
    for shares in (Shares(2, 1, 2), Shares(0, 3, 2), Shares(-1, 1, 2), Shares(0, 0, 2)):
        with pytest.raises(ValueError, match=r"shares must be parts among all of them, received Shares\(first="):
            make_pipeline(numbered(5), image_size=(2, 2), batch_size=2, training=True, shares=shares)
    with pytest.raises(ValueError, match="open_shards must be >= 1, received 0"):
        shuffled_by_shard(np.arange(3), records(), 0, key=0)
    with pytest.raises(ValueError, match="open_shards must be None for images that are not Records"):
        make_pipeline(numbered(5), image_size=(2, 2), batch_size=2, training=True, open_shards=4)


def test_a_million_samples_are_shuffled_in_little_memory():
    """Every epoch has its own order; what is kept is one vector of indices, not a tensor per sample."""
    import tensorflow as tf

    from crl_tf.datasets.pipeline import EpochNumber, _index_batches

    seen = []
    batches = _index_batches(lambda key: shuffled(np.arange(1_000_000), int(key)), 1_000_000, 4096, 0, EpochNumber(), 0)
    assert batches.cardinality() == 245  # 1,000,000 / 4,096 = 244.1
    for _ in range(2):
        epoch = np.concatenate([b.numpy() for b, *_ in batches])
        assert np.array_equal(np.bincount(epoch), np.ones(1_000_000, np.int64))
        seen.append(epoch)
    assert (seen[0] == seen[1]).mean() < 1e-4
    assert isinstance(batches, tf.data.Dataset)


@pytest.mark.parametrize("seed", range(6))
def test_pairs_hold_every_sample_as_often_and_each_group_two_by_two(seed):
    rng = np.random.default_rng(seed)
    group = rng.integers(-1, 6, 40)
    order = rng.choice(40, rng.integers(1, 60), replace=True)  # as resampling draws: with repeats, and an odd total at times
    found = paired(order, group, key=seed)
    assert sorted(found.tolist()) == sorted(order.tolist())
    alike = {}
    for place in range(0, len(found) - 1, 2):
        if group[found[place]] == group[found[place + 1]]:
            alike[group[found[place]]] = alike.get(group[found[place]], 0) + 1
    for one in set(group[order].tolist()):
        assert alike.get(one, 0) == (group[order] == one).sum() // 2


def test_pairs_follow_from_the_key_alone():
    order, group = np.arange(30), np.arange(30) % 4
    assert paired(order, group, 5).tolist() == paired(order, group, 5).tolist() != paired(order, group, 6).tolist()


def test_the_rarest_class_by_a_loop():
    rng = np.random.default_rng(0)
    sizes = [3, 2, 5]
    labels = np.stack([rng.integers(-1, size, 50) for size in sizes], axis=1)
    labels[7] = -1
    expected = []
    for row in labels:
        best, fewest, start = -1, None, 0
        for j, size in enumerate(sizes):
            if row[j] >= 0:
                count = sum(1 for other in labels if other[j] == row[j])
                if fewest is None or count < fewest:
                    best, fewest = start + row[j], count
            start += size
        expected.append(best)
    assert rarest_class(labels, sizes).tolist() == expected and expected[7] == -1


def test_batches_of_a_pipeline_hold_whole_pairs_of_the_drawn_samples():
    labels = np.array([[i % 5] for i in range(40)], np.int32)
    split = Split(np.zeros((40, 4, 4, 3), np.uint8), labels)
    options = {"image_size": (4, 4), "batch_size": 8, "training": True, "pairs": labels[:, 0]}
    epochs = [np.concatenate([y.numpy()[:, 0] for _, y in make_pipeline(split, seed=seed, **options)]) for seed in (0, 1)]
    for order in epochs:
        assert sorted(order.tolist()) == sorted(labels[:, 0].tolist()) and (order[0::2] == order[1::2]).all()
    assert epochs[0].tolist() != epochs[1].tolist()
    drawn = np.repeat(np.arange(3), 4)  # classes 0, 1, 2, four times each
    order = np.concatenate([y.numpy()[:, 0] for _, y in make_pipeline(split, indices=drawn, **options)])
    assert sorted(order.tolist()) == sorted([0, 1, 2] * 4) and (order[0::2] == order[1::2]).all()
    # Out of training the order is that of the split.
    order = np.concatenate([y.numpy()[:, 0] for _, y in make_pipeline(split, **{**options, "training": False})])
    assert order.tolist() == labels[:, 0].tolist()
    # Halves of a batch hold whole pairs too.
    halves = [list(make_pipeline(split, shares=Shares(i, 1, 2), **options)) for i in range(2)]
    for _, labels in itertools.chain(*halves):
        assert labels.shape == (4, 1) and (labels[0::2] == labels[1::2]).numpy().all()
