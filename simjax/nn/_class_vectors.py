"""Class vectors that are learned: what losses take as `proxies`.

vectors = ClassVectors(embedding_size, classes, rngs=rngs)

def loss(vectors, embeddings, labels):
    return losses.arcface_loss(embeddings, labels, proxies=vectors())
"""

import jax
from flax import nnx
from jax import Array

from simjax.core import check_at_least
from simjax.similarity import unit_vectors


class ClassVectors(nnx.Module):
    """A vector for each class, [c, d], or several, its centres, [c, k, d].

    They begin in random directions, uniform on the sphere, with length 1. Losses that compare by cosine see directions
    alone; a gradient then turns a vector by an angle that falls with the square of its length, so that with vectors of
    length 1 the learning rate means the same for any number of features.

    Args:
        embedding_size: d.
        classes: c.
        centers: k, for `sub_center_arcface_loss` and `soft_triple_loss`; None is one vector for each class, without
            the axis k.
        rngs: draws the directions.

    Raises:
        InputError: if there are to be no centres.

    Example:
        >>> one = ClassVectors(8, 5, rngs=nnx.Rngs(0))
        >>> many = ClassVectors(8, 5, centers=3, rngs=nnx.Rngs(0))
        >>> one().shape, many().shape
        ((5, 8), (5, 3, 8))
    """

    def __init__(self, embedding_size: int, classes: int, *, centers: int | None = None, rngs: nnx.Rngs):
        check_at_least("centers", centers, 1)
        shape = (classes,) if centers is None else (classes, centers)
        self.vectors = nnx.Param(random_directions(rngs.params(), (*shape, embedding_size)))

    def __call__(self) -> Array:
        """The vectors as they are now."""
        return self.vectors[...]


def random_directions(key: Array, shape: tuple[int, ...]) -> Array:
    """Unit vectors [..., d], uniform on the sphere."""
    return unit_vectors(jax.random.normal(key, shape))
