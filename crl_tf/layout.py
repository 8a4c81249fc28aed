"""The column layout of many labels in one tensor, and the accepted forms of targets and predictions, brought to one.

Inside the program there is one form: integer labels [B, L] with -1 = not annotated, and float32 logits
[B, sum(num_classes)], label after label. Losses and metrics convert their arguments here.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util

# Far below every real logit, and still finite: -inf would turn 0 * inf into NaN in a gradient.
PADDING_LOGIT = -1e30
PROBABILITY_FLOOR = 1e-7


@dataclass(frozen=True)
class Layout:
    """Which columns of the concatenated logits belong to which label; static, so that graphs see constants.

    >>> layout = Layout((2, 3))
    >>> layout.width, layout.largest, layout.column_label.tolist(), layout.column_class.tolist()
    (5, 3, [0, 0, 1, 1, 1], [0, 1, 0, 1, 2])
    """

    sizes: tuple[int, ...]

    @classmethod
    def of(cls, num_classes: int | Sequence[int]) -> Layout:
        """The layout of `num_classes`: an int (one label) or one int per label, each 2 or more."""
        sizes = list(num_classes) if isinstance(num_classes, Sequence) or np.ndim(num_classes) == 1 else [num_classes]
        if not sizes or any(isinstance(s, bool) or not isinstance(s, (int, np.integer)) or s < 2 for s in sizes):
            raise ValueError(f"num_classes must be an int >= 2, or a sequence of such ints, received {num_classes!r}")
        return cls(tuple(int(s) for s in sizes))

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def width(self) -> int:
        return sum(self.sizes)

    @property
    def largest(self) -> int:
        return max(self.sizes)

    @property
    def all_binary(self) -> bool:
        return set(self.sizes) == {2}

    @property
    def has_binary(self) -> bool:
        return 2 in self.sizes

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """First column of each label, int32 [L]."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int32)

    @functools.cached_property
    def column_label(self) -> np.ndarray:
        """Label of each column, int32 [sum(num_classes)]."""
        return np.repeat(np.arange(len(self.sizes), dtype=np.int32), self.sizes)

    @functools.cached_property
    def column_class(self) -> np.ndarray:
        """Class of each column within its label, int32 [sum(num_classes)]."""
        return np.concatenate([np.arange(s, dtype=np.int32) for s in self.sizes])

    @functools.cached_property
    def is_class(self) -> np.ndarray:
        """bool [L, largest]: False where a label has fewer classes than the largest one."""
        return np.arange(self.largest)[None, :] < np.asarray(self.sizes)[:, None]

    def pad(self, columns: tf.Tensor, filler: float) -> tf.Tensor:
        """[B, sum(num_classes)] to [B, L, largest], labels with fewer classes filled up with `filler`."""
        if len(set(self.sizes)) == 1:
            return tf.reshape(columns, [-1, len(self), self.largest])
        source = np.where(self.is_class, self.offsets[:, None] + np.arange(self.largest), 0)
        return tf.where(self.is_class, tf.gather(columns, source, axis=1), tf.cast(filler, columns.dtype))

    def unpad(self, padded: tf.Tensor) -> tf.Tensor:
        """[B, L, largest] back to [B, sum(num_classes)]."""
        flat = tf.reshape(padded, [-1, len(self) * self.largest])
        if len(set(self.sizes)) == 1:
            return flat
        return tf.gather(flat, self.column_label * self.largest + self.column_class, axis=1)


def plain_sizes(num_classes: int | Sequence[int]) -> int | list[int]:
    """`num_classes` as a config can hold it: an int stays one, any sequence becomes a list of ints."""
    return int(num_classes) if isinstance(num_classes, (int, np.integer)) else [int(size) for size in num_classes]


