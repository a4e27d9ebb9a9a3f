"""Settings of a run: frozen dataclasses that define the command line, TOML files and config.json.

Where the text of a setting does not explain `None`, the setting is not used (`steps`, `test_dataset`) or has a default:
that of `_recipes`, which depends on the model, the data set and the objective, or for the other hyper-parameters of a
loss or a miner that of its signature. The config.json of a run has the settings in effect.
"""

import dataclasses
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from simjax.core import InputError, suggestion
from simjax.nn import NETWORK_MEASURES
from simjax.train._loss_settings import LossSettings, MiningSettings, ObjectiveName

if TYPE_CHECKING:
    NetworkMeasure = str
else:
    NetworkMeasure = Literal[*NETWORK_MEASURES]
SettingsClass = TypeVar("SettingsClass")


@dataclasses.dataclass(frozen=True)
class CNNSettings:
    """The Siamese CNN."""

    variant: Literal["modern", "classic"] = "modern"
    """modern: batch normalization, ReLU, residual blocks; classic: the tutorial network without activations"""
    widths: tuple[int, ...] = (16, 32, 64)
    """channels of each stage (modern)"""
    residual: bool = True
    """add a residual block to every stage after the first (modern)"""
    measure: NetworkMeasure = "dot"
    """compares inputs with weight vectors in all layers and in the linear head (modern)"""


@dataclasses.dataclass(frozen=True)
class ViTSettings:
    """The vision transformer."""

    patch_size: int | None = None
    """side of a patch in pixels; None: an eighth of the shorter side of the image, at least 2"""
    width: int = 64
    """features per token"""
    depth: int = 4
    """transformer blocks"""
    heads: int = 4
    """attention heads; must divide the width"""
    mlp_ratio: int = 2
    """hidden neurons of a block, as a multiple of the width"""
    positions: Literal["learned", "sincos"] = "sincos"
    """position embedding"""
    pooling: Literal["mean", "class"] = "mean"
    """mean of the tokens or a class token"""
    measure: NetworkMeasure = "dot"
    """compares queries with keys, and inputs with weight vectors in all layers and in the linear head"""


@dataclasses.dataclass(frozen=True)
class DNNSettings:
    """The dense network."""

    widths: tuple[int, ...] = (512, 512)
    """neurons of each hidden layer"""
    measure: NetworkMeasure = "dot"
    """compares inputs with weight vectors in all layers and in the linear head"""


@dataclasses.dataclass(frozen=True)
class LogisticSettings:
    """The logistic regression."""

    measure: NetworkMeasure = "dot"
    """compares images with the weight vectors of the linear head"""


@dataclasses.dataclass(frozen=True)
class EfficientNetSettings:
    """EfficientNet-Lite0 with the weights of ImageNet."""

    frozen: bool = True
    """train only a dense layer after the pretrained features; False: train all parameters"""


@dataclasses.dataclass(frozen=True)
class EnsembleSettings:
    """Several encoders, trained one after the other and used as one."""

    size: int = 1
    """encoders; 1: no ensemble"""
    each: Literal["triplets", "clusters"] = "triplets"
    """triplets: each encoder learns from all images, with a seed of its own; clusters: each encoder learns from one
    cluster of the embeddings of an encoder that is trained first, and starts as a copy of that encoder"""
    combine: Literal["average", "concatenate"] = "average"
    """average of the encoders' similarities, or similarity of their concatenated embeddings"""


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its learning rate schedule."""

    learning_rate: float | None = None
    """peak learning rate"""
    weight_decay: float | None = None
    """of kernels; biases, norms, positions and prototypes have none"""
    warmup: float = 0.1
    """share of the steps in which the learning rate rises from 0"""
    schedule: Literal["cosine", "constant"] = "cosine"
    """learning rate after the warm-up"""
    clip_norm: float = 1.0
    """largest norm of the whole gradient; 0: no limit"""


@dataclasses.dataclass(frozen=True)
class AugmentSettings:
    """Random changes of the training images."""

    enabled: bool = True
    """augment the training images"""
    shift: float | None = None
    """largest shift, as a share of the image size"""
    rotation: float | None = None
    """largest rotation, in degrees"""
    scale: float | None = None
    """largest change of size, as a share"""
    flip: bool | None = None
    """flip half of the images from left to right"""
    cutout: float | None = None
    """side of a square at a random place that is set to zero, as a share of the image size"""


@dataclasses.dataclass(frozen=True)
class Reading:
    """Reading of images."""

    image_size: int | tuple[int, int] | None = None
    """height and width to which images are resized, or one number for both; None: the size of a data set; files of
    different or large sizes get about 32 * 32 pixels in their median aspect ratio"""
    channels: Literal[1, 3] | None = None
    """1: grey, 3: color; None: the channels of the images"""
    aspect: Literal["pad", "crop", "stretch"] = "pad"
    """images of another aspect ratio: repeat the border pixels, crop to the center, or stretch"""
    input_range: tuple[float, float] | None = None
    """lowest and highest value of pixels with more than 8 bits a channel; None: 0 to 65535 for integers and 0 to 1 for
    floating-point pixels"""
    max_pixels: int | None = None
    """largest number of pixels of an image file; None: Pillow's limit of 178,956,970"""
    skip_unreadable: bool = False
    """skip images of a folder that cannot be read, with a warning"""
    download: bool = True
    """download a missing data set"""


