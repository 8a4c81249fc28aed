"""Dynamic curriculum learning: from the training set's distribution to a balanced one, from features to classes.

Wang, Gan, Yang, Wu & Yan, *Dynamic Curriculum Learning for Imbalanced Data Classification* (ICCV 2019). l / L is `progress`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.callbacks import TrainingProgress
from crl_tf.checks import real
from crl_tf.gradients import pick
from crl_tf.layout import Layout, checked_feature_shape, class_members, columns_of, length, log_probabilities
from crl_tf.losses.base import ClassCountsLoss, Terms, progress_variable
from crl_tf.losses.crl.fast.distances import GroupAnchors, Part, groups_of, nearness_to_all, pair_distances
from crl_tf.losses.crl.fast.rows import Rows, hardest, profile, true_cells
from crl_tf.losses.crl.mining import at_most
from crl_tf.losses.crl.profiling import check_rho, class_histogram, minority_mask
from crl_tf.losses.cross_entropy import cross_entropy_by_sample
from crl_tf.serialization import registered

SCHEDULERS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "cos": lambda progress: tf.cos(progress * (math.pi / 2)),
    "linear": lambda progress: 1.0 - progress,
    # The paper's lambda^l counts epochs; only their share is known here. 0.99^300 = 0.05.
    "exp": lambda progress: tf.pow(0.05, progress),
    "composite": lambda progress: 0.5 * tf.cos(progress * math.pi) + 0.5,
}
"""The paper's scheduler functions, from l / L in [0, 1] to g(l), falling from 1 towards 0."""

ABOVE_ALL = 1e30
"""Above every logarithm of a number of samples, yet finite."""


def loss_schedule(progress: tf.Tensor, loss_share: float, epsilon: float) -> tf.Tensor:
    """f(l), the weight of the metric loss: cos(l/L pi)/2 + 1/2 + epsilon while l < p L, epsilon after; p is `loss_share`.

    >>> [round(float(loss_schedule(tf.constant(at), 0.5, 0.25)), 4) for at in (0.0, 0.25, 0.5)]  # cos(pi/4) = 0.7071
    [1.25, 1.1036, 0.25]
    """
    return tf.where(progress < loss_share, 0.5 * tf.cos(progress * math.pi) + 0.5, 0.0) + epsilon


def selection_ratio(labels: tf.Tensor, log_train: tf.Tensor, sampling: tf.Tensor, layout: Layout) -> tf.Tensor:
    """D_target,j / D_current,j of the class of every sample, float32 [L, B]; D_target = D_train^g(l).

    Both distributions are numbers per class over the number of the smallest class that occurs in the batch. With many classes
    the smallest of the training set seldom occurs, and all weights would grow.

    Args:
        labels: int32 [L, B].
        log_train: float32 [sum(num_classes)], logarithms of the training samples per class.
        sampling: g(l), scalar.
    """
    sizes = tf.reduce_sum(tf.cast(class_members(labels, layout), tf.float32), axis=1)
    occurs = sizes > 0

    def over_smallest(logarithm: tf.Tensor) -> tf.Tensor:
        smallest = tf.math.unsorted_segment_min(tf.where(occurs, logarithm, ABOVE_ALL), layout.column_label, len(layout))
        return tf.where(occurs, logarithm - tf.gather(smallest, layout.column_label), 0.0)

    ratio = tf.exp(over_smallest(sampling * log_train) - over_smallest(tf.math.log(tf.maximum(sizes, 1.0))))
    return pick(ratio, columns_of(labels, layout))


