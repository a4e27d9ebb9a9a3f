"""The folder of a run: its files, and the rules for starting, overwriting, resuming and extending a run."""

import io
import json
import os
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from simjax._files import absolute_path, write_file
from simjax.core import InputError
from simjax.data import resolve_folders
from simjax.train._objective import total_steps
from simjax.train._settings import STORAGE_SETTINGS, Settings, differences, from_dict
from simjax.train._step import warmup_steps

RUN_ENTRIES = {
    *("config.json", "metrics.jsonl", "report.json", "report.md", "report.html"),
    *("predictions.npz", "samples.npz", "leave_one_out.npz", "figures", "checkpoints", "encoder", "tensorboard"),
}
"""Files and folders that a run writes. A folder with other entries is never overwritten."""


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path):
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"

    def begin(self, settings: Settings, *, resume: bool, overwrite: bool) -> Settings:
        """Check that a run may use this folder, without changing it, and return the settings of the run.

        A resumed run has its saved settings, except that folders and the number of epochs or steps may change; see
        `check_same_data` and `extend` for the conditions. A folder with other files is never used.
        """
        if resume and overwrite:
            raise InputError("`resume` and `overwrite` exclude each other")
        if (path := absolute_path(self.path)).exists() and not path.is_dir():
            raise InputError(f"{self.path} is a file, not a folder for a run")
        if resume:
            return self._resumed(self.saved_settings(), settings)
        entries = sorted(p.name for p in self.path.iterdir()) if self.path.exists() else []
        if entries and not overwrite:
            raise InputError(
                f"{self.path} exists: `resume=True` continues its run, `overwrite=True` starts again; or choose "
                "another `out`"
            )
        if overwrite and (unknown := [e for e in entries if e not in RUN_ENTRIES and not e.startswith(".")]):
            raise InputError(f"{self.path} contains {unknown[0]}, which no run wrote: not overwritten")
        return settings

    def _resumed(self, saved: Settings, settings: Settings) -> Settings:
        changes: dict[str, Any] = {}
        for name, old, new in differences(saved, settings):
            if new is None:  # not given; the saved settings have the default of the recipe
                continue
            if name in ("dataset", "test_dataset") and "folder:" in str(old) and "folder:" in new:
                changes[name] = resolve_folders(new, Path.cwd())
            elif name == "data_dir":
                changes[name] = str(absolute_path(new))
            elif name in (*STORAGE_SETTINGS, "epochs", "steps"):
                changes[name] = new
            else:
                raise InputError(f"cannot resume {self.path}: {name} was {old} and is now {new}")
        if "epochs" in changes and "steps" not in changes:  # saved steps would take precedence over new epochs
            changes["steps"] = None
        return replace(saved, **changes)

    def check_same_data(self, data: dict[str, Any]) -> None:
        """Check that the description of the images of a resumed run has the fingerprint in config.json."""
        saved = self.config().get("data", {})
        if saved.get("fingerprint") != data["fingerprint"]:
            raise InputError(
                f"cannot resume {self.path}: its images are not those that it began with ({_changes(saved, data)}); "
                "restore them, or train in another folder"
            )

    def clear(self) -> None:
        """Create the folder, or delete the files of a previous run from it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for entry in self.path.iterdir():
                if entry.name in RUN_ENTRIES:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        except OSError as error:
            raise InputError(f"cannot use {self.path}: {error.strerror}") from error

    def saved_settings(self) -> Settings:
        """Return the settings of the run in the folder."""
        config = self.config()
        try:
            return from_dict(config["settings"])
        except (KeyError, TypeError) as error:
            raise InputError(f"cannot resume {self.path}: its config.json cannot be read ({error})") from error

    def config(self) -> dict[str, Any]:
        """Return the content of config.json; an `InputError` if there is no run in the folder."""
        try:
            config = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(f"nothing to resume in {self.path}: it has no config.json") from error
        except (OSError, ValueError) as error:
            raise InputError(f"cannot resume {self.path}: its config.json cannot be read ({error})") from error
        if not isinstance(config, dict):
            raise InputError(f"cannot resume {self.path}: its config.json is not a JSON object")
        return config

    def truncate_metrics(self, step: int) -> None:
        """Delete the lines of metrics.jsonl after a step, from which a resumed run continues."""
        if self.metrics.exists():
            write_file(self.metrics, "".join(json.dumps(line) + "\n" for line in self.lines(step)))

    def lines(self, until: int) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl until a step."""
        lines = []
        for text in self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.exists() else []:
            try:
                line = json.loads(text)
                if line["step"] <= until:
                    lines.append(line)
            except (json.JSONDecodeError, KeyError):
                break  # an incomplete line of a killed process
        return lines

    def log(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {self.metrics}: {os.strerror(error.errno or 0)}") from error

    def images_per_second(self, after: int, until: int) -> float | None:
        """Return the median speed of the steps after `after` until `until`, or None if the log is lost or damaged.

        The first line is excluded, because its time includes the compilation.
        """
        try:
            lines = [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]
            rates = [line["images_per_second"] for line in lines if after < line["step"] <= until and "loss" in line]
            return statistics.median(rates[1:] or rates)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file atomically."""
        write_file(self.path / name, json.dumps(value, indent=2, allow_nan=False) + "\n")

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write an .npz file atomically."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_file(self.path / name, buffer.getvalue())


def extend(saved: Settings, settings: Settings, steps_per_epoch: int) -> Settings:
    """Return the settings of a run that is resumed with more epochs or steps.

    The steps already taken must not depend on the length of the run. So the learning rate must be constant after the
    warm-up, and the warm-up keeps its number of steps. A run that has these settings from the start takes the same
    steps. A run that would be shorter, or that cannot be extended, is an `InputError`.

    Args:
        saved: Settings of the run.
        settings: The same settings with another number of epochs or steps.
        steps_per_epoch: Steps per epoch of the run.
    """
    old, new = (total_steps(s, steps_per_epoch) for s in (saved, settings))
    if new == old:
        return replace(settings, epochs=saved.epochs, steps=saved.steps)
    if new < old:
        raise InputError(
            f"epochs, steps: expected at least the {old:,} steps that the run was started for, got {new:,}"
        )
    reason = None
    if saved.optimizer.schedule != "constant":
        reason = f"its learning rate has a {saved.optimizer.schedule} schedule, which ends after {old:,} steps"
    elif saved.mining.miner == "curriculum":
        reason = f"its curriculum ends after {old:,} steps"
    elif saved.ensemble.size > 1:
        reason = "its encoders are trained one after the other"
    if reason is not None:
        raise InputError(
            f"epochs, steps: the run cannot be extended beyond {old:,} steps, because {reason}; only a single encoder "
            "trained without a curriculum and with optimizer.schedule constant can be"
        )
    warmup = warmup_steps(saved, old) / new
    return replace(settings, optimizer=replace(settings.optimizer, warmup=warmup))


def _changes(saved: dict[str, Any], data: dict[str, Any]) -> str:
    """Return a description of the difference between the images of a run and the current images."""
    changes = [
        f"{saved.get(f'{split}_images')} {split} images, now {data[f'{split}_images']}"
        for split in ("train", "validation", "test")
        if saved.get(f"{split}_images") != data[f"{split}_images"]
    ]
    for kind, present_in, absent_from in (("missing", saved, data), ("new", data, saved)):
        names: dict[str, None] = {}
        for key in ("train_class_names", "class_names"):
            names |= dict.fromkeys(name for name in present_in.get(key, ()) if name not in absent_from.get(key, ()))
        if names:
            changes.append(f"{kind} classes: {', '.join(list(names)[:3])}{', ...' if len(names) > 3 else ''}")
    return "; ".join(changes) or "as many of the same classes, but other images or another order"
