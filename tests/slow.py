"""Which parameters of a test are left to the slow suite."""

import pytest


def mostly_slow(names, *fast):
    """Parameters of a test that is run for all names, in the fast suite for a few; a tuple is several parameters."""
    names = list(names)
    assert all(name in names for name in fast), f"{fast} are not all among {names}"
    each = (name if isinstance(name, tuple) else (name,) for name in names)
    return [slow_unless(name in fast, *values) for name, values in zip(names, each, strict=True)]


def slow_unless(fast, *values):
    """One set of parameters of a test."""
    return pytest.param(*values, marks=[] if fast else [pytest.mark.slow])
