"""Labels, logits and features for `class_rectification_loss`, and what counts as equal."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from crl_tf import class_rectification_loss

# Values: float32 has 24 bits, 6e-8 relative; a mean of distances of order 1 (probabilities, or margins up to pi) keeps 1e-5 with
# room to spare. Gradients: the same rounding times the steepest slope in the loss, 1 / (node spacing) = 50 for a histogram of 100
# nodes on [-1, 1], and softmax's own; 1e-4 of the largest entry. The finite differences themselves are good to about 1e-9.
VALUE_TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
GRADIENT_TOLERANCE = 1e-4

XDOMAIN_SIZES = [6, 9, 9, 12, 14, 20, 23, 30, 55]  # 9 labels, 178 classes in all


def value_and_gradient(labels, inputs, weights=None, **options):
    """L_crl [L] and the gradient of sum_j weights[j] * L_crl,j with respect to the inputs."""
    inputs = tf.convert_to_tensor(inputs, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = class_rectification_loss(labels, inputs, **options)
        total = tf.reduce_sum(value if weights is None else value * tf.constant(weights, tf.float32))
    gradient = tape.gradient(total, inputs)
    assert gradient is not None, "the loss is cut off from its inputs"
    return value.numpy(), gradient.numpy()


@dataclass
class Case:
    labels: np.ndarray
    num_classes: list[int]
    logits: np.ndarray
    features: np.ndarray
    options: dict = field(default_factory=dict)
    # "coordinates": finite differences at up to 40 coordinates; "directions": along 4 random directions (large cases);
    # "finite": there are ties, or saturated scores, so the loss has a kink here by construction: the value is compared, the
    # gradient only has to be finite; "zero": nothing is mined, the value and the gradient are exactly 0.
    gradient: str = "coordinates"


def random_case(seed, batch, num_classes, dim=5, skew=1.0, **rest):
    """Labels with skewed class frequencies, logits and features of order 1; everything distinct."""
    rng = np.random.default_rng(seed)
    columns = []
    for size in num_classes:
        frequency = 1.0 / (1 + np.arange(size)) ** skew
        columns.append(rng.choice(size, batch, p=frequency / frequency.sum()))
    labels = np.stack(columns, axis=1).astype(np.int32)
    logits = 1.5 * rng.standard_normal((batch, sum(num_classes)))
    features = rng.standard_normal((batch, len(num_classes), dim))
    return Case(labels, list(num_classes), logits.astype(np.float32), features.astype(np.float32), **rest)


def with_labels(case, *columns):
    case.labels = np.array(columns, np.int32).T
    assert case.labels.shape == (len(case.logits), len(case.num_classes))
    return case


def several_labels(options):
    return random_case(1, 24, [2, 5, 3], options=options)


def ties():
    """Every row of logits and features is one of four: scores and distances repeat, the distance 0 between positives too."""
    case = random_case(2, 20, [3, 2], gradient="finite", options={"kappa": 3})
    pool = np.random.default_rng(2).integers(0, 4, 20)
    case.logits = np.round(case.logits)[pool]
    case.features = np.round(case.features)[pool]
    return case


def unannotated():
    """-1 here and there, and a label without any annotation."""
    case = random_case(3, 24, [3, 4, 2])
    case.labels[np.random.default_rng(3).random((24, 3)) < 0.3] = -1
    case.labels[:, 1] = -1
    return case


def extreme_logits():
    case = random_case(4, 16, [2, 4], gradient="finite")
    case.logits = 1e4 * np.sign(case.logits)
    case.features = 1e4 * case.features
    return case


def masked_classes():
    """Logits of -inf, as people mask classes; kappa above the number of negatives."""
    case = random_case(22, 16, [2, 4], options={"kappa": 30}, gradient="finite")
    case.logits[[1, 5, 9], [1, 3, 0]] = -np.inf
    return case


def identical_rows():
    case = random_case(5, 12, [2, 4], gradient="finite")
    case.logits = np.repeat(case.logits[:1], 12, axis=0)
    case.features = np.repeat(case.features[:1], 12, axis=0)
    return case


def zero_features():
    """All features 0: the normalisation and every distance are at their singular point."""
    case = random_case(6, 12, [2, 4], gradient="finite")
    case.logits[:], case.features[:] = 0.0, 0.0
    return case


CASES = {
    "several-labels": lambda: several_labels({}),
    "kappa-none": lambda: several_labels({"kappa": None}),
    "kappa-1": lambda: several_labels({"kappa": 1}),
    "kappa-3": lambda: several_labels({"kappa": 3}),
    "rho-0.3": lambda: several_labels({"rho": 0.3}),
    "rho-1": lambda: several_labels({"rho": 1.0, "kappa": 3}),
    "scope-all": lambda: several_labels({"scope": "all", "kappa": 4}),
    "num-bins-7": lambda: several_labels({"num_bins": 7}),
    "num-bins-2": lambda: several_labels({"num_bins": 2}),
    "one-label": lambda: random_case(7, 20, [6]),
    "kappa-below-class-sizes": lambda: random_case(8, 72, [2, 3], options={"kappa": 25}, gradient="directions"),
    "batch-below-kappa": lambda: random_case(9, 7, [2, 3], options={"kappa": 25}),
    "unannotated": unannotated,
    "ties": ties,
    "extreme-logits": extreme_logits,
    "masked-classes": masked_classes,
    "identical-rows": identical_rows,
    "zero-features": zero_features,
    # Counts 5, 0, 3, 2 of n = 10: prefix 1 (0), 3 (2), 2 (5 <= 5); class 1 does not occur.
    "missing-class": lambda: with_labels(random_case(10, 10, [4]), [0, 0, 2, 0, 3, 2, 0, 3, 0, 2]),
    # Binary, 4 and 4 of n = 8: class 0 first (tie: lower index), 4 <= 4; class 1 makes 8 > 4.
    "half-half": lambda: with_labels(random_case(11, 8, [2]), [0, 1, 1, 0, 0, 1, 0, 1]),
    # Counts 1, 2, 5 of n = 8: class 0 is in the budget (1) but a singleton, class 1 is used (3 <= 4).
    "singleton-and-pair": lambda: with_labels(random_case(12, 8, [3]), [2, 1, 2, 0, 2, 1, 2, 2]),
    # Binary 7 and 1: class 1 is the minority and a singleton. 3-class 0, 8, 0. Nothing is left.
    "nothing-is-minority": lambda: with_labels(
        random_case(13, 8, [2, 3], gradient="zero"), [0, 0, 0, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]
    ),
    "one-sample": lambda: random_case(14, 1, [2, 3], gradient="zero"),
    "all-unannotated": lambda: with_labels(random_case(15, 6, [2, 3], gradient="zero"), [-1] * 6, [-1] * 6),
    # One class only. scope="minority": nothing (6 > 3). scope="all": positives without negatives.
    "single-class": lambda: with_labels(random_case(16, 6, [3], gradient="zero"), [1] * 6),
    "single-class-scope-all": lambda: with_labels(random_case(17, 6, [3], options={"scope": "all"}), [1] * 6),
    "40-binary-labels": lambda: random_case(201, 22, [2] * 40, gradient="directions"),
    "9-labels-178-classes": lambda: random_case(19, 40, XDOMAIN_SIZES, gradient="directions"),
}


# Good input: what bad input departs from.
GOOD = {"labels": np.array([[0, 1], [1, 2], [0, 0], [0, 1]]), "inputs": np.zeros((4, 5), np.float32), "num_classes": [2, 3]}
