"""Settings of a run: frozen dataclasses that define the command line, TOML files and config.json.

`None` is a default that depends on the model, the data set or the objective: see `_recipes` for the former, and the
signature of the loss or the miner for its hyper-parameters. The config.json of a run has the settings in effect.
"""

import dataclasses
import re
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from simjax import losses
from simjax.core import InputError, suggestion
from simjax.train._objectives import MINERS, OBJECTIVES, settings_of_miner, settings_of_objective

if TYPE_CHECKING:
    ObjectiveName = str
    MinerName = str
    ReducerName = str
else:
    ObjectiveName = Literal[*OBJECTIVES]
    MinerName = Literal["none", *MINERS]
    ReducerName = Literal[*losses.REDUCERS]

Strategy = Literal["hard", "semi_hard", "easy", "all"]
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


@dataclasses.dataclass(frozen=True)
class DNNSettings:
    """The dense network."""

    widths: tuple[int, ...] = (512, 512)
    """neurons of each hidden layer"""


def _name_takers(
    names: Iterable[str], settings_of: Callable[[str], frozenset[str]]
) -> Callable[[type[SettingsClass]], type[SettingsClass]]:
    """Return a class decorator that replaces {takers} by the names of the objectives or miners that take the field.

    The command line shows the attributes' descriptions as help.
    """

    def takers(field: re.Match[str]) -> str:
        return f"{field[1]}: {', '.join(name for name in names if field[1] in settings_of(name))}"

    def decorate(cls: type[SettingsClass]) -> type[SettingsClass]:
        cls.__doc__ = re.sub(r"(\w+): \{takers\}", takers, cls.__doc__ or "")
        return cls

    return decorate


