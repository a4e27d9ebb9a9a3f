"""The description of an encoder: network, preprocessing and measure, as in its config.json."""

import dataclasses
import types
import typing
from typing import Any, Literal

from simjax.core import InputError

FORMAT = 1
"""Version of the format of an encoder's folder. A reader refuses higher versions."""
MAX_SIDE, MAX_SIZE, MAX_NETWORKS = 2**14, 2**24, 1000
"""Largest sides of images, size of embeddings and number of networks that are read from a folder."""
MAX_NUMBER = 1e30
"""Largest number, and inverse of the smallest one, by which pixels are normalized: float32 holds their quotients."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image of any size and color mode becomes the input of a network.

    Attributes:
        image_shape: Height, width and channels (1 or 3) of the network's input.
        mean: Subtracted from pixel / 255, one value for each channel.
        std: Divides the difference, one value for each channel.
        aspect: Images of another aspect ratio are padded by their border pixels, cropped or stretched.
        input_range: Range of pixels with more than 8 bits. Default: 0..65535 for integers, 0..1 for floats.
        max_pixels: Larger images are refused. Default: Pillow's limit against decompression bombs.
    """

    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    aspect: Literal["pad", "crop", "stretch"] = "pad"
    input_range: tuple[float, float] | None = None
    max_pixels: int | None = None


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Description of an encoder.

    Attributes:
        network: Name of the network, a key of `simjax.nn.NETWORKS`.
        options: Keyword arguments of the network.
        embedding_size: Size of the embeddings of each network.
        preprocessing: See `Preprocessing`.
        measure: Name of the measure that compares embeddings, or of a learned one, `simjax.nn.LEARNED_MEASURES`.
        measure_size: Rank or hidden neurons of a learned measure.
        networks: Number of networks; several form an ensemble, whose embeddings are combined.
        combine: How an ensemble combines embeddings, see `simjax.similarity.combine_embeddings`.
        class_names: Classes of the training images.
        head: Name of the classifier, a key of `simjax.nn.HEADS`, or None without one. Its classes are `class_names`.
        head_options: Keyword arguments of the classifier.
        about: Facts for the model card, see `_model_card.model_card`. The fact `calibrated_for` names an identity of
            the calibration, such as "photograph".
    """

    network: str
    options: dict[str, Any]
    embedding_size: int
    preprocessing: Preprocessing
    measure: str = "cosine"
    measure_size: int | None = None
    networks: int = 1
    combine: Literal["average", "concatenate"] = "average"
    class_names: tuple[str, ...] = ()
    head: str | None = None
    head_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    about: dict[str, Any] = dataclasses.field(default_factory=dict)


def config_from_dict(values: Any) -> EncoderConfig:
    """Return the description in the content of a config.json.

    Raises:
        InputError: If the content does not describe an encoder, or has a newer format.
    """
    if not isinstance(values, dict) or type(values.get("format")) is not int or values["format"] < 1:
        raise InputError("expected the description of an encoder with its format, a whole number above 0")
    if values["format"] > FORMAT:
        raise InputError(f"its format {values['format']} is newer than {FORMAT}; update simjax")
    try:
        preprocessing = _build(Preprocessing, values["preprocessing"])
        config = _build(EncoderConfig, values | {"preprocessing": preprocessing})
    except (KeyError, TypeError) as error:
        raise InputError(f"the description of the encoder is incomplete or damaged ({error})") from error
    _check_preprocessing(config.preprocessing)
    for name, most in (("embedding_size", MAX_SIZE), ("networks", MAX_NETWORKS)):
        if not 1 <= getattr(config, name) <= most:
            raise InputError(f"{name}: expected 1 to {most:,}, got {getattr(config, name)}")
    for name, kind in {"data": dict, "recipe": dict, "results": dict, "limits": list}.items():
        if not isinstance(config.about.get(name, kind()), kind):
            raise InputError(f"about: expected {name} to be a {kind.__name__}, got {config.about[name]!r}")
    return config


def _check_preprocessing(given: Preprocessing) -> None:
    """Raise an InputError if images cannot be prepared as described."""
    height, width, channels = given.image_shape
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and channels in (1, 3)):
        expected = f"a height and a width of 1 to {MAX_SIDE:,}, and 1 or 3 channels"
        raise InputError(f"image_shape: expected {expected}, got {list(given.image_shape)}")
    if {len(given.mean), len(given.std)} != {channels}:
        raise InputError(f"expected a mean and a deviation for each of {channels} channels")
    for name, lowest in (("mean", -MAX_NUMBER), ("std", 1 / MAX_NUMBER)):
        if not all(lowest <= number <= MAX_NUMBER for number in getattr(given, name)):  # also for NaN
            expected = "finite numbers" if name == "mean" else "numbers above 0"
            raise InputError(f"{name}: expected {expected}, got {list(getattr(given, name))}")
    if given.input_range is not None and not -MAX_NUMBER <= given.input_range[0] < given.input_range[1] <= MAX_NUMBER:
        raise InputError(f"input_range: expected two numbers, the lower one first, got {list(given.input_range)}")
    if given.max_pixels is not None and given.max_pixels < 1:
        raise InputError(f"max_pixels: expected at least 1, got {given.max_pixels}")


def _build(kind: type, values: Any) -> Any:
    """Return a dataclass from the values that belong to its fields. JSON lists become tuples."""
    if not isinstance(values, dict):
        raise TypeError(f"expected an object, got {values!r}")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _converted(name, values[name], hint) for name, hint in hints.items() if name in values})


def _converted(name: str, value: Any, hint: Any) -> Any:
    """Return a value of JSON as the type that an annotation says; a TypeError if it is of another one."""
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):  # with None
        return None if value is None else _converted(name, value, arguments[0])
    if kind is tuple and isinstance(value, list) and (arguments[-1] is ... or len(value) == len(arguments)):
        return tuple(_converted(name, item, arguments[0]) for item in value)
    is_number = hint is float and type(value) in (int, float)
    if is_number or (kind is Literal and value in arguments) or type(value) is (kind or hint):
        return value
    raise TypeError(f"{name}: expected {getattr(hint, '__name__', hint)}, got {value!r}")
