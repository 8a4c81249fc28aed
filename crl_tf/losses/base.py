"""What the losses beside CRL have in common: a term per label and sample, from logits alone or from features as well."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from crl_tf.layout import (
    Layout,
    checked_feature_shape,
    class_logits,
    compiled_by_xla,
    integer_labels,
    plain_sizes,
    rows_of_labels,
    split_features,
)


def per_sample_weight(sample_weight: tf.Tensor) -> tf.Tensor:
    """float32 [B] from [B] or [B, 1]; a weight per label has no meaning for terms that pair samples, and is refused."""
    weight = tf.cast(tf.convert_to_tensor(sample_weight), tf.float32)
    if weight.shape.rank == 2 and weight.shape[1] == 1:
        weight = weight[:, 0]
    if weight.shape.rank not in (1, None):
        raise ValueError(
            f"sample_weight must hold one weight per sample, [B] or [B, 1], received shape {weight.shape}; to leave a label of"
            " a sample out, give it the class -1"
        )
    return weight


def mean_over_annotated(terms: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The one reducer: terms float32 [L, B] to shares [L, B] whose sum over B is each label's mean over its annotated samples.

    Exactly 0, with a zero gradient, where a sample or a whole label is not annotated (labels int32 [L, B], -1).
    """
    annotated = labels >= 0
    count = tf.reduce_sum(tf.cast(annotated, tf.float32), axis=1, keepdims=True)
    return tf.where(annotated, terms, 0.0) / tf.maximum(count, 1.0)


