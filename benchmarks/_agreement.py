"""Do the contenders compute the same? One number for two results, and what it may be."""

from typing import Any

import numpy as np


def largest_difference(ours: Any, theirs: Any) -> float:
    """The largest over one array or several, each relative to its largest value; infinite for a NaN."""
    several = isinstance(ours, tuple | list)
    pairs = zip(ours, theirs, strict=True) if several else [(ours, theirs)]
    wide = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs]
    return float(max(np.nan_to_num(np.abs(a - b).max() / np.abs(b).max(), nan=np.inf) for a, b in wide))


def equal_neighbours(ours: Any, theirs: Any) -> float:
    """The share of places in the ranked lists that hold the same index."""
    return float(np.mean(np.asarray(ours[1]) == np.asarray(theirs[1])))


LIMITS = {"largest difference": (largest_difference, max, 1e-3), "equal neighbours": (equal_neighbours, min, 0.99)}
"""The function, which of several values is the worst, and the worst that passes."""


def within_limit(kind: str, value: float, **_: Any) -> bool:
    """Is the agreement good enough to call it the same computation in float32?"""
    _, worst, limit = LIMITS[kind]
    return worst(value, limit) == limit
