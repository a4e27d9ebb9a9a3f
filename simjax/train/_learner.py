"""What is trained: an encoder, and a head where the objective is classification."""

from collections.abc import Callable

from flax import nnx
from jax import Array

from simjax import nn
from simjax.train._settings import Settings


class Learner(nnx.Module):
    """An encoder of images and a head for classes, or None."""

    def __init__(self, encoder: Callable[[Array], Array], head: Callable[[Array], Array] | None):
        self.encoder = encoder
        self.head = head

    def __call__(self, images: Array) -> tuple[Array, Array | None]:
        """Images [b, h, w, c], normalised, to embeddings [b, e] and logits [b, classes] or None."""
        embeddings = self.encoder(images)
        return embeddings, None if self.head is None else self.head(embeddings)


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
    head = nn.HEADS[settings.loss.head](size, classes, rngs=rngs) if settings.objective == "softmax" else None
    return Learner(encoder, head)
