"""The folder of an encoder: config.json, model.safetensors, README.md, and calibration.safetensors if it is calibrated.

Nothing in the folder is executed: weights and calibration are arrays in the safetensors format, the rest is JSON and
text. The names of the weights are the paths of the modules, such as `networks.0.layers.layers.0.kernel`.
"""

import dataclasses
import errno
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from simjax import nn
from simjax._files import absolute_path, is_regular, move_folder, replace_folder, temporary_folder
from simjax.core import InputError
from simjax.encoder._config import FORMAT, EncoderConfig, config_from_dict
from simjax.encoder._model_card import model_card
from simjax.encoder._pretrained import PRETRAINED, pretrained_arrays
from simjax.evaluate import Calibration

CONFIG, WEIGHTS, CARD, CALIBRATION = "config.json", "model.safetensors", "README.md", "calibration.safetensors"


class Modules(NamedTuple):
    """The networks of an encoder, its learned measure and its classifier, see `Encoder`."""

    networks: Sequence[nnx.Module]
    learned_measure: nnx.Module | None = None
    head: nnx.Module | None = None


def save_encoder(
    folder: Path,
    config: EncoderConfig,
    modules: Modules,
    calibration: Calibration | None,
    *,
    overwrite: bool = False,
) -> None:
    """Write the folder of an encoder. After an error, the folder is as it was before.

    Raises:
        InputError: If the folder exists and `overwrite` is False, if it has files of something else, or if it cannot be
            written.
    """
    from safetensors.numpy import save

    folder = absolute_path(folder)
    _check_replaceable(folder, overwrite=overwrite)
    arrays = weights_of(modules)
    description = {
        "format": FORMAT,
        **dataclasses.asdict(config),
        "fingerprint": _hash(config, arrays),
        "head_fingerprint": None if config.head is None else _head_hash(config, arrays),
        "calibration": None,
    }
    contents: dict[str, bytes] = {WEIGHTS: save(arrays), CARD: model_card(config, calibration).encode()}
    if calibration is not None:
        calibration_arrays, description["calibration"] = calibration.to_arrays()
        contents[CALIBRATION] = save(calibration_arrays)
    contents[CONFIG] = (json.dumps(description, indent=1) + "\n").encode()
    try:
        with temporary_folder(folder) as work:
            for name, content in contents.items():
                (work / name).write_bytes(content)
            _check_replaceable(folder, overwrite=overwrite)  # another process may have written it meanwhile
            put_in_place = replace_folder if overwrite else move_folder
            put_in_place(work, folder)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            _check_replaceable(folder, overwrite=False)
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error


def _check_replaceable(folder: Path, *, overwrite: bool) -> None:
    """Raise an InputError if a folder exists, unless, with `overwrite`, it is empty or the folder of an encoder."""
    if not folder.exists():
        return
    if not overwrite:
        raise InputError(f"{folder} exists; choose another folder, or pass `overwrite=True`")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, not the folder of an encoder")
    names = {path.name for path in folder.iterdir()}
    if unknown := foreign_entries(folder) or (sorted(names) if CONFIG not in names else []):
        raise InputError(f"{folder} contains {unknown[0]}, which is not of an encoder: not overwritten")


def foreign_entries(folder: Path) -> list[str]:
    """Return the names in a folder that are not of files of an encoder."""
    files = (CONFIG, WEIGHTS, CARD, CALIBRATION)
    return sorted(path.name for path in folder.iterdir() if path.name not in files or not is_regular(path))


