"""A finished run, read from its folder: settings, training curve, report, and arrays on request."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simjax.core import InputError
from simjax.report._numbers import number


@dataclasses.dataclass(frozen=True)
class Run:
    """What a finished run left behind.

    Attributes:
        path: its folder.
        config: config.json: settings, versions, command, data.
        report: report.json: the numbers of the finished run.
        history: the lines of metrics.jsonl, oldest first.
    """

    path: Path
    config: dict[str, Any]
    report: dict[str, Any]
    history: list[dict[str, Any]]

    def part(self, name: str) -> dict[str, Any]:
        """A part of config.json (settings, versions, data), empty if it is missing."""
        found = self.config.get(name)
        return found if isinstance(found, dict) else {}

    def value(self, *keys: str) -> Any:
        """A value of report.json, or None where it or what holds it is missing."""
        found: Any = self.report
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Steps and values of one name in the history, where it has a value."""
        points = [(number(line.get("step")), number(line.get(name))) for line in self.history]
        both = [(step, value) for step, value in points if step is not None and value is not None]
        return [step for step, _ in both], [value for _, value in both]

    def class_names(self, classes: int) -> list[str]:
        """What the first classes of the test images are called, or their numbers where there are not enough names."""
        data = self.part("data")
        names = data.get("test_class_names") or data.get("class_names")
        if isinstance(names, list) and len(names) >= classes:
            return [str(name) for name in names[:classes]]
        return [str(i) for i in range(classes)]

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of an .npz file of the run, empty if there is no such file.

        Raises:
            InputError: if the file cannot be read.
        """
        path = self.path / name
        if not path.is_file():
            return {}
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except Exception as error:  # a broken archive raises what zipfile, zlib or numpy happen to raise
            raise InputError(f"{path}: cannot be read as an .npz file ({error})") from error


def read_run(path: Path) -> Run:
    """Read a finished run.

    Raises:
        InputError: if the folder is not a finished run, or one of its files cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"run: expected the folder of a finished run, got {path}, which is not a folder")
    for name in ("report.json", "config.json"):
        if not (path / name).is_file():
            raise InputError(f"run: expected the folder of a finished run, got {path}, which has no {name}")
    return Run(path, _read_object(path / "config.json"), _read_object(path / "report.json"), _read_history(path))


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: expected a JSON object, got {type(found).__name__}")
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _read_object(path: Path) -> dict[str, Any]:
    return _parse(_read_text(path), str(path))


def _read_history(run: Path) -> list[dict[str, Any]]:
    """The lines in the order of their steps; of a step that a resumed run took twice, the last word counts."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        return []
    merged: dict[Any, dict[str, Any]] = {}
    for line in _lines(path):
        merged.setdefault(line.get("step"), {}).update(line)
    return sorted(merged.values(), key=lambda line: number(line.get("step")) or 0.0)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for row, line in enumerate(_read_text(path).split("\n"), start=1):
        if line.strip():
            yield _parse(line, f"{path}, line {row}")
