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

from simjax import nn, similarity
from simjax._files import absolute_path, is_regular, move_folder, replace_folder, temporary_folder
from simjax._reading import check_regular_file
from simjax.core import InputError
from simjax.encoder._config import FORMAT, EncoderConfig, config_from_dict
from simjax.encoder._model_card import model_card
from simjax.encoder._pretrained import PRETRAINED, pretrained_arrays
from simjax.evaluate import Calibration

CONFIG, WEIGHTS, CARD, CALIBRATION = "config.json", "model.safetensors", "README.md", "calibration.safetensors"
MAX_LAYERS = 500  # of a network that is read; building more takes minutes


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
    try:
        description = _read_description(folder / CONFIG)
        config = config_from_dict(description)
        has_own = not _has_pretrained_weights(folder, config)
        arrays = _read_arrays(folder / WEIGHTS) if has_own else pretrained_arrays()
        learned_measure = _build_measure(config, arrays)
        named: Any = config.measure if learned_measure is None else learned_measure
        measure = similarity.measure(named) if isinstance(named, str) else named.measure()
        modules = Modules(build_networks(config, arrays), learned_measure, _build_head(config, arrays))
        is_head_unchanged = modules.head is None or description.get("head_fingerprint") == _head_hash(config, arrays)
        if description.get("fingerprint") != _hash(config, arrays) or not is_head_unchanged:
            raise InputError("its weights or its description were changed after it was saved")
        calibration = None
        if description.get("calibration") is not None:
            calibration_arrays = _read_arrays(folder / CALIBRATION)
            calibration = Calibration.from_arrays(calibration_arrays, description["calibration"], measure=measure)
            size = config.embedding_size * config.networks
            if calibration.embeddings.shape[1] != size:
                got = calibration.embeddings.shape[1]
                raise InputError(f"{CALIBRATION}: expected embeddings of size {size}, got size {got}")
    except (ValueError, RecursionError) as error:  # InputError is a ValueError
        raise InputError(f"{folder}: cannot be read as an encoder: {error}") from error
    return config, modules, calibration


def _read_description(path: Path) -> Any:
    """Return the content of a JSON file."""
    try:
        check_regular_file(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path.name}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name}: expected JSON ({error})") from error


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file."""
    from safetensors.numpy import load_file

    try:
        check_regular_file(path)
        return load_file(path)
    except OSError as error:
        raise InputError(f"{path.name}: {error.strerror or error}") from error
    except Exception as error:  # of safetensors for a damaged file, and of NumPy for a dtype that it lacks
        raise InputError(f"{path.name}: expected arrays in the safetensors format ({error})") from error


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
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in config.options.items()}
    _check_options(options, arrays)

    def build() -> nnx.Module:
        shape, size = config.preprocessing.image_shape, config.embedding_size
        return nn.NETWORKS[config.network](shape, embedding_size=size, rngs=nnx.Rngs(0), **options)

    described = f"the network {config.network}"
    return [_build(described, build, f"networks.{number}", arrays) for number in range(config.networks)]


def _check_options(options: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Raise an InputError for sizes below 1, and for more layers than there are weights, which would take for ever."""
    most = min(len(arrays), MAX_LAYERS)
    for name, value in options.items():
        numbers = [number for number in (value if isinstance(value, tuple) else [value]) if type(number) is int]
        if numbers and min(numbers) < 1:
            raise InputError(f"{name}: expected whole numbers above 0, got {value}")
        layers = value if name == "depth" and type(value) is int else len(value) if isinstance(value, tuple) else 0
        if layers > most:
            raise InputError(f"{name}: expected at most {most:,} layers for {len(arrays):,} weights, got {layers:,}")


def _build_measure(config: EncoderConfig, arrays: Mapping[str, np.ndarray]) -> nnx.Module | None:
    """Return the learned measure with the given weights, or None if the measure is not learned."""
    if config.measure not in nn.LEARNED_MEASURES:
        return None
    features, size = config.embedding_size * config.networks, config.measure_size
    if not isinstance(size, int) or size < 1:
        raise InputError(f"measure_size: expected a whole number above 0, got {size}")
    build = nn.LEARNED_MEASURES[config.measure]
    return _build(f"the measure {config.measure}", lambda: build(features, size, rngs=nnx.Rngs(0)), "measure", arrays)


def _build_head(config: EncoderConfig, arrays: Mapping[str, np.ndarray]) -> nnx.Module | None:
    """Return the classifier with the given weights, or None if the encoder has none."""
    if config.head is None:
        return None
    build = nn.HEADS.get(str(config.head))
    if build is None:
        raise InputError(f"unknown classifier {config.head!r}; update simjax")
    size, classes, options = config.embedding_size, len(config.class_names), config.head_options
    if not classes:
        raise InputError(f"class_names: expected the classes of the classifier {config.head}, got none")
    described = f"the classifier {config.head}"
    return _build(described, lambda: build(size, classes, rngs=nnx.Rngs(0), **options), "head", arrays)


def _build(
    described: str, build: Callable[[], nnx.Module], prefix: str, arrays: Mapping[str, np.ndarray]
) -> nnx.Module:
    """Return a module with the given weights, or raise an InputError about its options."""
    try:
        return with_weights(build, prefix, arrays)
    except InputError:
        raise
    except TypeError as error:
        raise InputError(f"unknown option of {described}: {error}") from error
    except Exception as error:  # options of impossible values can raise any error
        raise InputError(f"{described} cannot be built with its options ({error!r})") from error


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
        if not np.can_cast(array.dtype, np.float64):
            raise InputError(f"weights {name}: expected real numbers, got {array.dtype}")
        with np.errstate(over="ignore"):
            array = array.astype(leaf.dtype)
        if not np.isfinite(array).all():
            raise InputError(f"weights {name}: the weights are not finite")
        value = jnp.asarray(array)
        loaded.append((path, leaf.replace(value) if isinstance(leaf, nnx.Variable) else value))
    if unused:
        raise InputError(f"weights {min(unused)}: expected no such weights, the config describes another {prefix}")
    return nnx.merge(graph, nnx.from_flat_state(loaded))
