"""The order of an epoch, as indices: shuffled, by shard or in full, and shared among workers, before an image is read."""

from __future__ import annotations

import numpy as np

from crl_tf.datasets.source import Records


def shuffled(indices: np.ndarray, key: int) -> np.ndarray:
    """The indices in a random order that follows from the key: a full shuffle, 8 bytes a sample.

    >>> sorted(shuffled(np.arange(5), key=1).tolist())
    [0, 1, 2, 3, 4]
    """
    return np.random.default_rng(key).permutation(indices)


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


def share_of_worker(order: np.ndarray, worker: int, num_workers: int, *, equal: bool) -> np.ndarray:
    """Every `num_workers`-th sample of an epoch's order, so that the workers together read each sample once.

    Args:
        order: the epoch's samples, the same for every worker.
        worker: in [0, num_workers).
        equal: leave out the last samples, fewer than `num_workers`, so that all workers take equally many steps (training).

    >>> share_of_worker(np.arange(7), 1, 3, equal=False).tolist(), share_of_worker(np.arange(7), 0, 3, equal=True).tolist()
    ([1, 4], [0, 3])
    """
    if num_workers < 1 or not 0 <= worker < num_workers:
        raise ValueError(f"worker must lie in [0, {num_workers - 1}], received {worker} of {num_workers}")
    return order[worker : len(order) // num_workers * num_workers if equal else None : num_workers]