def easy_anchor_triplets(
    labels: tf.Tensor, scores: tf.Tensor, features: tf.Tensor, layout: Layout, *, margin: tf.Tensor, kappa: int, rho: float
) -> tf.Tensor:
    """L_TEA: the mean of max(0, m_j + d(a,+) - d(a,-)) over triplets of easy anchors, hard positives and hard negatives.

    For every minority class of the batch (eq. 3 of CRL): anchors are the kappa samples of the class with the highest score,
    positives the kappa of the class with the lowest, negatives the kappa of other classes with the highest score for this class;
    d is the Euclidean distance of features. In a class of fewer than 2 kappa samples the easier half (the larger half, if odd)
    are anchors and the others positives, so that a hard sample is never an anchor. An anchor may be predicted wrongly; otherwise
    there would be none early in training. Of equal scores the earlier sample is the easier one.

    Args:
        labels: int32 [L, B], -1 = not annotated.
        scores: float32 [sum(num_classes), B], whatever rises with the probability; no gradient.
        features: float32 [B, D] or [B, L, D].
        margin: float32 [L].
        rho: minority classes together hold at most this share of a label's annotated samples.
    Returns:
        float32 [L, B], an anchor's share of its label's mean; exactly 0 with a zero gradient where there is no triplet.
    """
    rectified = minority_mask(class_histogram(labels, layout), layout, rho=rho, scope="minority")
    profiled = profile(labels, rectified, layout, rho=rho, scope="minority")
    of_class, batch = class_members(labels, layout), length(labels, 1)
    members = of_class & profiled.rectified[:, None]
    count = tf.reduce_sum(tf.cast(members, tf.int32), axis=1, keepdims=True)

    by_ease, _ = hardest(scores, members, profiled.most)
    places = tf.range(at_most(kappa, profiled.most))
    anchor, is_anchor = by_ease[:, : length(places, 0)], places < (count + 1) // 2
    from_last = count - 1 - places
    positive = pick(by_ease, tf.range(layout.width)[:, None] * length(by_ease, 1) + tf.maximum(from_last, 0))
    is_positive = places < count // 2
    others = tf.gather(labels >= 0, layout.column_label) & ~of_class & profiled.rectified[:, None]
    negative, is_negative = hardest(scores, others, at_most(kappa, batch))

    cell = tf.constant(layout.column_label)[:, None] * batch + anchor
    mask = tf.math.unsorted_segment_sum(tf.cast(is_anchor, tf.int32), cell, len(layout) * batch) > 0
    rows = Rows(*true_cells(tf.reshape(mask, [len(layout), batch]), profiled.most))
    cell = rows.label * batch + rows.sample
    column = pick(columns_of(labels, layout), cell)
    paired = tf.gather(tf.concat([positive, negative], axis=1), column)
    valid = rows.only_real(tf.gather(tf.concat([is_positive, is_negative], axis=1), column))
    groups = groups_of(features)
    group = tf.zeros_like(rows.label) if features.shape.rank == 2 else rows.label
    # Every sample of the batch is a candidate.
    candidates = tf.range(length(groups, 0))[:, None] * batch + tf.range(batch)[None]
    anchors = GroupAnchors(group, rows.sample, [Part(None, candidates)], group * batch + rows.sample)
    distance = pair_distances(groups, anchors, paired, valid, nearness_to_all(groups, anchors))
    split = [length(positive, 1), length(negative, 1)]
    (near, far), (near_valid, far_valid) = (tf.split(t, split, axis=1) for t in (distance, valid))

    hinge = tf.nn.relu(tf.gather(margin, rows.label)[:, None, None] + near[:, :, None] - far[:, None, :])
    triplet = near_valid[:, :, None] & far_valid[:, None, :]
    total, triplets = (tf.reduce_sum(x, axis=[1, 2]) for x in (tf.where(triplet, hinge, 0.0), tf.cast(triplet, tf.float32)))
    triplets = tf.math.unsorted_segment_sum(triplets, rows.label, len(layout))
    total = tf.reshape(tf.math.unsorted_segment_sum(total, cell, len(layout) * batch), [len(layout), batch])
    return total / tf.maximum(triplets, 1.0)[:, None]


