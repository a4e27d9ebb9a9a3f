"""Checks of arguments, whose errors name the argument, the expected value and the given value.

Checks of numbers apply to known values; a traced value passes.
"""

import difflib
from collections.abc import Collection, Iterable

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


def check_choice(argument: str, value: str, choices: Collection[str]) -> str:
    """Return `value`, or raise an InputError with the nearest match if it is not one of `choices`."""
    if value not in choices:
        raise InputError(f"unknown {argument} {value!r}{suggestion(str(value), choices)}")
    return value


def check_number(argument: str, value: ArrayLike | None) -> None:
    """Raise an InputError if a known value is NaN."""
    if value is not None and not isinstance(value, Tracer) and np.any(np.isnan(np.asarray(value))):
        raise InputError(f"{argument}: expected a number, got {value}")


def check_at_least(argument: str, value: ArrayLike | None, minimum: int | float) -> None:
    """Raise an InputError if a known value is smaller than `minimum` or NaN."""
    if value is not None and not isinstance(value, Tracer) and not np.all(np.asarray(value) >= minimum):
        raise InputError(f"{argument}: expected at least {minimum:g}, got {value}")


def check_positive(argument: str, value: ArrayLike) -> None:
    """Raise an InputError if a known value is not above 0."""
    if not isinstance(value, Tracer) and not np.all(np.asarray(value) > 0):
        raise InputError(f"{argument}: expected more than 0, got {value}")


def check_between(argument: str, value: ArrayLike, low: int | float, high: int | float) -> None:
    """Raise an InputError if a known value is not between two bounds.

    Args:
        argument: Name of the argument in the message.
        value: A number or an array; a traced value is not checked.
        low, high: The bounds, which are not valid themselves.
    """
    if not isinstance(value, Tracer) and not np.all((np.asarray(value) > low) & (np.asarray(value) < high)):
        raise InputError(f"{argument}: expected a number between {low:g} and {high:g}, got {value}")


def check_fraction(argument: str, value: ArrayLike) -> None:
    """Raise an InputError if a known value is not in [0, 1]."""
    if not isinstance(value, Tracer) and not np.all((np.asarray(value) >= 0) & (np.asarray(value) <= 1)):
        raise InputError(f"{argument}: expected a number from 0 to 1, got {value}")
