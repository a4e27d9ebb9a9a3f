"""The structure of the packages: imports point one way, public names are documented, nothing heavy loads unasked."""

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
    "nn": {"core", "similarity", "attention", "losses"},
    "data": {"core"},
    "evaluate": {"core", "similarity"},
    "classical": {"core", "similarity", "evaluate"},
    "encoder": {"core", "similarity", "evaluate", "nn", "data"},
    "train": {"core", "similarity", "pairs", "losses", "mining", "nn", "data", "evaluate", "encoder"},
    "study": {"core", "similarity", "nn", "data", "evaluate", "encoder", "explain", "train"},
    "report": {"core", "evaluate"},
    "gallery": {"core", "similarity", "evaluate", "data", "encoder"},
    "explain": {"core", "similarity", "evaluate", "nn", "encoder"},
    "cli": {"core", "similarity", "data", "evaluate", "encoder", "gallery", "explain", "train", "study", "report"},
}
SHARED = {"_files", "_reading", "_compilation_cache"}  # modules that every package may import


def imported_modules(path: Path) -> set[str]:
    """Return the absolute names of all modules that a file imports, at any depth and in any way."""
    package = ["simjax", *path.relative_to(ROOT).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            name = node.args[0]
            assert isinstance(name, ast.Constant), f"{path.name} imports {ast.unparse(name)}, which no test can follow"
            found.add(name.value)
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        parts = [module.split(".") for module in imported_modules(path)]
        packages = {names[1] for names in parts if names[0] == "simjax" and len(names) > 1}
        forbidden = packages - MAY_IMPORT[package] - SHARED - {package}
        assert not forbidden, f"{path.name} imports {forbidden}"


def test_every_package_has_its_arrows():
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(MAY_IMPORT)


def test_the_import_finder_sees_every_kind_of_import(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "core" / "_file.py"
    file.parent.mkdir()
    file.write_text(
        "import simjax.a\nfrom simjax import b\nfrom simjax.c import x\nfrom ..d import y\nfrom . import e\n"
        "def f():\n    import importlib\n    importlib.import_module('simjax.g')\n    from simjax.h._i import z\n"
    )
    expected = {"a", "b", "c.x", "d.y", "core.e", "g", "h._i.z"}
    assert imported_modules(file) == {"importlib"} | {f"simjax.{name}" for name in expected}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_public_names_are_documented(package):
    module = importlib.import_module(f"simjax.{package}")
    assert sorted(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        public = getattr(module, name)
        if inspect.isroutine(public) or inspect.isclass(public):
            doc = inspect.getdoc(public)
            assert doc, f"simjax.{package}.{name} has no docstring"
            if inspect.isroutine(public) and len(inspect.signature(public).parameters) > 3:
                assert "Args:" in doc, f"the docstring of simjax.{package}.{name} does not describe its arguments"


def test_packages_load_after_one_import_and_nothing_heavy_before_it_is_used():
    packages = sorted(set(MAY_IMPORT) - {"cli"})
    heavy = ["tensorflow", "tensorflow_datasets", "matplotlib", "sklearn", "orbax", "PIL", "grain"]
    code = (
        f"import simjax, sys; print([getattr(simjax, name).__name__ for name in {packages}]); "
        f"import simjax.cli; print([module for module in {heavy} if module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    loaded, loaded_heavy = done.stdout.splitlines()
    assert loaded == str([f"simjax.{name}" for name in packages])
    assert sorted(simjax.__all__) == sorted(
        [*packages, "Encoder", "Gallery", "enable_compilation_cache", "load_encoder"]
    )
    assert loaded_heavy == "[]"


def test_no_file_grows_past_two_concepts():
    long = {p.name: n for p in ROOT.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}