def log_probabilities(logits: tf.Tensor, layout: Layout) -> tf.Tensor:
    """Log of eq. 1, the softmax over the classes of each label, a row per class: [B, sum(num_classes)] to float32 [columns, B].

    A row per class, because mining looks for the hardest samples of a class, and because sums over a few neighbouring rows
    are many times faster than log_softmax over an axis of length 2, or over labels padded to the largest.
    """
    if len(layout) == 1:
        # One operation in place of nine; with 10,000 classes a third of the time.
        return tf.transpose(tf.nn.log_softmax(tf.cast(logits, tf.float32)))
    label, labels = tf.constant(layout.column_label), len(layout)

    @tf.custom_gradient
    def log_softmax(columns: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        below_top = columns - tf.gather(tf.math.unsorted_segment_max(columns, label, labels), label)
        total = tf.math.unsorted_segment_sum(tf.exp(below_top), label, labels)
        value = below_top - tf.gather(tf.math.log(total), label)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return upstream - tf.exp(value) * tf.gather(tf.math.unsorted_segment_sum(upstream, label, labels), label)

        return value, gradient

    return log_softmax(tf.transpose(tf.cast(logits, tf.float32)))


def class_members(labels: tf.Tensor, layout: Layout) -> tf.Tensor:
    """Which samples are of which class: int32 labels [L, B] to bool [sum(num_classes), B]."""
    return tf.gather(labels, layout.column_label) == tf.constant(layout.column_class)[:, None]


def columns_of(labels: tf.Tensor, layout: Layout) -> tf.Tensor:
    """Column of every sample's class: labels [L, B] to int32 [L, B]; of a sample that is not annotated the label's first."""
    column = tf.maximum(labels, 0)
    return column if len(layout) == 1 else column + layout.offsets[:, None]


def compiled_by_xla() -> bool:
    """Whether this graph is traced for XLA, which wants every shape to be known and drops checks.

    TensorFlow has no public name for the question; its own Keras layers asked it in the same way.
    """
    return control_flow_util.GraphOrParentsInXlaContext(ops.get_default_graph())


def check_same_samples(targets: int | None, outputs: int | None) -> None:
    """Raises ValueError for targets and outputs of known, different numbers of samples, which could be broadcast in silence."""
    if None not in (targets, outputs) and targets != outputs:
        raise ValueError(f"y_true and y_pred must be of the same samples, received {targets} targets and {outputs} outputs")


def warn_of_signs(
    layout: Layout, not_annotated: np.ndarray, negative: np.ndarray, positive: np.ndarray, stacklevel: int = 2
) -> None:
    """Warns of binary labels that were 1 or -1 and never 0.

    Args:
        not_annotated, negative, positive: [L], how often a label was -1, 0 and 1.
    """
    signs = (np.asarray(layout.sizes) == 2) & (not_annotated > 0) & (positive > 0) & (negative == 0)
    if signs.any():
        warnings.warn(
            f"y_true: {signs.sum()} of {len(signs)} labels are 1 or -1 and never 0; -1 means not annotated, so nothing is"
            " learned of them: negatives are 0",
            stacklevel=stacklevel + 1,
        )


def length(tensor: tf.Tensor, axis: int) -> int | tf.Tensor:
    """A dimension: an int where the graph knows it, else a scalar tensor."""
    return tensor.shape[axis] if tensor.shape[axis] is not None else tf.shape(tensor)[axis]


def rows_of_labels(labels: tf.Tensor) -> tf.Tensor:
    """int32 [B, L] to [L, B]. As floats: TensorFlow logs an error for transposing integers on CPUs without AVX-512."""
    if labels.shape[1] == 1:
        return tf.reshape(labels, [1, -1])
    return tf.cast(tf.transpose(tf.cast(labels, tf.float32)), tf.int32)


def as_numbers(targets: Any, name: str = "y_true") -> tf.Tensor:
    """Targets as a tensor of numbers, truth values as 0 and 1; ValueError for any other type, such as texts."""
    targets = tf.convert_to_tensor(targets)
    if targets.dtype == tf.bool:
        return tf.cast(targets, tf.int32)
    if not (targets.dtype.is_integer or targets.dtype.is_floating):
        raise ValueError(
            f"{name} must hold the classes as numbers, received dtype {targets.dtype.name}: number them, as by"
            " keras.layers.StringLookup(num_oov_indices=0)"
        )
    return targets


def integer_labels(targets: tf.Tensor, layout: Layout, name: str = "y_true") -> tf.Tensor:
    """Sparse or one-hot targets to int32 [B, L].

    Args:
        targets: integers (of any numeric dtype, or bool) [B, L], or [B] for one label; or one-hot [B, sum(num_classes)], where a
            label whose columns are all 0 is not annotated. The width tells them apart: sum(num_classes) > L always.
        name: what the caller calls this argument, for the error.
    Raises:
        ValueError: neither of these shapes.
        tf.errors.InvalidArgumentError: a value outside [-1, num_classes - 1], or one-hot columns that are not 0 or 1 with
            at most one 1 per label. XLA drops such checks; there a wrong target makes the cross-entropy NaN.
    """
    targets = as_numbers(targets, name)
    if targets.shape.rank == 1 and len(layout) == 1:
        targets = targets[:, None]
    width = targets.shape[1] if targets.shape.rank == 2 else None
    sizes = np.asarray(layout.sizes, np.int32)
    if width == len(layout):
        labels = tf.cast(targets, tf.int32)
        # What is cut to a class stays what it was, if it was one; a number between two, too large a number or NaN does not.
        legal = tf.cast(tf.maximum(tf.minimum(labels, sizes - 1), -1), targets.dtype) == targets
        rule = f"class values must be whole numbers in [-1, num_classes - 1] (-1 = not annotated), num_classes={layout.sizes}"
    elif width == layout.width:
        hot = layout.pad(tf.cast(targets, tf.float32), 0.0)
        annotated = tf.reduce_max(hot, axis=-1) > 0
        labels = tf.where(annotated, tf.argmax(hot, axis=-1, output_type=tf.int32), -1)
        legal = tf.reduce_all((hot == 0) | (hot == 1), axis=-1) & (tf.reduce_sum(hot, axis=-1) <= 1)
        rule = "one-hot targets must be 0 or 1 with at most one 1 per label (soft targets have no class to rectify)"
    else:
        forms = f"[B, {len(layout)}] integers or [B, {layout.width}] one-hot" + (", or [B] integers" if len(layout) == 1 else "")
        raise ValueError(f"{name} must be {forms} for num_classes={layout.sizes}, received shape {targets.shape}")

    if compiled_by_xla():
        # Out of range is what cross-entropy answers with NaN.
        return tf.where(legal, labels, sizes)
    received = [f"{name}: {rule};", "received values from", tf.reduce_min(targets), "to", tf.reduce_max(targets)]
    if tf.executing_eagerly():
        tf.debugging.Assert(tf.reduce_all(legal), received)
        return labels
    # The bare operation: tf.debugging.Assert puts it into a condition, of twenty operations more.
    with tf.control_dependencies([tf.raw_ops.Assert(condition=tf.reduce_all(legal), data=received)]):
        return tf.identity(labels)


def class_logits(outputs: tf.Tensor, layout: Layout, from_logits: bool, name: str = "y_pred") -> tf.Tensor:
    """Model outputs to float32 logits [B, sum(num_classes)].

    Args:
        outputs: per-label softmax logits (or probabilities) [B, sum(num_classes)]; or, where every label is binary, one
            sigmoid logit (or probability of class 1) per label [B, L], which is the 2-way softmax over (0, z).
        from_logits: False when `outputs` are probabilities.
    """
    outputs = tf.cast(tf.convert_to_tensor(outputs), tf.float32)
    width = outputs.shape[1] if outputs.shape.rank == 2 else None
    sigmoid = layout.all_binary and width == len(layout)
    if not sigmoid and width != layout.width:
        forms = f"[B, {layout.width}]" + (f" or, with one sigmoid per label, [B, {len(layout)}]" if layout.all_binary else "")
        raise ValueError(f"{name} must be {forms} for num_classes={layout.sizes}, received shape {outputs.shape}")
    if from_logits:
        warn_of_probabilities(outputs, name)
    else:
        outputs = tf.clip_by_value(outputs, PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)
        outputs = tf.math.log(outputs) - (tf.math.log1p(-outputs) if sigmoid else 0.0)
    if sigmoid:
        outputs = tf.reshape(tf.stack([tf.zeros_like(outputs), outputs], axis=-1), [-1, layout.width])
    return outputs


_PASSED_ON = frozenset({"Identity", "Cast", "Reshape", "StridedSlice"})
"""Operations that leave probabilities what they are."""


def warn_of_probabilities(outputs: tf.Tensor, name: str) -> None:
    """Warns where outputs that are taken for logits come from a softmax or a sigmoid; in a graph only, as Keras's losses do."""
    # In eager mode a tensor does not know where it comes from.
    operation = getattr(outputs, "op", None) if not tf.executing_eagerly() else None
    while operation is not None and (operation.type in _PASSED_ON or operation.type == "ConcatV2"):
        # Of what is joined, the last part: features come first. The last input of a concatenation is its axis.
        operation = operation.inputs[-2 if operation.type == "ConcatV2" else 0].op
    if operation is not None and operation.type in ("Softmax", "Sigmoid"):
        warnings.warn(
            f"{name} must be logits with from_logits=True, received the output of a {operation.type.lower()}: take the activation"
            " out of the last layer, or pass from_logits=False",
            stacklevel=2,
        )


def split_features(
    outputs: tf.Tensor, layout: Layout, feature_shape: tuple[int, ...] | None, name: str = "y_pred"
) -> tuple[tf.Tensor | None, tf.Tensor]:
    """Takes apart what `JoinFeatures` joined: features [B, D] or [B, L, D] (None without `feature_shape`), and the rest."""
    if feature_shape is None:
        return None, outputs
    columns = int(np.prod(feature_shape))
    if outputs.shape.rank != 2 or outputs.shape[1] is None or outputs.shape[1] <= columns:
        raise ValueError(
            f"{name} must be [B, {columns} feature columns + logits] for feature_shape={feature_shape},"
            f" received shape {outputs.shape}"
        )
    return tf.reshape(outputs[:, :columns], [-1, *feature_shape]), outputs[:, columns:]


def checked_feature_shape(feature_shape: int | Sequence[int] | None, layout: Layout) -> tuple[int, ...] | None:
    """D to (D,); (D,) and (L, D) as they are; anything else is refused."""
    if feature_shape is None:
        return None
    shape = (feature_shape,) if isinstance(feature_shape, (int, np.integer)) else tuple(feature_shape)
    if not 1 <= len(shape) <= 2 or any(s < 1 for s in shape) or (len(shape) == 2 and shape[0] != len(layout)):
        raise ValueError(f"feature_shape must be D or (L, D) with L = {len(layout)} labels, received {feature_shape!r}")
    return tuple(int(s) for s in shape)


def check_feature_rank(shape: Sequence[int | None], layout: Layout, name: str = "features") -> None:
    """Raises ValueError unless a shape is that of features [B, D], shared by all labels, or [B, L, D]."""
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[1] != len(layout)):
        raise ValueError(f"{name} must be [B, D] or [B, {len(layout)}, D], received shape {shape}")
