"""The six variants of the rectification: two levels, three comparisons."""

from __future__ import annotations

import pytest

VARIANTS = [(level, comparison) for level in ("class", "instance") for comparison in ("relative", "absolute", "distribution")]
every_variant = pytest.mark.parametrize(("level", "comparison"), VARIANTS, ids=["-".join(variant) for variant in VARIANTS])
