"""The network that is trained: an encoder and the other trainable parameters of its loss."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from simjax import mining, nn
from simjax.core import InputError
from simjax.data import normalize
from simjax.similarity import combine_embeddings
from simjax.train._data import Normalization
from simjax.train._objectives import OBJECTIVES, hyper_parameters
from simjax.train._settings import Settings

DEFAULT_CENTERS_PER_CLASS = 3
ENCODE_BATCH = 256  # fixed, so that the encoder is compiled once for any number of images


class MemoryVariable(nnx.Variable):
    """A cross-batch memory, which is saved with the state and has no gradient."""


class Learner(nnx.Module):
    """An encoder and the other modules that its objective trains.

    Attributes:
        encoder: Images [b, h, w, c] to embeddings [b, e].
        head: Embeddings to logits [b, classes], or None.
        predictor: Embeddings of a view to predicted embeddings of the other view, or None.
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
        self.encoder = encoder
        self.head = head
        self.predictor = predictor
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

    def loss_arguments(self, embeddings: Array | None = None) -> dict[str, Array]:
        """Return the learned arguments of the loss by name, such as proxies.

        Args:
            embeddings: Input of the predictor, [b, e]. Default: no predictions.
        """
        arguments: dict[str, Array] = {}
        for name, module in self.learned.items():
            value = module()
            arguments |= value if isinstance(value, dict) else {name: value}
        if self.predictor is not None and embeddings is not None:
            arguments["prediction"] = self.predictor(embeddings)
        return arguments


def build_learner(settings: Settings, image_shape: tuple[int, int, int], classes: int) -> Learner:
    """Return the learner that the settings describe, with initial parameters.

    Args:
        settings: Settings with their defaults filled in.
        image_shape: Height, width and channels.
        classes: Number of classes.

    Raises:
        InputError: If the images are too small for the network, or its settings do not fit together.
    """
    rngs = nnx.Rngs(settings.seed)
    embedding_size = settings.embedding_size or 64
    if settings.model == "cnn":
        c = settings.cnn
        encoder: Callable[[Array], Array] = nn.SiameseCNN(
            image_shape,
            variant=c.variant,
            widths=c.widths,
            residual=c.residual,
            embedding_size=embedding_size,
            rngs=rngs,
        )
    elif settings.model == "vit":
        v = settings.vit
        encoder = nn.VisionTransformer(
            image_shape,
            patch_size=v.patch_size,
            width=v.width,
            depth=v.depth,
            heads=v.heads,
            mlp_ratio=v.mlp_ratio,
            positions=v.positions,
            pooling=v.pooling,
            embedding_size=embedding_size,
            rngs=rngs,
        )
    else:
        encoder = nn.DenseNetwork(image_shape, widths=settings.dnn.widths, embedding_size=embedding_size, rngs=rngs)
    extra = OBJECTIVES[settings.objective].extra_parameters
    head = nn.HEADS[settings.loss.head](embedding_size, classes, rngs=rngs) if extra == "head" else None
    predictor = nn.Predictor(embedding_size, rngs=rngs) if extra == "predictor" else None
    modules = _build_loss_modules(settings, embedding_size, classes, rngs)
    return Learner(encoder, head, predictor, modules, embedding_size=embedding_size, memory=settings.loss.memory)


