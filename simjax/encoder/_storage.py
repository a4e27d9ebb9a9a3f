"""The folder of an encoder: config.json, model.safetensors, README.md, and calibration.safetensors if it is calibrated.

Nothing in the folder is executed: weights and calibration are arrays in the safetensors format, the rest is JSON and
text. The names of the weights are the paths of the modules, such as `networks.0.layers.layers.0.kernel`.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from simjax import nn
from simjax.core import InputError
from simjax.encoder._config import FORMAT, EncoderConfig, config_from_dict
from simjax.encoder._model_card import model_card
from simjax.evaluate import Calibration

CONFIG, WEIGHTS, CARD, CALIBRATION = "config.json", "model.safetensors", "README.md", "calibration.safetensors"


def save_encoder(
    folder: Path,
    config: EncoderConfig,
    networks: Sequence[nnx.Module],
    calibration: Calibration | None,
    *,
    overwrite: bool = False,
) -> None:
    """Write the folder of an encoder. It is complete or, after an error, as before.

    Raises:
        InputError: If the folder exists and `overwrite` is False, if it has files of something else, or if it cannot be
            written.
    """
    from safetensors.numpy import save

    files = {CONFIG, WEIGHTS, CARD, CALIBRATION}
    if folder.exists():
        if not overwrite:
            raise InputError(f"{folder} exists; choose another folder, or pass `overwrite=True`")
        if not folder.is_dir() or (unknown := sorted({p.name for p in folder.iterdir()} - files)):
            raise InputError(f"{folder} is not the folder of an encoder{f' ({unknown[0]})' if folder.is_dir() else ''}")
    arrays = weights_of(networks)
    description = {
        "format": FORMAT,
        **dataclasses.asdict(config),
        "fingerprint": _hash(config, arrays),
        "calibration": None,
    }
    contents: dict[str, bytes] = {WEIGHTS: save(arrays), CARD: model_card(config, calibration).encode()}
    if calibration is not None:
        calibration_arrays, description["calibration"] = calibration.to_arrays()
        contents[CALIBRATION] = save(calibration_arrays)
    contents[CONFIG] = (json.dumps(description, indent=1) + "\n").encode()
    work = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        work.mkdir(parents=True)
        for name, content in contents.items():
            (work / name).write_bytes(content)
        if folder.exists():
            folder.rename(old)
        work.rename(folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def read_encoder(folder: Path) -> tuple[EncoderConfig, list[nnx.Module], Calibration | None]:
    """Read the folder of an encoder.

    Raises:
        InputError: If the folder is incomplete, damaged or of a newer format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        description = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config = config_from_dict(description)
        arrays = load_file(folder / WEIGHTS)
        networks = _build_networks(config, arrays)
        if description.get("fingerprint") != _hash(config, arrays):
            raise InputError("its weights or its description were changed after it was saved")
        calibration = None
        if description.get("calibration") is not None:
            calibration = Calibration.from_arrays(load_file(folder / CALIBRATION), description["calibration"])
    except (OSError, ValueError, SafetensorError) as error:  # InputError is a ValueError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{folder}: cannot be read as an encoder: {reason}") from error
    return config, networks, calibration


def weights_of(networks: Sequence[nnx.Module]) -> dict[str, np.ndarray]:
    """Return all arrays of the networks by the path of their module."""
    arrays: dict[str, np.ndarray] = {}
    for number, network in enumerate(networks):
        for path, value in nnx.to_flat_state(nnx.state(network)):
            name = ".".join(map(str, ("networks", number, *path)))
            arrays[name] = np.ascontiguousarray(value[...])
    return arrays


def fingerprint(config: EncoderConfig, networks: Sequence[nnx.Module]) -> str:
    """Return a hash of all that embeddings depend on: the weights, the network and the preprocessing."""
    return _hash(config, weights_of(networks))


def _hash(config: EncoderConfig, arrays: Mapping[str, np.ndarray]) -> str:
    fields = ("network", "options", "embedding_size", "preprocessing", "networks", "combine")
    described = dataclasses.asdict(config)
    digest = hashlib.sha256(json.dumps({name: described[name] for name in fields}, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()[:16]


def _build_networks(config: EncoderConfig, arrays: Mapping[str, np.ndarray]) -> list[nnx.Module]:
    """Return the described networks with the given weights; initial weights are not computed."""
    if config.network not in nn.NETWORKS:
        raise InputError(f"unknown network {config.network!r}; update simjax")

    def build() -> nnx.Module:
        shape, size = config.preprocessing.image_shape, config.embedding_size
        options = {name: tuple(v) if isinstance(v, list) else v for name, v in config.options.items()}
        return nn.NETWORKS[config.network](shape, embedding_size=size, rngs=nnx.Rngs(0), **options)

    try:
        graph, abstract = nnx.split(nnx.eval_shape(build))
    except TypeError as error:
        raise InputError(f"unknown option of the network {config.network}: {error}") from error
    expected = nnx.to_flat_state(abstract)
    networks = []
    for number in range(config.networks):
        loaded = []
        for path, leaf in expected:
            name = ".".join(map(str, ("networks", number, *path)))
            array = arrays.get(name)
            shape = leaf.shape
            if array is None or array.shape != shape:
                got = "nothing" if array is None else f"shape {array.shape}"
                raise InputError(f"weights {name}: expected shape {shape}, got {got}")
            value = jnp.asarray(array, leaf.dtype)
            loaded.append((path, leaf.replace(value) if isinstance(leaf, nnx.Variable) else value))
        networks.append(nnx.merge(graph, nnx.from_flat_state(loaded)))
    return networks
