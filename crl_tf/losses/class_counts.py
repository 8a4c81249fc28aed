"""How many training images each class has, as losses take it: checked, and laid out like the columns of the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crl_tf.layout import Layout
from crl_tf.losses.by_label import ByLabelLoss


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
