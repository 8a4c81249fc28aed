"""What `class_rectification_loss` chooses: no gradient through the choice, ties, unannotated samples, labels apart, order."""

from __future__ import annotations

import numpy as np
from hand_worked import CLASS_LABELS, CLASS_LOGITS, INSTANCE_FEATURES, INSTANCE_LABELS, logits_of
from oracle import columns_of
from rectification_cases import random_case, value_and_gradient
from variants import every_variant

from crl_tf import class_rectification_loss


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
