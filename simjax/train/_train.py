"""A whole run: settings -> data -> objective -> training -> evaluation."""

import os
import platform
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from simjax.core import InputError
from simjax.encoder import Encoder
from simjax.nn import count_parameters
from simjax.train._data import DataSplits, Normalization, build_normalization, load_splits, threshold_source
from simjax.train._ensemble import fit_all
from simjax.train._evaluation import PARTS, evaluate_run
from simjax.train._learner import build_learner, encoder_config
from simjax.train._loop import Training
from simjax.train._objective import build_objective, dry_run
from simjax.train._progress import phase, print_line
from simjax.train._recipes import fill_defaults, fill_reading_defaults
from simjax.train._run_folder import RunFolder, extend
from simjax.train._settings import Settings, to_dict
from simjax.train._validation import validate

PACKAGES = ("simjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class TrainResult(NamedTuple):
    """Result of a run.

    Attributes:
        encoder: The trained encoder, which is also saved in the folder `encoder` of the run.
        report: Evaluation on the test images, as in report.json.
        settings: Settings with their defaults filled in, as in config.json.
        folder: Folder of the run.
    """

    encoder: Encoder
    report: dict[str, Any]
    settings: Settings
    folder: Path


def train(
    settings: Settings, out: str | Path, *, resume: bool = False, overwrite: bool = False, command: str = ""
) -> TrainResult:
    """Train an encoder, evaluate it, and save everything in a folder.

    The folder has config.json, metrics.jsonl, checkpoints/, encoder/, report.json, predictions.npz, samples.npz and
    leave_one_out.npz, and with `settings.tensorboard` an event file in tensorboard/.
    predictions.npz has the arrays `index`, `label` and `embedding` of the test images; `predicted`, their predicted
    classes, if there are any; and for images that come from files `path`, strings, below the folder of the data set.
    samples.npz has test images for a report: nearest neighbours, pairs, mistakes, confusions, small images for a map.
    `simjax.load_encoder(out)` loads the encoder.
    `simjax.report.write(out)` writes a report from these files.

    Args:
        settings: Settings of the run. None is replaced by the default for the model and the data set.
        out: Folder of the run.
        resume: Continue from the newest checkpoint in the folder. The images must be the same, but may have moved to
            another folder. With a constant learning rate, more epochs or steps are allowed.
        overwrite: Delete the run in the folder and start again.
        command: Command line, for config.json.

    Raises:
        InputError: If the settings, the data or the folder cannot be used. The folder is then unchanged.
        Interrupted: On Ctrl-C or SIGTERM, after saving a checkpoint.

    Example:
        >>> import tempfile
        >>> from simjax.train import from_dict
        >>> settings = from_dict({"model": "dnn", "dnn": {"widths": [16]}, "steps": 2})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = train(settings, Path(folder) / "run")  # doctest: +ELLIPSIS
        dnn on digits, softmax, seed 0...
        >>> result.report["steps"]
        2
    """
    validate(settings)
    folder = RunFolder(Path(out))
    settings = folder.begin(fill_reading_defaults(settings), resume=resume, overwrite=overwrite)
    saved = folder.config() if resume else None
    print_line(f"{settings.model} on {settings.dataset}, {settings.objective}, seed {settings.seed}: {out}")

    splits = load_splits(settings) if saved is None else _load_same_splits(settings, folder, saved)
    normalization = _saved_normalization(saved or {}) or build_normalization(settings, splits)
    settings = fill_defaults(settings, len(splits.train.labels))
    classes = len(splits.train.class_names)
    learner = build_learner(settings, splits.image_shape, classes)
    parameters = count_parameters(learner)
    objective = build_objective(settings, splits.train.labels, classes)
    dry_run(objective, learner)

    if saved is not None:
        before = folder.saved_settings()
        settings = extend(before, settings, objective.steps_per_epoch)
        if settings != before:
            commands = "\n".join(filter(None, (saved.get("command"), command)))
            folder.write_json("config.json", saved | {"settings": to_dict(settings), "command": commands})
    else:  # only after all checks, because this deletes a previous run
        folder.clear()
        folder.write_json("config.json", _config(settings, splits, normalization, command))

    height, width, channels = splits.image_shape
    print_line(
        f"{len(splits.train.labels):,} training, {len(splits.validation.labels):,} validation and "
        f"{len(splits.test.labels):,} test images of {height}x{width}x{channels}; {classes} classes; "
        f"{parameters:,} parameters; {objective.steps:,} steps of {objective.images_per_step} images"
    )
    print_line(threshold_source(splits)[1])
    config = encoder_config(settings, splits, normalization, objective.measure.name)
    results = fit_all(Training(settings, splits, learner, objective, normalization, config), folder, resume=resume)

    size = settings.ensemble.size
    networks = [result.learner.encoder for result in results[-size:]]
    config = replace(config, networks=size, combine=settings.ensemble.combine)
    learner = results[-1].learner
    modules: dict[str, Any] = {"learned_measure": learner.learned.get("measure"), "head": learner.head}
    if size > 1:  # each encoder of an ensemble has a classifier of its own
        config, modules["head"] = replace(config, head=None, head_options={}), None
    encoder = Encoder(networks, config, **modules, name=folder.path.name)
    speed = results[-1].images_per_second
    with phase(f"evaluating {len(splits.test.labels):,} test images", PARTS) as begin:
        evaluation = evaluate_run(settings, folder, splits, encoder, learner if size == 1 else None, objective, begin)
    if (collapse := evaluation["diagnostics"]["collapse"]) is not None:
        warnings.warn(f"test images: {collapse}", stacklevel=2)
    report = evaluation | {
        "steps": sum(result.steps for result in results),
        "parameters": parameters * size,
        "train_seconds": sum(result.seconds for result in results),
        "step_milliseconds": None if speed is None else 1000 * objective.images_per_step / speed,
        "images_per_second": speed,
        "environment": environment(),
    }
    config = replace(config, about=_facts(settings, splits, report))
    encoder = Encoder(networks, config, **modules, name=folder.path.name)
    encoder.save(folder.path / "encoder", overwrite=True)
    folder.write_json("report.json", report)
    return TrainResult(encoder, report, settings, folder.path)


def _load_same_splits(settings: Settings, folder: RunFolder, saved: dict[str, Any]) -> DataSplits:
    """Read the images of a resumed run, and check that they have not changed."""
    start = saved.get("working_directory", "")
    try:
        splits = load_splits(settings, Path(start))
    except InputError as error:
        began = f"the run began in {start}; " if start else ""
        raise InputError(
            f"cannot resume {folder.path}: {error} ({began}dataset or test_dataset names a folder that has moved)"
        ) from error
    folder.check_same_data(_describe(splits))
    return splits


def _config(settings: Settings, splits: DataSplits, normalization: Normalization, command: str) -> dict[str, Any]:
    """Return the content of config.json, sufficient to repeat the run and to use its encoder without training images.

    Runs on the same data have the same fingerprint.
    """
    mean, std = (np.asarray(array).tolist() for array in normalization)
    return {
        "settings": to_dict(settings),
        "command": command,
        "working_directory": str(Path.cwd()),
        "versions": environment()["versions"],
        "data": _describe(splits) | {"pixel_mean": mean, "pixel_std": std},
    }


def _describe(splits: DataSplits) -> dict[str, Any]:
    return {
        "fingerprint": splits.fingerprint,
        "train_images": len(splits.train.labels),
        "validation_images": len(splits.validation.labels),
        "test_images": len(splits.test.labels),
        "class_names": list(splits.test.class_names),
        "train_class_names": list(splits.train.class_names),
        "image_shape": list(splits.image_shape),
    }


def _facts(settings: Settings, splits: DataSplits, report: dict[str, Any]) -> dict[str, Any]:
    """Return the facts for the model card of the encoder, see `simjax.encoder.EncoderConfig`."""
    retrieval, verification = report["retrieval"] or {}, report["verification"] or {}
    results = {
        f"Accuracy ({report['accuracy_of']})": _estimate(report, "accuracy"),
        "Precision at 1": _estimate(retrieval, "precision_at_1"),
        "Area under the ROC curve of verification": _estimate(verification, "roc_auc"),
        "Equal error rate of verification": _estimate(verification, "equal_error_rate"),
    }
    images = f"{len(splits.test.labels):,} test images of {settings.test_dataset or settings.dataset}"
    return {
        "title": f"{settings.model} on {settings.dataset}, {settings.objective}",
        "data": {
            "Data set": settings.dataset,
            "Training images": f"{len(splits.train.labels):,} of {len(splits.train.class_names):,} classes",
            "Fingerprint of the images": splits.fingerprint,
        },
        "recipe": {
            "Objective": settings.objective,
            "Steps": f"{report['steps']:,}",
            "Seed": settings.seed,
            "simjax": version("simjax"),
        },
        "results": {"Measured on": images} | {name: value for name, value in results.items() if value is not None},
    }


def _estimate(metrics: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return a metric with its interval for the model card, or None if it could not be computed."""
    value = metrics.get(name)
    return None if value is None else {"value": value, "interval": metrics.get(f"{name}_interval")}


def _saved_normalization(config: dict[str, Any]) -> Normalization | None:
    """Return the normalization of a run, or None if its config.json does not have it."""
    data = config.get("data", {})
    has_both = "pixel_mean" in data and "pixel_std" in data
    return Normalization.of(data["pixel_mean"], data["pixel_std"]) if has_both else None


def environment() -> dict[str, Any]:
    """Return versions and machine, for config.json and report.json."""
    device = jax.devices()[0]
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": f"{device.platform}: {device.device_kind}",
        "devices": jax.device_count(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
