"""A measure: how similar, or how far apart, two vectors are, with all that its users must know of it.

Direction is data: losses, miners and search read `higher_is_closer`, and nobody flips a sign by hand. One definition
gives the pair form and the strip of the matrix: where a matrix product can do it, it does.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from simjax.core import check_choice, dot_products
from simjax.similarity import _vectors as vectors


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Measure:
    """A similarity or a distance of two vectors.

    Attributes:
        pair: function of x, y [..., d] giving [...].
        higher_is_closer: True for a similarity, False for a distance.
        matrix: function of x [n, d], y [m, d] giving [n, m] through a matrix product, or None.
        range: smallest and largest value.
        name: what `measure=` calls it.
        parameters: keyword arguments of both functions; arrays may be traced or learned.
    """

    pair: Callable[..., Array] = dataclasses.field(metadata={"static": True})
    higher_is_closer: bool = dataclasses.field(metadata={"static": True})
    matrix: Callable[..., Array] | None = dataclasses.field(default=None, metadata={"static": True})
    range: tuple[float, float] = dataclasses.field(default=(-float("inf"), float("inf")), metadata={"static": True})
    name: str = dataclasses.field(default="", metadata={"static": True})
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_pair(cls, pair: Callable[..., Array], *, higher_is_closer: bool, **parameters: Any) -> "Measure":
        """A user's own function of two vectors as a measure.

        Example:
            >>> m = Measure.from_pair(lambda x, y: abs(x - y).max(-1), higher_is_closer=False)
            >>> print(m(jnp.array([1.0, 5.0]), jnp.array([2.0, 2.0])))
            3.0
        """
        return cls(pair, higher_is_closer, name=getattr(pair, "__name__", ""), parameters=parameters)

    def __call__(self, x: ArrayLike, y: ArrayLike) -> Array:
        """The pair form: x, y [..., d] to [...]."""
        return self.pair(jnp.asarray(x), jnp.asarray(y), **self.parameters)

    def strip(self, x: Array, y: Array) -> Array:
        """Every row of x [r, d] against every row of y [m, d]: [r, m]."""
        if self.matrix is not None:
            return self.matrix(x, y, **self.parameters)
        return self.pair(x[:, None], y[None], **self.parameters)

    def closest_first(self, values: Array) -> Array:
        """Values turned so that larger is closer."""
        return values if self.higher_is_closer else -values


def _cosine_matrix(x: Array, y: Array) -> Array:
    return dot_products(vectors.unit_vectors(x), vectors.unit_vectors(y))


def _squared_euclidean_matrix(x: Array, y: Array) -> Array:
    """|x|^2 + |y|^2 - 2 x.y, both moved to the mean of y first: far from the origin it loses all digits."""
    mean = jnp.mean(y, axis=0, keepdims=True) if y.shape[0] else 0.0
    x, y = x - mean, y - mean
    with jax.default_matmul_precision("highest"):
        products = dot_products(x, y)
    return jax.nn.relu(jnp.sum(x * x, -1)[:, None] + jnp.sum(y * y, -1)[None] - 2 * products)


_infinity = float("inf")
MEASURES = {
    m.name: m
    for m in (
        Measure(vectors.dot_product, True, dot_products, name="dot"),
        Measure(vectors.cosine_similarity, True, _cosine_matrix, (-1.0, 1.0), "cosine"),
        Measure(vectors.cosine_distance, False, lambda x, y: 1 - _cosine_matrix(x, y), (0.0, 2.0), "cosine_distance"),
        Measure(
            vectors.squared_euclidean_distance,
            False,
            _squared_euclidean_matrix,
            (0.0, _infinity),
            "squared_euclidean",
        ),
        Measure(
            vectors.euclidean_distance,
            False,
            lambda x, y: vectors.safe_sqrt(_squared_euclidean_matrix(x, y)),
            (0.0, _infinity),
            "euclidean",
        ),
    )
}


def measure(name: "str | Measure", **parameters: Any) -> Measure:
    """The measure of that name: dot, cosine, cosine_distance, euclidean or squared_euclidean.

    A `Measure` is returned as it is, so that functions can take either.

    Raises:
        InputError: for an unknown name, with the nearest one.
    """
    if isinstance(name, Measure):
        return name
    found = MEASURES[check_choice("measure", name, MEASURES)]
    return dataclasses.replace(found, parameters=parameters) if parameters else found
