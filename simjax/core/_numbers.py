"""Checks of parameters that are numbers: known ones before anything is computed, traced ones are taken as they are."""

import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from simjax.core._checks import InputError


def check_number(argument: str, value: ArrayLike | None) -> None:
    """A parameter whose value is known must be a number; a traced one is taken as it is.

    Raises:
        InputError: with the argument and what was got.
    """
    if value is not None and not isinstance(value, Tracer) and bool(np.any(np.isnan(np.asarray(value)))):
        raise InputError(f"{argument}: expected a number, got {value}")


def check_at_least(argument: str, value: ArrayLike | None, minimum: int | float) -> None:
    """A parameter whose value is known must be a number no smaller than `minimum`; a traced one is taken as it is.

    Raises:
        InputError: with the argument, what was expected and what was got.
    """
    if value is None or isinstance(value, Tracer):
        return
    number = np.asarray(value)
    if not bool(np.all(number >= minimum)):  # NaN is not
        raise InputError(f"{argument}: expected at least {minimum:g}, got {value}")


def check_positive(argument: str, value: ArrayLike) -> None:
    """A parameter whose value is known must be a positive number; a traced one is taken as it is.

    Raises:
        InputError: with the argument, what was expected and what was got.
    """
    if not isinstance(value, Tracer) and not bool(np.all(np.asarray(value) > 0)):  # NaN is not
        raise InputError(f"{argument}: expected more than 0, got {value}")


def check_between(argument: str, value: ArrayLike, low: float, high: float) -> None:
    """A parameter whose value is known must lie between two numbers, neither of them; a traced one is taken as it is.

    Args:
        argument: its name, as the message gives it.
        value: a number or several.
        low: all must be more.
        high: all must be less.

    Raises:
        InputError: with the argument, what was expected and what was got.
    """
    if not isinstance(value, Tracer) and not bool(np.all((np.asarray(value) > low) & (np.asarray(value) < high))):
        raise InputError(f"{argument}: expected a number between {low:g} and {high:g}, got {value}")


def check_fraction(argument: str, value: ArrayLike) -> None:
    """A parameter whose value is known must be a number from 0 to 1; a traced one is taken as it is.

    Raises:
        InputError: with the argument, what was expected and what was got.
    """
    if not isinstance(value, Tracer) and not bool(np.all((np.asarray(value) >= 0) & (np.asarray(value) <= 1))):
        raise InputError(f"{argument}: expected a number from 0 to 1, got {value}")
