"""Numbers that a caller gives, for checks that hold for no number where something else is given."""

from __future__ import annotations

from typing import Any

import numpy as np


def real(value: Any) -> float:
    """A number as a float; NaN, of which no comparison holds, for anything else (a text, a truth value, None, an array).

    >>> real(2), real(np.float32(0.5)), real("2"), real(True), real(None)
    (2.0, 0.5, nan, nan, nan)
    """
    return float(value) if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) else np.nan


def number_or_none(value: Any) -> float | None:
    """A finite number as a float; None for NaN, infinity and anything else, as JSON can hold it.

    >>> number_or_none(np.float32(0.5)), number_or_none(float("nan")), number_or_none("2")
    (0.5, None, None)
    """
    number = real(value)
    return number if np.isfinite(number) else None


def reals(values: Any) -> np.ndarray:
    """Numbers as float64 of any shape; one NaN for what is none, such as texts or rows of different lengths.

    >>> reals([1, 2.5]), reals(["a"]), reals([[1], [1, 2]])
    (array([1. , 2.5]), array(nan), array(nan))
    """
    try:
        array = np.asarray(values)
    except ValueError:
        return np.array(np.nan)
    return array.astype(np.float64) if array.dtype.kind in "iuf" else np.array(np.nan)
