"""`class_rectification_loss`, `minority_classes` against SPEC.md: hand arithmetic, a brute-force oracle, finite differences."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import tensorflow as tf
from oracle import (
    class_level_pairs,
    columns_of,
    finite_difference_gradient,
    finite_difference_slope,
    instance_level_pairs,
    minority_of,
    normalised,
    oracle_crl,
    oracle_minority,
    softmax,
)

from crl_tf import class_rectification_loss, minority_classes

VARIANTS = [(level, comparison) for level in ("class", "instance") for comparison in ("relative", "absolute", "distribution")]
every_variant = pytest.mark.parametrize(("level", "comparison"), VARIANTS, ids=["-".join(variant) for variant in VARIANTS])

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


def logits_of(*probabilities):
    """Binary logits (0, z) whose softmax gives class 1 these probabilities."""
    return np.array([[0.0, math.log(p / (1 - p))] for p in probabilities], np.float32)


# ---------------------------------------------------------------------------------------------------------------------------
# The battery: every case with every variant.


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


@every_variant
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_the_oracle(name, level, comparison):
    case = CASES[name]()
    inputs = case.logits if level == "class" else case.features
    options = {"level": level, "comparison": comparison, **case.options}
    weights = 1.0 + 0.37 * np.arange(len(case.num_classes)) / len(case.num_classes)  # tells the labels apart in the gradient

    value, gradient = value_and_gradient(case.labels, inputs, weights, num_classes=case.num_classes, **options)
    expected = oracle_crl(case.labels, inputs, case.num_classes, **options)
    assert value.shape == (len(case.num_classes),) and value.dtype == np.float32
    np.testing.assert_allclose(value, expected, **VALUE_TOLERANCE)
    assert gradient.shape == inputs.shape and np.isfinite(gradient).all()

    def f(x):
        return float(weights @ oracle_crl(case.labels, x, case.num_classes, **options))

    rng = np.random.default_rng(0)
    if case.gradient == "zero":
        assert (value == 0).all() and (gradient == 0).all()
    elif case.gradient == "coordinates":
        every = list(np.ndindex(*inputs.shape))
        some = [every[k] for k in rng.permutation(len(every))[:40]]
        slopes = finite_difference_gradient(f, inputs, coordinates=some)
        tolerance = GRADIENT_TOLERANCE * np.abs(slopes).max() + 1e-7
        np.testing.assert_allclose([gradient[index] for index in some], slopes, rtol=0, atol=tolerance)
    elif case.gradient == "directions":
        for _ in range(4):
            direction = rng.standard_normal(inputs.shape)
            # Thousands of distances move at once: a step of 1e-8 keeps each on its side of its histogram nodes and hinge.
            slope = finite_difference_slope(f, inputs, direction, eps=1e-8)
            assert float((gradient * direction).sum()) == pytest.approx(
                slope, rel=GRADIENT_TOLERANCE, abs=GRADIENT_TOLERANCE * float(np.linalg.norm(gradient))
            )


@pytest.mark.parametrize("name", CASES)
def test_the_battery_says_what_it_means_to_say(name):
    """The cases are what their names promise: those that should compare something do, and only those."""
    case = CASES[name]()
    expected = oracle_crl(case.labels, case.logits, case.num_classes, comparison="absolute", **case.options)
    assert (expected > 0).any() != (case.gradient == "zero")
    if case.gradient in ("coordinates", "directions"):
        assert distance_to_the_nearest_node(case) > 1e-6  # else float32 and float64 may differentiate on two sides of a kink


def distance_to_the_nearest_node(case):
    """Of all distances that the two distribution losses put into histograms."""
    num_bins, kappa = case.options.get("num_bins", 100), case.options.get("kappa", 25)
    nearest = math.inf
    for j, columns in enumerate(columns_of(case.num_classes)):
        column = case.labels[:, j].tolist()
        rest = {key: case.options[key] for key in ("rho", "scope") if key in case.options}
        minority = minority_of(column, case.num_classes[j], **rest)
        scores = [softmax(row) for row in case.logits[:, columns]]
        directions = [normalised(feature) for feature in case.features[:, j].astype(np.float64).tolist()]
        for low, anchors in (
            (-1.0, class_level_pairs(column, scores, minority, kappa)),
            (0.0, instance_level_pairs(column, directions, minority, kappa)),
        ):
            for distance in [d for pair in anchors for distances in pair for d in distances]:
                position = (distance - low) / 2 * (num_bins - 1)
                nearest = min(nearest, abs(position - round(position)) * 2 / (num_bins - 1))
    return nearest


@every_variant
def test_margin(level, comparison):
    case = random_case(20, 18, [2, 4])
    inputs = case.logits if level == "class" else 0.3 * case.features  # distances about 1: every margin below opens some hinge
    options = {"num_classes": case.num_classes, "level": level, "comparison": comparison}
    if comparison == "distribution":
        with pytest.raises(ValueError, match="margin"):
            class_rectification_loss(case.labels, inputs, margin=0.5, **options)
        return
    default = class_rectification_loss(case.labels, inputs, **options).numpy()
    for margin in (0.0, 0.2, 1.7):
        value, gradient = value_and_gradient(case.labels, inputs, margin=margin, **options)
        np.testing.assert_allclose(value, oracle_crl(case.labels, inputs, margin=margin, **options), **VALUE_TOLERANCE)
        assert np.isfinite(gradient).all()
        assert np.abs(value - default).max() > 1e-3
    # SPEC's defaults, given by hand: 0.5 at the class level; 2 pi / |Z_j| (eq. 12) or 1 at the instance level.
    for j, size in enumerate(case.num_classes):
        given = 0.5 if level == "class" else 2 * math.pi / size if comparison == "relative" else 1.0
        value = class_rectification_loss(case.labels, inputs, margin=given, **options).numpy()
        assert value[j] == pytest.approx(default[j], abs=1e-6)


# ---------------------------------------------------------------------------------------------------------------------------
# By hand.

# Class level. Class 1 has the samples 0 and 1, p = 0.6 and 0.8; 2 <= 0.5 * 5: the minority. Class 0: p = 0.1, 0.3, 0.5.
# kappa = 2: positives {0, 1}, negatives the highest two, 0.5 and 0.3.
#   anchor 0 (0.6): d+ = |0.6 - 0.8| = 0.2; d- = 0.6 - 0.5 = 0.1 and 0.6 - 0.3 = 0.3
#   anchor 1 (0.8): d+ = 0.2;               d- = 0.8 - 0.5 = 0.3 and 0.8 - 0.3 = 0.5
# kappa = 1: positives {0} (0.6 is the lowest), negatives {4} (0.5). Anchor 0 would be its own positive and has none.
#   anchor 0: d- = 0.1; anchor 1: d+ = 0.2, d- = 0.3
CLASS_LABELS = np.array([1, 1, 0, 0, 0])
CLASS_LOGITS = logits_of(0.6, 0.8, 0.1, 0.3, 0.5)
# The histograms with 5 nodes -1, -1/2, 0, 1/2, 1:
# kappa = 2: 0.2 = 0.6 of node 0 and 0.4 of node 1/2, twice: h+ = (0, 0, 0.6, 0.4, 0). Of the four d-, 0.1 gives (0.8, 0.2),
#   0.3 gives (0.4, 0.6) twice, 0.5 gives (0, 1): h- = (0, 0, 1.6 / 4, 2.4 / 4, 0), cumulated (0, 0, 0.4, 1, 1):
#   0.6 * 0.4 + 0.4 * 1.
# kappa = 1: h+ the same; h- = ((0.8 + 0.4) / 2, (0.2 + 0.6) / 2) = (0.6, 0.4): 0.6 * 0.6 + 0.4 * 1.
CLASS_BY_HAND = {
    ("relative", 2): ((0.5 + 0.2 - 0.1) + (0.5 + 0.2 - 0.3) + (0.5 + 0.2 - 0.3) + (0.5 + 0.2 - 0.5)) / 4,  # 0.4
    ("relative", 1): 0.5 + 0.2 - 0.3,
    ("absolute", 2): ((0.2**2 + 0.2**2) / 2 + (0.4**2 + 0.2**2 + 0.2**2 + 0**2) / 4) / 2,  # 0.05
    ("absolute", 1): (0.2**2 + (0.4**2 + 0.2**2) / 2) / 2,  # 0.07
    ("distribution", 2): 0.6 * 0.4 + 0.4 * 1,  # 0.64
    ("distribution", 1): 0.6 * 0.6 + 0.4 * 1,  # 0.76
}

# Instance level. The minority class 1: (0, 0) and (3, 4), 5 apart. The others: (0, 1/2), (3, 0), (0, -2).
#   anchor 0: d- = 1/2, 3, 2; the nearest two 1/2 and 2
#   anchor 1: d- = sqrt(9 + 12.25) = sqrt(21.25), 4, sqrt(9 + 36); the nearest two 4 and sqrt(21.25)
INSTANCE_LABELS = np.array([1, 1, 0, 0, 0])
INSTANCE_FEATURES = np.array([[0, 0], [3, 4], [0, 0.5], [3, 0], [0, -2]], np.float32)
# Distribution: directions (1, 0) and (0, 1), sqrt(2) apart; the others (-1, 0), (0.6, 0.8), (0, -1). Their lengths must not
# matter: before the normalisation sample 2 would be nearer to anchor 0 than sample 3.
#   anchor 0: d- = 2, sqrt(0.4^2 + 0.8^2) = sqrt(0.8), sqrt(2); anchor 1: d- = sqrt(2), sqrt(0.6^2 + 0.2^2) = sqrt(0.4), 2
# kappa = 2, nodes 0, 1, 2: h+ = (0, 2 - r, r - 1), r = sqrt(2). h- over sqrt(0.8), r, sqrt(0.4), r: node 2 gets 2 (r - 1) of 4;
#   cumulated (., 1 - (r - 1) / 2, 1): (2 - r) * (1 - (r - 1) / 2) + (r - 1).
# kappa = 1: only sqrt(0.8) and sqrt(0.4), all below node 1: cumulated (., 1, 1): (2 - r) + (r - 1) = 1.
DIRECTIONS = np.array([[2, 0], [0, 3], [-1, 0], [3, 4], [0, -7]], np.float32)
R = math.sqrt(2)
INSTANCE_BY_HAND = {
    ("relative", 2): math.pi + 5 - (0.5 + 2 + 4 + math.sqrt(21.25)) / 4,  # margin 2 pi / 2; every hinge is open
    ("relative", 1): math.pi + 5 - (0.5 + 4) / 2,
    ("absolute", 2): (25 + (0.5**2 + 0 + 0 + 0) / 4) / 2,  # margin 1; 12.53125
    ("absolute", 1): (25 + (0.5**2 + 0) / 2) / 2,  # 12.5625
    ("distribution", 2): (2 - R) * (1 - (R - 1) / 2) + (R - 1),
    ("distribution", 1): 1.0,
}


@every_variant
@pytest.mark.parametrize("kappa", [1, 2])
def test_by_hand(level, comparison, kappa):
    if level == "class":
        labels, inputs, num_bins, expected = CLASS_LABELS, CLASS_LOGITS, 5, CLASS_BY_HAND[comparison, kappa]
    else:
        inputs = DIRECTIONS if comparison == "distribution" else INSTANCE_FEATURES
        labels, num_bins, expected = INSTANCE_LABELS, 3, INSTANCE_BY_HAND[comparison, kappa]
    options = {"level": level, "comparison": comparison, "kappa": kappa, "num_bins": num_bins}
    value = class_rectification_loss(labels, inputs, num_classes=2, **options).numpy()
    np.testing.assert_allclose(value, [expected], **VALUE_TOLERANCE)
    # ... and so does the oracle.
    seen = oracle_crl(labels[:, None], inputs if level == "class" else inputs[:, None, :], [2], **options)
    np.testing.assert_allclose(seen, [expected], rtol=0, atol=1e-6)  # the logits are rounded to float32


@pytest.mark.parametrize(
    ("comparison", "expected"),
    # One class, p = 0.6, 0.8, 0.5, scope="all": no negatives. d+ over the ordered pairs: 0.2, 0.1, 0.3, each twice.
    [("relative", 0.0), ("absolute", (0.2**2 + 0.1**2 + 0.3**2) / 3 / 2), ("distribution", 0.0)],
)
def test_a_single_class_with_scope_all_by_hand(comparison, expected):
    value = class_rectification_loss([1, 1, 1], logits_of(0.6, 0.8, 0.5), num_classes=2, comparison=comparison, scope="all")
    np.testing.assert_allclose(value, [expected], **VALUE_TOLERANCE)


def test_anchors_of_all_classes_share_one_mean_by_hand():
    """Counts 2, 3, 5 of n = 10: classes 0 and 1 are minorities (2, 5 <= 5). The triplets of both: one mean."""
    labels = np.array([0, 0, 1, 1, 1, 2, 2, 2, 2, 2])
    # On a line. Class 0 at 0 and 1; class 1 at 100, 101, 102; class 2 far away, 1000 and more. kappa = 1.
    positions = np.array([0, 1, 100, 101, 102, 1000, 1001, 1002, 1003, 1004], np.float32)
    # margin 98.5. Class 0: anchor 0: d+ 1, d- 100: 98.5 + 1 - 100 < 0; anchor 1: d+ 1, d- 99: 0.5.
    # Class 1: anchors 100, 101, 102: d+ 2, 1, 2; d- 99, 100, 101 (to sample 1): 98.5 + 2 - 99 = 1.5; 98.5 + 1 - 100 < 0;
    # 98.5 + 2 - 101 < 0.
    value = class_rectification_loss(labels, positions[:, None], num_classes=3, level="instance", kappa=1, margin=98.5)
    np.testing.assert_allclose(value, [(0 + 0.5 + 1.5 + 0 + 0) / 5], **VALUE_TOLERANCE)


# ---------------------------------------------------------------------------------------------------------------------------
# The choice.


def test_no_gradient_flows_through_the_choice_class_level():
    """kappa = 1 by hand: L = 0.5 + |p1 - p0| - (p1 - p4) = 0.5 - p0 + p4, as p1 > p0: only the positive and the negative."""
    _, gradient = value_and_gradient(CLASS_LABELS, CLASS_LOGITS, num_classes=2, kappa=1)
    expected = np.zeros((5, 2))
    expected[0] = -0.6 * 0.4 * np.array([-1, 1])  # d p0 / d z = p (1 - p) = 0.24
    expected[4] = 0.5 * 0.5 * np.array([-1, 1])
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert (gradient[2:4] == 0).all()  # neither chosen nor an anchor: exactly nothing


def test_no_gradient_flows_through_the_choice_instance_level():
    """kappa = 1, absolute: L = (25 + (0.25 + 0) / 2) / 2; samples 3 (chosen, hinge closed) and 4 (not chosen) get nothing."""
    _, gradient = value_and_gradient(
        INSTANCE_LABELS, INSTANCE_FEATURES, num_classes=2, level="instance", comparison="absolute", kappa=1
    )
    # P+: mean of |f0 - f1|^2 twice: d/df0 of 1/2 * |f0 - f1|^2 = f0 - f1 = (-3, -4). P-: 1/2 * 1/2 * (1 - |f0 - f2|)^2 with
    # f0 - f2 = (0, -1/2): d/df0 = -1/2 * (1 - 1/2) * (0, -1) = (0, 1/4).
    expected = np.array([[-3, -4 + 0.25], [3, 4], [0, -0.25], [0, 0], [0, 0]])
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
    assert (gradient[3:] == 0).all()


@every_variant
def test_a_tie_goes_to_the_lower_batch_index(level, comparison):
    """Samples 2 and 3 are the same hard negative, twice. kappa = 1 takes the first, so the second gets exactly no gradient."""
    labels = np.array([1, 1, 0, 0, 0, 0])
    if level == "class":
        inputs = logits_of(0.6, 0.8, 0.5, 0.5, 0.2, 0.3)
    else:
        inputs = np.array([[1, 0], [0.25, 1], [0.75, 0.5], [0.75, 0.5], [-8, 1], [9, -9]], np.float32)
    options = {"num_classes": 2, "level": level, "comparison": comparison, "kappa": 1, "num_bins": 2}
    for order in ([0, 1, 2, 3, 4, 5], [4, 2, 5, 1, 3, 0]):
        _, gradient = value_and_gradient(labels[order], inputs[order], **options)
        gradient = gradient[np.argsort(order)]
        assert np.abs(gradient[2]).max() > 1e-3
        assert (gradient[3:] == 0).all()


@every_variant
def test_an_unannotated_sample_takes_no_part(level, comparison):
    """As if the sample were not there, and exactly no gradient for it."""
    case = random_case(21, 16, [3])
    out = np.array([2, 5, 11])
    case.labels[out] = -1
    kept = np.setdiff1d(np.arange(16), out)
    inputs = case.logits if level == "class" else case.features
    options = {"num_classes": 3, "level": level, "comparison": comparison, "kappa": 4}
    value, gradient = value_and_gradient(case.labels, inputs, **options)
    without, gradient_without = value_and_gradient(case.labels[kept], inputs[kept], **options)
    assert value[0] > 0
    np.testing.assert_allclose(value, without, rtol=1e-6)
    np.testing.assert_allclose(gradient[kept], gradient_without, atol=1e-6)
    assert (gradient[out] == 0).all()


@every_variant
def test_labels_do_not_mix(level, comparison):
    """Each label of a batch has the loss it has alone."""
    case = random_case(22, 20, [4, 2, 3])
    options = {"level": level, "comparison": comparison, "kappa": 5}
    together = class_rectification_loss(
        case.labels, case.logits if level == "class" else case.features, num_classes=case.num_classes, **options
    ).numpy()
    for j, columns in enumerate(columns_of(case.num_classes)):
        inputs = case.logits[:, columns] if level == "class" else case.features[:, j]
        alone = class_rectification_loss(case.labels[:, j], inputs, num_classes=case.num_classes[j], **options).numpy()
        assert alone.shape == (1,)
        np.testing.assert_allclose(together[j], alone[0], rtol=1e-5)


@every_variant
def test_the_order_of_the_batch_does_not_matter(level, comparison):
    case = random_case(23, 24, [2, 5])
    inputs = case.logits if level == "class" else case.features
    order = np.random.default_rng(23).permutation(24)
    options = {"num_classes": case.num_classes, "level": level, "comparison": comparison, "kappa": 4}
    value, gradient = value_and_gradient(case.labels, inputs, **options)
    permuted, gradient_permuted = value_and_gradient(case.labels[order], inputs[order], **options)
    np.testing.assert_allclose(permuted, value, rtol=1e-5)
    np.testing.assert_allclose(gradient_permuted, gradient[order], atol=1e-6 + 1e-4 * np.abs(gradient).max())


# ---------------------------------------------------------------------------------------------------------------------------
# The three ways to run it.


@every_variant
def test_eager_graph_and_xla_agree(level, comparison):
    case = random_case(24, 14, [2, 4, 3])
    case.labels[3, 1] = -1
    inputs = tf.constant(case.logits if level == "class" else case.features)
    labels = tf.constant(case.labels)

    def step(labels, inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = class_rectification_loss(
                labels, inputs, num_classes=case.num_classes, level=level, comparison=comparison, kappa=4
            )
            total = tf.reduce_sum(value)
        return value, tape.gradient(total, inputs)

    value, gradient = step(labels, inputs)
    assert (value.numpy() > 0).all()
    for compiled in (tf.function(step), tf.function(step, jit_compile=True)):
        value_compiled, gradient_compiled = compiled(labels, inputs)
        np.testing.assert_allclose(value_compiled, value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient_compiled, gradient, rtol=0, atol=1e-4 * np.abs(gradient).max())


@every_variant
def test_the_batch_size_may_be_unknown(level, comparison):
    num_classes = [2, 4]
    shape = [None, 6] if level == "class" else [None, 2, 5]

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.int32), tf.TensorSpec(shape, tf.float32)])
    def loss(labels, inputs):
        return class_rectification_loss(labels, inputs, num_classes=num_classes, level=level, comparison=comparison, kappa=5)

    for batch in (1, 3, 19):  # below and above kappa
        case = random_case(25, batch, num_classes)
        inputs = case.logits if level == "class" else case.features
        expected = oracle_crl(case.labels, inputs, num_classes, level, comparison, kappa=5)
        value = loss(case.labels, inputs)
        assert value.shape == (2,)
        np.testing.assert_allclose(value, expected, **VALUE_TOLERANCE)
    assert loss.experimental_get_tracing_count() == 1


def graph_operations(level, comparison, num_classes):
    """The operations of the loss and its gradient, those inside nested functions included."""
    shape = [32, sum(num_classes)] if level == "class" else [32, len(num_classes), 6]

    @tf.function
    def step(labels, inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = class_rectification_loss(labels, inputs, num_classes=num_classes, level=level, comparison=comparison)
            total = tf.reduce_sum(value)
        return value, tape.gradient(total, inputs)

    concrete = step.get_concrete_function(tf.TensorSpec([32, len(num_classes)], tf.int32), tf.TensorSpec(shape, tf.float32))
    definition = concrete.graph.as_graph_def()
    return len(definition.node) + sum(len(function.node_def) for function in definition.library.function)


@every_variant
def test_the_graph_does_not_grow_with_labels_or_classes(level, comparison):
    """No operation per label or class: 9 labels of 178 classes, or 30 labels, take as many (to within 5) as 3 labels of 9."""
    small = graph_operations(level, comparison, [2, 3, 4])
    assert abs(graph_operations(level, comparison, XDOMAIN_SIZES) - small) <= 5
    assert abs(graph_operations(level, comparison, [2, 3] * 15) - small) <= 5


# ---------------------------------------------------------------------------------------------------------------------------
# What it takes.


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8"])
def test_any_integer_labels(dtype):
    case = random_case(26, 16, [3, 2])
    expected = oracle_crl(case.labels, case.logits, case.num_classes)
    value = class_rectification_loss(case.labels.astype(dtype), case.logits, num_classes=case.num_classes)
    np.testing.assert_allclose(value, expected, **VALUE_TOLERANCE)


def test_labels_may_leave_out_the_label_axis():
    case = random_case(27, 16, [4])
    flat = class_rectification_loss(case.labels[:, 0], case.logits, num_classes=4).numpy()
    column = class_rectification_loss(case.labels, case.logits, num_classes=[4]).numpy()
    assert flat.shape == column.shape == (1,)
    np.testing.assert_array_equal(flat, column)


@pytest.mark.parametrize("comparison", ["relative", "absolute", "distribution"])
def test_features_may_be_shared_by_all_labels(comparison):
    case = random_case(28, 20, [2, 4, 3])
    shared = case.features[:, 0]
    spread = np.repeat(shared[:, None], 3, axis=1)
    expected = oracle_crl(case.labels, spread, case.num_classes, "instance", comparison)
    options = {"num_classes": case.num_classes, "level": "instance", "comparison": comparison}
    value, gradient = value_and_gradient(case.labels, shared, **options)
    np.testing.assert_allclose(value, expected, **VALUE_TOLERANCE)
    _, gradient_spread = value_and_gradient(case.labels, spread, **options)
    np.testing.assert_allclose(gradient, gradient_spread.sum(axis=1), atol=1e-5 + 1e-4 * np.abs(gradient).max())


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_inputs_are_computed_in_float32(dtype):
    case = random_case(29, 20, [3, 2])
    inputs = tf.cast(case.logits, dtype)
    value = class_rectification_loss(case.labels, inputs, num_classes=case.num_classes)
    assert value.dtype == tf.float32
    expected = oracle_crl(case.labels, tf.cast(inputs, tf.float32).numpy(), case.num_classes)
    np.testing.assert_allclose(value, expected, **VALUE_TOLERANCE)


GOOD = {"labels": np.array([[0, 1], [1, 2], [0, 0], [0, 1]]), "inputs": np.zeros((4, 5), np.float32), "num_classes": [2, 3]}


def test_the_good_input_is_good():
    assert class_rectification_loss(**GOOD).shape == (2,)


@pytest.mark.parametrize(
    ("names", "changes"),
    [
        ("inputs", {"inputs": np.zeros((4, 6), np.float32)}),  # width
        ("inputs", {"inputs": np.zeros((4,), np.float32)}),  # rank
        ("inputs", {"inputs": np.zeros((4, 2, 5), np.float32)}),  # features at the class level
        ("inputs", {"inputs": np.zeros((4, 3, 5), np.float32), "level": "instance"}),  # features of 3 labels
        ("inputs", {"inputs": np.zeros((4,), np.float32), "level": "instance"}),
        ("inputs|labels", {"inputs": np.zeros((5, 5), np.float32)}),  # batch
        ("labels", {"labels": np.zeros((4, 3), np.int32)}),
        ("labels", {"labels": np.zeros((4,), np.int32)}),  # one label where there are two
        ("labels", {"labels": np.zeros((4, 2, 1), np.int32)}),
        ("labels", {"labels": np.zeros((4, 2), np.float32)}),
        ("labels", {"labels": np.array([[0, 3], [1, 2], [0, 0], [0, 1]])}),  # 3 of 3 classes
        ("labels", {"labels": np.array([[2, 0], [1, 2], [0, 0], [0, 1]])}),  # 2 of 2: within the widest label's range
        ("labels", {"labels": np.array([[0, -2], [1, 2], [0, 0], [0, 1]])}),
        ("num_classes", {"num_classes": [1, 4]}),
        ("num_classes", {"num_classes": []}),
        ("num_classes", {"num_classes": 1, "labels": np.zeros(4, np.int32), "inputs": np.zeros((4, 1), np.float32)}),
        ("kappa", {"kappa": 0}),
        ("kappa", {"kappa": -3}),
        ("kappa", {"kappa": 2.5}),
        ("rho", {"rho": 0.0}),
        ("rho", {"rho": -0.5}),
        ("rho", {"rho": 1.1}),
        ("rho", {"rho": float("nan")}),
        ("level", {"level": "pixel"}),
        ("comparison", {"comparison": "triplet"}),
        ("scope", {"scope": "majority"}),
        ("num_bins", {"num_bins": 1, "comparison": "distribution"}),
        ("num_bins", {"num_bins": 1}),
        ("margin", {"margin": -0.1}),
        ("margin", {"margin": float("nan")}),
        ("margin", {"margin": 0.5, "comparison": "distribution"}),
    ],
)
def test_bad_input_is_named(names, changes):
    arguments = {**GOOD, **changes}
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=rf"\b({names})\b"):
        class_rectification_loss(**arguments)


# ---------------------------------------------------------------------------------------------------------------------------
# Eq. 3.


@pytest.mark.parametrize(
    ("counts", "rho", "scope", "expected"),
    [
        ([5, 3], 0.5, "minority", [1]),  # 3 <= 4
        ([4, 4], 0.5, "minority", [0]),  # a tie: class 0 first, 4 <= 4; then 8 > 4
        ([3, 3, 3], 0.5, "minority", [0]),  # 3 <= 4.5; 6 > 4.5
        ([2, 2, 2, 2], 0.5, "minority", [0, 1]),  # 2, 4 <= 4
        ([6, 0, 1, 2, 3], 0.5, "minority", [3, 4]),  # 0, 1, 3, 6 <= 6 of n = 12; class 2 is a singleton
        ([1, 1, 1, 1, 4], 0.5, "minority", []),  # four singletons
        ([0, 8, 0], 0.5, "minority", []),
        ([3, 5, 2], 0.3, "minority", [2]),  # 2 <= 3; 5 > 3
        ([3, 5, 2], 0.2, "minority", [2]),  # 2 <= 2
        ([3, 5, 2], 0.19, "minority", []),  # 2 > 1.9
        ([3, 5, 2], 1.0, "minority", [0, 1, 2]),  # 2, 5, 10 <= 10
        ([29, 71], 0.29, "minority", [0]),  # 0.29 * 100 is 28.999999999999996 in binary: the tolerance of 1e-9
        ([43, 57], 0.43, "minority", [0]),
        ([7, 3], 0.29, "minority", []),  # 3 > 2.9
        ([3, 5, 1, 0, 2], 0.5, "all", [0, 1, 4]),  # h >= 2
        ([0, 8, 0], 0.5, "all", [1]),
    ],
)
def test_minority_classes_by_hand(counts, rho, scope, expected):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    mask = minority_classes(labels, len(counts), rho=rho, scope=scope)
    assert mask.dtype == tf.bool and mask.shape == (1, len(counts))
    assert np.flatnonzero(mask.numpy()[0]).tolist() == expected
    assert np.flatnonzero(oracle_minority(labels[:, None], [len(counts)], rho, scope)[0]).tolist() == expected


def test_minority_classes_of_several_labels():
    """-1 is not counted, neither in h nor in n; the padding behind a short label is False."""
    labels = np.array([[0, 2], [1, 2], [0, -1], [-1, 0], [-1, 1], [1, 1], [0, -1], [-1, 2], [-1, 2], [-1, -1]])
    # Label 0: counts 3, 2 of n = 5: class 1 (2 <= 2.5); a budget over all 10 samples would let class 0 in, too (5 <= 5).
    # Label 1: counts 1, 2, 4, 0 of n = 7: 0, 1, 3 <= 3.5: classes 3, 0, 1; class 3 is absent, class 0 a singleton.
    expected = [[False, True, False, False], [False, True, False, False]]
    np.testing.assert_array_equal(minority_classes(labels, [2, 4]), expected)
    # scope="all": label 0 both; label 1: classes 1 and 2.
    expected = [[True, True, False, False], [False, True, True, False]]
    np.testing.assert_array_equal(minority_classes(labels, [2, 4], scope="all"), expected)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("scope", ["minority", "all"])
def test_minority_classes_equal_the_oracle(seed, scope):
    rng = np.random.default_rng(100 + seed)
    case = random_case(100 + seed, 30, [2, 7, 12, 4], skew=rng.uniform(0, 2))
    case.labels[rng.random(case.labels.shape) < 0.15] = -1
    rho = float(rng.choice([0.1, 0.3, 0.5, 0.7, 0.9]))
    mask = minority_classes(case.labels, case.num_classes, rho=rho, scope=scope)
    np.testing.assert_array_equal(mask, oracle_minority(case.labels, case.num_classes, rho, scope))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("labels", {"labels": np.zeros((4, 3), np.int32)}),
        ("labels", {"labels": np.zeros((4, 2), np.float32)}),
        ("num_classes", {"num_classes": [1, 3]}),
        ("rho", {"rho": 0.0}),
        ("rho", {"rho": 1.5}),
        ("scope", {"scope": "few"}),
    ],
)
def test_minority_classes_name_bad_input(name, changes):
    arguments = {"labels": GOOD["labels"], "num_classes": [2, 3], **changes}
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        minority_classes(**arguments)
