"""Which parameters of a test are left to the slow suite."""

import pytest


def mostly_slow(names, *fast):
    """Parameters of a test that is run for all names, in the fast suite for a few of them."""
    return [pytest.param(name, marks=[] if name in fast else [pytest.mark.slow]) for name in names]
