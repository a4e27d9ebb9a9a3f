"""The help of a command, generated from the fields of its dataclass and their descriptions."""

import dataclasses
import itertools
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

from simjax.cli._arguments import MAX_LISTED, Option, join, options_of

DESCRIPTION_COLUMN = 27  # start of descriptions
NARROW_WIDTH, NARROW_COLUMN = 70, 6  # in terminals with fewer columns than 70, descriptions start at column 6


@dataclasses.dataclass(frozen=True)
class Command:
    """A command and its help. The typed arguments are the words after the name of the command."""

    run: Callable[[Sequence[str]], None]  # takes the typed arguments
    dataclass: type  # defines the arguments
    examples: Sequence[str] = ()  # typed arguments of example calls
    common: Sequence[str] = ()  # names of the options that --help shows, empty for all; --help-all shows all
    # Returns the defaults that depend on the typed arguments, as text by the name of the option.
    defaults: Callable[[Sequence[str]], Mapping[str, str]] = lambda typed: {}
    note: str = ""  # last paragraph of the help, which explains a term


def help_text(command: Command, program: str, typed: Sequence[str], *, show_all: bool, width: int) -> str:
    """Return the help of a command.

    Args:
        command: The command to describe.
        program: Words that call the command, such as "simjax train".
        typed: Arguments that were typed after these words, other than --help.
        show_all: Show all options with their whole descriptions. Otherwise show the common options, each with one flag
            and the first clause of its description, up to a period or a semicolon.
        width: Width of the terminal in columns.
    """
    options, common = options_of(command.dataclass), () if show_all else command.common
    defaults, note = command.defaults(typed), command.note
    in_usage = [option for option in options if option.is_positional or option.default is dataclasses.MISSING]
    words = [(_flags_and_placeholder(option), option.default is dataclasses.MISSING) for option in in_usage]
    usage = " ".join([program, *(word if required else f"[{word}]" for word, required in words), "[OPTIONS]"])
    lines = [f"usage: {usage}", "", *textwrap.wrap(" ".join((command.dataclass.__doc__ or "").split()), width)]
    if command.examples:
        lines += ["", "Examples:", *(f"  {program} {example}" for example in command.examples)]
    shown = [option for option in options if option.name in common] if common else options
    for section, members in itertools.groupby(shown, lambda option: "" if common else option.section):
        lines += ["", f"{section.rstrip('.') or 'Options'}:"]  # a section is a sentence of a docstring
        for option in members:
            lines += _option_lines(option, defaults.get(option.name), width, is_short=bool(common))
    if common:
        note = f"{note} {program} --help-all describes all {len(options)} options.".strip()
    if note:
        lines += ["", *textwrap.wrap(note, width)]
    return "\n".join(lines) + "\n"


def _flags_and_placeholder(option: Option, *, all_flags: bool = True) -> str:
    """Return an option as it is typed, such as "--seed N", or the placeholder of a positional argument."""
    placeholder, _ = option.placeholder_and_description()
    if option.is_positional:
        return f"{option.flag} ..." if placeholder.endswith("...") else option.flag
    return f"{' | '.join(option.flags if all_flags else option.flags[:1])} {placeholder}".rstrip()


def _option_lines(option: Option, computed_default: str | None, width: int, *, is_short: bool) -> list[str]:
    """Return the lines of one option: its flags on the left, its description on the right.

    The default is the first of: "Default: ..." in the description, `computed_default`, the default of the field. The
    short form has one flag and the first clause of the description.
    """
    text, _, described_default = option.description.rstrip(".").partition("Default: ")
    default = described_default or computed_default
    # `is`, because 0 == False: the default 0 of a number is shown, the default False of a switch is not.
    if default is None and not any(option.default is hidden for hidden in (None, False, dataclasses.MISSING)):
        default = as_typed(option.default)
    text = (re.split(r"; |\. ", text)[0] if is_short else text).strip().rstrip(".")
    if len(option.choices) > MAX_LISTED:  # the placeholder lists fewer choices
        first, count = ", ".join(option.choices[:3]), len(option.choices)
        text += f": {first}, ... ({count})" if is_short else f". Valid: {join(option.choices)}"
    text += f" (default: {default})" if default else ""
    left = f"  {_flags_and_placeholder(option, all_flags=not is_short)}"
    indent = DESCRIPTION_COLUMN if width >= NARROW_WIDTH else NARROW_COLUMN
    wrapped = textwrap.wrap(text, width - indent, break_on_hyphens=False)
    if len(left) < indent - 1 and wrapped:
        return [left.ljust(indent) + wrapped[0], *(" " * indent + line for line in wrapped[1:])]
    left_lines = textwrap.wrap(left, width, subsequent_indent=" " * NARROW_COLUMN)
    return [*left_lines, *(" " * indent + line for line in wrapped)]


def as_typed(value: object) -> str:
    """Return a value as it is typed on the command line; a switch is "on" or "off"."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(as_typed, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
