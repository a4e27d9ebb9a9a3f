"""Options of a command, defined by the fields of a dataclass and parsed with tyro; errors are one line."""

import ast
import contextlib
import dataclasses
import difflib
import functools
import inspect
import io
import itertools
import re
import textwrap
from collections.abc import Iterable, Sequence
from operator import attrgetter
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from tyro.conf import Positional, UseAppendAction

from simjax.core import InputError

T = TypeVar("T")

# Options of this program, and their names in other programs, separated by spaces. All are without leading dashes.
OTHER_NAMES = {
    "augment.no-enabled": "no-augment",
    "batch-size": "b bs",
    "config": "c cfg",
    "dataset": "data data-path train-data",
    "dtype": "amp bf16 precision",
    "embedding-size": "dim embedding-dim",
    "epochs": "e num-epochs n-epochs max-epochs",
    "mining.miner": "miner",
    "model": "arch backbone net network",
    "objective": "criterion loss",
    "optimizer.clip-norm": "clip",
    "optimizer.learning-rate": "lr",
    "optimizer.schedule": "scheduler",
    "optimizer.weight-decay": "wd",
    "out": "o output output-dir out-dir save-dir logdir",
    "overwrite": "force",
    "resume": "continue",
    "seed": "random-seed",
    "steps": "iterations max-steps",
    "test-dataset": "test-data",
}
EQUIVALENT_OPTIONS = {other: name for name, others in OTHER_NAMES.items() for other in others.split()}
# Arguments of the library, and the options that are called otherwise.
ARGUMENT_OPTIONS = {"ids": ("id", "like"), "identities": ("images",)}
DEVICE_OPTIONS = {"gpu", "gpus", "cuda", "device", "cpu", "tpu", "accelerator"}
DEVICE_ADVICE = "JAX uses a GPU or TPU if it finds one; the environment variable JAX_PLATFORMS=cpu selects the CPU"
MAX_LISTED = 6  # number of choices up to which errors and placeholders list all of them


@dataclasses.dataclass(frozen=True)
class Option:
    """An option or a positional argument of a command: a field of its dataclass."""

    name: str  # dotted name of the field, such as "optimizer.learning_rate"
    flag: str  # as it is typed, such as "--optimizer.learning-rate", or the name of a positional argument
    type: Any
    default: object  # dataclasses.MISSING for a required option
    description: str
    section: str = ""  # description of the section of settings that has the field; "" at the top level
    short: tuple[str, ...] = ()  # other forms, such as "-k"
    is_repeatable: bool = False  # whether values of a list can also follow the flag again

    @property
    def is_positional(self) -> bool:
        """Whether the value is typed without a flag."""
        return not self.flag.startswith("-")

    @property
    def flags(self) -> list[str]:
        """The flag, and for a switch also its negative form, such as "--data.no-download"."""
        if self.type is not bool:
            return [*self.short, self.flag]
        head, dot, last = self.flag.removeprefix("--").rpartition(".")
        return [self.flag, f"--{head}{dot}no-{last}"]

    @property
    def choices(self) -> list[str]:
        """The valid values, empty if they cannot be enumerated."""
        kinds = [kind for kind in (self.type, *get_args(self.type)) if get_origin(kind) is Literal]
        return [str(value) for kind in kinds for value in get_args(kind)]

    def placeholder_and_description(self) -> tuple[str, str]:
        """Return the placeholder of the value for the usage, and a description of valid values for errors."""
        word = re.split(r"[._]", self.name)[-1].upper()
        if self.choices:
            is_listed = len(self.choices) <= MAX_LISTED
            return f"{{{','.join(self.choices)}}}" if is_listed else word, join(self.choices)
        return _placeholder_and_description(self.type, word)


def _placeholder_and_description(kind: Any, word: str) -> tuple[str, str]:
    """Return the placeholder of a type and its description for errors; `word` is the placeholder of a string."""
    simple = {bool: ("", "no value"), int: ("N", "a whole number"), float: ("X", "a number"), str: (word, "a value")}
    if kind in simple:
        return simple[kind]
    if get_origin(kind) is tuple:
        first, second = get_args(kind)
        one, description = _placeholder_and_description(first, word)
        plural = description.removeprefix("a ") + "s"
        return (f"{one} ...", plural) if second is Ellipsis else (f"{one} {one}", f"two {plural}")
    parts = [_placeholder_and_description(part, word) for part in get_args(kind) if part is not NoneType]
    return "|".join(placeholder for placeholder, _ in parts), " or ".join(description for _, description in parts)


