"""The same loss written without this package, for comparison in bench_loss.py.

`naive_class_level` is the paper's equations as Python loops over labels and classes, each class with tensors of its own size.
`MetricLearning` hands the triplets of the instance level to pytorch-metric-learning, the way its users mine: top-k per anchor.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from loss_programs import Batches, Setting, rectification, value_and_gradient

VALUE_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
NOT_INSTALLED = "not installed: pip install -e '.[bench]'"


def naive_class_level(
    labels: tf.Tensor, logits: tf.Tensor, num_classes: Sequence[int], comparison: str = "relative", kappa: int = 25
) -> tf.Tensor:
    """L_crl at the class level (eqs. 3-5, 9, 10, 13-16), one label after the other: float32 [L]."""
    losses, start = [], 0
    for j, size in enumerate(num_classes):
        probabilities = tf.nn.softmax(logits[:, start : start + size])
        losses.append(_naive_label(labels[:, j], probabilities, size, comparison, kappa))
        start += size
    return tf.stack(losses)


def _naive_label(labels: tf.Tensor, probabilities: tf.Tensor, size: int, comparison: str, kappa: int) -> tf.Tensor:
    counts = tf.stack([tf.reduce_sum(tf.cast(labels == c, tf.int32)) for c in range(size)])
    order = tf.argsort(counts, stable=True)
    smallest_first = tf.cumsum(tf.gather(counts, order))
    within_half = 2 * smallest_first <= tf.reduce_sum(counts)
    is_minority = tf.gather(within_half, tf.argsort(order)) & (counts >= 2)

    pairs = [_naive_class(labels, is_minority[c], probabilities[:, c], c, comparison, kappa) for c in range(size)]
    positive, negative, hinge = (tf.concat(distances, axis=0) for distances in zip(*pairs, strict=True))
    if comparison == "relative":
        return _mean(hinge)
    if comparison == "absolute":
        return 0.5 * (_mean(positive**2) + _mean(tf.nn.relu(0.5 - negative) ** 2))
    return tf.reduce_sum(_naive_histogram(positive) * tf.cumsum(_naive_histogram(negative)))


def _naive_class(
    labels: tf.Tensor, is_minority: tf.Tensor, score: tf.Tensor, c: int, comparison: str, kappa: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The distances of all positive pairs, of all negative pairs, and (relative) the hinges of all triplets of one class."""
    # Most classes of a batch are no minority: without anchors all that follows is empty. tf.cond instead takes much longer to
    # trace, and is no faster.
    anchor = tf.where((labels == c) & is_minority)[:, 0]
    other = tf.boolean_mask(score, (labels != c) & (labels >= 0))
    own = tf.gather(score, anchor)
    lowest = tf.math.top_k(-own, tf.minimum(kappa, tf.size(own))).indices
    highest = tf.math.top_k(other, tf.minimum(kappa, tf.size(other))).indices
    to_positive = tf.abs(own[:, None] - tf.gather(own, lowest)[None, :])
    to_negative = own[:, None] - tf.gather(other, highest)[None, :]
    not_itself = anchor[:, None] != tf.gather(anchor, lowest)[None, :]
    hinge = tf.zeros([0])
    if comparison == "relative":
        triplet = tf.nn.relu(0.5 + to_positive[:, :, None] - to_negative[:, None, :])
        hinge = tf.reshape(tf.boolean_mask(triplet, not_itself), [-1])
    return tf.boolean_mask(to_positive, not_itself), tf.reshape(to_negative, [-1]), hinge


def _naive_histogram(distances: tf.Tensor, num_bins: int = 100) -> tf.Tensor:
    """Eqs. 14 and 15: each distance shared between its two neighbouring nodes, as the triangle around every node."""
    nodes = tf.linspace(-1.0, 1.0, num_bins)
    step = 2.0 / (num_bins - 1)
    shares = tf.nn.relu(1.0 - tf.abs(tf.clip_by_value(distances, -1.0, 1.0)[:, None] - nodes[None, :]) / step)
    return tf.math.divide_no_nan(tf.reduce_sum(shares, axis=0), tf.cast(tf.size(distances), tf.float32))


