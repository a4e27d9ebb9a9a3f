"""The format of numbers in tables, captions and the terminal. A missing value (null, NaN, infinite) is a dash."""

import math
from collections.abc import Callable
from functools import wraps
from numbers import Real

DASH = "–"


def number(value: object) -> float | None:
    """Return the value as a finite float, or None if it is not one."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    return float(value)


def _dash_if_missing(format_number: Callable[[float], str]) -> Callable[[object], str]:
    @wraps(format_number)
    def show(value: object) -> str:
        x = number(value)
        return DASH if x is None else format_number(x)

    return show


@_dash_if_missing
def percent(x: float) -> str:
    """Format a share in [0, 1] as a percentage."""
    return f"{100 * x:.2f}%"


@_dash_if_missing
def decimal(x: float) -> str:
    """Format a value with four decimals."""
    return f"{x:,.4f}"


@_dash_if_missing
def count(x: float) -> str:
    """Format a whole number with thousands separators."""
    return f"{x:,.0f}"


@_dash_if_missing
def milliseconds(x: float) -> str:
    """Format a duration in milliseconds with three significant digits."""
    return f"{x:,.0f} ms" if abs(x) >= 100 else f"{x:.3g} ms"


@_dash_if_missing
def seconds(x: float) -> str:
    """Format a duration in seconds, minutes or hours."""
    if x < 59.95:  # 59.95 would be rounded to 60.0 s
        return f"{x:.1f} s" if x >= 1 else f"{x:.2f} s"
    minutes, rest = divmod(round(x), 60)
    hours, minutes = divmod(minutes + (rest >= 30) * (minutes >= 60), 60)
    return f"{hours} h {minutes:02d} m" if hours else f"{minutes} m {rest:02d} s"


def text(value: object) -> str:
    """Format any other value of a report."""
    missing = value is None or value == "" or (isinstance(value, float) and not math.isfinite(value))
    return DASH if missing else str(value)