def _build_loss_modules(settings: Settings, embedding_size: int, classes: int, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """Return the modules whose outputs are arguments of the loss, by name; see `Learner.learned`."""
    extra, loss_settings = OBJECTIVES[settings.objective].extra_parameters, settings.loss
    modules: dict[str, nnx.Module] = {}
    if extra == "proxies":
        modules["proxies"] = nn.Proxies(embedding_size, classes, rngs=rngs)
    elif extra == "centers":
        per_class = loss_settings.centers or DEFAULT_CENTERS_PER_CLASS
        modules["proxies"] = nn.Proxies(embedding_size, classes, per_class=per_class, rngs=rngs)
    elif extra == "beta" and loss_settings.boundary != "fixed":
        beta = _initial_value(settings, "beta")
        modules["beta"] = nn.Beta(beta, classes=classes if loss_settings.boundary == "classes" else None)
    elif extra == "scale_and_bias":
        # math.exp overflows above 709. With the bound, ScaleAndBias raises an InputError instead.
        scale = math.exp(min(_initial_value(settings, "log_scale"), 700.0))
        bias = _initial_value(settings, "bias")
        modules["scale_and_bias"] = _build_with_setting_in_errors(
            "loss.log_scale", partial(nn.ScaleAndBias, scale=scale, bias=bias)
        )
    if loss_settings.learn_temperature:
        temperature = _initial_value(settings, "temperature")
        modules["temperature"] = _build_with_setting_in_errors("loss.temperature", partial(nn.Temperature, temperature))
    return modules


def _build_with_setting_in_errors(setting: str, build: Callable[[], nnx.Module]) -> nnx.Module:
    """Call `build` and prefix its `InputError`s with the name of the setting."""
    try:
        return build()
    except InputError as error:
        raise InputError(f"setting {setting!r}: {error}") from None


def _initial_value(settings: Settings, name: str) -> float:
    """Return the initial value of a learned hyper-parameter: the setting, or else the default of the loss function."""
    loss_function, value = OBJECTIVES[settings.objective].loss, getattr(settings.loss, name)
    assert loss_function is not None
    default = hyper_parameters(loss_function)[name].default
    assert default is not inspect.Parameter.empty  # all losses have defaults for their learned hyper-parameters
    return float(default if value is None else value)


class Encoded(NamedTuple):
    """Output of a learner.

    Attributes:
        embeddings: float32 [n, e].
        logits: float32 [n, classes], or None without a classifier.
        loss_arguments: Learned arguments of the loss by name, or None for an ensemble, in which each encoder has its
            own arguments.
    """

    embeddings: np.ndarray
    logits: np.ndarray | None = None
    loss_arguments: dict[str, Array] | None = None


class Encoder:
    """A trained learner in evaluation mode, which takes uint8 images."""

    def __init__(self, structure: Any, params: Any, statistics: Any, normalization: Normalization):
        self._structure = structure
        self._arrays = (params, statistics, normalization)

    def __call__(self, images: np.ndarray) -> Encoded:
        """Compute embeddings, logits and learned arguments of the loss for uint8 images [n, h, w, c]."""
        n = len(images)
        padded = np.concatenate([images, np.repeat(images[:1], -n % ENCODE_BATCH, axis=0)])
        batches = [
            _encode(self._structure, *self._arrays, jnp.asarray(padded[i : i + ENCODE_BATCH]))
            for i in range(0, len(padded), ENCODE_BATCH)
        ]
        embeddings = np.concatenate([np.asarray(embeddings) for embeddings, _ in batches])[:n]
        logits = [np.asarray(logits) for _, logits in batches if logits is not None]
        loss_arguments = self._learner().loss_arguments()
        return Encoded(embeddings, np.concatenate(logits)[:n] if logits else None, loss_arguments)

    def attention(self, images: np.ndarray) -> np.ndarray:
        """Compute the attention to each patch in the last block of a vision transformer.

        Returns:
            float32 [n, heads, grid rows, grid columns]: attention of the class token, or the mean over all tokens.
        """
        weights = np.asarray(_attention(self._structure, *self._arrays, jnp.asarray(images)))
        encoder = self._learner().encoder
        patch_weights = weights[:, :, 0, 1:] if encoder.class_token is not None else weights.mean(axis=2)
        return patch_weights.reshape(*patch_weights.shape[:2], *encoder.grid)

    def _learner(self) -> Any:
        return _evaluation_mode(self._structure, *self._arrays[:2])


class EnsembleEncoder:
    """Several encoders whose embeddings are combined."""

    def __init__(self, encoders: Sequence[Encoder], combine: str):
        self._encoders, self._combine = encoders, combine

    def __call__(self, images: np.ndarray) -> Encoded:
        """Compute embeddings of uint8 images [n, h, w, c]."""
        embeddings = [encoder(images).embeddings for encoder in self._encoders]
        return Encoded(np.asarray(combine_embeddings(embeddings, self._combine)))

    def attention(self, images: np.ndarray) -> np.ndarray:
        """Compute the attention of the first encoder."""
        return self._encoders[0].attention(images)


def _evaluation_mode(structure: Any, params: Any, statistics: Any) -> Any:
    learner = nnx.merge(structure, params, statistics, copy=True)
    return nnx.view(learner, use_running_average=True, raise_if_not_found=False)


@partial(jax.jit, static_argnums=0)
def _encode(
    structure: Any, params: Any, statistics: Any, normalization: Normalization, images: Array
) -> tuple[Array, Array | None]:
    return _evaluation_mode(structure, params, statistics)(normalize(images, *normalization))


@partial(jax.jit, static_argnums=0)
def _attention(structure: Any, params: Any, statistics: Any, normalization: Normalization, images: Array) -> Array:
    encoder = _evaluation_mode(structure, params, statistics).encoder
    return encoder(normalize(images, *normalization), return_attention=True)[1]