def read_encoder(folder: Path) -> tuple[EncoderConfig, Modules, Calibration | None]:
    """Read the folder of an encoder.

    Raises:
        InputError: If the folder is incomplete, damaged or of a newer format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        description = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config = config_from_dict(description)
        arrays = pretrained_arrays() if _has_pretrained_weights(folder, config) else load_file(folder / WEIGHTS)
        learned_measure = _build_measure(config, arrays)
        modules = Modules(build_networks(config, arrays), learned_measure, _build_head(config, arrays))
        is_head_unchanged = modules.head is None or description.get("head_fingerprint") == _head_hash(config, arrays)
        if description.get("fingerprint") != _hash(config, arrays) or not is_head_unchanged:
            raise InputError("its weights or its description were changed after it was saved")
        calibration = None
        if description.get("calibration") is not None:
            measure: Any = config.measure if learned_measure is None else learned_measure
            measure = measure if isinstance(measure, str) else measure.measure()
            calibration_arrays = load_file(folder / CALIBRATION)
            calibration = Calibration.from_arrays(calibration_arrays, description["calibration"], measure=measure)
    except (OSError, ValueError, SafetensorError) as error:  # InputError is a ValueError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{folder}: cannot be read as an encoder: {reason}") from error
    return config, modules, calibration


def _has_pretrained_weights(folder: Path, config: EncoderConfig) -> bool:
    """Return whether the weights of an encoder are those of another package. Its description has their fingerprint."""
    return config.network == PRETRAINED and not (folder / WEIGHTS).exists()


def weights_of(modules: Modules) -> dict[str, np.ndarray]:
    """Return all arrays of the modules by the path of their module."""
    named = {f"networks.{number}": network for number, network in enumerate(modules.networks)}
    named |= {"measure": modules.learned_measure, "head": modules.head}
    return {
        ".".join(map(str, (prefix, *path))): np.asarray(value[...], order="C")
        for prefix, module in named.items()
        if module is not None
        for path, value in nnx.to_flat_state(nnx.state(module))
    }


def fingerprint(config: EncoderConfig, modules: Modules) -> str:
    """Return a hash of all that embeddings and their comparison depend on: weights, network, preprocessing, measure."""
    return _hash(config, weights_of(modules._replace(head=None)))


def _hash(config: EncoderConfig, arrays: Mapping[str, np.ndarray]) -> str:
    fields = ("network", "options", "embedding_size", "preprocessing", "networks", "combine", "measure")
    return _digest(config, fields, {name: a for name, a in arrays.items() if not name.startswith("head.")})


def _head_hash(config: EncoderConfig, arrays: Mapping[str, np.ndarray]) -> str:
    """Return a hash of all that the classes of embeddings depend on."""
    fields = ("head", "head_options", "class_names")
    return _digest(config, fields, {name: a for name, a in arrays.items() if name.startswith("head.")})


def _digest(config: EncoderConfig, fields: Sequence[str], arrays: Mapping[str, np.ndarray]) -> str:
    described = dataclasses.asdict(config)
    digest = hashlib.sha256(json.dumps({name: described[name] for name in fields}, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()[:16]


def build_networks(config: EncoderConfig, arrays: Mapping[str, np.ndarray]) -> list[nnx.Module]:
    """Return the described networks with the given weights."""
    if config.network not in nn.NETWORKS:
        raise InputError(f"unknown network {config.network!r}; update simjax")

    def build() -> nnx.Module:
        shape, size = config.preprocessing.image_shape, config.embedding_size
        options = {name: tuple(v) if isinstance(v, list) else v for name, v in config.options.items()}
        return nn.NETWORKS[config.network](shape, embedding_size=size, rngs=nnx.Rngs(0), **options)

    try:
        return [with_weights(build, f"networks.{number}", arrays) for number in range(config.networks)]
    except TypeError as error:
        raise InputError(f"unknown option of the network {config.network}: {error}") from error


def _build_measure(config: EncoderConfig, arrays: Mapping[str, np.ndarray]) -> nnx.Module | None:
    """Return the learned measure with the given weights, or None if the measure is not learned."""
    if config.measure not in nn.LEARNED_MEASURES:
        return None
    features, size = config.embedding_size * config.networks, config.measure_size
    if not isinstance(size, int) or size < 1:
        raise InputError(f"measure_size: expected a whole number above 0, got {size}")
    build = nn.LEARNED_MEASURES[config.measure]
    return with_weights(lambda: build(features, size, rngs=nnx.Rngs(0)), "measure", arrays)


def _build_head(config: EncoderConfig, arrays: Mapping[str, np.ndarray]) -> nnx.Module | None:
    """Return the classifier with the given weights, or None if the encoder has none."""
    if config.head is None:
        return None
    build = nn.HEADS.get(str(config.head))
    if build is None:
        raise InputError(f"unknown classifier {config.head!r}; update simjax")
    size, classes, options = config.embedding_size, len(config.class_names), config.head_options
    try:
        return with_weights(lambda: build(size, classes, rngs=nnx.Rngs(0), **options), "head", arrays)
    except TypeError as error:
        raise InputError(f"unknown option of the classifier {config.head}: {error}") from error


def with_weights(build: Callable[[], nnx.Module], prefix: str, arrays: Mapping[str, np.ndarray]) -> nnx.Module:
    """Return a module with the given weights. `build` is only traced, so initial weights are not computed."""
    graph, abstract = nnx.split(nnx.eval_shape(build))
    loaded, unused = [], {name for name in arrays if name.startswith(f"{prefix}.")}
    for path, leaf in nnx.to_flat_state(abstract):
        name = ".".join(map(str, (prefix, *path)))
        unused.discard(name)
        array = arrays.get(name)
        if array is None or array.shape != leaf.shape:
            got = "nothing" if array is None else f"shape {array.shape}"
            raise InputError(f"weights {name}: expected shape {leaf.shape}, got {got}")
        value = jnp.asarray(array, leaf.dtype)
        loaded.append((path, leaf.replace(value) if isinstance(leaf, nnx.Variable) else value))
    if unused:
        raise InputError(f"weights {min(unused)}: expected no such weights, the config describes another {prefix}")
    return nnx.merge(graph, nnx.from_flat_state(loaded))
