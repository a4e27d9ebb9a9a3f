"""Load an encoder: from its folder, from the folder of a run, or a ready one by its name."""

import os
from pathlib import Path

from simjax.core import InputError, suggestion
from simjax.encoder._encoder import Encoder
from simjax.encoder._storage import WEIGHTS, read_encoder

READY = Path(__file__).parent / "ready"
"""Folder of the encoders that are part of the package, one sub-folder each."""


def ready_encoders() -> tuple[str, ...]:
    """Return the names of the encoders that are part of the package."""
    return tuple(sorted(path.parent.name for path in READY.glob(f"*/{WEIGHTS}")))


def load_encoder(path_or_name: str | os.PathLike[str]) -> Encoder:
    """Load a trained encoder.

    Args:
        path_or_name: Folder of an encoder, folder of a finished run, or the name of a ready encoder, see
            `ready_encoders`.

    Raises:
        InputError: If there is no such encoder, or its folder is damaged or of a newer format.
    """
    folder = encoder_folder(path_or_name)
    config, networks, learned, calibration = read_encoder(folder)
    named = folder.parent if folder.name == "encoder" else folder
    name = named.resolve().name
    return Encoder(networks, config, learned_measure=learned, calibration=calibration, name=name)


def encoder_folder(path_or_name: str | os.PathLike[str]) -> Path:
    """Return the folder of an encoder; see `load_encoder`."""
    path = Path(path_or_name).expanduser()
    for folder in (path, path / "encoder"):
        if (folder / WEIGHTS).is_file():
            return folder
    if str(path_or_name) in ready_encoders():
        return READY / str(path_or_name)
    if path.is_dir():
        raise InputError(f"{path}: has no encoder; expected the folder of an encoder or of a finished run")
    near = suggestion(str(path_or_name), ready_encoders())
    raise InputError(f"{path}: no such folder, and no ready encoder has this name{near}")
