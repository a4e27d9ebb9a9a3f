"""How a number is written, everywhere in a report: one place, so that tables, captions and the terminal agree.

A value that is missing (null, not a number, infinite) is a dash, never "None" or "nan".
"""

import math
from numbers import Real

DASH = "–"


def number(value: object) -> float | None:
    """The value as a finite float, or None if it is not one.

    Example:
        >>> number(3), number(float("nan")), number(None), number("3"), number(True)
        (3.0, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    return float(value)


def percent(value: object) -> str:
    """A share in [0, 1] as a percentage.

    Example:
        >>> percent(0.98611), percent(None)
        ('98.61%', '–')
    """
    x = number(value)
    return DASH if x is None else f"{100 * x:.2f}%"


def decimal(value: object) -> str:
    """A value near one: four decimals.

    Example:
        >>> decimal(0.99312), decimal(float("nan"))
        ('0.9931', '–')
    """
    x = number(value)
    return DASH if x is None else f"{x:,.4f}"


def count(value: object) -> str:
    """A whole number with thousands separators.

    Example:
        >>> count(37254), count(1533.7)
        ('37,254', '1,534')
    """
    x = number(value)
    return DASH if x is None else f"{x:,.0f}"


def milliseconds(value: object) -> str:
    """A duration given in milliseconds: three digits that count.

    Example:
        >>> milliseconds(39.62), milliseconds(1234.5), milliseconds(0.4567)
        ('39.6 ms', '1,234 ms', '0.457 ms')
    """
    x = number(value)
    if x is None:
        return DASH
    return f"{x:,.0f} ms" if abs(x) >= 100 else f"{x:.3g} ms"


def seconds(value: object) -> str:
    """A duration given in seconds, in the units a person would use.

    Example:
        >>> seconds(0.4567), seconds(12.34), seconds(83), seconds(7500)
        ('0.46 s', '12.3 s', '1 m 23 s', '2 h 05 m')
    """
    x = number(value)
    if x is None:
        return DASH
    if x < 59.95:  # what rounds to 60.0 s is a minute
        return f"{x:.1f} s" if x >= 1 else f"{x:.2f} s"
    minutes, rest = divmod(round(x), 60)
    hours, minutes = divmod(minutes + (rest >= 30) * (minutes >= 60), 60)
    return f"{hours} h {minutes:02d} m" if hours else f"{minutes} m {rest:02d} s"


def text(value: object) -> str:
    """Any other value of a report: itself, or a dash where there is none.

    Example:
        >>> text("cnn"), text(None), text(""), text(0), text(float("inf"))
        ('cnn', '–', '–', '0', '–')
    """
    missing = value is None or value == "" or (isinstance(value, float) and not math.isfinite(value))
    return DASH if missing else str(value)
