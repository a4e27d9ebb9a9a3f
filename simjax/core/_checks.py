"""Checks of arguments, with error messages that name the argument, the expected value and the given value.

Checks of numbers apply to known values; a traced value passes.
"""

import difflib
from collections.abc import Callable, Iterable

import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike


class InputError(ValueError):
    """An argument that cannot be used. The message says what was expected, what was given and what to do.

    The command line prints it as one line on stderr and exits with status 2.
    """


def suggestion(name: str, choices: Iterable[str]) -> str:
    """Return the end of an error message: the valid name nearest to `name`, if any is similar, and all valid names.

    Example:
        >>> suggestion("vitt", ["cnn", "vit"])
        ' (did you mean vit? valid: cnn, vit)'
    """
    choices = list(choices)
    nearest = difflib.get_close_matches(name, choices, n=1)
    return f" ({f'did you mean {nearest[0]}? ' if nearest else ''}valid: {', '.join(choices)})"


def check_choice(argument: str, value: str, choices: Iterable[str]) -> str:
    """Return `value`, or raise an InputError with the nearest match if it is not one of `choices`."""
    choices = list(choices)
    if value not in choices:
        raise InputError(f"unknown {argument} {value!r}{suggestion(str(value), choices)}")
    return value


def check_number(argument: str, value: ArrayLike | None) -> None:
    """Raise an InputError if a known value is NaN."""
    if value is not None:
        _check(argument, value, lambda v: ~np.isnan(v), "a number")


def check_at_least(argument: str, value: ArrayLike | None, minimum: int | float) -> None:
    """Raise an InputError if a known value is smaller than `minimum` or NaN."""
    if value is not None:
        _check(argument, value, lambda v: v >= minimum, f"at least {minimum:g}")


def check_positive(argument: str, value: ArrayLike) -> None:
    """Raise an InputError if a known value is not above 0."""
    _check(argument, value, lambda v: v > 0, "more than 0")


def check_between(argument: str, value: ArrayLike, low: int | float, high: int | float) -> None:
    """Raise an InputError if a known value is not strictly between two numbers.

    Args:
        argument: Name in the error message.
        value: A number or an array.
        low: All values must be larger.
        high: All values must be smaller.
    """
    _check(argument, value, lambda v: (v > low) & (v < high), f"a number between {low:g} and {high:g}")


def check_fraction(argument: str, value: ArrayLike) -> None:
    """Raise an InputError if a known value is not in [0, 1]."""
    _check(argument, value, lambda v: (v >= 0) & (v <= 1), "a number from 0 to 1")


def _check(
    argument: str, value: ArrayLike, is_valid: Callable[[np.ndarray], np.ndarray | np.bool], expected: str
) -> None:
    if not isinstance(value, Tracer) and not np.all(is_valid(np.asarray(value))):
        raise InputError(f"{argument}: expected {expected}, got {value}")
