"""Two batches worked out by hand, one per level: labels, inputs and the loss of every comparison."""

from __future__ import annotations

import math

import numpy as np


def logits_of(*probabilities):
    """Binary logits (0, z) whose softmax gives class 1 these probabilities."""
    return np.array([[0.0, math.log(p / (1 - p))] for p in probabilities], np.float32)


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
