"""docs/json.md has the keys of every JSON document, and an explanation of each key."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from simjax.cli import main
from simjax.cli._arguments import options_of
from simjax.cli._main import COMMANDS
from simjax.gallery import Index
from tests.cli.runs import ROOT, image_folder

PAGE = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
BY_NAME = {"areas", "random_ranges", "results", "metadata"}  # dictionaries with names of the user or of an encoder
ARGUMENTS = {
    "encoders": [""],
    "embed": ["run images --out e.npz"],
    "classify": ["run images"],
    "calibrate": ["run --images strangers --out copy"],
    "verify": ["run images/a/0.png images/b/0.png"],
    "fid": ["run images/a images/b"],
    "explain": ["run images/a/0.png images/b/0.png --out p.html", "run images/a/0.png --out p.html"],
    "gallery create": ["H --encoder run --images images"],
    "gallery add": ["G others/a"],
    "gallery remove": ["G 1"],
    "gallery search": ["G images/a/0.png"],
    "gallery identify": ["G images/a/0.png --fpir 0.1"],
    "gallery recommend": ["G --like 1"],
    "gallery duplicates": ["G"],
    "gallery verify": ["G images/a/0.png images/b/0.png --fmr 0.1"],
    "gallery calibrate": ["G --images strangers"],
    "gallery copy": ["G C"],
    "gallery info": ["G"],
}


@pytest.fixture
def well_calibrated(place: Path) -> None:
    """Create a gallery in the working directory, with a calibration that has enough images for the default rates."""
    image_folder(place / "strangers", classes=("c", "d", "e", "f"), each=30)
    main(["gallery", "create", "G", "--encoder", "run", "--images", "images"])
    main(["gallery", "calibrate", "G", "--images", "strangers"])


def shape(value: Any) -> str:
    """Return the keys of a JSON document, such as `[{"a", "b": [{"c"}]}]`; other values are left out."""
    if isinstance(value, list):
        return f"[{shape(value[-1])}]"
    entries = [
        f'"{key}": {shape(inner)}' if key not in BY_NAME and is_nested(inner) else f'"{key}"'
        for key, inner in value.items()
    ]
    return f"{{{', '.join(entries)}}}"


def is_nested(value: Any) -> bool:
    """Return whether a value is a dictionary or a list of dictionaries."""
    return isinstance(value, dict) or (isinstance(value, list) and len(value) > 0 and isinstance(value[0], dict))


def documented() -> dict[str, list[str]]:
    """Return the shapes of the documents by command."""
    rows = re.findall(r"^\| `([a-z ]+)`[^|]* \| `([^`]+)` \|$", PAGE, re.MULTILINE)
    found: dict[str, list[str]] = {}
    for command, text in rows:
        found.setdefault(command, []).append(text)
    return found


def test_every_command_with_json_is_documented():
    flags = {name: [option.flag for option in options_of(command.dataclass)] for name, command in COMMANDS.items()}
    with_json = {name for name in COMMANDS if "--json" in flags[name]}
    assert set(documented()) == with_json | {"gallery list"}
    assert set(ARGUMENTS) == with_json - {"gallery index"}


@pytest.mark.parametrize("command", ARGUMENTS)
def test_a_document_has_the_documented_keys(well_calibrated, capsys, monkeypatch, command):
    monkeypatch.setattr("warnings.filters", [])
    capsys.readouterr()
    found = []
    for arguments in ARGUMENTS[command]:
        main([*command.split(), *arguments.split(), "--json"])
        document = json.loads(capsys.readouterr().out)
        if command == "encoders":
            document = [encoder for encoder in document if encoder["name"] == "glyphs-cnn"]
        found.append(shape(document))
    assert found == documented()[command]


def test_lines_of_a_list_and_an_index_have_the_documented_keys(calibrated, capsys):
    main(["gallery", "list", "G"])
    assert [shape(json.loads(capsys.readouterr().out.splitlines()[0]))] == documented()["gallery list"]
    assert [shape(dict.fromkeys(Index._fields))] == documented()["gallery index"]


def test_documents_are_ascii_for_every_encoding_and_terminal(calibrated, capsys):
    name = "Eve\x9b31m\U0001f600"
    main(["gallery", "add", "G", "images/a/0.png", "--again", "--identity", name])
    capsys.readouterr()
    for arguments in (["list", "G", "--where", f"identity={name}"], ["search", "G", "images/a/0.png", "--json"]):
        main(["gallery", *arguments])
        printed = capsys.readouterr().out
        assert printed.isascii()
        assert json.dumps(name) in printed


def test_every_key_is_explained():
    keys = {key for texts in documented().values() for text in texts for key in re.findall(r'"(\w+)"', text)}
    explained = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE.partition("## Results")[2], re.MULTILINE)
    assert {key for names in explained for key in re.findall(r"`(\w+)`", names)} == keys
