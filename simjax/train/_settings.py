"""What a run is made of: frozen dataclasses that are the command line, the TOML files and config.json alike.

`None` means the recipe's choice for this model and data set (see `_recipes`); what was chosen is in the run's
config.json. Nothing heavy is imported here, so that `--help` is quick.
"""

import dataclasses
import tomllib
import typing
from pathlib import Path
from typing import Any, Literal

from simjax.core import InputError, suggestion
from simjax.train._loss_settings import Loss, Mining, ObjectiveName


@dataclasses.dataclass(frozen=True)
class CNN:
    """The Siamese CNN."""

    variant: Literal["modern", "classic"] = "modern"
    """modern: batch norm, ReLU, residual blocks; classic: the tutorial network, no activations"""
    widths: tuple[int, ...] = (16, 32, 64)
    """channels of the stages (modern)"""
    residual: bool = True
    """a residual block in every stage after the first (modern)"""


@dataclasses.dataclass(frozen=True)
class ViT:
    """The vision transformer."""

    patch_size: int | None = None
    """pixels; None is an eighth of the image's shorter side, at least 2"""
    width: int = 64
    """numbers in a token"""
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


@dataclasses.dataclass(frozen=True)
class DNN:
    """The dense network."""

    widths: tuple[int, ...] = (512, 512)
    """neurons of the hidden layers"""


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW and its schedule."""

    learning_rate: float | None = None
    """at its highest"""
    weight_decay: float | None = None
    """of the kernels; biases, norms, positions and prototypes have none"""
    warmup: float = 0.1
    """share of the steps in which the learning rate rises from 0"""
    schedule: Literal["cosine", "constant"] = "cosine"
    """of the learning rate after the warm-up"""
    clip_norm: float = 1.0
    """largest norm of the whole gradient; 0 is no limit"""


@dataclasses.dataclass(frozen=True)
class Augment:
    """Random changes of the training images."""

    enabled: bool = True
    """whether there are any"""
    shift: float | None = None
    """largest shift, as a share of the image's size"""
    rotation: float | None = None
    """largest rotation, in degrees"""
    scale: float | None = None
    """largest change of size, as a share"""
    flip: bool | None = None
    """left and right exchanged, in half of the images"""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How images are read."""

    image_size: int | tuple[int, int] | None = None
    """height and width to which images are resized, or one number for both; None keeps the size of a data set; files of
    different or large sizes get about 32 * 32 pixels in their median aspect ratio"""
    channels: Literal[1, 3] | None = None
    """1 is grey, 3 is colour; None keeps what the images have"""
    aspect: Literal["pad", "crop", "stretch"] = "pad"
    """how an image of another aspect ratio is brought to the size: repeat its border pixels, cut to its centre, or do
    not keep its ratio"""
    input_range: tuple[float, float] | None = None
    """lowest and highest value of pixels with more than 8 bits a channel; None is 0 to 65535 for integers and 0 to 1
    for floating-point pixels"""
    max_pixels: int | None = None
    """largest number of pixels of one image file; None is Pillow's limit of 178,956,970"""
    skip_unreadable: bool = False
    """leave out images of a folder that cannot be read, with a warning"""
    download: bool = True
    """fetch a missing data set"""


