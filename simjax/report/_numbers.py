"""The format of numbers in tables, captions and the terminal. A missing value (null, NaN, infinite) is a dash."""

import math
from collections.abc import Callable
from numbers import Real

DASH = "–"


def number(value: object) -> float | None:
    """Return the value as a finite float, or None if it is not one."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    return float(value)


def _formatter(format_number: Callable[[float], str]) -> Callable[[object], str]:
    """Return a function that formats a finite number with `format_number`, and any other value as a dash."""

    def show(value: object) -> str:
        x = number(value)
        return DASH if x is None else format_number(x)

    return show


def _duration(x: float) -> str:
    if x < 59.95:  # 59.95 would be rounded to 60.0 s
        return f"{x:.1f} s" if x >= 1 else f"{x:.2f} s"
    minutes, rest = divmod(round(x), 60)
    hours, minutes = divmod(minutes + (rest >= 30) * (minutes >= 60), 60)
    return f"{hours} h {minutes:02d} m" if hours else f"{minutes} m {rest:02d} s"


percent = _formatter(lambda x: f"{100 * x:.2f}%")  # formats a share in [0, 1]
decimal = _formatter(lambda x: f"{x:,.4f}")
signed = _formatter(lambda x: f"{x:.2f}")
count = _formatter(lambda x: f"{x:,.0f}")
milliseconds = _formatter(lambda x: f"{x:,.0f} ms" if abs(x) >= 100 else f"{x:.3g} ms")  # three significant digits
seconds = _formatter(_duration)


def quantity(value: object, noun: str, plural: str = "") -> str:
    """Return a number with its noun, such as "2 items"; the plural ends in s by default."""
    x = number(value)
    shown = DASH if x is None else f"{x:,.0f}" if x.is_integer() else f"{x:g}"
    return f"{shown} {noun if x == 1 else plural or f'{noun}s'}"


def text(value: object) -> str:
    """Return a value as text, a missing value as a dash."""
    is_missing = value is None or value == "" or (isinstance(value, float) and not math.isfinite(value))
    return DASH if is_missing else str(value)


def capitalize(words: str) -> str:
    """Return words with a capital at the beginning, and the others as they are."""
    return words[:1].upper() + words[1:]
