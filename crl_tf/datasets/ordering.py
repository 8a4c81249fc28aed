"""The order of an epoch, as indices: shuffled, by shard or in full, before an image is read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crl_tf.datasets.source import Records
from crl_tf.imbalance import class_counts


def shuffled(indices: np.ndarray, key: int) -> np.ndarray:
    """The indices in a random order that follows from the key: a full shuffle, 8 bytes a sample.

    >>> sorted(shuffled(np.arange(5), key=1).tolist())
    [0, 1, 2, 3, 4]
    """
    return np.random.default_rng(key).permutation(indices)


def paired(order: np.ndarray, group: np.ndarray, key: int) -> np.ndarray:
    """An epoch's order with the samples of each group in pairs, side by side, wherever the order had them one by one.

    Every sample stays in the epoch as often as it was. A group of odd size leaves one sample; the samples that are left over, of
    all groups, are paired with each other. Where batches have an even size, no pair is divided.

    Args:
        order: samples of an epoch in random order, [m].
        group: int [n], the group of every sample.
        key: what the order of the pairs follows from.

    >>> paired(np.array([3, 0, 1, 2]), np.array([7, 5, 7, 5]), key=0).tolist() in ([0, 2, 3, 1], [3, 1, 0, 2])
    True
    """
    by_group = order[np.argsort(group[order], kind="stable")]
    groups = group[by_group]
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    sizes = np.diff(np.r_[starts, len(order)])
    is_last = np.zeros(len(order), bool)
    is_last[(starts + sizes - 1)[sizes % 2 == 1]] = True
    rng = np.random.default_rng(key)
    # Pairs first, then what is left over; an odd sample of all closes the epoch.
    in_pairs = np.concatenate([by_group[~is_last], rng.permutation(by_group[is_last])])
    pairs = in_pairs[: len(in_pairs) // 2 * 2].reshape(-1, 2)
    return np.concatenate([rng.permutation(pairs).reshape(-1), in_pairs[len(pairs) * 2 :]])


def rarest_class(labels: np.ndarray, num_classes: Sequence[int]) -> np.ndarray:
    """The rarest of each sample's classes, over all labels, as one number: int64 [n].

    Of equally rare ones the first label's; -1 for a sample without an annotation.

    Args:
        labels: integers [n, L], -1 = not annotated.

    >>> rarest_class(np.array([[0, 1], [0, 0], [1, 0], [-1, -1]]), [2, 2]).tolist()  # columns 0 to 3 hold 2, 1, 2, 1 samples
    [3, 0, 1, -1]
    """
    labels = np.asarray(labels)
    offsets = np.cumsum([0, *num_classes[:-1]])
    counts = np.concatenate(class_counts(labels, num_classes))
    column = np.where(labels >= 0, labels + offsets, 0)
    count = np.where(labels >= 0, counts[column], np.iinfo(np.int64).max)
    rarest = np.take_along_axis(column, count.argmin(axis=1)[:, None], axis=1)[:, 0]
    return np.where((labels >= 0).any(axis=1), rarest, -1)


def by_rarest_class(labels: np.ndarray, num_classes: Sequence[int], seed: int) -> np.ndarray:
    """All samples in an order whose beginning has as many classes as can be: round after round one sample of each rarest class.

    Args:
        labels: integers [n, L], -1 = not annotated.
        num_classes: of each label.
        seed: of the order within a class.
    Returns:
        int64 [n], a permutation.

    >>> by_rarest_class(np.array([[0], [0], [0], [1], [2], [2]]), [3], seed=0)[:3].tolist()  # one of class 1, 2 and 0
    [3, 5, 2]
    """
    group = rarest_class(labels, num_classes)
    order = np.random.default_rng([seed, 2]).permutation(len(labels))
    sizes = {value: int((group == value).sum()) for value in np.unique(group).tolist()}
    turn = np.empty(len(labels), np.int64)
    for value in sizes:
        of_group = order[group[order] == value]
        turn[of_group] = np.arange(len(of_group))
    # In a round the smallest class first.
    size = np.array([sizes[value] for value in group.tolist()])
    return order[np.lexsort((size[order], turn[order]))]


def shuffled_by_shard(indices: np.ndarray, records: Records, open_shards: int, key: int) -> np.ndarray:
    """Shuffles the shards, and the samples within each group of `open_shards` shards.

    For records on storage where random reads are slow: at any time at most `open_shards` files are read. Which samples share a
    group depends on how the records were distributed over shards, which `tools/prepare_dataset.py` does at random.

    Args:
        indices: samples [m], into `records`.
        records: where each sample lies.
        open_shards: shards per group, >= 1.
        key: what the order follows from.
    """
    if open_shards < 1:
        raise ValueError(f"open_shards must be >= 1, received {open_shards}")
    rng = np.random.default_rng(key)
    group = np.empty(len(records.shards), np.int64)
    group[rng.permutation(len(records.shards))] = np.arange(len(records.shards)) // open_shards
    order = rng.permutation(indices)
    return order[np.argsort(group[records.shard[order]], kind="stable")]