def _mean(values: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(tf.reduce_sum(values), tf.cast(tf.size(values), tf.float32))


class MetricLearning:
    """pytorch-metric-learning on the triplets of the instance level, relative comparison (eqs. 6, 7, 9, 11, 12).

    Its loss takes one set of labels, so its users loop over the labels of a batch; so does this.

    Args:
        labels: integers [B, L]; features: float32 [B, L, D].
        threads: of torch, as many as TensorFlow has.
    Raises:
        ImportError: torch or pytorch-metric-learning is not installed.
    """

    def __init__(self, labels: np.ndarray, features: np.ndarray, num_classes: Sequence[int], *, kappa: int, threads: int) -> None:
        import torch
        from pytorch_metric_learning import distances, losses, reducers

        torch.set_num_threads(threads)
        self._torch, self._kappa = torch, kappa
        self._zero = torch.zeros((), requires_grad=True)
        self._labels = [torch.tensor(column, dtype=torch.int64) for column in labels.T]
        self._features = [torch.tensor(np.ascontiguousarray(f)) for f in features.transpose(1, 0, 2)]
        self._minority = [_minority(column, size) for column, size in zip(labels.T, num_classes, strict=True)]
        distance = distances.LpDistance(normalize_embeddings=False, p=2, power=1)
        # Eq. 9 is the plain mean; the package's default leaves the zeros out.
        self._losses = [
            losses.TripletMarginLoss(2 * math.pi / size, distance=distance, reducer=reducers.MeanReducer())
            for size in num_classes
        ]

    def mine(self) -> list[tuple[Any, Any, Any]]:
        """Eqs. 6 and 7 by torch.topk, label after label: (anchor, positive, negative) of every triplet."""
        with self._torch.no_grad():
            return [self._mine_label(*of) for of in zip(self._labels, self._features, self._minority, strict=True)]

    def _mine_label(self, labels: Any, features: Any, minority: list[int]) -> tuple[Any, Any, Any]:
        torch, infinity = self._torch, float("inf")
        anchor = torch.isin(labels, torch.tensor(minority, dtype=torch.int64)).nonzero()[:, 0]
        distance = torch.cdist(features[anchor], features)
        same = labels[anchor, None] == labels[None, :]
        itself = anchor[:, None] == torch.arange(len(labels))[None, :]
        k = min(self._kappa, len(labels))
        farthest, positive = torch.where(same & ~itself, distance, -infinity).topk(k)
        nearest, negative = torch.where(same | (labels < 0)[None, :], infinity, distance).topk(k, largest=False)
        exists = (farthest > -infinity)[:, :, None] & (nearest < infinity)[:, None, :]
        row, first, second = exists.nonzero(as_tuple=True)
        return anchor[row], positive[row, first], negative[row, second]

    def value_and_gradient(self, triplets: list[tuple[Any, Any, Any]]) -> tuple[float, Sequence[Any]]:
        """The loss of the triplets, summed over labels, and its gradient by the features, one [B, D] per label."""
        features = [f.requires_grad_() for f in self._features]
        parts = zip(self._losses, features, self._labels, triplets, strict=True)
        total = sum((loss(f, labels, indices_tuple=mined) for loss, f, labels, mined in parts if len(mined[0])), self._zero)
        return float(total.detach()), self._torch.autograd.grad(total, features, materialize_grads=True)

    def loop(self, *, mining: bool) -> Callable[[int], float]:
        """run(n): value and gradient n times, on triplets mined beforehand or every time."""
        mined = self.mine()
        return lambda iterations: [self.value_and_gradient(self.mine() if mining else mined)[0] for _ in range(iterations)][-1]


def _minority(column: np.ndarray, size: int, rho: float = 0.5) -> list[int]:
    """Eq. 3 for one label: the smallest classes that together hold at most rho, of two samples or more."""
    counts = np.bincount(column[column >= 0], minlength=size)
    order = np.argsort(counts, kind="stable")
    within = np.cumsum(counts[order]) <= rho * counts.sum()
    return [int(c) for c in order[within] if counts[c] >= 2]


def checked_naive(setting: Setting, batches: Batches, comparison: str, kappa: int) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Value and gradient of the naive loops; ends the program if they differ from those of this package."""
    first = [x[0] for x in batches]

    def loops(labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(naive_class_level(labels, logits, setting.num_classes, comparison, kappa))

    naive = value_and_gradient(loops, needs_features=False)
    ours = value_and_gradient(rectification(setting, "class", comparison, kappa=kappa), needs_features=False)
    check_same(f"{setting.name}: naive class_{comparison}", naive(*first), ours(*first))
    return naive


def checked_metric_learning(setting: Setting, batches: Batches, kappa: int, threads: int) -> MetricLearning:
    """pytorch-metric-learning; ends the program if its value or gradient on the same triplets differs from this package.

    Raises:
        ImportError: it is not installed.
    """
    first = [x[0] for x in batches]
    peer = MetricLearning(first[0].numpy(), first[2].numpy(), setting.num_classes, kappa=kappa, threads=threads)
    value, gradients = peer.value_and_gradient(peer.mine())
    ours = value_and_gradient(rectification(setting, "instance", "relative", kappa=kappa), needs_features=True)
    expected, _, expected_gradient = ours(*first)
    check_same(f"{setting.name}: pytorch-metric-learning", (value, np.stack(gradients, axis=1)), (expected, expected_gradient))
    return peer


def check_same(name: str, computed: Sequence[Any], expected: Sequence[Any]) -> None:
    """Compares (value, gradient) with those of our loss, relative to the largest entry; ends the program where they differ."""
    limits = {"value": VALUE_TOLERANCE, "gradient": GRADIENT_TOLERANCE}
    for (what, limit), one, other in zip(limits.items(), map(np.asarray, computed), map(np.asarray, expected), strict=True):
        difference = np.abs(one - other).max() / max(np.abs(other).max(), 1e-30)
        if not difference <= limit:
            sys.exit(f"bench_loss: {name} does not compute our loss: its {what} is off by {difference:.1e} of the largest")