@dataclasses.dataclass(frozen=True)
class DataSettings(Reading):
    """Reading and preprocessing of images."""

    scaling: Literal["standard", "unit"] = "standard"
    """scale pixels to mean 0 and standard deviation 1 over the training images, or to [0, 1]; a pretrained network has
    a scale of its own"""
    validation_fraction: float = 0.05
    """share of the training images used for the validation curve and the threshold instead of training"""
    train_fraction: float = 1.0
    """share of the remaining training images that is used, the same share of every class; 1: all"""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Train an encoder of images, evaluate it on test images and write a report."""

    model: Literal["cnn", "vit", "dnn", "logistic", "efficientnet-lite0"] = "cnn"
    """Siamese CNN, vision transformer, dense network, logistic regression (a linear classifier of pixels), or
    EfficientNet-Lite0 with the weights of ImageNet"""
    dataset: str = "digits"
    """digits, mnist, fashion_mnist, cifar10, cifar100, tfds:NAME, folder:PATH, or two of them as A+B; some classes of
    a data set in brackets, as mnist[0-7]"""
    test_dataset: str | None = None
    """evaluate on this data set instead, which may have new classes"""
    objective: ObjectiveName = "softmax"
    """loss of docs/losses.md; triplet is triplet_margin. Losses of graded scores (cosent, angle) and of a teacher
    (distillation) are available in the library only"""
    seed: int = 0
    """seed of everything random"""
    epochs: float | None = None
    """passes over the training images"""
    steps: int | None = None
    """training steps, instead of epochs"""
    batch_size: int = 128
    """images per step; pairs if loss.pairs is random; images with two views each for losses of views"""
    embedding_size: int | None = None
    """features of an embedding; None: 64, 2 for the classic CNN, or the numbers of an image for logistic"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """type in which the encoder computes during training; parameters, head, loss and optimizer are always float32"""
    data_dir: str | None = None
    """folder of prepared data sets; None: $TFDS_DATA_DIR or ~/tensorflow_datasets"""
    cache_gigabytes: float = 4.0
    """largest size of decoded images of prepared data sets in the user's cache folder; 0: no cache"""
    checkpoint_seconds: float = 20.0
    """time between checkpoints"""
    tensorboard: bool = False
    """also write the log for TensorBoard, in the folder tensorboard of the run; needs the extra `tensorboard`"""
    cnn: CNNSettings = CNNSettings()
    vit: ViTSettings = ViTSettings()
    dnn: DNNSettings = DNNSettings()
    logistic: LogisticSettings = LogisticSettings()
    efficientnet_lite0: EfficientNetSettings = EfficientNetSettings()
    loss: LossSettings = LossSettings()
    mining: MiningSettings = MiningSettings()
    ensemble: EnsembleSettings = EnsembleSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    augment: AugmentSettings = AugmentSettings()
    data: DataSettings = DataSettings()


def network_options(settings: Settings) -> dict[str, Any]:
    """Return the options of the network, from the section with the name of the model."""
    return dataclasses.asdict(getattr(settings, settings.model.replace("-", "_")))


