"""The network that is trained: an encoder and the other trainable parameters of its loss."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from jax import Array

from simjax import mining, nn
from simjax.core import InputError
from simjax.encoder import PRETRAINED, Encoder, EncoderConfig, Preprocessing, pretrained_network
from simjax.train._data import DataSplits, Normalization
from simjax.train._objectives import OBJECTIVES, hyper_parameters
from simjax.train._settings import Settings, network_options

DEFAULT_CENTERS_PER_CLASS, DEFAULT_EMBEDDING_SIZE = 3, 64


class MemoryVariable(nnx.Variable):
    """A cross-batch memory, which is saved with the state and has no gradient."""


class Learner(nnx.Module):
    """An encoder and the other modules that its objective trains.

    Attributes:
        encoder: Module from images [b, h, w, c] to embeddings [b, e].
        head: Module from embeddings to logits [b, classes], or None.
        predictor: Module from embeddings of a view to predicted embeddings of the other view, or None.
        learned: Modules by name. A call of a module returns the argument of the loss of that name, or a dictionary of
            several arguments.
        memory: A `mining.CrossBatchMemory`, or None.
        embedding_size: e.
    """

    def __init__(
        self,
        encoder: Callable[[Array], Array],
        head: Callable[[Array], Array] | None = None,
        predictor: Callable[[Array], Array] | None = None,
        learned: Mapping[str, nnx.Module] | None = None,
        *,
        embedding_size: int,
        memory: int = 0,
    ):
        self.encoder: Any = encoder  # a module of `simjax.nn`
        self.head, self.predictor = head, predictor
        self.learned = nnx.Dict(learned or {})
        self.memory = MemoryVariable(mining.cross_batch_memory(memory, embedding_size)) if memory else None
        self.embedding_size = embedding_size

    def __call__(self, images: Array) -> tuple[Array, Array | None]:
        """Compute embeddings [b, e] and logits [b, classes] or None of normalized images [b, h, w, c]."""
        embeddings = self.encoder(images)
        return embeddings, None if self.head is None else self.head(embeddings)

    def remember(self, embeddings: Array, labels: Array) -> mining.CrossBatchMemory | None:
        """Push a batch to the memory and return the memory, or None without a memory."""
        if self.memory is None:
            return None
        memory = mining.push(self.memory.get_value(), embeddings, labels)
        self.memory.set_value(memory)
        return memory

    def loss_arguments(self, embeddings: Array | None = None) -> dict[str, Any]:
        """Return the learned arguments of the loss by name, such as proxies or a measure.

        Args:
            embeddings: Input of the predictor, [b, e]. Default: no predictions.
        """
        arguments: dict[str, Any] = {}
        module: Any
        for name, module in self.learned.items():
            value = module.measure() if name == "measure" else module()
            arguments |= value if isinstance(value, dict) else {name: value}
        if self.predictor is not None and embeddings is not None:
            arguments["prediction"] = self.predictor(embeddings)
        return arguments


def build_learner(settings: Settings, image_shape: tuple[int, int, int], classes: int) -> Learner:
    """Return the learner that the settings describe, with initial parameters.

    Raises:
        InputError: If the images [h, w, c] are too small for the network, or its settings do not fit together.
    """
    rngs = nnx.Rngs(settings.seed)
    embedding_size = _embedding_size(settings, image_shape)
    options = network_options(settings)
    build = pretrained_network if settings.model == PRETRAINED else nn.NETWORKS[settings.model]
    encoder: Any = build(image_shape, embedding_size=embedding_size, rngs=rngs, **options)
    extra = OBJECTIVES[settings.objective].extra_parameters
    head = None
    if extra == "head":
        head = nn.HEADS[settings.loss.head](embedding_size, classes, rngs=rngs, **_head_options(settings))
    predictor = nn.Predictor(embedding_size, rngs=rngs) if extra == "predictor" else None
    if options.get("frozen") and embedding_size == nn.EfficientNetLite0.FEATURES and head is None:
        raise InputError(
            f"embedding_size: a frozen efficientnet-lite0 with {embedding_size} features has no parameter to train; "
            "choose another size, or efficientnet_lite0.frozen = false"
        )
    modules = _build_loss_modules(settings, embedding_size, classes, rngs)
    return Learner(encoder, head, predictor, modules, embedding_size=embedding_size, memory=settings.loss.memory)


def _embedding_size(settings: Settings, image_shape: tuple[int, int, int]) -> int:
    """Return the size of the embeddings. That of the logistic model depends on the images."""
    default = math.prod(image_shape) if settings.model == "logistic" else DEFAULT_EMBEDDING_SIZE
    return settings.embedding_size or default


def _head_options(settings: Settings) -> dict[str, Any]:
    """Return the options of the classifier. The linear one compares by the measure of the network."""
    options = network_options(settings)
    return {"measure": options["measure"]} if settings.loss.head == "linear" and "measure" in options else {}


def _build_loss_modules(settings: Settings, embedding_size: int, classes: int, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """Return the modules whose outputs are arguments of the loss, by name; see `Learner.learned`."""
    spec, loss_settings = OBJECTIVES[settings.objective], settings.loss
    extra = spec.extra_parameters

    def initial_value(name: str) -> float:
        """Return the setting, or else the default of the loss function, which all learned hyper-parameters have."""
        assert spec.loss is not None
        value = getattr(loss_settings, name)
        return float(hyper_parameters(spec.loss)[name].default if value is None else value)

    modules: dict[str, nnx.Module] = {}
    if extra == "proxies":
        modules["proxies"] = nn.Proxies(embedding_size, classes, rngs=rngs)
    elif extra == "centers":
        per_class = loss_settings.centers or DEFAULT_CENTERS_PER_CLASS
        modules["proxies"] = nn.Proxies(embedding_size, classes, per_class=per_class, rngs=rngs)
    elif extra == "beta" and loss_settings.boundary != "fixed":
        beta_classes = classes if loss_settings.boundary == "classes" else None
        modules["beta"] = nn.Beta(initial_value("beta"), classes=beta_classes)
    elif extra == "scale_and_bias":
        # math.exp overflows above 709. With the bound, ScaleAndBias raises an InputError instead.
        scale = math.exp(min(initial_value("log_scale"), 700.0))
        with _setting_in_errors("loss.log_scale"):
            modules["scale_and_bias"] = nn.ScaleAndBias(scale=scale, bias=initial_value("bias"))
    if loss_settings.learned_measure is not None:
        build_measure = nn.LEARNED_MEASURES[loss_settings.learned_measure]
        modules["measure"] = build_measure(embedding_size, loss_settings.measure_size, rngs=rngs)
    if loss_settings.learn_temperature:
        with _setting_in_errors("loss.temperature"):
            modules["temperature"] = nn.Temperature(initial_value("temperature"))
    return modules


@contextmanager
def _setting_in_errors(name: str) -> Iterator[None]:
    """Prefix `InputError`s with the name of a setting."""
    try:
        yield
    except InputError as error:
        raise InputError(f"setting {name!r}: {error}") from None


class Encoded(NamedTuple):
    """Output of an encoder, and of the other modules that its objective trains."""

    embeddings: np.ndarray  # float32 [n, e]
    logits: np.ndarray | None = None  # float32 [n, classes] of a classifier
    # Learned arguments of the loss by name; None for an ensemble, in which each encoder has arguments of its own.
    loss_arguments: dict[str, Any] | None = None


def encoder_of(learner: Learner, config: EncoderConfig) -> Encoder:
    """Return the encoder of a learner, with its learned measure and its classifier if it has them."""
    head: Any = learner.head  # a module of `simjax.nn`
    return Encoder([learner.encoder], config, learned_measure=learner.learned.get("measure"), head=head)


def encode(encoder: Encoder, learner: Learner | None, images: np.ndarray) -> Encoded:
    """Compute embeddings and logits of uint8 images [n, h, w, c], and the loss arguments of the learner, if given."""
    embeddings = encoder.encode(images)
    logits = None if encoder.head is None else encoder.logits(embeddings)
    return Encoded(embeddings, logits, None if learner is None else learner.loss_arguments())


def encoder_config(settings: Settings, splits: DataSplits, normalization: Normalization, measure: str) -> EncoderConfig:
    """Return the description of the encoder that a run trains, without the facts of its model card.

    `measure` is the name of the measure unless the measure is learned.
    """
    mean, std = (tuple(np.asarray(array).tolist()) for array in normalization)
    data, has_head = settings.data, OBJECTIVES[settings.objective].extra_parameters == "head"
    return EncoderConfig(
        network=settings.model,
        options=network_options(settings),
        embedding_size=_embedding_size(settings, splits.image_shape),
        preprocessing=Preprocessing(splits.image_shape, mean, std, data.aspect, data.input_range, data.max_pixels),
        measure=settings.loss.learned_measure or measure,
        measure_size=settings.loss.measure_size if settings.loss.learned_measure else None,
        class_names=splits.train.class_names,
        head=settings.loss.head if has_head else None,
        head_options=_head_options(settings) if has_head else {},
    )
