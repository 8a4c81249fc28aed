"""Labels, logits and features for `CRL`, and what counts as equal."""

from __future__ import annotations

import numpy as np
from oracle import columns_of, softmax

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}  # float32, as in rectification_cases.py


def batch_of(seed, batch, num_classes, dim=5, unannotated=0.0):
    """Labels [B, L] with skewed class frequencies, logits [B, sum], features [B, L, D]."""
    rng = np.random.default_rng(seed)
    columns = []
    for size in num_classes:
        frequency = 1.0 / (1 + np.arange(size))
        columns.append(rng.choice(size, batch, p=frequency / frequency.sum()))
    labels = np.stack(columns, axis=1).astype(np.int32)
    labels[rng.random(labels.shape) < unannotated] = -1
    logits = 1.5 * rng.standard_normal((batch, sum(num_classes))).astype(np.float32)
    features = rng.standard_normal((batch, len(num_classes), dim)).astype(np.float32)
    return labels, logits, features


def probabilities_of(logits, num_classes):
    return np.array([np.concatenate([softmax(row[columns]) for columns in columns_of(num_classes)]) for row in logits])


def one_hot(labels, num_classes):
    return np.concatenate([np.eye(size, dtype=np.float32)[labels[:, j]] for j, size in enumerate(num_classes)], axis=1)