STORAGE_SETTINGS = ("data_dir", "cache_gigabytes", "checkpoint_seconds", "tensorboard")
"""Settings of storage, which do not change the result of the training."""


def to_dict(settings: Settings) -> dict[str, Any]:
    """Return nested settings as plain values, ready for JSON."""
    return dataclasses.asdict(settings)


def from_dict(values: Mapping[str, Any], base: Settings | None = None) -> Settings:
    """Return `base` (default: `Settings()`) with the given values, nested as in `to_dict`, in place of its own.

    Raises:
        InputError: If a key is unknown, or a value has the wrong type or is not among the choices.
    """
    return _replace(Settings() if base is None else base, values, "")


def load_toml(path: str | Path, base: Settings | None = None) -> Settings:
    """Return `base` (default: `Settings()`) with the values of a configuration file in TOML in place of its own.

    Raises:
        InputError: If the file cannot be read or is not TOML, or contains an unknown setting or an invalid value.
    """
    return from_dict(read_toml(path, "configuration"), base)


def read_toml(path: str | Path, kind: str) -> dict[str, Any]:
    """Return the content of a TOML file; `kind` names the file in errors, such as "configuration"."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the {kind} {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{kind} {path} is not valid TOML: {error}") from error


def differences(a: Any, b: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Return (dotted name, value in a, value in b) of each setting that differs; `prefix` is for nested settings."""
    differing = []
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if dataclasses.is_dataclass(x):
            differing += differences(x, y, f"{prefix}{field.name}.")
        elif x != y:
            differing.append((prefix + field.name, x, y))
    return differing


def _replace(section: SettingsClass, values: Mapping[str, Any], prefix: str) -> SettingsClass:
    """Return a section of settings with the given values; `prefix` is its dotted name for messages, as "loss."."""
    types = typing.get_type_hints(type(section))
    changes: dict[str, Any] = {}
    for key, value in values.items():
        name = prefix + key
        if key not in types:
            raise InputError(f"unknown setting {name!r}{suggestion(key, types)}")
        current = getattr(section, key)
        if not dataclasses.is_dataclass(current):
            changes[key] = _convert(name, value, types[key])
        elif isinstance(value, Mapping):
            changes[key] = _replace(current, value, f"{name}.")
        else:
            raise InputError(f"setting {name!r}: expected a section of settings, got {value!r}")
    return dataclasses.replace(typing.cast(Any, section), **changes)


def _convert(name: str, value: Any, annotation: Any) -> Any:
    """Convert lists to tuples and whole numbers to floats where the annotation says so, and check the type."""
    if typing.get_origin(annotation) is Literal:
        choices = typing.get_args(annotation)
        if value not in choices:
            raise InputError(f"setting {name!r}: unknown value {value!r}{suggestion(str(value), map(str, choices))}")
        return value
    if annotation in _TUPLES:
        expected, element_types, length = _TUPLES[annotation]
        is_valid = isinstance(value, (list, tuple)) and all(type(element) in element_types for element in value)
        if not is_valid or (length is not None and len(value) != length):
            raise InputError(f"setting {name!r}: expected {expected}, got {value!r}")
        return tuple(map(element_types[-1], value))
    members = [member for member in typing.get_args(annotation) if member is not type(None)]  # of a union
    if members:
        if value is None:
            return None
        # A list is checked by the tuple of the union, another value by the other type.
        is_list = isinstance(value, (list, tuple))
        return _convert(name, value, next((m for m in members if (m in _TUPLES) == is_list), members[0]))
    if annotation is float and type(value) is int:
        return float(value)
    if type(value) is not annotation:
        raise InputError(f"setting {name!r}: expected {annotation.__name__}, got {value!r}")
    return value


_TUPLES: dict[Any, tuple[str, tuple[type, ...], int | None]] = {
    tuple[int, ...]: ("a list of whole numbers", (int,), None),
    tuple[int, int]: ("one or two whole numbers", (int,), 2),  # image_size, whose annotation also allows one number
    tuple[float, float]: ("a list of two numbers", (int, float), 2),
}
"""Annotations of tuples, which are lists in TOML and JSON: the description of the value, the accepted types of its
elements, which are converted to the last of these types, and the length if it is fixed."""