@registered
class CurriculumLoss(ClassCountsLoss):
    """Sum over the labels of L_DSL + f(l) L_TEA: selected cross-entropy, and triplets of features early in training.

    L_DSL = -1/N sum_i w log p[i, a_i], where w is the ratio of the wanted share of the sample's class to its share in the batch
    (`selection_ratio`) if that is 1 or more; below 1 the sample is kept at random with this probability. The wanted distribution
    is the training set's to the power g(l), which falls from 1 to 0 (`SCHEDULERS`). L_TEA: `easy_anchor_triplets`; f(l):
    `loss_schedule`. Needs features: train with `CRLModel`. The callback `TrainingProgress` moves `progress`, which starts at 0.

    Each sample is drawn independently for each label, from `seed_generators`, which start from `keras.utils.set_random_seed`. N
    counts the annotated samples. A class without a training image counts as the smallest that has one. Weights are not bounded,
    as in the paper. Margin and kappa default to those of CRL's instance level, since the paper's are not published.

    Args:
        num_classes: an int for one label, or one int per label.
        class_counts: training samples per class, one sequence per label.
        scheduler: of the sampling, a name in `SCHEDULERS`; the paper found "cos" to be the best.
        margin: m of every label, > 0; None: 2 pi / |Z_j|.
        kappa: at most so many anchors, positives and negatives per class.
        loss_share: p in [0, 1], the share of the training in which the triplets have their full weight.
        epsilon: >= 0, the weight of the triplets after it.
        rho: minority classes of a batch together hold at most this share of its annotated samples, in (0, 1].
        feature_shape: D or (L, D), where the first columns of the output are features.
        from_logits, reduction, name: as in Keras.
    Returns (from `call`):
        float32 [B], whose mean is the loss; a triplet's part is with its anchor.
    Raises:
        ValueError: an argument out of its range, or features that are not [B, D] or [B, L, D].

    >>> loss = CurriculumLoss(2, [30, 10], feature_shape=1)  # the batch is like the training set: w = 1, and 1 has one sample
    >>> round(float(loss([0, 0, 0, 1], tf.zeros([4, 3]))), 4)  # ln 2
    0.6931
    """

    default_name = "curriculum"
    config_keys = ("scheduler", "margin", "kappa", "loss_share", "epsilon", "rho", "feature_shape")
    needs_features = True

    def __init__(
        self,
        num_classes: int | Sequence[int],
        class_counts: Sequence[Sequence[int]],
        scheduler: str = "cos",
        margin: float | None = None,
        kappa: int = 25,
        loss_share: float = 0.3,
        epsilon: float = 0.1,
        rho: float = 0.5,
        feature_shape: int | Sequence[int] | None = None,
        **parameters: Any,
    ) -> None:
        super().__init__(num_classes, class_counts, **parameters)
        if scheduler not in SCHEDULERS:
            raise ValueError(f"scheduler must be one of {sorted(SCHEDULERS)}, received {scheduler!r}")
        if margin is not None and not 0 < real(margin) < math.inf:
            raise ValueError(f"margin must be a number > 0 or None, received {margin!r}")
        if isinstance(kappa, bool) or not isinstance(kappa, (int, np.integer)) or kappa < 1:
            raise ValueError(f"kappa must be an integer >= 1, received {kappa!r}")
        if not 0 <= real(loss_share) <= 1:
            raise ValueError(f"loss_share must be a number in [0, 1], received {loss_share!r}")
        if not 0 <= real(epsilon) < math.inf:
            raise ValueError(f"epsilon must be a number >= 0, received {epsilon!r}")
        check_rho(rho)
        self.scheduler, self.kappa, self.rho = scheduler, int(kappa), float(rho)
        self.feature_shape = checked_feature_shape(feature_shape, self._layout)
        self.margin = None if margin is None else float(margin)
        self.loss_share, self.epsilon = float(loss_share), float(epsilon)
        self.progress = progress_variable()
        self.seed_generators = (keras.random.SeedGenerator(),)
        sizes = np.asarray(self._layout.sizes, np.float32)
        self._margins = 2 * np.float32(math.pi) / sizes if margin is None else np.full_like(sizes, margin)
        filled = [np.maximum(h, h[h > 0].min() if h.any() else 1) for h in self.class_counts]
        self._log_train = np.log(np.concatenate(filled)).astype(np.float32)

    def terms(self, labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor | None = None) -> Terms:
        progress = tf.convert_to_tensor(self.progress)
        log_probability = log_probabilities(logits, self._layout)
        ratio = selection_ratio(labels, tf.constant(self._log_train), SCHEDULERS[self.scheduler](progress), self._layout)
        drawn = tf.cast(keras.random.uniform(tf.shape(labels), seed=self.seed_generators[0]) < ratio, tf.float32)
        selected = cross_entropy_by_sample(labels, log_probability, self._layout) * tf.where(ratio < 1, drawn, ratio)
        scores, margin = tf.stop_gradient(log_probability), tf.constant(self._margins)
        options = {"margin": margin, "kappa": self.kappa, "rho": self.rho}
        triplets = easy_anchor_triplets(labels, scores, features, self._layout, **options)
        return Terms(selected + loss_schedule(progress, self.loss_share, self.epsilon) * triplets)

    def callbacks(self, epochs: int, label_names: Sequence[str] | None = None) -> list[keras.callbacks.Callback]:
        return [TrainingProgress(self, epochs)]
