"""The help of a command, generated from the fields and docstrings of its dataclass."""

import dataclasses
import itertools
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

from simjax.cli._arguments import MAX_LISTED, Option, join, options_of

DESCRIPTION_COLUMN = 27  # where descriptions start
NARROW_WIDTH, NARROW_COLUMN = 70, 6  # terminals with fewer columns, and where descriptions start there


@dataclasses.dataclass(frozen=True)
class Command:
    """A command and its help."""

    run: Callable[[Sequence[str]], None]
    arguments: type  # the dataclass of the arguments
    examples: Sequence[str] = ()  # arguments of example calls
    common: Sequence[str] = ()  # options that --help shows, if not all; --help-all shows all
    defaults: Callable[[Sequence[str]], Mapping[str, str]] = lambda arguments: {}  # those that depend on arguments
    note: str = ""  # explains a term of the help


def help_text(command: Command, program: str, arguments: Sequence[str], *, show_all: bool, width: int) -> str:
    """Return the help of a command.

    Args:
        command: The command.
        program: The command as it is typed.
        arguments: Other arguments, on which defaults may depend.
        show_all: Show all options with their docstrings. Otherwise show the common options, if the command has them,
            with the first clauses of their docstrings (up to a period or a semicolon).
        width: Columns.
    """
    options, common = options_of(command.arguments), () if show_all else command.common
    defaults, note = command.defaults(arguments), command.note
    required = [o for o in options if o.default is dataclasses.MISSING or o.flag[0] != "-"]
    usage = " ".join([program, *(_flags_and_placeholder(option) for option in required), "[OPTIONS]"])
    lines = [f"usage: {usage}", "", *textwrap.wrap(" ".join((command.arguments.__doc__ or "").split()), width)]
    if command.examples:
        lines += ["", "Examples:", *(f"  {program} {example}" for example in command.examples)]
    shown = [option for option in options if option.name in common] if common else options
    for section, members in itertools.groupby(shown, lambda option: "" if common else option.section):
        lines += ["", f"{section.rstrip('.') or 'Options'}:"]
        for option in members:
            lines += _option_lines(option, defaults.get(option.name), width, is_short=bool(common))
    if common:
        note = f"{note} {program} --help-all describes all {len(options)} options.".strip()
    if note:
        lines += ["", *textwrap.wrap(note, width)]
    return "\n".join(lines) + "\n"


def _flags_and_placeholder(option: Option, *, all_flags: bool = True) -> str:
    """Return an option as it is typed, such as "--seed N", or the placeholder of a positional argument."""
    placeholder = option.values()[0]
    if option.flag[0] != "-":
        return placeholder
    return f"{' | '.join(option.flags if all_flags else option.flags[:1])} {placeholder}".rstrip()


def _option_lines(option: Option, given_default: str | None, width: int, *, is_short: bool) -> list[str]:
    """Return the lines of one option: its flags on the left, its description on the right.

    "Default: ..." in the docstring of the field takes precedence over `given_default`, and this over the default of the
    field. The short form has one flag and the first clause of the docstring.
    """
    text, _, documented_default = option.doc.rstrip(".").partition("Default: ")
    default = documented_default or given_default
    if default is None and not any(option.default is missing for missing in (None, False, dataclasses.MISSING)):
        default = as_typed(option.default)
    text = (re.split(r"; |\. ", text)[0] if is_short else text).strip().rstrip(".")
    if len(option.choices) > MAX_LISTED:
        first, count = ", ".join(option.choices[:3]), len(option.choices)
        text += f": {first}, ... ({count})" if is_short else f". Valid: {join(option.choices)}"
    text += f" (default: {default})" if default else ""
    left = f"  {_flags_and_placeholder(option, all_flags=not is_short)}"
    indent = DESCRIPTION_COLUMN if width >= NARROW_WIDTH else NARROW_COLUMN
    wrapped = textwrap.wrap(text, width - indent, break_on_hyphens=False)
    if len(left) < indent - 1 and wrapped:
        return [left.ljust(indent) + wrapped[0], *(" " * indent + line for line in wrapped[1:])]
    return [*textwrap.wrap(left, width, subsequent_indent=" " * 6), *(" " * indent + line for line in wrapped)]


def as_typed(value: object) -> str:
    """Return a value as it would be typed on the command line."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(as_typed, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
