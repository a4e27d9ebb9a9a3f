"""The help of each command: what it shows, how long it is, and that it shows the defaults that are used."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

import simjax
from simjax.cli import main
from simjax.cli._arguments import options_of
from simjax.cli._help import Command, help_text
from simjax.cli._main import COMMANDS

ROOT = Path(__file__).parents[2]


def help_of(capsys, *arguments, width=80, monkeypatch=None):
    if monkeypatch is not None:
        monkeypatch.setenv("COLUMNS", str(width))
    main([*arguments])
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [*COMMANDS, ""])
@pytest.mark.parametrize("width", [40, 80])
def test_the_help_fits_a_screen(command, width, capsys, monkeypatch):
    printed = help_of(capsys, *command.split(), "--help", width=width, monkeypatch=monkeypatch)
    lines = printed.splitlines()
    assert len(lines) <= (45 if width == 80 else 75)
    assert all(len(line) <= width for line in lines if not line.startswith(("usage", "  simjax ")))
    assert "None" not in printed


def test_the_help_of_train_has_examples_that_can_be_parsed(capsys):
    printed = help_of(capsys, "train", "--help")
    examples = re.findall(r"^  simjax train (.*)$", printed, re.MULTILINE)
    assert len(examples) == 3
    for example in examples:
        help_of(capsys, "train", *example.split(), "--help")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_full_help_describes_every_option(command, capsys, monkeypatch):
    printed = help_of(capsys, *command.split(), "--help-all", monkeypatch=monkeypatch)
    for option in options_of(COMMANDS[command].dataclass):
        assert option.description, f"{option.name} has no docstring"
        for flag in option.flags:
            assert re.search(rf"(^|[ |]){re.escape(flag)}\b", printed, re.MULTILINE), flag
    assert not re.search(r"\(default:\s+None\)", printed)


def default_of(flag, printed):
    entry = re.search(rf"^  {re.escape(flag)}\b.*?(?=^  --|^\S|\Z)", printed, re.MULTILINE | re.DOTALL)
    assert entry
    found = re.search(r"\(default: (.*)\)", " ".join(entry[0].split()))
    return found[1] if found else None


def test_the_help_shows_the_defaults_of_the_recipe_for_the_model_and_the_data_set(capsys):
    digits = help_of(capsys, "train", "--help-all")
    assert default_of("--epochs", digits) == "from the recipe: 60"
    assert default_of("--embedding-size", digits) == "from the recipe: 64"
    mnist = help_of(capsys, "train", "--model", "vit", "--dataset", "mnist", "--help-all")
    assert default_of("--model", mnist) == "vit"
    assert default_of("--epochs", mnist) == "from the recipe: 20"
    assert default_of("--vit.patch-size", mnist) == "from the recipe: 7"
    folder = help_of(capsys, "train", "--dataset", "folder:x", "--help-all")
    assert default_of("--epochs", folder) == "depends on the number of training images"
    assert default_of("--loss.gamma", folder) == "set by the objective"
    assert default_of("--mining.angle", folder) == "set by the miner"
    assert default_of("--cnn.widths", folder) == "16 32 64"
    assert "The recipe is the set of defaults for this model and data set." in " ".join(folder.split())


def test_the_help_with_a_mistake_shows_the_general_defaults(capsys):
    assert default_of("--epochs", help_of(capsys, "train", "--modle", "vit", "--help")) == "from the recipe: 60"


@dataclasses.dataclass(frozen=True)
class NumericArguments:
    """Do something with numbers."""

    count: int = 0
    """A count."""
    rate: float = 0.0
    """A rate."""
    verbose: bool = False
    """A switch."""
    limit: int | None = None
    """A limit. Default: no limit."""


def test_a_default_of_zero_is_shown_and_that_of_a_switch_is_not():
    printed = help_text(Command(print, NumericArguments), "program", [], show_all=True, width=80)
    assert default_of("--count", printed) == "0"
    assert default_of("--rate", printed) == "0"
    assert default_of("--verbose", printed) is None
    assert default_of("--limit", printed) == "no limit"


def test_the_help_of_train_py_names_it():
    done = subprocess.run([sys.executable, ROOT / "train.py", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python train.py [OPTIONS]")
    assert done.stderr == ""


def test_the_version_is_printed(capsys):
    assert help_of(capsys, "--version") == f"simjax {simjax.__version__}\n"


def test_the_help_names_ready_encoders_with_a_classifier_and_the_copy_of_a_ready_one(capsys):
    from simjax.encoder import load_encoder, ready_encoders

    with_classifier = [name for name in ready_encoders() if load_encoder(name).head is not None]
    assert with_classifier == ["cifar10-cnn"]
    assert "that has a classifier, such as cifar10-cnn" in " ".join(help_of(capsys, "classify", "--help").split())
    printed = " ".join(help_of(capsys, "calibrate", "--help").split())
    assert "simjax calibrate mnist-cnn --images FOLDER --out COPY" in printed
    assert "which is then used in place of the encoder; a ready encoder needs it" in printed


def test_the_usage_marks_arguments_that_can_be_left_out(capsys):
    assert "usage: simjax gallery search GALLERY [IMAGES ...] [OPTIONS]" in help_of(
        capsys, "gallery", "search", "--help"
    )
    assert "usage: simjax gallery add GALLERY IMAGES ... [OPTIONS]" in help_of(capsys, "gallery", "add", "--help")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["data"], ["data", "--help"]])
def test_commands_are_listed(arguments, capsys):
    printed = help_of(capsys, *arguments)
    assert printed.startswith("usage: simjax data COMMAND ..." if "data" in arguments else "usage: simjax COMMAND ...")
    listed = re.findall(r"^  (\w+(?: \w+)?)  ", printed, re.MULTILINE)
    assert listed == [name for name in COMMANDS if "data" not in arguments or name.startswith("data ")]
