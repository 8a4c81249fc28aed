"""The Class Rectification Loss as plain loops in float64: the reference that the TensorFlow losses are tested against.

Written from docs/spec.md alone (sections 1 to 5; the equation numbers are the paper's) and meant to be checked against it by eye:
one loop over labels, classes, anchors, positives, negatives, and nothing that is clever or fast.

`labels` are integers [B, L], -1 = not annotated; `num_classes` is a list of L class numbers; `inputs` are the concatenated
logits [B, sum(num_classes)] at the class level, the features [B, L, D] at the instance level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np


def softmax(logits: Iterable[float]) -> list[float]:
    """Eq. 1, over the classes of one label, for one sample."""
    logits = [float(z) for z in logits]
    top = max(logits)
    exponentials = [math.exp(z - top) for z in logits]
    return [e / sum(exponentials) for e in exponentials]


def log_softmax(logits: Iterable[float]) -> list[float]:
    """The logarithm of eq. 1, without the underflow of log(softmax)."""
    logits = [float(z) for z in logits]
    top = max(logits)
    log_sum = top + math.log(sum(math.exp(z - top) for z in logits))
    return [z - log_sum for z in logits]


def columns_of(num_classes: Sequence[int]) -> list[slice]:
    """The columns of each label in the concatenated logits."""
    slices, start = [], 0
    for size in num_classes:
        slices.append(slice(start, start + size))
        start += size
    return slices


def mean(values: Sequence[float]) -> float:
    """The mean; 0 over an empty set."""
    return sum(values) / len(values) if values else 0.0


def minority_of(column: Sequence[int], size: int, rho: float = 0.5, scope: str = "minority") -> list[int]:
    """Eq. 3 for one label: the minority classes that are used. `column` holds the labels of the batch, [B]."""
    counts = [0] * size
    for label in column:
        if label != -1:
            counts[label] += 1
    annotated = sum(counts)
    if scope == "all":  # Table 12
        candidates = list(range(size))
    else:
        candidates, cumulative = [], 0
        for c in sorted(range(size), key=lambda c: (counts[c], c)):  # ascending, ties by lower class index first
            cumulative += counts[c]
            if cumulative > rho * annotated + 1e-9:  # the longest prefix within the budget
                break
            candidates.append(c)
    return sorted(c for c in candidates if counts[c] >= 2)  # footnote 2


def oracle_minority(labels: np.ndarray, num_classes: Sequence[int], rho: float = 0.5, scope: str = "minority") -> np.ndarray:
    """`minority_classes`: bool [L, max(num_classes)]."""
    result = np.zeros((len(num_classes), max(num_classes)), bool)
    for j, size in enumerate(num_classes):
        for c in minority_of([int(a) for a in labels[:, j]], size, rho, scope):
            result[j, c] = True
    return result


def take(order: list[int], kappa: int | None) -> list[int]:
    """The first kappa; all of them where nothing is mined."""
    return order if kappa is None else order[:kappa]


def class_level_pairs(
    column: list[int], scores: list[list[float]], minority: list[int], kappa: int | None
) -> list[tuple[list[float], list[float]]]:
    """Eqs. 4, 5 and 10: for every anchor its distances to its positives, and to its negatives.

    scores[i][c] = p[i, j, c]. One mined set for each class, shared by its anchors; an anchor is left out of its own positives.
    """
    batch = range(len(column))
    anchors = []
    for c in minority:
        same = [i for i in batch if column[i] == c]
        other = [i for i in batch if column[i] not in (c, -1)]
        positives = take(sorted(same, key=lambda i: (scores[i][c], i)), kappa)  # lowest score first, ties: lower index
        negatives = take(sorted(other, key=lambda i: (-scores[i][c], i)), kappa)  # highest score first
        for a in same:
            to_positives = [abs(scores[a][c] - scores[i][c]) for i in positives if i != a]
            to_negatives = [scores[a][c] - scores[i][c] for i in negatives]  # signed
            anchors.append((to_positives, to_negatives))
    return anchors


def euclidean(x: Sequence[float], y: Sequence[float]) -> float:
    """Eq. 11."""
    return math.sqrt(sum((u - v) ** 2 for u, v in zip(x, y, strict=True)))


def instance_level_pairs(
    column: list[int], features: list[list[float]], minority: list[int], kappa: int | None
) -> list[tuple[list[float], list[float]]]:
    """Eqs. 6, 7 and 11: as `class_level_pairs`, each anchor with positives and negatives of its own."""
    batch = range(len(column))
    anchors = []
    for c in minority:
        for a in batch:
            if column[a] != c:
                continue
            distance = {i: euclidean(features[a], features[i]) for i in batch if column[i] != -1}
            same = [i for i in batch if column[i] == c and i != a]  # the anchor is dropped before choosing
            other = [i for i in batch if column[i] not in (c, -1)]
            positives = take(sorted(same, key=lambda i: (-distance[i], i)), kappa)  # farthest first
            negatives = take(sorted(other, key=lambda i: (distance[i], i)), kappa)  # nearest first
            anchors.append(([distance[i] for i in positives], [distance[i] for i in negatives]))
    return anchors


def averaged(terms_of_anchors: list[list[float]], normalization: str) -> float:
    """One mean over the terms of all anchors, or the sum over anchors of the mean of each."""
    if normalization == "anchors":
        return sum(mean(terms) for terms in terms_of_anchors)
    return mean([term for terms in terms_of_anchors for term in terms])


def relative(anchors: list[tuple[list[float], list[float]]], margin: float, normalization: str = "triplets") -> float:
    """Eq. 9: over the triplets (a, +, -) of a label."""
    hinges = []
    for to_positives, to_negatives in anchors:
        hinges.append([])
        for d_pos in to_positives:
            for d_neg in to_negatives:
                hinges[-1].append(max(0.0, margin + d_pos - d_neg))
    return averaged(hinges, normalization)


def absolute(
    anchors: list[tuple[list[float], list[float]]], margin: float, normalization: str = "triplets", power: int = 2
) -> float:
    """Eq. 13: half of what the positive pairs give, and half of what the negative pairs give. power: of d(a, +)."""
    pulls, hinges = [], []
    for to_positives, to_negatives in anchors:
        pulls.append([d_pos**power for d_pos in to_positives])
        hinges.append([max(margin - d_neg, 0.0) ** 2 for d_neg in to_negatives])
    return 0.5 * (averaged(pulls, normalization) + averaged(hinges, normalization))


def histogram(distances: list[float], low: float, high: float, num_bins: int) -> list[float]:
    """Eqs. 14 and 15: every distance shared linearly between its two neighbouring nodes, summing to 1."""
    step = (high - low) / (num_bins - 1)
    nodes = [0.0] * num_bins
    for distance in distances:
        position = (min(max(distance, low), high) - low) / step  # measured in nodes, 0 .. num_bins - 1
        left = min(math.floor(position), num_bins - 2)
        nodes[left] += 1.0 - (position - left)
        nodes[left + 1] += position - left
    return [node / len(distances) for node in nodes]


def distribution(anchors: list[tuple[list[float], list[float]]], low: float, high: float, num_bins: int) -> float:
    """Eq. 16: sum over t of h+[t] * sum over k <= t of h-[k]."""
    all_positive = [d for to_positives, _ in anchors for d in to_positives]
    all_negative = [d for _, to_negatives in anchors for d in to_negatives]
    if not all_positive or not all_negative:
        return 0.0
    h_pos = histogram(all_positive, low, high, num_bins)
    h_neg = histogram(all_negative, low, high, num_bins)
    total = 0.0
    for t in range(num_bins):
        for k in range(t + 1):
            total += h_pos[t] * h_neg[k]
    return total


def normalised(feature: list[float]) -> list[float]:
    """A feature vector over its L2 norm; the zero vector stays."""
    norm = math.sqrt(sum(x * x for x in feature))
    return [x / norm for x in feature] if norm > 0 else list(feature)


def oracle_crl(
    labels: np.ndarray,
    inputs: np.ndarray,
    num_classes: Sequence[int],
    level: str = "class",
    comparison: str = "relative",
    kappa: int | None = 25,
    rho: float = 0.5,
    margin: float | None = None,
    scope: str = "minority",
    num_bins: int = 100,
    normalization: str = "triplets",
    squared_positives: bool = True,
) -> np.ndarray:
    """L_crl of every label, float64 [L]."""
    labels, inputs = np.asarray(labels), np.asarray(inputs, np.float64)
    result = []
    for j, (size, columns) in enumerate(zip(num_classes, columns_of(num_classes), strict=True)):
        column = [int(a) for a in labels[:, j]]
        minority = minority_of(column, size, rho, scope)
        if level == "class":
            scores = [softmax(row) for row in inputs[:, columns]]
            anchors = class_level_pairs(column, scores, minority, kappa)
            margins = {"relative": 0.5, "absolute": 0.5}
            low, high = -1.0, 1.0
        else:
            features = inputs[:, j, :].tolist()
            if comparison == "distribution":
                features = [normalised(feature) for feature in features]  # before mining as well
            anchors = instance_level_pairs(column, features, minority, kappa)
            margins = {"relative": 2 * math.pi / size, "absolute": 1.0}  # eq. 12
            low, high = 0.0, 2.0
        if comparison == "relative":
            result.append(relative(anchors, margins["relative"] if margin is None else margin, normalization))
        elif comparison == "absolute":
            power = 2 if squared_positives else 1
            result.append(absolute(anchors, margins["absolute"] if margin is None else margin, normalization, power))
        else:
            result.append(distribution(anchors, low, high, num_bins))
    return np.array(result, np.float64)


def oracle_cross_entropy(labels: np.ndarray, logits: np.ndarray, num_classes: Sequence[int]) -> np.ndarray:
    """Eq. 2, its per-label term: the mean of -log p[i, j, a] over the annotated samples, float64 [L]."""
    result = []
    for j, columns in enumerate(columns_of(num_classes)):
        terms = []
        for i in range(len(labels)):
            if labels[i, j] != -1:
                terms.append(-log_softmax(logits[i, columns])[int(labels[i, j])])
        result.append(mean(terms))
    return np.array(result, np.float64)


def oracle_objective(
    labels: np.ndarray,
    logits: np.ndarray,
    num_classes: Sequence[int],
    alpha: Sequence[float],
    features: np.ndarray | None = None,
    level: str = "class",
    **options: object,
) -> float:
    """Eq. 8: the sum over labels of alpha_j * L_crl,j + (1 - alpha_j) * L_ce,j. `features` [B, L, D] at the instance level."""
    rectification = oracle_crl(labels, logits if level == "class" else features, num_classes, level, **options)
    cross_entropy = oracle_cross_entropy(labels, logits, num_classes)
    total = 0.0
    for j in range(len(num_classes)):
        total += alpha[j] * rectification[j] + (1.0 - alpha[j]) * cross_entropy[j]
    return float(total)


def oracle_gate(
    labels: np.ndarray, inputs: np.ndarray, num_classes: Sequence[int], level: str, comparison: str, **options: object
) -> list[float]:
    """max(0, 1 - L_crl,j / v_j) of every label; v_j: L_crl per term where all scores are equal.

    L_crl,j is taken per triplet, or where it is a sum over anchors, per anchor (with kappa > 1 every anchor has a triplet).
    """
    per_anchor = options.get("normalization") == "anchors"
    losses = oracle_crl(labels, inputs, num_classes, level, comparison, **options)
    gates = []
    for j, size in enumerate(num_classes):
        margin = 0.5 if level == "class" else {"relative": 2 * math.pi / size, "absolute": 1.0}[comparison]
        value = margin if comparison == "relative" else 0.5 * margin**2
        loss = losses[j]
        if per_anchor:
            column = [int(a) for a in labels[:, j]]
            minority = minority_of(column, size)
            loss /= max(1, sum(1 for a in column if a in minority and a != -1))
        gates.append(max(0.0, 1.0 - loss / value))
    return gates


def oracle_alpha(counts: Sequence[Sequence[int]], eta: float) -> list[float]:
    """alpha_j = eta * Omega_j, clipped to [0, 1]; Omega_j = sum_k (h_max - h_k) / (|Z_j| h_max)."""
    result = []
    for label_counts in counts:
        largest = max(label_counts)
        omega = sum(largest - h for h in label_counts) / (len(label_counts) * largest)
        result.append(min(max(eta * omega, 0.0), 1.0))
    return result


def finite_difference_gradient(
    f: Callable[[np.ndarray], float], x: np.ndarray, eps: float = 1e-6, coordinates: Iterable[tuple[int, ...]] | None = None
) -> np.ndarray:
    """Central differences in float64: at the given coordinates (one number each), or at all of them (the shape of x)."""
    x = np.asarray(x, np.float64)
    wanted = list(np.ndindex(*x.shape)) if coordinates is None else list(coordinates)
    slopes = []
    for index in wanted:
        up, down = x.copy(), x.copy()
        up[index] += eps
        down[index] -= eps
        slopes.append((f(up) - f(down)) / (2 * eps))
    return np.array(slopes).reshape(x.shape) if coordinates is None else np.array(slopes)


def finite_difference_slope(f: Callable[[np.ndarray], float], x: np.ndarray, direction: np.ndarray, eps: float = 1e-6) -> float:
    """The central difference of f at x along one direction."""
    x = np.asarray(x, np.float64)
    return (f(x + eps * direction) - f(x - eps * direction)) / (2 * eps)
