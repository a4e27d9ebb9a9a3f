"""A run's folder: what it holds, how it begins, and how it goes on after an interruption."""

import io
import json
import os
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from simjax._files import write_file
from simjax.core import InputError
from simjax.data import resolve_folders
from simjax.train._settings import WHERE_ONLY, Settings, differences, from_dict
from simjax.train._takes import taken_by_objective

OURS = {
    "config.json",
    "metrics.jsonl",
    "report.json",
    "report.md",
    "report.html",
    "predictions.npz",
    "samples.npz",
    "figures",
    "checkpoints",
}
"""What a run writes; a folder with anything else in it is not ours to overwrite."""


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path):
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"

    def begin(self, settings: Settings, *, resume: bool, overwrite: bool) -> Settings:
        """Check that the run may use this folder; nothing is written or removed yet.

        Returns:
            The settings to run with: a resumed run has those it was started with. It may store and read its data
            elsewhere and have another number of epochs or steps; whether that is possible, `check_same_data` and
            `extend` tell.

        Raises:
            InputError: if the folder holds something else, holds a run and neither resume nor overwrite is given,
                or holds a run with other settings than those to resume.
        """
        if resume and overwrite:
            raise InputError("--resume and --overwrite exclude each other")
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file, not a folder for a run")
        entries = sorted(p.name for p in self.path.iterdir()) if self.path.exists() else []
        if resume:
            return self._resumed(self.saved_settings(), settings)
        if entries and not overwrite:
            raise InputError(
                f"{self.path} exists: give --resume to go on, --overwrite to start again, or another --out"
            )
        if overwrite and (strange := [e for e in entries if e not in OURS and not e.startswith(".")]):
            raise InputError(f"{self.path} holds {strange[0]}, which no run wrote: not overwritten")
        return settings

    def _resumed(self, saved: Settings, settings: Settings) -> Settings:
        changes: dict[str, Any] = {}
        for name, old, new in differences(saved, settings):
            if new is None:  # left to the recipe, which has decided
                continue
            if name in ("dataset", "test_dataset") and "folder:" in str(old) and "folder:" in new:
                changes[name] = resolve_folders(new, Path.cwd())
            elif name == "data_dir":
                changes[name] = str(Path(new).expanduser().absolute())
            elif name in (*WHERE_ONLY, "epochs", "steps"):
                changes[name] = new
            else:
                raise InputError(f"cannot resume {self.path}: {name} was {old} and is now {new}")
        if "epochs" in changes and "steps" not in changes:  # steps, which the run may have been given, would win
            changes["steps"] = None
        return replace(saved, **changes)

    def check_same_data(self, data: dict[str, Any]) -> None:
        """Check that a resumed run reads the images that it began with.

        Args:
            data: the facts about the images, as in config.json.

        Raises:
            InputError: if the fingerprints differ; the message says in what the images do.
        """
        before = self.config().get("data", {})
        if before.get("fingerprint") != data["fingerprint"]:
            raise InputError(
                f"cannot resume {self.path}: its images are not those that it began with ({_changes(before, data)}); "
                "restore them, or train in another folder"
            )

    def update_config(self, changes: dict[str, Any]) -> None:
        """Replace some entries of config.json."""
        self.write_json("config.json", self.config() | changes)

    def clear(self) -> None:
        """Make the folder and take away what a former run left in it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for entry in self.path.iterdir():
                if entry.name in OURS:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        except OSError as error:
            raise InputError(f"cannot use {self.path}: {error.strerror}") from error

    def saved_settings(self) -> Settings:
        """The settings the run was started with.

        Raises:
            InputError: if there is no run in the folder.
        """
        config = self.config()
        try:
            return from_dict(_as_now(config["settings"]))
        except (KeyError, TypeError) as error:
            raise InputError(f"cannot resume {self.path}: its config.json cannot be read ({error})") from error

    def config(self) -> dict[str, Any]:
        """Return the content of config.json.

        Raises:
            InputError: if there is no run in the folder.
        """
        try:
            found = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(f"nothing to resume in {self.path}: it has no config.json") from error
        except (OSError, ValueError) as error:
            raise InputError(f"cannot resume {self.path}: its config.json cannot be read ({error})") from error
        if not isinstance(found, dict):
            raise InputError(f"cannot resume {self.path}: its config.json is not a JSON object")
        return found

    def keep_metrics_until(self, step: int) -> None:
        """Drop the log's lines after a step: the steps that a resumed run takes again."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (json.JSONDecodeError, KeyError):
                break  # the line that a kill cut short
        write_file(self.metrics, "".join(kept))

    def log(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {self.metrics}: {os.strerror(error.errno or 0)}") from error

    def images_per_second(self, after: int, until: int) -> float | None:
        """Return the median over the log's lines of these steps; None if the log is gone or damaged.

        The first line is left out: its time includes the compilation.
        """
        try:
            lines = [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]
            rates = [line["images_per_second"] for line in lines if after < line["step"] <= until and "loss" in line]
            return statistics.median(rates[1:] or rates)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file whole."""
        write_file(self.path / name, json.dumps(value, indent=2, allow_nan=False) + "\n")

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write an .npz file whole."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_file(self.path / name, buffer.getvalue())


def _changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return how the images of a run differ from those that it began with."""
    found = [
        f"{before.get(f'{kind}_images')} {kind} images, now {now[f'{kind}_images']}"
        for kind in ("train", "validation", "test")
        if before.get(f"{kind}_images") != now[f"{kind}_images"]
    ]
    for kind, some, others in (("missing", before, now), ("new", now, before)):
        names: dict[str, None] = {}
        for key in ("train_class_names", "class_names"):
            names |= dict.fromkeys(name for name in some.get(key, ()) if name not in others.get(key, ()))
        if names:
            found.append(f"{kind} classes: {', '.join(list(names)[:3])}{', ...' if len(names) > 3 else ''}")
    return "; ".join(found) or "as many of the same classes, but other images or another order"


def _as_now(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run from before there were miners for all losses, when `loss.mining` was one of three for triplets.

    Then settings that the objective does not take were kept, too.
    """
    loss, objective = dict(settings["loss"]), settings["objective"]
    if "mining" not in loss:
        return settings
    miner = {"all": "none", "hard": "batch_hard", "semi_hard": "semi_hard"}[loss.pop("mining")]
    loss = {name: value for name, value in loss.items() if name in taken_by_objective(objective)}
    return settings | {"loss": loss, "mining": {"miner": miner if objective == "triplet" else "none"}}