@dataclasses.dataclass(frozen=True)
class Data(Reading):
    """How images are read and prepared."""

    scaling: Literal["standard", "unit"] = "standard"
    """pixels: mean 0 and deviation 1 over the training images, or [0, 1]"""
    validation_fraction: float = 0.05
    """share of the training images kept aside for the validation curve and the threshold"""


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Several encoders, each with a training of its own, used as one."""

    size: int = 1
    """encoders; 1 is no ensemble"""
    each: Literal["triplets", "clusters"] = "triplets"
    """what an encoder learns from: all images, in batches and so pairs and triplets of its own; or one cluster of them,
    made of the embeddings of an encoder that is trained first and with which all begin"""
    combine: Literal["average", "concatenate"] = "average"
    """the average of the encoders' similarities, or the similarity of their embeddings put together"""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Train an encoder of images, evaluate it on test images and write a report."""

    model: Literal["cnn", "vit", "dnn"] = "cnn"
    """Siamese CNN, vision transformer or dense network"""
    dataset: str = "digits"
    """digits, mnist, fashion_mnist, cifar10, cifar100, tfds:NAME, folder:PATH, or two of them as A+B; some classes of
    one in brackets, as mnist[0-7]"""
    test_dataset: str | None = None
    """evaluate on this data instead; its classes may be new ones"""
    objective: ObjectiveName = "softmax"
    """what the embeddings are trained for: a loss of docs/losses.md; triplet is triplet_margin. Losses of graded scores
    (cosent, angle) and of a teacher (distillation) are for the library alone"""
    seed: int = 0
    """of everything random"""
    epochs: float | None = None
    """passes over the training images"""
    steps: int | None = None
    """instead of epochs"""
    batch_size: int = 128
    """images in a step; pairs with --loss.pairs random; each seen twice where the loss is of two views"""
    embedding_size: int | None = None
    """numbers in an embedding; None is 64, or 2 for the classic CNN"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """what the encoder computes in while it learns; parameters, head, loss and optimiser are float32 always"""
    data_dir: str | None = None
    """where prepared data sets lie; None is $TFDS_DATA_DIR or ~/tensorflow_datasets"""
    cache_gigabytes: float = 4.0
    """largest size of the decoded images of prepared data sets in the user's cache folder; 0 stores none"""
    checkpoint_seconds: float = 20.0
    """time between checkpoints"""
    cnn: CNN = CNN()
    vit: ViT = ViT()
    dnn: DNN = DNN()
    loss: Loss = Loss()
    mining: Mining = Mining()
    ensemble: Ensemble = Ensemble()
    optimizer: Optimizer = Optimizer()
    augment: Augment = Augment()
    data: Data = Data()


WHERE_ONLY = ("data_dir", "cache_gigabytes", "checkpoint_seconds")
"""Settings that say where and when things are stored, and do not change what is learned."""


def to_dict(settings: Settings) -> dict[str, Any]:
    """Nested settings as plain values, ready for JSON."""
    return dataclasses.asdict(settings)