class ByLabelLoss(keras.losses.Loss, abc.ABC):
    """Sum over the labels of a loss of each, on the same targets and outputs as `crl_tf.CRL`.

    A subclass says what a label's loss is (`by_sample`) and what it was made with (`get_config`). `call` returns float32 [B],
    whose mean is the loss.

    Args:
        num_classes: an int for one label, or one int per label.
        from_logits: False when the model ends in probabilities.
    """

    def __init__(
        self,
        num_classes: int | Sequence[int],
        *,
        from_logits: bool = True,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        # float32 whatever the policy: in bfloat16 the label 257 would become 256.
        super().__init__(reduction=reduction, name=name, dtype="float32")
        self.num_classes = plain_sizes(num_classes)
        self.from_logits = from_logits
        self._layout = Layout.of(num_classes)

    @abc.abstractmethod
    def by_sample(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """float32 [L, B] whose sum over B is the loss of each label; labels int32 [L, B], logits float32 [B, columns]."""

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        labels = rows_of_labels(integer_labels(y_true, self._layout))
        terms = self.by_sample(labels, class_logits(y_pred, self._layout, self.from_logits))
        return tf.reduce_sum(terms, axis=0) * tf.cast(tf.shape(labels)[1], tf.float32)

    def __call__(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
        return super().__call__(y_true, y_pred, None if sample_weight is None else per_sample_weight(sample_weight))

    def get_config(self) -> dict[str, Any]:
        return {
            "num_classes": self.num_classes,
            "from_logits": self.from_logits,
            "reduction": self.reduction,
            "name": self.name,
        }


class FeatureLoss(ByLabelLoss):
    """A loss of features beside logits: `CRLModel` hands it both; in a plain `compile`, `JoinFeatures` and `feature_shape` do.

    Args:
        feature_shape: D or (L, D), when the first columns of the output are features and the rest are logits.
    """

    def __init__(
        self, num_classes: int | Sequence[int], *, feature_shape: int | Sequence[int] | None = None, **parameters: Any
    ) -> None:
        super().__init__(num_classes, **parameters)
        self._feature_shape = checked_feature_shape(feature_shape, self._layout)

    @abc.abstractmethod
    def by_sample(self, labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
        """As above; features float [B, D] or [B, L, D]."""

    def per_sample(self, y_true: tf.Tensor, logits: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
        """float32 [B], whose mean is the loss, for a training step that has logits and features at hand."""
        labels = rows_of_labels(integer_labels(y_true, self._layout))
        terms = self.by_sample(labels, class_logits(logits, self._layout, self.from_logits), features)
        return tf.reduce_sum(terms, axis=0) * tf.cast(tf.shape(labels)[1], tf.float32)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        features, logits = split_features(tf.convert_to_tensor(y_pred), self._layout, self._feature_shape)
        if features is None:
            raise ValueError(
                f"{type(self).__name__} needs features beside the logits: train with crl_tf.CRLModel, or end the model in"
                " crl_tf.JoinFeatures()([features, logits]) and pass feature_shape=D or (L, D); received logits only"
            )
        return self.per_sample(y_true, logits, features)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "feature_shape": self._feature_shape}


def counts_by_label(class_counts: Sequence[Any], layout: Layout) -> list[np.ndarray]:
    """One array per label, the j-th of shape [num_classes[j]]; for a single label the flat sequence is unambiguous too.

    Raises:
        ValueError: not one sequence per label, not one count per class, or a count that is negative or not finite.

    >>> counts_by_label([[9, 1], [5, 3, 0]], Layout((2, 3)))
    [array([9, 1]), array([5, 3, 0])]
    """
    if isinstance(class_counts, Mapping) or any(isinstance(counts, Mapping) for counts in class_counts):
        raise ValueError(f"class_counts must be sequences in the order of the classes, received {class_counts!r}")
    if len(layout) == 1 and all(np.ndim(c) == 0 for c in class_counts):
        class_counts = [class_counts]
    if len(class_counts) != len(layout) or any(np.ndim(c) != 1 for c in class_counts):
        raise ValueError(f"class_counts must be {len(layout)} sequences, one per label, received {class_counts!r}")
    if tuple(len(c) for c in class_counts) != layout.sizes:
        raise ValueError(
            f"class_counts must hold one count per class for num_classes={layout.sizes}, received"
            f" {[len(c) for c in class_counts]} counts"
        )
    counts = [np.asarray(c) for c in class_counts]
    if not all((np.isfinite(c) & (c >= 0)).all() for c in counts):
        raise ValueError(f"class_counts must be finite and >= 0, received {class_counts!r}")
    return counts


def columns_of(by_label: Sequence[np.ndarray]) -> np.ndarray:
    """A number per class of every label as float32 [sum(num_classes)], label after label, like the logits."""
    return np.concatenate(by_label).astype(np.float32)


class ClassCountsLoss(ByLabelLoss):
    """A loss that knows the training set: `self.class_counts` holds one array per label.

    Args:
        num_classes: an int for one label, or one int per label.
        class_counts: training samples per class, one sequence per label (or flat, for one label).
    """

    def __init__(self, num_classes: int | Sequence[int], class_counts: Sequence[Sequence[int]], **parameters: Any) -> None:
        super().__init__(num_classes, **parameters)
        self.class_counts = counts_by_label(class_counts, self._layout)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "class_counts": [counts.tolist() for counts in self.class_counts]}


def nan_if_unknown(terms: tf.Tensor, labels: tf.Tensor, layout: Layout) -> tf.Tensor:
    """`terms` float32 [L, B], NaN under XLA where a label (int32 [L, B]) is none of its classes: it must not pass for a number.

    >>> nan_if_unknown(tf.ones([1, 2]), tf.constant([[0, -1]]), Layout((2,))).numpy()
    array([[1., 1.]], dtype=float32)
    """
    if not compiled_by_xla():
        return terms
    return tf.where(labels < np.asarray(layout.sizes, np.int32)[:, None], terms, float("nan"))


def progress_variable() -> tf.Variable:
    """What a loss that changes with training reads, and `TrainingProgress` moves: 0 at the start, towards 1 at the end.

    A variable, so that a traced training step sees it move; it is not saved.
    """
    return tf.Variable(0.0, trainable=False, name="progress", dtype=tf.float32)
