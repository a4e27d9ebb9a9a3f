"""The structure of the house: what is public is documented, imports point one way, nothing heavy loads unasked."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import simjax

ROOT = Path(simjax.__file__).parent
MAY_IMPORT = {
    "core": set(),
    "similarity": {"core"},
    "pairs": {"core", "similarity"},
    "attention": {"core", "similarity"},
    "losses": {"core", "similarity", "pairs"},
    "mining": {"core", "similarity", "pairs"},
    "nn": {"attention", "losses", "similarity", "core"},
    "data": {"core"},
    "evaluate": {"core", "similarity"},
    "train": {"nn", "losses", "mining", "pairs", "similarity", "data", "evaluate", "core"},
    "report": {"evaluate", "core"},
    "cli": {"train", "report", "data", "core"},
}
HALLWAY = {"_files"}  # what every room may use


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows_point_one_way(room):
    for path in (ROOT / room).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "simjax":
                parts = node.module.split(".")
                rooms = parts[1:2] or [alias.name for alias in node.names]
                strange = set(rooms) - MAY_IMPORT[room] - HALLWAY - {room}
                assert not strange, f"{path.name} imports {strange}"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_what_is_public_is_documented(room):
    package = importlib.import_module(f"simjax.{room}")
    tree = ast.parse((ROOT / room / "__init__.py").read_text())
    public = [a.asname for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names if a.asname]
    assert public
    for name in public:
        thing = getattr(package, name)
        if inspect.isroutine(thing) or inspect.isclass(thing):
            assert inspect.getdoc(thing), f"simjax.{room}.{name} has no docstring"
            if inspect.isroutine(thing) and len(inspect.signature(thing).parameters) > 3:
                assert "Args:" in inspect.getdoc(thing), f"simjax.{room}.{name} does not say what its arguments are"


def test_nothing_heavy_loads_before_it_is_used():
    rooms = ", ".join(f"simjax.{room}" for room in MAY_IMPORT if room != "cli")
    code = (
        f"import sys, {rooms}; "
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'matplotlib', 'sklearn', 'orbax', 'PIL', 'grain')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.strip() == "[]"


def test_rooms_are_at_hand_after_one_import():
    code = "import simjax; print([getattr(simjax, room).__name__ for room in simjax.ROOMS])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.strip() == str([f"simjax.{room}" for room in simjax.ROOMS])


def test_no_file_grows_past_two_concepts():
    long = {p.name: n for p in ROOT.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}