def from_dict(values: dict[str, Any], base: Any = None, prefix: str = "") -> Any:
    """Settings with the given values in place of those of `base`, section by section.

    Raises:
        InputError: for an unknown key, with the nearest valid one, or a value of the wrong type or choice.
    """
    base = Settings() if base is None else base
    types = typing.get_type_hints(type(base))
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in types:
            raise InputError(f"unknown setting {prefix + key!r}{suggestion(key, types)}")
        current = getattr(base, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise InputError(f"setting {prefix + key!r}: expected a section of settings, got {value!r}")
            changes[key] = from_dict(value, current, f"{prefix}{key}.")
        else:
            changes[key] = _checked(prefix + key, value, types[key])
    return dataclasses.replace(base, **changes)


def _checked(name: str, value: Any, kind: Any) -> Any:
    """The value, if it fits the annotation; lists become tuples and whole numbers floats where those are expected."""
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            choices = [str(c) for c in typing.get_args(kind)]
            raise InputError(f"setting {name!r}: unknown value {value!r}{suggestion(str(value), choices)}")
        return value
    if kind == tuple[int, ...]:
        if not isinstance(value, (list, tuple)) or not all(type(v) is int for v in value):
            raise InputError(f"setting {name!r}: expected a list of whole numbers, got {value!r}")
        return tuple(value)
    if kind == tuple[int, int]:
        if len(value) != 2 or not all(type(v) is int for v in value):
            raise InputError(f"setting {name!r}: expected one or two whole numbers, got {value!r}")
        return tuple(value)
    if kind == tuple[float, float]:
        if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(type(v) in (int, float) for v in value):
            raise InputError(f"setting {name!r}: expected a list of two numbers, got {value!r}")
        return float(value[0]), float(value[1])
    options = [option for option in typing.get_args(kind) if option is not type(None)]
    if options:  # a value or several, or None
        is_list = isinstance(value, (list, tuple))
        fitting = [option for option in options if (typing.get_origin(option) is tuple) == is_list]
        return None if value is None else _checked(name, value, (fitting or options)[0])
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise InputError(f"setting {name!r}: expected {kind.__name__}, got {value!r}")
    return value


def load_toml(path: str | Path, base: Settings | None = None) -> Settings:
    """Settings from a TOML file.

    Raises:
        InputError: if the file is missing, is not TOML, or holds an unknown setting.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"configuration {path} is not valid TOML: {error}") from error
    return from_dict(values, base)


def differences(a: Any, b: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Where two settings differ: (dotted name, value in a, value in b)."""
    found = []
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if dataclasses.is_dataclass(x):
            found += differences(x, y, f"{prefix}{field.name}.")
        elif x != y:
            found.append((prefix + field.name, x, y))
    return found


def validate(settings: Settings) -> None:
    """Check numbers that must lie in a range.

    Raises:
        InputError: naming the setting, what was got and what is expected.
    """

    def need(name: str, value: float | None, valid: bool, expected: str) -> None:
        if value is not None and not valid:
            raise InputError(f"setting {name!r}: expected {expected}, got {value}")

    s, loss, opt, data = settings, settings.loss, settings.optimizer, settings.data
    positive = "a number above 0"
    for name, value in (
        ("epochs", s.epochs),
        ("steps", s.steps),
        ("embedding_size", s.embedding_size),
        ("vit.patch_size", s.vit.patch_size),
        ("vit.width", s.vit.width),
        ("vit.depth", s.vit.depth),
        ("vit.heads", s.vit.heads),
        ("vit.mlp_ratio", s.vit.mlp_ratio),
        ("loss.margin", loss.margin),
        ("loss.parameters_rate", loss.parameters_rate),
        ("loss.centers", loss.centers),
        ("loss.temperature", loss.temperature),
        ("optimizer.learning_rate", opt.learning_rate),
        ("data.max_pixels", data.max_pixels),
    ):
        need(name, value, value is not None and 0 < value < float("inf"), positive)
    for name, widths in (("cnn.widths", s.cnn.widths), ("dnn.widths", s.dnn.widths)):
        if not widths or min(widths) < 1:
            raise InputError(f"setting {name!r}: expected one or more numbers above 0, got {list(widths)}")
    need("seed", s.seed, 0 <= s.seed < 2**32, "0 to 4294967295")
    need("ensemble.size", s.ensemble.size, s.ensemble.size >= 1, "at least 1")
    if s.ensemble.size == 1 and s.ensemble != Ensemble():
        raise InputError("setting 'ensemble.size': expected 2 or more where an ensemble is described, got 1")
    need("batch_size", s.batch_size, s.batch_size >= 2, "at least 2")
    need("checkpoint_seconds", s.checkpoint_seconds, s.checkpoint_seconds >= 0, "0 or more")
    need("loss.memory", loss.memory, loss.memory == 0 or loss.memory >= s.batch_size, "0, or at least the batch size")
    need("loss.label_smoothing", loss.label_smoothing, 0 <= loss.label_smoothing < 1, "0 or more, below 1")
    need("loss.samples_per_class", loss.samples_per_class, (loss.samples_per_class or 2) >= 2, "at least 2")
    for name in ("hardness", "start", "length"):
        value = getattr(s.mining, name)
        need(f"mining.{name}", value, value is not None and 0 <= value <= 1, "0 to 1")
    need("optimizer.weight_decay", opt.weight_decay, (opt.weight_decay or 0) >= 0, "0 or more")
    need("optimizer.warmup", opt.warmup, 0 <= opt.warmup < 1, "0 or more, below 1")
    need("optimizer.clip_norm", opt.clip_norm, opt.clip_norm >= 0, "0 or more")
    sides = data.image_size if isinstance(data.image_size, tuple) else (data.image_size,)
    for side in sides:
        need("data.image_size", side, side is not None and side > 0, positive)
    if data.input_range is not None:
        low, high = data.input_range
        need("data.input_range", low, float("-inf") < low < high < float("inf"), f"less than the highest value, {high}")
    need("cache_gigabytes", s.cache_gigabytes, s.cache_gigabytes >= 0, "0 or more")
    need("data.validation_fraction", data.validation_fraction, 0 <= data.validation_fraction < 0.9, "0 to 0.9")
    for name in ("shift", "rotation", "scale"):
        value = getattr(s.augment, name)
        need(f"augment.{name}", value, value is not None and 0 <= value < float("inf"), "0 or more")
