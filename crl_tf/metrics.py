"""Metrics: confusion matrices of all labels, and the numbers that follow from them (eqs. 17, 18 of Dong, Gong & Zhu)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.layout import (
    Layout,
    check_same_samples,
    checked_feature_shape,
    class_logits,
    integer_labels,
    plain_sizes,
    split_features,
    warn_of_signs,
)
from crl_tf.serialization import registered


def sensitivities(confusion: np.ndarray) -> np.ndarray:
    """Eq. 17: n(i, i) / n_i of every class, NaN for a class that does not occur. confusion: [C, C], rows = truth.

    >>> sensitivities(np.array([[8, 2], [1, 3]]))
    array([0.8 , 0.75])
    """
    confusion = np.asarray(confusion, np.float64)
    occurring = confusion.sum(axis=1)
    return np.divide(np.diag(confusion), occurring, out=np.full(len(confusion), np.nan), where=occurring > 0)


def class_balanced_accuracy(confusion: np.ndarray) -> float:
    """Eq. 18: mean sensitivity over the classes that occur; NaN where none does.

    >>> class_balanced_accuracy(np.array([[8, 2], [1, 3]]))  # (0.8 + 0.75) / 2
    0.775
    """
    of_class = sensitivities(confusion)
    return float(np.nanmean(of_class)) if np.isfinite(of_class).any() else float("nan")


def macro_f1(confusion: np.ndarray) -> float:
    """Mean F1 = 2 TP / (2 TP + FP + FN) over the classes that occur as truth; NaN where none does.

    confusion: [C, C], rows = truth. A class that is only predicted has no F1 of its own; its predictions are false negatives of
    the true classes.

    >>> macro_f1(np.array([[8, 2], [1, 3]]))  # (16/19 + 6/9) / 2
    0.7543859649122806
    """
    confusion = np.asarray(confusion, np.float64)
    truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    occurring = truth > 0
    # 2 TP + FP + FN: how often a class occurs plus how often it is predicted.
    of_class = 2 * np.diag(confusion)[occurring] / (truth + predicted)[occurring]
    return float(of_class.mean()) if occurring.any() else float("nan")


def pooled_classes(labels: Mapping[str, Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Training counts and sensitivities, each [n], of the classes of all labels that occur in the test set.

    Args:
        labels: the "labels" of a `result.json`; only "sensitivity" and "train_counts" are read.
    """
    pairs = [
        (label["train_counts"][name], sensitivity)
        for label in labels.values()
        for name, sensitivity in label["sensitivity"].items()
        if sensitivity is not None
    ]
    return np.array([count for count, _ in pairs], np.int64), np.array([sensitivity for _, sensitivity in pairs], np.float64)


def rarest_third(labels: Mapping[str, Mapping[str, Any]]) -> float:
    """Mean sensitivity over the rarest third of all classes; NaN where there are none.

    The classes of all labels go into one pool; those that the test set does not hold are left out. Of the n that remain, the
    ceil(n/3) with the fewest *training* samples are averaged. Equal counts keep the order of the labels and classes. A class
    without a training sample belongs to the rarest.

    Args:
        labels: as for `pooled_classes`.

    >>> rarest_third({"hat": {"sensitivity": {"no": 0.9, "yes": 0.4}, "train_counts": {"no": 90, "yes": 10}}})
    0.4
    """
    counts, of_class = pooled_classes(labels)
    return float(of_class[rarest_of(counts)].mean()) if counts.size else float("nan")


def rarest_of(train_counts: np.ndarray) -> np.ndarray:
    """The places of the ceil(n/3) smallest of n counts; of equal counts the first.

    >>> rarest_of(np.array([9, 2, 5, 2])).tolist()
    [1, 3]
    """
    return np.argsort(train_counts, kind="stable")[: math.ceil(len(train_counts) / 3)]


def most_frequent_of(train_counts: np.ndarray) -> np.ndarray:
    """The places of the ceil(n/3) largest of n counts; of equal counts the last."""
    return np.argsort(train_counts, kind="stable")[len(train_counts) - math.ceil(len(train_counts) / 3) :]


def most_frequent_third(labels: Mapping[str, Mapping[str, Any]]) -> float:
    """Mean sensitivity over the most frequent third of all classes; NaN where there are none.

    As `rarest_third`, with the ceil(n/3) classes that have the most training samples. Of classes with equal counts the last are
    taken.

    Args:
        labels: as for `pooled_classes`.

    >>> most_frequent_third({"hat": {"sensitivity": {"no": 0.9, "yes": 0.4}, "train_counts": {"no": 90, "yes": 10}}})
    0.9
    """
    counts, of_class = pooled_classes(labels)
    return float(of_class[most_frequent_of(counts)].mean()) if counts.size else float("nan")