@_name_takers(OBJECTIVES, settings_of_objective)
@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Hyper-parameters of the objective; None: the default of the loss (docs/losses.md).

    Attributes:
        head: {takers}: dot products with weight vectors, or cosine similarity with prototypes
        label_smoothing: {takers}: share of the target that is spread evenly over all classes
        pairs: {takers}: all pairs of a batch with m samples per class, or random pairs as in the classic recipe
        positives: losses of pairs, triplets and ranking: positive pairs are images of one class or, without labels,
            two augmented views of one image
        batches: losses of pairs, triplets and ranking: m images of each class, or images in random order, which
            contain positive pairs only if there are few classes
        samples_per_class: losses of pairs, triplets and ranking: m; None: the batch holds as many classes as possible
            with 4 or more images of each
        memory: losses of pairs, triplets and ranking: number of embeddings of this and earlier batches with which each
            image is compared; 0: those of the batch
        normalise: {takers}: compare embeddings scaled to unit length
        measure: {takers}: name of the measure, such as cosine or manhattan
        reducer: all but softmax, vicreg, barlow_twins, simsiam: mean of all terms, mean of the terms above 0, sum, or
            mean over rows of the mean of each row
        learn_temperature: {takers}: learn the temperature, starting from the given one
        parameters_rate: losses with learned parameters, such as proxies: their learning rate, as a multiple
        margin: {takers}: in units of the measure; degrees for tuplet_margin, arcface and sub_center_arcface; a whole
            number for sphereface and large_margin_softmax
        positive_margin: {takers}: positive pairs that are closer than this have no loss
        negative_margin: {takers}: negative pairs that are farther apart than this have no loss
        form: {takers}: one of the three published variants
        swap: {takers}: use the distance from the negative to the nearer of anchor and positive
        smooth: {takers}: softplus in place of the hinge
        beta: {takers}: initial boundary between positives and negatives; weight of negatives for multi_similarity
        boundary: {takers}: learn one boundary, one for each class, or none
        nu: {takers}: weight of the boundary in the loss
        temperature: {takers}: divides the similarities
        scale: {takers}: multiplies the similarities
        gamma: {takers}: scale of the cosines; for soft_triple the temperature of the softmax over centers
        alpha: {takers}: weight of positives (multi_similarity), angle in degrees (angular), boundary of negatives
            (ranked_list), exponent of variant Dq (pnp), scale (proxy_anchor), damping of the random walk (manifold)
        base: {takers}: similarity that separates positives from negatives
        bins: {takers}: bins of the histogram
        spread: {takers}: the histogram covers differences from minus this to this
        zero_mean: {takers}: weight of the regularizer
        positive_weight: {takers}: weight of positive pairs
        negative_weight: {takers}: weight of negative pairs
        imbalance: {takers}: share of the negatives in the loss
        positive_temperature: {takers}: larger values put more weight on the hardest positives
        negative_temperature: {takers}: larger values put more weight on the hardest negatives
        variant: {takers}: penalty of a negative ranked before a positive
        b: {takers}: parameter of variant Ib
        centers: {takers}: proxies per class; None: 3
        tau: {takers}: weight of the regularizer that pulls the centers of a class together
        context_weight: {takers}: weight of the second term
        directions: {takers}: classify from the first view to the second, or in both directions
        log_scale: {takers}: initial logarithm of the learned scale
        bias: {takers}: initial value of the learned bias
        invariance: {takers}: weight of the difference between the views
        variance: {takers}: weight of the variance of each feature
        covariance: {takers}: weight of the covariance between features
        epsilon: {takers}: added to the variances
        redundancy: {takers}: weight of the correlation between features
    """

    head: Literal["linear", "cosine"] = "linear"
    label_smoothing: float = 0.1
    pairs: Literal["batch", "random"] = "batch"
    positives: Literal["classes", "views"] = "classes"
    batches: Literal["classes", "shuffled"] = "classes"
    samples_per_class: int | None = None
    memory: int = 0
    normalise: bool = True
    measure: str | None = None
    reducer: ReducerName | None = None
    learn_temperature: bool = False
    parameters_rate: float = 1.0
    margin: float | None = None
    positive_margin: float | None = None
    negative_margin: float | None = None
    form: Literal["squared", "hadsell", "linear"] | None = None
    swap: bool = False
    smooth: bool = False
    beta: float | None = None
    boundary: Literal["one", "classes", "fixed"] = "one"
    nu: float | None = None
    temperature: float | None = None
    scale: float | None = None
    gamma: float | None = None
    alpha: float | None = None
    base: float | None = None
    bins: int | None = None
    spread: float | None = None
    zero_mean: float | None = None
    positive_weight: float | None = None
    negative_weight: float | None = None
    imbalance: float | None = None
    positive_temperature: float | None = None
    negative_temperature: float | None = None
    variant: Literal["O", "Iu", "Ib", "Ds", "Dq"] | None = None
    b: float | None = None
    centers: int | None = None
    tau: float | None = None
    context_weight: float | None = None
    directions: Literal["rows", "both"] | None = None
    log_scale: float | None = None
    bias: float | None = None
    invariance: float | None = None
    variance: float | None = None
    covariance: float | None = None
    epsilon: float | None = None
    redundancy: float | None = None


@_name_takers(MINERS, settings_of_miner)
@dataclasses.dataclass(frozen=True)
class MiningSettings:
    """Selection of pairs and triplets, for losses of pairs, triplets and ranking; None: the default of the miner.

    The miner `guided`, which needs another model, is available in the library only.

    Attributes:
        miner: name of the miner; none: use all pairs and triplets
        measure: all but angular and distance_weighted: name of the measure; None: the measure of the loss if
            loss.measure or loss.normalise changes that, otherwise the default of the miner
        positive: {takers}: which positive to select for each row
        negative: {takers}: which negative to select for each row
        positive_range: {takers}: lowest and highest value of positives, in units of the measure
        negative_range: {takers}: lowest and highest value of negatives, in units of the measure
        n_positive: {takers}: positives per row
        n_negative: {takers}: negatives per row
        share: {takers}: share of all pairs to select
        epsilon: {takers}: also select pairs that are easier by less than this
        positive_margin: {takers}: select positives farther apart than this
        negative_margin: {takers}: select negatives closer than this
        margin: {takers}: margin between positive and negative
        kind: {takers}: which triplets to select
        angle: {takers}: in degrees
        cutoff: {takers}: smaller distances are treated as this one
        nonzero_loss_cutoff: {takers}: negatives at this distance or farther are never drawn
        bins: {takers}: bins over the range of the measure
        positives_per_bin: {takers}: positives to select from each bin
        negatives_per_bin: {takers}: negatives to select from each bin
        hardness: {takers}: initial hardness, from 0 (the easiest pairs only) to 1 (all pairs); None: 0.2
        start: {takers}: share of the training after which the hardness begins to rise; None: 0
        length: {takers}: share of the training in which the hardness rises to 1; None: 0.5
    """

    miner: MinerName = "none"
    measure: str | None = None
    positive: Strategy | None = None
    negative: Strategy | None = None
    positive_range: tuple[float, float] | None = None
    negative_range: tuple[float, float] | None = None
    n_positive: int | None = None
    n_negative: int | None = None
    share: float | None = None
    epsilon: float | None = None
    positive_margin: float | None = None
    negative_margin: float | None = None
    margin: float | None = None
    kind: Strategy | None = None
    angle: float | None = None
    cutoff: float | None = None
    nonzero_loss_cutoff: float | None = None
    bins: int | None = None
    positives_per_bin: int | None = None
    negatives_per_bin: int | None = None
    hardness: float | None = None
    start: float | None = None
    length: float | None = None


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
    """scale pixels to mean 0 and standard deviation 1 over the training images, or to [0, 1]"""
    validation_fraction: float = 0.05
    """share of the training images used for the validation curve and the threshold instead of training"""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Train an encoder of images, evaluate it on test images and write a report."""

    model: Literal["cnn", "vit", "dnn"] = "cnn"
    """Siamese CNN, vision transformer or dense network"""
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
    """features of an embedding; None: 64, or 2 for the classic CNN"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """type in which the encoder computes during training; parameters, head, loss and optimizer are always float32"""
    data_dir: str | None = None
    """folder of prepared data sets; None: $TFDS_DATA_DIR or ~/tensorflow_datasets"""
    cache_gigabytes: float = 4.0
    """largest size of decoded images of prepared data sets in the user's cache folder; 0: no cache"""
    checkpoint_seconds: float = 20.0
    """time between checkpoints"""
    cnn: CNNSettings = CNNSettings()
    vit: ViTSettings = ViTSettings()
    dnn: DNNSettings = DNNSettings()
    loss: LossSettings = LossSettings()
    mining: MiningSettings = MiningSettings()
    ensemble: EnsembleSettings = EnsembleSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    augment: AugmentSettings = AugmentSettings()
    data: DataSettings = DataSettings()


