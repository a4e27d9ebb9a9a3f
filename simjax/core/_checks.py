"""Checks of what a user gives: one clear message with the argument, what was got, and what would do."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something a user gave cannot be used; the message says what, why and what would do.

    The command line turns it into one line on stderr and exit status 2.
    """


def suggestion(name: str, choices: Iterable[str]) -> str:
    """The tail of an error message: the nearest valid name, if one is near, and all the valid ones.

    Example:
        >>> suggestion("vitt", ["cnn", "vit"])
        ' (did you mean vit? valid: cnn, vit)'
    """
    choices = list(choices)
    near = difflib.get_close_matches(name, choices, n=1)
    return f" ({f'did you mean {near[0]}? ' if near else ''}valid: {', '.join(choices)})"


def check_choice(argument: str, got: str, choices: Iterable[str]) -> str:
    """Return `got` if it is one of `choices`.

    Raises:
        InputError: with the argument's name, what was got, the nearest match and all choices.
    """
    choices = list(choices)
    if got not in choices:
        raise InputError(f"unknown {argument} {got!r}{suggestion(str(got), choices)}")
    return got
