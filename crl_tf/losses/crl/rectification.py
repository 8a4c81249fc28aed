"""The six class rectification losses: two levels x three comparisons, each in a readable and a fast form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from crl_tf.checks import reals
from crl_tf.gradients import put
from crl_tf.layout import Layout, check_feature_rank, integer_labels, length, log_probabilities, rows_of_labels
from crl_tf.losses.crl.comparison import COMPARISONS, Scale
from crl_tf.losses.crl.fast.class_level import mine_class_rows
from crl_tf.losses.crl.fast.comparison import FAST_COMPARISONS
from crl_tf.losses.crl.fast.instance_level import mine_instance_rows
from crl_tf.losses.crl.fast.rows import profile
from crl_tf.losses.crl.mining import mine_class_level, mine_instance_level, select_anchors
from crl_tf.losses.crl.profiling import check_rho, check_scope, class_histogram, minority_mask

FORMS = ("fast", "readable")
NORMALIZATIONS = ("triplets", "anchors")
# By level, where the distances of eq. 16 lie: differences of probabilities, and distances of unit vectors.
LEVELS = {"class": (-1.0, 1.0), "instance": (0.0, 2.0)}


class Rectification(NamedTuple):
    """by_label: float32 [L, B], the share of each anchor; its sum over B is L_crl per label.

    rectified: bool [L, largest], the minority classes. triplets, active, anchors: float32 [L], how many triplets there were in
    the batch, how many of them pull on the model, and how many anchors had a term.
    """

    by_label: tf.Tensor
    rectified: tf.Tensor
    triplets: tf.Tensor
    active: tf.Tensor
    anchors: tf.Tensor

    @property
    def loss(self) -> tf.Tensor:
        """L_crl of every label, float32 [L]."""
        return tf.reduce_sum(self.by_label, axis=1)


@dataclass(frozen=True)
class Rectifier:
    """One of the six variants with its parameters, which are checked here; they are as in `class_rectification_loss`.

    readable: builds every triplet; the reference for the fast form, which gives the same numbers.
    """

    layout: Layout
    level: str
    comparison: str
    kappa: int | None
    rho: float
    margin: float | Sequence[float] | None
    scope: str
    num_bins: int
    normalization: str = "triplets"
    squared_positives: bool = True
    readable: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (("level", self.level, LEVELS), ("comparison", self.comparison, COMPARISONS)):
            if value not in known:
                raise ValueError(f"{name} must be one of {tuple(known)}, received {value!r}")
        check_scope(self.scope)
        check_rho(self.rho)
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {NORMALIZATIONS}, received {self.normalization!r}")
        if self.normalization == "anchors" and not COMPARISONS[self.comparison].per_anchor:
            raise ValueError(
                f"normalization must be 'triplets' for comparison={self.comparison!r}, which compares the pairs of all anchors"
                f" at once, received {self.normalization!r}"
            )
        if not self.squared_positives and self.comparison != "absolute":
            raise ValueError(
                f"squared_positives must be True for comparison={self.comparison!r}, which squares nothing, received False"
            )
        if self.kappa is not None and not _is_int_from(self.kappa, 1):
            raise ValueError(f"kappa must be an int >= 1, or None to take all samples, received {self.kappa!r}")
        if not _is_int_from(self.num_bins, 2):
            raise ValueError(f"num_bins must be an int >= 2, received {self.num_bins!r}")
        if self.margin is not None:
            if not self.has_margin:
                raise ValueError(f"margin has no meaning for comparison={self.comparison!r}, received {self.margin!r}")
            margin = reals(self.margin)
            if margin.shape not in ((), (len(self.layout),)) or not (np.isfinite(margin) & (margin >= 0)).all():
                raise ValueError(f"margin must be a number >= 0, or one per label ({len(self.layout)}), received {self.margin!r}")

    @property
    def has_margin(self) -> bool:
        return COMPARISONS[self.comparison].class_margin is not None

    def margins(self) -> np.ndarray:
        """m_j of every label, float32 [L]: as given, or the paper's (Sec. 3.3); 0 where there is none."""
        row = COMPARISONS[self.comparison]
        of_sizes = row.class_margin if self.level == "class" else row.instance_margin
        if self.margin is not None:
            margin = np.asarray(self.margin)
        else:
            margin = of_sizes(np.asarray(self.layout.sizes, np.float64)) if of_sizes else np.zeros(())
        return np.broadcast_to(margin.astype(np.float32), [len(self.layout)])

    def at_constant(self) -> np.ndarray | None:
        """L_crl per triplet (or anchor) of a model that scores all samples alike, float32 [L]; None without a margin."""
        of_margin = COMPARISONS[self.comparison].at_constant
        return None if of_margin is None else of_margin(self.margins())

    def relative_to_constant(self, rectification: Rectification) -> tf.Tensor:
        """L_crl, as a mean, over that of a model that scores all samples alike: float32 [L], without gradient.

        Below 1 the classes are apart. Above 1 the gradient leads to the constant solution. 0 without a triplet.
        """
        mean = tf.stop_gradient(rectification.loss)
        if self.normalization == "anchors":
            mean /= tf.maximum(rectification.anchors, 1.0)
        # The absolute comparison has a loss without a triplet too: that of positives without negatives (scope="all").
        return tf.where(rectification.triplets > 0, mean / tf.constant(self.at_constant()), 0.0)

    def __call__(self, labels: tf.Tensor, inputs: tf.Tensor) -> Rectification:
        """Profiles, mines and compares.

        Args:
            labels: int32 [L, B].
            inputs: log-probabilities float32 [sum(num_classes), B]; at the instance level features float32 [B, L, D] or [B, D].
        """
        if self.level == "instance" and COMPARISONS[self.comparison].unit_features:
            inputs = tf.math.l2_normalize(inputs, axis=-1)
        rectified = minority_mask(class_histogram(labels, self.layout), self.layout, rho=self.rho, scope=self.scope)
        low, high = LEVELS[self.level]
        per_anchor = self.normalization == "anchors"
        scale = Scale(tf.constant(self.margins()), low, high, self.num_bins, per_anchor, self.squared_positives, self.kappa)
        return (self._readable if self.readable else self._fast)(labels, rectified, inputs, scale)

    def _readable(self, labels: tf.Tensor, rectified: tf.Tensor, inputs: tf.Tensor, scale: Scale) -> Rectification:
        """Every triplet, one by one, as the equations have them."""
        anchors = select_anchors(labels, rectified, rho=self.rho, scope=self.scope)
        if self.level == "class":
            mined = mine_class_level(labels, anchors, tf.exp(inputs), self.layout, kappa=self.kappa)
        else:
            mined = mine_instance_level(labels, anchors, inputs, kappa=self.kappa)
        compared = COMPARISONS[self.comparison].compare(mined, scale)
        by_label = _to_samples(compared.by_anchor, tf.range(len(self.layout))[:, None], anchors.index, labels)
        return Rectification(by_label, rectified, *compared[1:])

    def _fast(self, labels: tf.Tensor, rectified: tf.Tensor, inputs: tf.Tensor, scale: Scale) -> Rectification:
        """The same from sorted prefix sums, on as few anchors as there are."""
        profiled = profile(labels, rectified, self.layout, rho=self.rho, scope=self.scope)
        if self.level == "class":
            mined = mine_class_rows(profiled, inputs, self.layout, kappa=self.kappa)
        else:
            in_order = self.comparison == "relative"
            mined = mine_instance_rows(profiled, inputs, self.layout, kappa=self.kappa, in_order=in_order)
        compared = FAST_COMPARISONS[self.comparison](mined, scale)
        shares = compared.by_row if mined.rows.real is None else tf.where(mined.rows.real, compared.by_row, 0.0)
        by_label = _to_samples(shares, mined.rows.label, mined.rows.sample, labels)
        return Rectification(by_label, rectified, *compared[1:])