def top_of_group(logits: tf.Tensor, num_classes: Sequence[int], groups: Mapping[str, Sequence[int]], k: int = 5) -> tf.Tensor:
    """Decides each group of binary attributes by rank: the k with the highest scores are present, all others absent.

    The "top-5 attribute predictions in a class-balanced accuracy metric" of Table 7 (DeepFashion, five groups). An attribute
    counts as predicted present if its score, the logit of "present" minus that of "absent", is among the k highest of its
    group; of equal scores the first are taken. Each attribute's class-balanced accuracy follows from these decisions. A group's
    number is the mean over its attributes; the total is the mean over the attributes of all groups.

    Args:
        logits: the concatenated logits of all attributes, float [B, sum(num_classes)].
        num_classes: L ints.
        groups: for each group, the indices of its attributes (`AttributeSchema.groups`), each with two classes of which the
            second is "present". Attributes in no group are left to their logits.
        k: how many are present; fewer than a group holds.
    Returns:
        logits' shape and type: 1 for the class decided on and 0 for the other, and logits as they are outside of groups; the
        argmax over an attribute's columns is the decision.
    Raises:
        ValueError: a group of k attributes or fewer, or with an attribute of other than 2 classes.

    >>> logits = tf.constant([[0.0, 0.5, 0.0, 2.0, 0.0, 1.0]])  # all three above 0, the second the most
    >>> top_of_group(logits, [2, 2, 2], {"fabric": [0, 1, 2]}, k=1)[0].numpy().tolist()
    [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    """
    starts = np.concatenate([[0], np.cumsum(num_classes)[:-1]])
    source = np.arange(sum(num_classes))
    decided, width = [logits], sum(num_classes)
    for name, indices in groups.items():
        sizes = {int(num_classes[index]) for index in indices}
        if sizes != {2} or len(indices) <= k:
            raise ValueError(
                f"top_of_group: group {name!r} must hold more than k={k} attributes, each of 2 classes, received"
                f" {len(indices)} with {sorted(sizes)} classes"
            )
        absent = starts[list(indices)]
        scores = tf.gather(logits, absent + 1, axis=1) - tf.gather(logits, absent, axis=1)
        chosen = tf.math.top_k(scores, k).indices  # of equal ones the lower index first
        present = tf.reduce_max(tf.one_hot(chosen, len(indices), dtype=logits.dtype), axis=1)
        decided += [1 - present, present]
        source[absent] = width + np.arange(len(indices))
        source[absent + 1] = source[absent] + len(indices)
        width += 2 * len(indices)
    return tf.gather(tf.concat(decided, axis=1), source, axis=1)


