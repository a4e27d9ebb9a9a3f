"""A finished training run, read from its folder."""

import dataclasses
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from simjax.core import InputError
from simjax.report import _numbers as numbers

MODEL_NAMES = {
    "cnn": "CNN",
    "vit": "ViT",
    "dnn": "dense network",
    "logistic": "logistic regression",
    "efficientnet-lite0": "EfficientNet-Lite0",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """The files of a finished run."""

    path: Path
    config: dict[str, Any]  # content of config.json: settings, versions, command, data
    report: dict[str, Any]  # content of report.json: the results
    history: list[dict[str, Any]]  # lines of metrics.jsonl, merged by step, in the order of the steps

    def part(self, name: str) -> dict[str, Any]:
        """Return an object of config.json (settings, versions or data), empty if it is missing."""
        part = self.config.get(name)
        return part if isinstance(part, dict) else {}

    def value(self, name: str) -> Any:
        """Return a value of report.json by its dotted path, None if it is missing."""
        return value_at(self.report, name)

    @property
    def model_name(self) -> str:
        return model_name(self.value("model"))

    @property
    def data_name(self) -> str:
        return data_name(self.value("dataset"), self.value("test_dataset"))

    @property
    def measure_name(self) -> str:
        """The measure of the encoder in words."""
        name = numbers.text(self.value("measure"))
        return {"cosine": "cosine similarity", "dot": "dot product"}.get(name, name.replace("_", " "))

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Return the steps with a finite value of this name in the history, and the values."""
        points = [(numbers.number(line.get("step")), numbers.number(line.get(name))) for line in self.history]
        valid = [(step, value) for step, value in points if step is not None and value is not None]
        return [step for step, _ in valid], [value for _, value in valid]

    @property
    def command(self) -> str:
        """The command that trained the run, without the option that replaces an existing one; empty if unknown."""
        return str(self.config.get("command") or "").replace(" --overwrite", "")

    def class_names(self, classes: int) -> list[str]:
        """Return the names of the first `classes` test classes, or class ids if config.json has too few names."""
        data = self.part("data")
        names = data.get("test_class_names") or data.get("class_names")
        if isinstance(names, list) and len(names) >= classes:
            return [str(name) for name in names[:classes]]
        return [str(i) for i in range(classes)]

    @property
    def unit(self) -> str:
        """What an interval of the run allows for others of: "test images" or "classes"."""
        return "classes" if self.value("intervals_over") == "classes" else "test images"

    @cached_property
    def _arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """The arrays that were read, by the name of the file."""
        return {}

    def arrays(self, file_name: str) -> dict[str, np.ndarray]:
        """Return the arrays of an .npz file of the run by name, an empty dictionary if the file is missing."""
        if file_name not in self._arrays:
            path = self.path / file_name
            self._arrays[file_name] = read_arrays(path) if path.is_file() else {}
        return self._arrays[file_name]


def model_name(model: Any) -> str:
    """Return the name of a model for readers."""
    return MODEL_NAMES.get(str(model), numbers.text(model))


def data_name(dataset: Any, test_dataset: Any = None) -> str:
    """Return the names of data sets; a folder of images, such as folder:/home/ann/faces, has its own name, faces."""

    def name(sets: Any) -> str:
        parts = numbers.text(sets).split("+")
        return "+".join(
            Path(part.removeprefix("folder:")).name if part.startswith("folder:") else part for part in parts
        )

    return name(dataset) + (f", tested on {name(test_dataset)}" if test_dataset else "")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file by name."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # broken archives raise errors of zipfile, zlib or NumPy
        raise InputError(f"{path}: cannot be read as an .npz file ({error})") from error


def value_at(report: Any, name: str) -> Any:
    """Return a value of nested dictionaries by its dotted path, None if it is missing."""
    for key in name.split("."):
        report = report.get(key) if isinstance(report, Mapping) else None
    return report


def read_run(path: Path) -> Run:
    """Read a finished run; raise an InputError if the folder is not one, or if one of its files cannot be read."""
    path = Path(path)
    if not os.path.isdir(path):  # unlike `path.is_dir()`, it takes a name of any length
        raise InputError(f"run: expected the folder of a finished run, got {path}, which is not a folder")
    for name in ("report.json", "config.json"):
        if not (path / name).is_file():
            raise InputError(f"run: expected the folder of a finished run, got {path}, which has no {name}")
    config, report = (parse_json(read_text(path / name), str(path / name)) for name in ("config.json", "report.json"))
    return Run(path, config, report, _read_history(path / "metrics.jsonl"))


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def parse_json(text: str, source: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"{source}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{source}: expected a JSON object, got {type(content).__name__}")
    return content


def _read_history(path: Path) -> list[dict[str, Any]]:
    """Read the log; a resumed run may have logged a step twice, and later values replace earlier ones."""
    merged: dict[Any, dict[str, Any]] = {}
    for row, text in enumerate(read_text(path).split("\n") if path.is_file() else [], start=1):
        if text.strip():
            line = parse_json(text, f"{path}, line {row}")
            merged.setdefault(line.get("step"), {}).update(line)
    return sorted(merged.values(), key=lambda line: numbers.number(line.get("step")) or 0.0)
