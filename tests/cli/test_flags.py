"""Every flag that a message, a help text or a page names exists."""

import inspect
import re
from pathlib import Path

import pytest

from simjax.cli._arguments import options_of, with_flags
from simjax.cli._commands import ExportArguments, PrepareArguments
from simjax.cli._main import COMMANDS
from simjax.cli._train import TrainArguments
from simjax.data import load

ROOT = Path(__file__).parents[2]
PAGES = [
    *(path for path in sorted((ROOT / "simjax").rglob("*.py")) if path.name != "_render.py"),  # its CSS has --variables
    *(path for path in sorted(ROOT.glob("*.md")) if path.name != "CHANGELOG.md"),  # which also names former flags
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "configs").glob("*.toml")),
    ROOT / "train.py",
]
FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*\w")
OTHER_PROGRAMS = re.compile(
    r"(python -m pytest|ruff|pip|git|tensorboard --logdir|\$?XLA_FLAGS)\b[^`|&\n]*|`--xla_[^`]*`"
)
BENCHMARKS = re.compile(r"python (?:-m )?benchmarks[./](\w+)(?:\.py)?([^`|&\n]*)")


@pytest.fixture(scope="module")
def flags():
    """The flags of all commands."""
    options = [option for command in COMMANDS.values() for option in options_of(command.dataclass)]
    return {"--help", "--help-all", "--version", *(flag for option in options for flag in option.flags)}


def named_flags(text):
    return set(FLAG.findall(BENCHMARKS.sub("", OTHER_PROGRAMS.sub("", text))))


def exists(flag, flags):
    """Return whether it is a flag, or a pattern such as `--loss.NAME` for several flags."""
    prefix = flag.removesuffix("NAME")
    return flag in flags or (prefix != flag and any(other.startswith(prefix) for other in flags))


def test_every_named_flag_exists(flags):
    unknown = {
        f"{path.relative_to(ROOT)}: {flag}"
        for path in PAGES
        for flag in named_flags(path.read_text())
        if not exists(flag, flags)
    }
    assert unknown == set()
    assert {"--data.max-pixels", "--test-dataset", "--from", "--data.no-download"} <= flags
    assert not exists("--max-pixels", flags)


def test_every_flag_of_a_benchmark_exists():
    for path in PAGES:
        for name, rest in BENCHMARKS.findall(path.read_text()):
            source = "".join((ROOT / "benchmarks" / f"{file}.py").read_text() for file in (name, "_command"))
            for flag in FLAG.findall(rest):
                assert f'"{flag}"' in source, f"{path.name}: benchmarks.{name} has no {flag}"


def test_every_setting_named_in_an_error_exists(flags):
    for path in (ROOT / "simjax").rglob("*.py"):
        for setting in re.findall(r"setting '([a-z_.]+)'", path.read_text()):
            assert f"--{setting.replace('_', '-')}" in flags, f"{path.name}: {setting}"


def test_every_argument_named_in_an_error_of_the_data_package_becomes_a_flag(flags):
    arguments = set(inspect.signature(load).parameters) - {"name"}
    for path in (ROOT / "simjax" / "data").glob("*.py"):
        for message in re.findall(r'f?"[^"\n]*`\w+[^"\n]*"', path.read_text()):
            for name in re.findall(r"`(\w+)(?==|`)", message):
                if name in arguments:
                    for kind in (TrainArguments, ExportArguments):
                        assert with_flags(f"`{name}`", kind) != f"`{name}`", f"{path.name}: {name}"


def test_arguments_in_messages_become_flags_of_the_command():
    message = "`input_range=(0, 4095)`, `skip_unreadable=True`, `download=False`, `max_pixels`, `nothing=1`, `source=X`"
    assert with_flags(message, TrainArguments) == (
        "`--data.input-range 0 4095`, `--data.skip-unreadable`, `--data.no-download`, `--data.max-pixels`, "
        "`nothing=1`, `source=X`"
    )
    assert (
        with_flags("`loss.margin=0.5` or `mining.miner`", TrainArguments) == "`--loss.margin 0.5` or `--mining.miner`"
    )
    assert with_flags("`skip_unreadable=True`", PrepareArguments) == "`skip_unreadable=True`"
    assert with_flags(message, None) == message
