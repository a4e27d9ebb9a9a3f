"""The help of a command, generated from the fields and docstrings of its dataclass."""

import dataclasses
import itertools
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence

from simjax.cli._arguments import MAX_LISTED, Option, join, options_of

INDENT = 27


def help_text(
    kind: type,
    program: str,
    *,
    common: Sequence[str] = (),
    examples: Sequence[str] = (),
    defaults: Mapping[str, str] | None = None,
    width: int | None = None,
) -> str:
    """Return the help of a command.

    Args:
        kind: Dataclass of the arguments.
        program: The command as it is typed.
        common: Names of the options to show, each with the first sentence of its docstring. Default: all options, with
            their docstrings.
        examples: Arguments of example calls.
        defaults: Descriptions of defaults by name, instead of the default of the field.
        width: Columns. Default: the width of the terminal, at most 100.
    """
    width = min(width or shutil.get_terminal_size().columns, 100)
    options = options_of(kind)
    required = [o for o in options if o.default is dataclasses.MISSING or o.flag[0] != "-"]
    usage = " ".join([program, *(_signature(option) for option in required), "[OPTIONS]"])
    lines = [f"usage: {usage}", "", *textwrap.wrap(" ".join((kind.__doc__ or "").split()), width)]
    if examples:
        lines += ["", "Examples:", *(f"  {program} {example}" for example in examples)]
    shown = [option for option in options if option.name in common] if common else options
    for section, members in itertools.groupby(shown, lambda option: "" if common else option.section):
        lines += ["", f"{section.rstrip('.') or 'Options'}:"]
        for option in members:
            lines += _entry(option, (defaults or {}).get(option.name), width, short=bool(common))
    if common:
        words = f"{program} --help-all describes all {len(options)} options."
        lines += ["", *textwrap.wrap(words, width)]
    return "\n".join(lines) + "\n"


def _signature(option: Option, *, full: bool = True) -> str:
    placeholder = option.values()[0]
    if option.flag[0] != "-":
        return placeholder
    return f"{' | '.join(option.flags if full else option.flags[:1])} {placeholder}".rstrip()


def _entry(option: Option, default: str | None, width: int, *, short: bool) -> list[str]:
    """Return the lines of one option: its signature on the left, its description on the right."""
    text, _, described = option.doc.rstrip(".").partition("Default: ")
    if default is None and option.default not in (None, False, dataclasses.MISSING):
        default = as_typed(option.default)
    text = text.strip()
    if short:
        text = re.split(r"; |\. ", text)[0]
    text = text.rstrip(".")
    if len(option.choices) > MAX_LISTED:
        number = len(option.choices)
        text += f": {', '.join(option.choices[:3])}, ... ({number})" if short else f". Valid: {join(option.choices)}"
    text += f" (default: {described or default})" if described or default else ""
    signature = f"  {_signature(option, full=not short)}"
    indent = INDENT if width >= 70 else 6
    wrapped = textwrap.wrap(text, width - indent, break_on_hyphens=False)
    if len(signature) < indent - 1 and wrapped:
        return [signature.ljust(indent) + wrapped[0], *(" " * indent + line for line in wrapped[1:])]
    return [*textwrap.wrap(signature, width, subsequent_indent=" " * 6), *(" " * indent + line for line in wrapped)]


def as_typed(value: object) -> str:
    """Return a value as it would be typed on the command line."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(as_typed, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