@functools.cache
def options_of(dataclass: type, prefix: str = "", section: str = "") -> tuple[Option, ...]:
    """Return the options of a dataclass; the options of a nested dataclass have dotted names."""
    options: list[Option] = []
    descriptions, types = _field_descriptions(dataclass), get_type_hints(dataclass, include_extras=True)
    for field in dataclasses.fields(dataclass):
        field_type, markers = types[field.name], ()
        if get_origin(field_type) is Annotated:
            field_type, *markers = get_args(field_type)
        if isinstance(field_type, type) and dataclasses.is_dataclass(field_type):
            options += options_of(field_type, f"{prefix}{field.name}.", (field_type.__doc__ or "").split("\n")[0])
            continue
        name = next((marker.name for marker in markers if getattr(marker, "name", None)), field.name)
        short = next((tuple(marker.aliases) for marker in markers if getattr(marker, "aliases", None)), ())
        flag = field.name.upper() if Positional in markers else f"--{prefix}{name}".replace("_", "-")
        description = descriptions.get(field.name, "")
        repeatable = UseAppendAction in markers
        option = Option(prefix + field.name, flag, field_type, field.default, description, section, short, repeatable)
        options.append(option)
    return tuple(options)


def _field_descriptions(dataclass: type) -> dict[str, str]:
    """Return the description of each field of a dataclass and of its bases.

    A description is the string below the field, or the entry in the section "Attributes:" of the class.
    """
    descriptions: dict[str, str] = {}
    for base in reversed(dataclass.__mro__[:-1]):
        _, _, attributes = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        for entry in re.split(r"\n {4}(?=\w)", f"\n{attributes}")[1:]:
            name, _, text = entry.partition(": ")
            descriptions[name] = " ".join(text.split())
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in itertools.pairwise(tree.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                descriptions[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return descriptions


def parse(dataclass: type[T], arguments: Sequence[str], *, default: T | None = None) -> T:
    """Return an instance of a dataclass from command-line arguments, or raise an InputError about the first mistake."""
    import tyro

    options: dict[str, Any] = {} if default is None else {"default": default}
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed = tyro.cli(dataclass, args=_one_value_per_flag(dataclass, arguments), add_help=False, **options)
    except SystemExit:
        raise InputError(_explain(dataclass, arguments, errors.getvalue())) from None
    for option in options_of(dataclass):  # tyro accepts the flag of a list without a value
        if NoneType in get_args(option.type) and attrgetter(option.name)(parsed) == ():
            raise InputError(_invalid_value(option, []))
    return parsed


def _one_value_per_flag(dataclass: type, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the flag of a repeatable option before each of its values: `-x 1 2` is `-x 1 -x 2`.

    The first word after the flag is a value. Further ones are values if they have the form of one, KEY=VALUE or a whole
    number, and otherwise positional arguments, such as an image.
    """
    options = {option.flag: option for option in options_of(dataclass) if option.is_repeatable}
    found: list[str] = []
    flag, is_first = "", False
    for word in arguments:
        if word.startswith("--"):
            flag, is_first = (word, True) if word in options else ("", False)
            found.append(word)
            continue
        is_number = bool(flag) and get_args(options[flag].type)[0] is int
        if flag and not is_first and (word.isdecimal() if is_number else "=" in word):
            found.append(flag)
        elif not is_first:
            flag = ""
        is_first = False
        found.append(word)
    return found


def check_rate(option: str, value: float) -> None:
    """Raise an InputError if the rate of an option is not above 0 and below 1."""
    if not 0 < value < 1:
        raise InputError(f"`{option}`: expected a number above 0 and below 1, got {value:g}")


def _explain(dataclass: type, arguments: Sequence[str], printed: str) -> str:
    """Return a message about the first mistake in the arguments; `printed` is the error message of tyro."""
    options = {flag: option for option in options_of(dataclass) for flag in option.flags}
    for argument in arguments:
        flag = argument.split("=")[0].replace("_", "-")
        if re.match(r"-{1,2}[a-zA-Z]", argument) and flag not in options and flag not in ("-inf", "-nan"):
            return _unknown_option(flag, [*options, "--help", "--help-all"])
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", printed).split())  # without colours and frames
    named = re.search(r"--[a-z](?:[\w.-]*\w)?", text)
    if re.search("Value error|Missing argument|Invalid choice", text) and named and named[0] in options:
        given = (values_after(flag, arguments) for flag in (named[0], *options[named[0]].short))
        return _invalid_value(options[named[0]], next(filter(None, given), []))
    extra = re.search(r"Unrecognized options: (\S+)", text)
    if extra:
        before = " ".join(itertools.takewhile(lambda word: word != extra[1], arguments))
        option = before[before.rfind("--") :] if "--" in before else ""
        return f"unexpected argument {extra[1]!r}" + (f" after {option}" if option else "; options are --NAME VALUE")
    required = [option for option in options_of(dataclass) if option.default is dataclasses.MISSING]
    # tyro prints the descriptions of missing options.
    missing = [option for option in required if option.description.rstrip(".") in text] or required
    names = [option.placeholder_and_description()[0] if option.is_positional else option.flag for option in missing]
    return f"missing {join(names, 'and')}; --help describes the options" if "Missing from" in text else text


def _unknown_option(flag: str, flags: list[str]) -> str:
    """Return a message that suggests a flag with the same meaning, the same last part or a similar name."""
    word = flag.lstrip("-")
    if word in DEVICE_OPTIONS:
        return f"unknown option {flag}: {DEVICE_ADVICE}"
    near = [f"--{EQUIVALENT_OPTIONS[word]}"] if f"--{EQUIVALENT_OPTIONS.get(word)}" in flags else []
    near = near or [other for other in flags if re.split(r"--|\.", other)[-1] == word]
    near = near or difflib.get_close_matches(f"--{word}", flags, n=1, cutoff=0.7)
    if not near:
        last_parts = {re.split(r"--|\.", other)[-1]: other for other in reversed(flags)}
        near = [last_parts[part] for part in difflib.get_close_matches(word, last_parts, n=1, cutoff=0.7)]
    return f"unknown option {flag}; " + (f"did you mean {join(near)}?" if near else "--help lists the options")


def _invalid_value(option: Option, given: list[str]) -> str:
    got, is_listed = " ".join(given), len(option.choices) <= MAX_LISTED
    _, expected = option.placeholder_and_description()
    if not given:
        return f"{option.flag}: missing value, expected {expected if is_listed else 'a value'}"
    if is_listed:
        return f"{option.flag}: expected {expected}, got {got!r}"
    advice = did_you_mean(got, option.choices, "--help-all lists the valid values")
    return f"{option.flag}: unknown value {got!r}; {advice}"


def did_you_mean(name: str, choices: Iterable[str], otherwise: str) -> str:
    """Return a question with the three nearest choices, or `otherwise` if no choice is near."""
    near = difflib.get_close_matches(name.lower(), choices, n=3, cutoff=0.5)
    return f"did you mean {join(near)}?" if near else otherwise


def values_after(flag: str, arguments: Sequence[str]) -> list[str]:
    """Return the words of the value of an option, none if the option is not given."""
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") == flag:
            following = itertools.takewhile(lambda word: not word.startswith("--"), arguments[i + 1 :])
            return [value] if equals else list(following)
    return []


def join(words: Sequence[str], conjunction: str = "or") -> str:
    """Return an enumeration of words, such as "cnn, vit or dnn"."""
    return f" {conjunction} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def with_flags(message: str, dataclass: type | None) -> str:
    """Replace arguments in backticks in a message of the library, such as `image_size=32`, by options of a command.

    So is an option at the beginning, as in "k: expected at least 1, got 0". Arguments that the dataclass of the
    command lacks are not replaced.
    """
    if dataclass is None:
        return message
    flags_of = {}
    for option in options_of(dataclass):
        flags_of |= {option.name: option.flags, option.name.rpartition(".")[2]: option.flags}

    def as_flag(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        if name not in flags_of:
            return match[0]
        words = "" if value in (None, "True", "False") else re.sub(r"[(),]", "", value)
        return f"`{flags_of[name][-1 if value == 'False' else 0]} {words}".rstrip() + "`"

    message = re.sub(r"`([\w.]+)(?:=([^`]*))?`", as_flag, message)
    first = re.match(r"`?(-{0,2}[\w.-]+)`?: ", message)
    if first is None:
        return message
    names = (first[1], *ARGUMENT_OPTIONS.get(first[1], ()))
    top_level = {option.name: option.flag for option in options_of(dataclass) if not option.is_positional}
    flag = next((top_level[name] for name in names if name in top_level), None)
    if flag is None and not message.startswith("`--"):
        return message
    return f"{flag or first[1]}: {message[first.end() :]}"
