"""What is trained: an encoder, a head where the objective is classification, and what a loss learns."""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial

from flax import nnx
from jax import Array

from simjax import mining, nn
from simjax.core import InputError
from simjax.train._objectives import OBJECTIVES
from simjax.train._settings import Settings
from simjax.train._takes import parameters

CENTERS = 3


class Remembered(nnx.Variable):
    """Rows of earlier batches: a part of the state that no gradient reaches."""


class Learner(nnx.Module):
    """An encoder of images, and what its objective needs beside it.

    Attributes:
        encoder: of images.
        head: of embeddings, for classes, or None.
        predictor: of embeddings, of another view's embeddings, or None.
        learned: modules whose call gives arguments of the loss, by name.
        memory: of embeddings, a `mining.CrossBatchMemory`, or None.
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
        self.memory = Remembered(mining.cross_batch_memory(memory, embedding_size)) if memory else None
        self.embedding_size = embedding_size

    def __call__(self, images: Array) -> tuple[Array, Array | None]:
        """Images [b, h, w, c], normalised, to embeddings [b, e] and logits [b, classes] or None."""
        embeddings = self.encoder(images)
        return embeddings, None if self.head is None else self.head(embeddings)

    def remember(self, embeddings: Array, labels: Array) -> mining.CrossBatchMemory | None:
        """The memory with a batch put in, which it keeps; None where there is no memory."""
        if self.memory is None:
            return None
        memory = mining.push(self.memory.get_value(), embeddings, labels)
        self.memory.set_value(memory)
        return memory

    def arguments(self, embeddings: Array | None = None) -> dict[str, Array]:
        """What the loss takes beside embeddings and labels, as it is now.

        Args:
            embeddings: [b, e], for the predictor; None leaves its predictions out.
        """
        found: dict[str, Array] = {}
        for name, module in self.learned.items():
            value = module()
            found |= value if isinstance(value, dict) else {name: value}
        if self.predictor is not None and embeddings is not None:
            found["prediction"] = self.predictor(embeddings)
        return found


def build_learner(settings: Settings, image_shape: tuple[int, int, int], classes: int) -> Learner:
    """The learner that completed settings describe, with fresh parameters.

    Raises:
        InputError: if the images are too small for the network, or its settings do not fit together.
    """
    rngs = nnx.Rngs(settings.seed)
    size = settings.embedding_size or 64
    if settings.model == "cnn":
        c = settings.cnn
        encoder: Callable[[Array], Array] = nn.SiameseCNN(
            image_shape, variant=c.variant, widths=c.widths, residual=c.residual, embedding_size=size, rngs=rngs
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
            embedding_size=size,
            rngs=rngs,
        )
    else:
        encoder = nn.DenseNetwork(image_shape, widths=settings.dnn.widths, embedding_size=size, rngs=rngs)
    learns = OBJECTIVES[settings.objective].learns
    head = nn.HEADS[settings.loss.head](size, classes, rngs=rngs) if learns == "head" else None
    predictor = nn.Predictor(size, rngs=rngs) if learns == "predictor" else None
    learned = _learned(settings, size, classes, rngs)
    return Learner(encoder, head, predictor, learned, embedding_size=size, memory=settings.loss.memory)


def _learned(settings: Settings, size: int, classes: int, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """What the loss learns, by the arguments that it becomes."""
    needs, loss = OBJECTIVES[settings.objective], settings.loss
    found: dict[str, nnx.Module] = {}
    if needs.learns == "vectors":
        found["proxies"] = nn.ClassVectors(size, classes, rngs=rngs)
    if needs.learns == "centers":
        found["proxies"] = nn.ClassVectors(size, classes, centers=loss.centers or CENTERS, rngs=rngs)
    if needs.learns == "boundary" and loss.boundary != "fixed":
        initial = _initial(settings, "beta")
        found["beta"] = nn.Boundary(initial, classes=classes if loss.boundary == "classes" else None)
    if needs.learns == "sigmoid":
        scale = math.exp(min(_initial(settings, "log_scale"), 700.0))  # more overflows, and is refused in any case
        bias = _initial(settings, "bias")
        found["scale_and_bias"] = _of_setting("loss.log_scale", partial(nn.ScaleAndBias, scale=scale, bias=bias))
    if loss.learn_temperature:
        initial = _initial(settings, "temperature")
        found["temperature"] = _of_setting("loss.temperature", partial(nn.Temperature, initial))
    return found


def _of_setting(name: str, make: Callable[[], nnx.Module]) -> nnx.Module:
    """Return the module, or name the setting from which it cannot be made."""
    try:
        return make()
    except InputError as error:
        raise InputError(f"setting {name!r}: {error}") from None


def _initial(settings: Settings, name: str) -> float:
    """Where a learned number begins: as given, or at the loss's default."""
    loss, value = OBJECTIVES[settings.objective].loss, getattr(settings.loss, name)
    assert loss is not None
    default = parameters(loss)[name].default
    assert default is not inspect.Parameter.empty
    return float(default if value is None else value)