def class_rectification_loss(
    labels: tf.Tensor,
    inputs: tf.Tensor,
    *,
    num_classes: int | Sequence[int],
    level: str = "class",
    comparison: str = "relative",
    kappa: int | None = 25,
    rho: float = 0.5,
    margin: float | Sequence[float] | None = None,
    scope: str = "minority",
    num_bins: int = 100,
    normalization: str = "triplets",
    squared_positives: bool = True,
    form: str = "fast",
) -> tf.Tensor:
    """L_crl of every label: eqs. 3-7 and 9-16 of Dong, Gong & Zhu.

    *Imbalanced Deep Learning by Minority Class Incremental Rectification*; all labels and classes at once.

    Args:
        labels: integers [B, L], or [B] for one label; -1 = not annotated.
        inputs: level="class": the concatenated logits [B, sum(num_classes)], label after label. level="instance": the
            features [B, L, D], or [B, D] shared by all labels. Any float dtype; computed in float32.
        num_classes: one int per label; a single int stands for every label.
        level: "class" mines by prediction score (eqs. 4, 5, 10), "instance" by feature distance (eqs. 6, 7, 11).
        comparison: "relative" (eq. 9), "absolute" (eq. 13) or "distribution" (eqs. 14-16).
        kappa: how many hard positives and hard negatives are mined; None takes all (Table 11, "JL").
        rho: the minority classes of a label together hold at most this share of its annotated samples (eq. 3).
        margin: a number, or one per label; by default 0.5 at the class level; at the instance level 2 pi / |Z_j| (eq. 12,
            relative) or 1 (absolute). Refused for "distribution", which has none.
        scope: "minority", or "all" to rectify every class (Table 12).
        num_bins: histogram nodes of the distribution comparison, over [-1, 1] (class) or [0, 2] (instance, on L2-normalised
            features).
        normalization: "triplets": the mean over all triplets of a label (pairs, in the absolute comparison). "anchors": the mean
            over the triplets of each anchor, summed over the anchors and divided by nothing ("T w.r.t. x_a", Sec. 3.3); refused
            for "distribution".
        squared_positives: False takes d(a,+) of the absolute comparison as it is, as the conference paper does (Dong et al.
            2017), in place of its square (eq. 13).
        form: "fast", or "readable": the same numbers from every triplet one by one, the reference for the fast form. For
            `tf.vectorized_map`, and for second derivatives at the instance level, which the fast form refuses.
    Returns:
        float32 [L]. A label without a minority class, or whose mined pairs are none, is exactly 0 with a zero gradient; in
        the absolute comparison each of the two means is 0 on its own where it has no pair.
    Raises:
        ValueError: an argument of the wrong shape, dtype or range; the message names it.
        tf.errors.InvalidArgumentError: a label outside [-1, num_classes - 1] (not under XLA, which drops checks).

    >>> labels = [0, 0, 0, 1, 1]
    >>> logits = tf.zeros([5, 2])  # every probability is 0.5, so each hinge is the margin 0.5 + 0 - 0
    >>> class_rectification_loss(labels, logits, num_classes=2).numpy()
    array([0.5], dtype=float32)
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {FORMS}, received {form!r}")
    labels = tf.convert_to_tensor(labels)
    if not labels.dtype.is_integer or labels.shape.rank not in (1, 2):
        raise ValueError(f"labels must be integers [B, L] or [B], received {labels.dtype.name} of shape {labels.shape}")
    if labels.shape.rank == 1:
        labels = labels[:, None]
    if isinstance(num_classes, (int, np.integer)) and labels.shape[1] is not None:
        num_classes = [num_classes] * labels.shape[1]
    layout = Layout.of(num_classes)
    if labels.shape[1] != len(layout):
        raise ValueError(f"labels must be [B, {len(layout)}] for num_classes={layout.sizes}, received shape {labels.shape}")
    rectifier = Rectifier(
        layout,
        level,
        comparison,
        kappa,
        rho,
        margin,
        scope,
        num_bins,
        normalization,
        squared_positives,
        readable=form == "readable",
    )
    labels = integer_labels(labels, layout, "labels")
    inputs = tf.convert_to_tensor(inputs)
    same_batch = labels.shape[:1].is_compatible_with(inputs.shape[:1])
    if not inputs.dtype.is_floating or inputs.shape.rank not in (2, 3) or not same_batch:
        raise ValueError(
            f"inputs must be floats with one row per row of labels ({labels.shape[0]}), received {inputs.dtype.name} of"
            f" shape {inputs.shape}"
        )
    if level == "class":
        if inputs.shape.rank != 2 or inputs.shape[1] != layout.width:
            raise ValueError(
                f"inputs must be logits [B, {layout.width}] for num_classes={layout.sizes} and level='class', received"
                f" shape {inputs.shape}"
            )
        inputs = log_probabilities(inputs, layout)
    else:
        check_feature_rank(inputs.shape, layout, "inputs for level='instance'")
        inputs = tf.cast(inputs, tf.float32)
    return rectifier(rows_of_labels(labels), inputs).loss


def _is_int_from(value: object, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least


def _to_samples(shares: tf.Tensor, label: tf.Tensor, sample: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Shares of anchors, added up at their places in the batch: [L, B]."""
    cell = sample if labels.shape[0] == 1 else label * length(labels, 1) + sample
    return tf.reshape(put(shares, cell, tf.size(labels)), tf.shape(labels))