STORAGE_SETTINGS = ("data_dir", "cache_gigabytes", "checkpoint_seconds")
"""Settings that say where and when data is stored, and do not change the result of the training."""


def to_dict(settings: Settings) -> dict[str, Any]:
    """Return nested settings as plain values, ready for JSON."""
    return dataclasses.asdict(settings)


def from_dict(values: Mapping[str, Any], base: Settings | None = None) -> Settings:
    """Return settings with the given values in place of those of `base`, section by section.

    Args:
        values: Nested values, as `to_dict` returns them. Missing settings stay as they are.
        base: Settings to change. Default: `Settings()`.

    Raises:
        InputError: If a key is unknown, or a value has the wrong type or is not among the choices.
    """
    return _replaced(Settings() if base is None else base, values, "")


def load_toml(path: str | Path, base: Settings | None = None) -> Settings:
    """Return the settings of a TOML file; see `from_dict`.

    Raises:
        InputError: If the file is missing, is not TOML, or contains an unknown setting.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"configuration {path} is not valid TOML: {error}") from error
    return from_dict(values, base)


def differences(a: Any, b: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Return where two settings differ: (dotted name, value in a, value in b)."""
    found = []
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if dataclasses.is_dataclass(x):
            found += differences(x, y, f"{prefix}{field.name}.")
        elif x != y:
            found.append((prefix + field.name, x, y))
    return found


def _replaced(section: SettingsClass, values: Mapping[str, Any], prefix: str) -> SettingsClass:
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
            changes[key] = _replaced(current, value, f"{name}.")
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
        expected, numbers, length = _TUPLES[annotation]
        fits = isinstance(value, (list, tuple)) and all(type(number) in numbers for number in value)
        if not fits or len(value) != (length or len(value)):
            raise InputError(f"setting {name!r}: expected {expected}, got {value!r}")
        return tuple(map(numbers[-1], value))
    options = [option for option in typing.get_args(annotation) if option is not type(None)]
    if options:
        if value is None:
            return None
        is_list = isinstance(value, (list, tuple))
        return _convert(name, value, next((o for o in options if (o in _TUPLES) == is_list), options[0]))
    if annotation is float and type(value) is int:
        return float(value)
    if type(value) is not annotation:
        raise InputError(f"setting {name!r}: expected {annotation.__name__}, got {value!r}")
    return value


_TUPLES: dict[Any, tuple[str, tuple[type, ...], int | None]] = {
    tuple[int, ...]: ("a list of whole numbers", (int,), None),
    tuple[int, int]: ("one or two whole numbers", (int,), 2),
    tuple[float, float]: ("a list of two numbers", (int, float), 2),
}
"""Annotations of lists: the description of the value, the types of its elements, and the length if it is fixed."""
