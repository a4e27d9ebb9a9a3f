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
    path = Path(path_or_name).expanduser()
    if (path / WEIGHTS).is_file():
        folder, name = path, path.resolve().name
    elif (path / "encoder" / WEIGHTS).is_file():
        folder, name = path / "encoder", path.resolve().name
    elif str(path_or_name) in ready_encoders():
        folder, name = READY / str(path_or_name), str(path_or_name)
    elif path.is_dir():
        raise InputError(f"{path}: has no encoder; expected the folder of an encoder or of a finished run")
    else:
        near = suggestion(str(path_or_name), ready_encoders())
        raise InputError(f"{path}: no such folder, and no ready encoder has this name{near}")
    config, networks, calibration = read_encoder(folder)
    return Encoder(networks, config, calibration=calibration, name=name)
