"""Arguments from the typed dataclasses by tyro, with its errors as our one line."""

import contextlib
import dataclasses
import io
import itertools
import re
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

from tyro.conf import Positional

from simjax.core import InputError, suggestion

T = TypeVar("T")


def parse(kind: type[T], arguments: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """An instance of a dataclass from command-line arguments.

    Raises:
        InputError: for an unknown flag (with the nearest one), a missing or unfitting value.
        SystemExit: with status 0, after printing the help.
    """
    import tyro

    options: dict[str, Any] = {} if default is None else {"default": default}
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, args=list(arguments), prog=prog, **options)
    except SystemExit as stop:
        if stop.code in (0, None):
            sys.stdout.flush()
            raise
        raise InputError(_explain(kind, arguments, errors.getvalue())) from None


def _explain(kind: Any, arguments: Sequence[str], printed: str) -> str:
    """What was wrong, from the arguments where they show it, else from what tyro printed."""
    flags = list(_flags(kind))
    for argument in arguments:
        flag = argument.split("=")[0].replace("_", "-")
        if argument.startswith("--") and flag != "--help" and flag not in flags:
            close = suggestion(flag, flags)
            near = re.match(r" \(did you mean (\S+)\?", close)
            return f"unknown setting {flag}" + (f" (did you mean {near[1]}?)" if near else " (--help lists all)")
    # tyro prints a title, a rule (where the terminal has no boxes), the message, a rule or an empty line, and help.
    lines = [line.strip("│╭╮╰╯─- ") for line in re.sub(r"\x1b\[[0-9;]*m", "", printed).splitlines()]
    start = next((i for i, line in enumerate(lines) if i and line), 0)
    text = " ".join(itertools.takewhile(bool, lines[start:]))
    choice = re.match(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)", text)
    if choice:
        values = [value.strip("' ") for value in choice[3].split(",")]
        return f"{choice[2]}: unknown value {choice[1]!r}{suggestion(choice[1], values)}"
    return text or "the arguments cannot be parsed"


def with_flags(message: str, kind: type | None) -> str:
    """Write arguments in a message of the library, such as `image_size=32`, as flags of a command.

    Args:
        message: An error or a warning, with arguments in backticks. Those that the command lacks stay as they are.
        kind: The dataclass of the command, or None if there is none.
    """
    if kind is None:
        return message
    flags = {flag.removeprefix("--").rsplit(".")[-1].replace("-", "_"): flag for flag in _flags(kind)}

    def flag(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        if value == "False":
            name, value = f"no_{name}", ""
        if name not in flags:
            return match[0]
        words = "" if value in (None, "True") else re.sub(r"[(),]", "", value)
        return f"`{flags[name]} {words}".rstrip() + "`"

    return re.sub(r"`(\w+)(?:=([^`]*))?`", flag, message)


def _flags(kind: Any, prefix: str = "--") -> list[str]:
    """Every flag of a dataclass: dotted, with hyphens, and the negative of each switch."""
    found = []
    for field in dataclasses.fields(kind):
        metadata = getattr(field.type, "__metadata__", ())
        if Positional in metadata:
            continue
        named = next((word.name for word in metadata if getattr(word, "name", None)), field.name)
        name = named.replace("_", "-")
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            found += _flags(field.type, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
            if field.type is bool:
                found.append(f"{prefix}no-{name}" if prefix == "--" else f"{prefix[:-1]}.no-{name}")
    return found
