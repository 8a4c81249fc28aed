"""`class_rectification_loss`, and its oracle, against hand arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hand_worked import (
    CLASS_BY_HAND,
    CLASS_LABELS,
    CLASS_LOGITS,
    DIRECTIONS,
    INSTANCE_BY_HAND,
    INSTANCE_FEATURES,
    INSTANCE_LABELS,
    logits_of,
)
from oracle import oracle_crl
from rectification_cases import VALUE_TOLERANCE
from variants import every_variant

from crl_tf import class_rectification_loss


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
