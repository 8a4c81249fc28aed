"""The six variants of the rectification: two levels, three comparisons."""

from __future__ import annotations

import pytest

from crl_tf.losses.crl.comparison import COMPARISONS
from crl_tf.losses.crl.rectification import LEVELS

VARIANTS = [(level, comparison) for level in LEVELS for comparison in COMPARISONS]
every_variant = pytest.mark.parametrize(("level", "comparison"), VARIANTS, ids=["-".join(variant) for variant in VARIANTS])