@registered
class ClassBalancedAccuracy(keras.metrics.Metric):
    """Class-balanced accuracy (eqs. 17, 18): mean sensitivity over a label's classes, then mean over the labels.

    Streaming counts per class: exact over batches, not a mean of batch means. Memory and time grow with the number of classes
    of all labels, not with its square. Classes, and labels, that have not occurred are left out. Where nothing is annotated the
    value is NaN, which Keras prints as nan; a NaN of the first epoch is the best one for ever to its EarlyStopping. Targets and
    outputs are as for `crl_tf.CRL`; an output of NaN is wrong for every class.

    Args:
        num_classes: an int for one label, or one int per label.
        from_logits: False when the model ends in probabilities.
        feature_shape: D or (L, D), when features precede the logits in the output (`JoinFeatures`).
        confusion: keep a confusion matrix of every label too, for `confusion_matrices`: L x C x C numbers of 8 bytes for L labels
            the largest of which has C classes.

    >>> metric = ClassBalancedAccuracy(2)
    >>> metric.update_state([0, 0, 0, 1], [[2.0, 1.0], [2.0, 1.0], [1.0, 2.0], [1.0, 2.0]])
    >>> round(float(metric.result()), 4)  # (2/3 + 1/1) / 2
    0.8333
    """

    def __init__(
        self,
        num_classes: int | Sequence[int],
        *,
        from_logits: bool = True,
        feature_shape: int | Sequence[int] | None = None,
        confusion: bool = False,
        name: str = "balanced_accuracy",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self._layout = layout = Layout.of(num_classes)
        self.num_classes = plain_sizes(num_classes)
        self.from_logits = from_logits
        self._direction = "up"  # what Keras's EarlyStopping and ModelCheckpoint go by
        self._feature_shape = checked_feature_shape(feature_shape, layout)
        # float64: a float32 count stands still at 2^24.
        self._occurring = self.add_variable((layout.width,), "zeros", dtype="float64", name="occurring")
        self._right = self.add_variable((layout.width,), "zeros", dtype="float64", name="right")
        self._not_annotated = self.add_variable((len(layout),), "zeros", dtype="float64", name="not_annotated")
        shape = (len(layout), layout.largest, layout.largest)
        self._confusion = self.add_variable(shape, "zeros", dtype="float64", name="confusion") if confusion else None

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Adds a batch. sample_weight: [B], what each sample counts for."""
        layout = self._layout
        labels = integer_labels(y_true, layout)
        _, outputs = split_features(tf.convert_to_tensor(y_pred), layout, self._feature_shape)
        logits = class_logits(outputs, layout, self.from_logits)
        check_same_samples(labels.shape[0], logits.shape[0])
        decided = decided_classes(logits, layout)
        weight = tf.ones_like(labels, tf.float64)
        if sample_weight is not None:
            weight *= tf.reshape(tf.cast(sample_weight, tf.float64), [-1, 1])
        # What is not annotated has a negative column, which a segment sum passes over.
        column = tf.reshape(tf.where(labels >= 0, labels + layout.offsets, -1), [-1])
        right = tf.where(labels == decided, weight, 0.0)
        self._occurring.assign_add(tf.math.unsorted_segment_sum(tf.reshape(weight, [-1]), column, layout.width))
        self._right.assign_add(tf.math.unsorted_segment_sum(tf.reshape(right, [-1]), column, layout.width))
        self._not_annotated.assign_add(tf.reduce_sum(tf.cast(labels < 0, tf.float64), axis=0))
        if self._confusion is not None:
            truth, predicted = (tf.one_hot(classes, layout.largest, dtype=tf.float64) for classes in (labels, decided))
            self._confusion.assign_add(tf.einsum("blt,blp->ltp", truth * weight[..., tf.newaxis], predicted))

    def reset_state(self) -> None:
        """Begins anew, as Keras does before each epoch and each evaluation.

        Warns:
            UserWarning: binary labels that were 1 or -1 and never 0 since the last time.
        """
        if tf.executing_eagerly() and self._layout.has_binary:
            starts, counts = self._layout.offsets, keras.ops.convert_to_numpy(self._occurring)
            not_annotated = keras.ops.convert_to_numpy(self._not_annotated)
            warn_of_signs(self._layout, not_annotated, counts[starts], counts[starts + 1], stacklevel=3)
        super().reset_state()

    def result(self) -> tf.Tensor:
        occurring, right = tf.convert_to_tensor(self._occurring), tf.convert_to_tensor(self._right)

        def by_label(of_class: tf.Tensor) -> tf.Tensor:
            return tf.math.unsorted_segment_sum(of_class, self._layout.column_label, len(self._layout))

        classes = by_label(tf.cast(occurring > 0, tf.float64))
        of_label = tf.math.divide_no_nan(by_label(tf.math.divide_no_nan(right, occurring)), classes)
        labels = tf.reduce_sum(tf.cast(classes > 0, tf.float64))
        # 0 / 0 where nothing is annotated.
        return tf.cast(tf.reduce_sum(of_label) / labels, tf.float32)

    def confusion_matrices(self) -> list[np.ndarray]:
        """The counts so far: per label float64 [C, C], rows = truth, columns = predicted.

        Raises:
            ValueError: the metric was made without `confusion=True`.
        """
        if self._confusion is None:
            raise ValueError("confusion_matrices: confusion must be True when the metric is made, received False")
        counts = keras.ops.convert_to_numpy(self._confusion)
        return [counts[j, :size, :size] for j, size in enumerate(self._layout.sizes)]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "from_logits": self.from_logits,
            "feature_shape": self._feature_shape,
            "confusion": self._confusion is not None,
        }


def decided_classes(logits: tf.Tensor, layout: Layout) -> tf.Tensor:
    """The class with the largest logit of every label, of equal ones the first: float32 [B, sum(num_classes)] to int32 [B, L].

    -1, no class, where a logit of the label is NaN.

    >>> decided_classes(tf.constant([[1.0, 2.0, 5.0, 5.0, 0.0], [1.0, np.nan, 0.0, 0.0, 1.0]]), Layout((2, 3))).numpy().tolist()
    [[1, 0], [-1, 2]]
    """
    if len(set(layout.sizes)) == 1:
        of_label = tf.reshape(logits, [-1, len(layout), layout.largest])
        no_number = tf.reduce_any(tf.math.is_nan(of_label), axis=-1)
        return tf.where(no_number, -1, tf.argmax(of_label, axis=-1, output_type=tf.int32))
    # By segments: padded to the largest label, one of 1,000 classes beside 40 binary ones would take 40 times the memory.
    columns, label = tf.transpose(logits), tf.constant(layout.column_label)
    highest = tf.gather(tf.math.unsorted_segment_max(columns, label, len(layout)), label)
    place = tf.where(columns == highest, layout.column_class[:, None], layout.largest)
    first = tf.math.unsorted_segment_min(place, label, len(layout))
    no_number = tf.math.unsorted_segment_max(tf.cast(tf.math.is_nan(columns), tf.int32), label, len(layout)) > 0
    return tf.transpose(tf.where(no_number, -1, first))
