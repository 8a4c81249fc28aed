"""The one interface of all losses, and what several of them share."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from crl_tf.checks import reals
from crl_tf.gradients import scaled, weighted_sum
from crl_tf.layout import (
    Layout,
    as_numbers,
    check_feature_rank,
    check_same_samples,
    class_logits,
    compiled_by_xla,
    integer_labels,
    plain_sizes,
    rows_of_labels,
    split_features,
    warn_of_signs,
)
from crl_tf.replicas import MINING, replicas


class Log(NamedTuple):
    """A scalar that a training step logs. weight: its weight in the mean over an epoch, a scalar; None for 1."""

    value: tf.Tensor
    weight: tf.Tensor | None = None


class Terms(NamedTuple):
    """The parts of a loss.

    by_label: float32 [L, B], the share of each sample in the loss of each label; the sum over B is the label's loss.
    logs: what a step logs, by name (`Loss.logged`).
    tallies: what is added up over all training steps, by name, in the shapes of `Loss.tallied`.
    seen: float32 [4, L], what classes the batch has of each label (`classes_seen`); `Loss.batch_terms` adds it.
    """

    by_label: tf.Tensor
    logs: Mapping[str, Log] = MappingProxyType({})
    tallies: Mapping[str, tf.Tensor] = MappingProxyType({})
    seen: tf.Tensor | None = None

    @property
    def per_sample(self) -> tf.Tensor:
        """float32 [B], whose mean is the loss summed over labels: each sample carries B times its shares."""
        batch = tf.cast(tf.shape(self.by_label)[1], tf.float32)
        return weighted_sum(self.by_label, tf.fill([self.by_label.shape[0], 1], batch), axis=0)


class Loss(keras.losses.Loss, abc.ABC):
    """A loss of all labels at once: the interface that `CRLModel`, trainers and the table of losses use.

    A subclass implements `terms`, names its arguments in `config_keys`, and sets the other class attributes where it differs.
    This class does what Keras asks for: it brings targets and outputs to one form, computes in float32 under every policy, and
    returns one value per sample, so that `tf.distribute` divides by the whole batch.

    Targets: integers [B, L] ([B] or [B, 1] for one label), -1 = not annotated; or one-hot [B, sum(num_classes)].
    Outputs: concatenated logits [B, sum(num_classes)], label after label; where all labels are binary also one sigmoid logit per
    label [B, L]. With `feature_shape`, the features come first in each row (`crl_tf.JoinFeatures`).

    Args:
        num_classes: an int for one label, or one int per label.
        from_logits: False when the model ends in probabilities.
        mining: under a `tf.distribute` strategy, "replica": each replica profiles, mines and averages its own share of the batch;
            "global": all of it, as one device would. Global mining needs `CRLModel`.
        reduction: as in Keras; "none" returns float32 [B].
        name: the name of the loss in logs; None for `default_name`.
    Raises:
        ValueError: num_classes below 2; targets or outputs of any other shape; a sample_weight that is not one per sample; logits
            only, where the loss needs features.
        tf.errors.InvalidArgumentError: a class outside [-1, num_classes - 1]. Under XLA the loss is NaN instead.
    """

    default_name: str | None = None
    config_keys: tuple[str, ...] = ()
    """Attributes that `get_config` adds: the arguments of a subclass."""
    needs_features: bool = False
    """Whether `terms` needs features beside the logits."""
    logged: Mapping[str, bool] = MappingProxyType({})
    """What a training step logs, by name, and whether validation logs it too."""
    tallied: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    """Shapes of the float32 arrays that `CRLModel` adds up over the training steps, by name (`Terms.tallies`)."""
    seed_generators: Sequence[keras.random.SeedGenerator] = ()
    """What a loss draws from in a step, if it does; a training that continues sets their states."""
    feature_shape: tuple[int, ...] | None = None
    """(D,) or (L, D), where the first columns of the output are features. An argument of the losses that need features."""

    def __init__(
        self,
        num_classes: int | Sequence[int],
        *,
        from_logits: bool = True,
        mining: str = "replica",
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        if mining not in MINING:
            raise ValueError(f"mining must be one of {MINING}, received {mining!r}")
        # float32 whatever the policy: in bfloat16 the label 257 would become 256.
        super().__init__(reduction=reduction, name=name or self.default_name, dtype="float32")
        self._layout = Layout.of(num_classes)
        self.num_classes = plain_sizes(num_classes)
        self.from_logits = bool(from_logits)
        self.mining = mining

    @abc.abstractmethod
    def terms(self, labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor | None = None) -> Terms:
        """Computes each sample's share of each label's loss.

        Args:
            labels: int32 [L, B], -1 = not annotated.
            logits: float32 [B, sum(num_classes)]. `crl_tf.layout.log_probabilities` turns them to a row per class.
            features: float32 [B, D], shared by all labels, or [B, L, D]; None where `needs_features` is False.
        Returns:
            shares that sum over B to the mean over the label's annotated samples (`mean_over_annotated`): 0, with a zero
            gradient, where a sample is not annotated; NaN under XLA for an unknown class (`nan_if_unknown`).
        """

    def callbacks(self, epochs: int, label_names: Sequence[str] | None = None) -> list[keras.callbacks.Callback]:
        """The callbacks that a training of this many epochs needs for this loss.

        Args:
            label_names: what warnings call the labels; None for their numbers.
        """
        return []

    def facts(self, tallies: Mapping[str, np.ndarray], classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """What a finished training tells of the loss, for result.json.

        Args:
            tallies: arrays by name, added up over all training steps.
            classes: the names of the classes of every label, by the name of the label, in order.
        """
        return {}

    def check_targets(self, y_true: Any) -> None:
        """Checks the targets of a whole training, eagerly: XLA drops checks.

        Raises:
            ValueError: targets of another shape or type.
            tf.errors.InvalidArgumentError: a class outside [-1, num_classes - 1].
        Warns:
            UserWarning: binary labels that are 1 or -1 and never 0.
        """
        with tf.device("/cpu:0"):
            labels = rows_of_labels(integer_labels(y_true, self._layout))
            self.warn_of_signs(classes_seen(labels, self._layout).numpy(), stacklevel=4)

    def check_known(self, seen: np.ndarray) -> None:
        """Checks that the steps of a training (`classes_seen`, added up, [4, L]) had no class that does not exist.

        Raises:
            ValueError: they had. XLA drops the check of the step itself.
        """
        unknown = np.flatnonzero(seen[0])
        if len(unknown):
            size = self._layout.sizes[unknown[0]]
            raise ValueError(
                f"y: class values must be whole numbers in [-1, num_classes - 1] (-1 = not annotated); label {unknown[0]} has"
                f" others, num_classes={size}. The weights became NaN: build the model anew"
            )

    def warn_of_signs(self, seen: np.ndarray, stacklevel: int = 2) -> None:
        """Warns of binary labels that were 1 or -1 and never 0 in a whole epoch (`classes_seen`, added up, [4, L])."""
        warn_of_signs(self._layout, *seen[1:], stacklevel=stacklevel + 1)

    def batch_terms(
        self,
        y_true: tf.Tensor,
        logits: tf.Tensor,
        features: tf.Tensor | None = None,
        *,
        whole: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> Terms:
        """`terms` of targets and outputs in any accepted form, for a training step that has logits and features apart.

        Args:
            whole: from a replica's share of labels, logits or features, samples first, to those of the batch; None: it is one.
        """
        labels = integer_labels(y_true, self._layout)
        logits = class_logits(logits, self._layout, self.from_logits)
        check_same_samples(labels.shape[0], logits.shape[0])
        rows = rows_of_labels(labels)
        seen = classes_seen(rows, self._layout)
        if whole is not None:
            rows, logits = rows_of_labels(whole(labels)), whole(logits)
            features = whole(tf.cast(features, tf.float32)) if self.needs_features and features is not None else None
        return self._terms(rows, logits, features)._replace(seen=seen)

    def _terms(self, labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor | None) -> Terms:
        if not self.needs_features:
            return self.terms(labels, logits)
        if features is None:
            raise ValueError(
                f"{type(self).__name__} needs features beside the logits: train with crl_tf.CRLModel, or end the model in"
                " crl_tf.JoinFeatures()([features, logits]) and pass feature_shape=D or (L, D); received logits only"
            )
        features = tf.cast(tf.convert_to_tensor(features), tf.float32)
        check_feature_rank(features.shape, self._layout)
        return self.terms(labels, logits, features)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        if self.mining == "global" and replicas() > 1:
            raise ValueError(f"mining='global' needs crl_tf.CRLModel on {replicas()} replicas, received another model")
        features, logits = split_features(tf.convert_to_tensor(y_pred), self._layout, self.feature_shape)
        return self.batch_terms(y_true, logits, features).per_sample

    def __call__(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
        # Keras's own casts to float32, which texts do not survive.
        return super().__call__(as_numbers(y_true), y_pred, None if sample_weight is None else per_sample_weight(sample_weight))

    def get_config(self) -> dict[str, Any]:
        keys = ("num_classes", "from_logits", "mining", "reduction", "name", *self.config_keys)
        return {key: getattr(self, key) for key in keys}


class ClassCountsLoss(Loss):
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


def per_sample_weight(sample_weight: tf.Tensor) -> tf.Tensor:
    """float32 [B] from [B] or [B, 1]. A weight per label is refused: it has no meaning for terms that pair samples."""
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
    """Divides terms float32 [L, B] by the number of annotated samples of each label (labels int32 [L, B], -1 = not annotated).

    The result [L, B] sums over B to each label's mean. It is 0, with a zero gradient, where a sample or a label is not annotated.
    """
    annotated = tf.cast(labels >= 0, tf.float32)
    return scaled(terms, annotated / tf.maximum(tf.reduce_sum(annotated, axis=1, keepdims=True), 1.0))


def classes_seen(labels: tf.Tensor, layout: Layout) -> tf.Tensor:
    """float32 [4, L], 1 where a batch (labels int32 [L, B]) has an unknown class, -1, 0 and 1 of a label, in this order.

    >>> classes_seen(tf.constant([[0, -1], [1, 2]]), Layout((2, 2))).numpy().astype(int)
    array([[0, 1],
           [1, 0],
           [1, 0],
           [0, 1]])
    """
    unknown = labels >= np.asarray(layout.sizes, np.int32)[:, None]
    kinds = tf.stack([unknown, labels == -1, labels == 0, labels == 1])
    return tf.cast(tf.reduce_any(kinds, axis=-1), tf.float32)


def nan_if_unknown(terms: tf.Tensor, labels: tf.Tensor, layout: Layout) -> tf.Tensor:
    """Sets terms float32 [L, B] to NaN under XLA, which drops checks, where a label (int32 [L, B]) is not one of its classes.

    >>> nan_if_unknown(tf.ones([1, 2]), tf.constant([[0, -1]]), Layout((2,))).numpy()
    array([[1., 1.]], dtype=float32)
    """
    if not compiled_by_xla():
        return terms
    return tf.where(labels < np.asarray(layout.sizes, np.int32)[:, None], terms, float("nan"))


def counts_by_label(class_counts: Sequence[Any], layout: Layout) -> list[np.ndarray]:
    """One array per label, the j-th of shape [num_classes[j]]. One label may give a flat sequence.

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
    # Beyond 2^53 a sum of counts loses some.
    if not all(((reals(c) >= 0) & (reals(c) < 2**53)).all() for c in counts):
        raise ValueError(f"class_counts must be numbers >= 0 and below 2^53, received {class_counts!r}")
    return counts


def by_column(by_label: Sequence[np.ndarray]) -> np.ndarray:
    """One number per class, one array per label, to float32 [sum(num_classes)], in the order of the logits."""
    return np.concatenate(by_label).astype(np.float32)


def progress_variable() -> tf.Variable:
    """The share of training that is over, which `TrainingProgress` sets: 0 at the start. It is not saved.

    A variable, so that a traced training step reads its present value.
    """
    return tf.Variable(0.0, trainable=False, name="progress", dtype=tf.float32)
