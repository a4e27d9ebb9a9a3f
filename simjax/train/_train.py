"""A whole run: settings in, a folder with checkpoints, curves and a report out."""

from pathlib import Path
from typing import Any

import numpy as np

from simjax.core import InputError
from simjax.data import statistics
from simjax.nn import count_parameters
from simjax.train._encode import Together
from simjax.train._ensemble import fit_all
from simjax.train._environment import environment
from simjax.train._extend import extend
from simjax.train._learner import build_learner
from simjax.train._loop import Training
from simjax.train._objective import build_objective, rehearse
from simjax.train._outcome import PARTS, evaluate_run
from simjax.train._progress import phase, say
from simjax.train._recipes import complete
from simjax.train._run_folder import RunFolder
from simjax.train._settings import Settings, to_dict, validate
from simjax.train._sources import Sources, load_sources, threshold_source
from simjax.train._step import Pixels
from simjax.train._takes import check_taken


def train(
    settings: Settings, out: Path, *, resume: bool = False, overwrite: bool = False, command: str = ""
) -> dict[str, Any]:
    """Train, evaluate, and leave everything in a folder.

    Args:
        settings: what to train; `None`s are filled in by the recipes.
        out: the run's folder.
        resume: go on from the folder's newest checkpoint. The images must be those that the run began with, but a
            folder may have moved; a constant learning rate allows more epochs or steps.
        overwrite: start again in a folder that holds a run.
        command: kept in config.json.

    Returns:
        The report, as in report.json.

    Raises:
        InputError: for anything a user can mend.
        Interrupted: on Ctrl-C, when the state is saved.
    """
    validate(settings)
    check_taken(settings)
    folder = RunFolder(out)
    settings = folder.begin(settings, resume=resume, overwrite=overwrite)
    say(f"{settings.model} on {settings.dataset}, {settings.objective}, seed {settings.seed}: {out}")
    saved = folder.config() if resume else {}
    sources = _load(settings, folder, saved)
    settings = complete(settings, len(sources.train.labels))
    height, width, channels = (int(extent) for extent in sources.train.images.shape[1:])
    classes = len(sources.train.class_names)
    learner = build_learner(settings, (height, width, channels), classes)
    parameters = count_parameters(learner)
    objective = build_objective(settings, sources.train.labels, classes)
    rehearse(objective, learner)
    pixels = _saved_pixels(saved) or pixels_of(settings, sources)
    if resume:
        before = folder.saved_settings()
        settings = extend(before, settings, objective.steps_per_epoch)
        if settings != before:
            commands = "\n".join(filter(None, (saved.get("command"), command)))
            folder.update_config({"settings": to_dict(settings), "command": commands})
    else:  # nothing of a former run is touched before everything above has been found right
        folder.clear()
        folder.write_json("config.json", _config(settings, sources, pixels, command))
    say(
        f"{len(sources.train.labels):,} training, {len(sources.validation.labels):,} validation and "
        f"{len(sources.test.labels):,} test images of {height}x{width}x{channels}; {classes} classes; "
        f"{parameters:,} parameters; {objective.steps:,} steps of {objective.images} images"
    )
    say(threshold_source(sources)[1])
    fitted = fit_all(Training(settings, sources, learner, objective, pixels), folder, resume=resume)
    encoders = [f.encoder for f in fitted[-settings.ensemble.size :]]
    encoder = encoders[0] if len(encoders) == 1 else Together(encoders, settings.ensemble.combine)
    speed = fitted[-1].images_per_second
    with phase(f"evaluating {len(sources.test.labels):,} test images", PARTS) as begin:
        quality = evaluate_run(settings, folder, sources, encoder, objective, begin)
    report = quality | {
        "steps": sum(f.steps for f in fitted),
        "parameters": parameters * len(encoders),
        "train_seconds": sum(f.seconds for f in fitted),
        "step_milliseconds": None if speed is None else 1000 * objective.images / speed,
        "images_per_second": speed,
        "environment": environment(),
    }
    folder.write_json("report.json", report)
    return report


def _load(settings: Settings, folder: RunFolder, saved: dict[str, Any]) -> Sources:
    """Read the images; those of a resumed run must be the ones that it began with."""
    if not saved:
        return load_sources(settings)
    start = saved.get("working_directory", "")
    try:
        sources = load_sources(settings, Path(start))
    except InputError as error:
        began = f"the run began in {start}; " if start else ""
        raise InputError(
            f"cannot resume {folder.path}: {error} ({began}dataset or test_dataset names a folder that has moved)"
        ) from error
    folder.check_same_data(_data_facts(sources))
    return sources


def _config(settings: Settings, sources: Sources, pixels: Pixels, command: str) -> dict[str, Any]:
    """Return the content of config.json.

    It is enough to take the run again, to use its encoder without the training images, and to know whether two runs
    can be compared.
    """
    scaling = {"pixel_mean": np.asarray(pixels.mean).tolist(), "pixel_std": np.asarray(pixels.std).tolist()}
    return {
        "settings": to_dict(settings),
        "command": command,
        "working_directory": str(Path.cwd()),
        "versions": environment()["versions"],
        "data": _data_facts(sources) | scaling,
    }


def _data_facts(sources: Sources) -> dict[str, Any]:
    return {
        "fingerprint": sources.fingerprint,
        "train_images": len(sources.train.labels),
        "validation_images": len(sources.validation.labels),
        "test_images": len(sources.test.labels),
        "class_names": list(sources.test.class_names),
        "train_class_names": list(sources.train.class_names),
        "image_shape": [int(extent) for extent in sources.train.images.shape[1:]],
    }


def _saved_pixels(config: dict[str, Any]) -> Pixels | None:
    """Return the mean and deviation that a run was trained with, if its config.json has them."""
    data = config.get("data", {})
    if "pixel_mean" not in data or "pixel_std" not in data:
        return None
    return Pixels.of(np.float32(data["pixel_mean"]), np.float32(data["pixel_std"]))


def pixels_of(settings: Settings, sources: Sources) -> Pixels:
    """How pixels are scaled, by the training images alone."""
    if settings.data.scaling == "unit":
        return Pixels.unit(sources.train.images.shape[3])
    return Pixels.of(*statistics(sources.train.images))
