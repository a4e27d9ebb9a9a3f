"""Learned measures: a distance after a linear map, a network that compares two vectors, a measure with parameters.

Calling a module computes the measure of pairs x, y [..., features]. Its method `measure` returns a `Measure` with the
module's arrays as parameters, for losses, search and attention. Gradients reach the module:

    def loss(module):
        return triplet_margin_loss(embeddings, labels, measure=module.measure())
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.typing import ArrayLike

from simjax import similarity
from simjax.core import InputError, promote_to_float32
from simjax.nn._loss_parameters import clip_logarithm
from simjax.similarity._define import pair_function
from simjax.similarity._featurewise import reduce_features, reduce_features_of_tile

EUCLIDEAN: Any = similarity.measure("euclidean")


class LowRankMahalanobis(nnx.Module):
    """The Euclidean distance after a learned linear map, |L x - L y|.

    It is the Mahalanobis distance sqrt((x - y)^T M (x - y)) of M = L^T L. All pairs cost one product of matrices
    [n, rank] and [rank, m]. The gradient at L x = L y is 0.

    Args:
        features: Number of features of the vectors.
        rank: Number of rows of L.
        rngs: Initializes L, so that L preserves squared lengths on average.

    Example:
        >>> learned = LowRankMahalanobis(3, 2, rngs=nnx.Rngs(0))
        >>> learned.projection[...] = jnp.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])  # L transposed
        >>> print(similarity.pairwise(jnp.eye(3), measure=learned.measure()).round(2))
        [[0.   2.24 1.  ]
         [2.24 0.   2.  ]
         [1.   2.   0.  ]]

    References:
        Weinberger, Saul (2009), Distance Metric Learning for Large Margin Nearest Neighbor Classification.
    """

    def __init__(self, features: int, rank: int, *, rngs: nnx.Rngs):
        self.projection = nnx.Param(jax.random.normal(rngs.params(), (features, rank)) / rank**0.5)

    def __call__(self, x: ArrayLike, y: ArrayLike) -> Array:
        return self.measure()(x, y)

    def measure(self) -> similarity.Measure:
        """Return the distance, with L as its parameter."""
        return similarity.Measure(
            _mapped_pair,
            higher_is_closer=False,
            prepare=_map_rows,
            matrix=_mapped_matrix,
            range=(0.0, float("inf")),
            name="low_rank_mahalanobis",
            parameters={"projection": self.projection[...]},
            exact_zero=True,
            precision="highest",
        )


DOWNSCALE = 2.0**-4  # factor of vectors before a linear map, so that the map of the largest numbers does not overflow


@pair_function()
def _mapped_pair(x: Array, y: Array, *, projection: Array) -> Array:
    # Subtracted before the map, because the map rounds its result; halved, because x - y could overflow.
    half_difference = x / 2 - y / 2
    mapped = _map(half_difference * DOWNSCALE, projection)
    return _rescale(EUCLIDEAN(mapped, jnp.zeros_like(mapped)), 2 / DOWNSCALE)


def _map_rows(x: Array, y: Array, *, projection: Array) -> tuple[Any, Any]:
    return EUCLIDEAN.prepare(*(_map(promote_to_float32(a) * DOWNSCALE, projection) for a in (x, y)))


def _mapped_matrix(x: Any, y: Any, *, projection: Array) -> Array:
    return _rescale(EUCLIDEAN.matrix(x, y), 1 / DOWNSCALE)


def _map(x: Array, projection: Array) -> Array:
    return jnp.matmul(x, projection, precision="highest")


def _rescale(distance: Array, factor: float) -> Array:
    """Compute distance * factor, with zero gradient where the product is infinite."""
    product = distance * factor
    return jnp.where(jnp.isinf(product), lax.stop_gradient(product), product)


class PairNetwork(nnx.Module):
    """A small network that computes a similarity of two vectors.

        g(x, y) = out . gelu(W1 x + W2 y + b) + c        similarity = (g(x, y) + g(y, x)) / 2

    Unlike a distance of embeddings the network can learn any relation, for instance that opposite vectors are similar.
    The mean over both orders is symmetric. W1 x and W2 x are computed once per row; each pair then sums one term per
    hidden neuron, without an array [n, m, hidden]. (W1 x and W2 x overflow for vectors near the largest float.)

    Args:
        features: Number of features of the vectors.
        hidden: Number of hidden neurons.

    Example:
        >>> network = PairNetwork(3, 8, rngs=nnx.Rngs(0))
        >>> x, y = jnp.array([1.0, 0.0, 2.0]), jnp.array([0.0, 3.0, 1.0])
        >>> bool(network(x, y) == network(y, x))
        True
    """

    def __init__(self, features: int, hidden: int, *, rngs: nnx.Rngs):
        initializer = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(initializer(rngs.params(), (2 * features, hidden)))  # W1 and W2, transposed
        self.bias = nnx.Param(jnp.zeros(hidden))
        self.out = nnx.Param(initializer(rngs.params(), (hidden, 1))[:, 0])
        self.offset = nnx.Param(jnp.zeros(()))

    def __call__(self, x: ArrayLike, y: ArrayLike) -> Array:
        return self.measure()(x, y)

    def measure(self) -> similarity.Measure:
        """Return the similarity as a `Measure` whose parameters are the weights."""
        weights = {name: getattr(self, name)[...] for name in ("kernel", "bias", "out", "offset")}
        return similarity.Measure(
            _network_pair,
            higher_is_closer=True,
            prepare=_project_rows,
            matrix=_network_matrix,
            name="pair_network",
            parameters=weights,
        )


Projected = tuple[Array, Array]  # W1 x + b and W2 x of a vector x, [..., hidden] each


def _project(x: Array, kernel: Array, bias: Array) -> Projected:
    first, second = jnp.split(kernel, 2)
    return jnp.matmul(x, first) + bias.reshape((1,) * (x.ndim - 1) + bias.shape), jnp.matmul(x, second)


def _contributions(x: Projected, y_and_out: tuple[Projected, Array]) -> tuple[Array]:
    """Compute the contribution of each hidden neuron to the similarity."""
    (x_first, x_second), ((y_first, y_second), out) = x, y_and_out
    return ((_gelu(x_first + y_second) + _gelu(y_first + x_second)) * out / 2,)


def _gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)  # the cube of the tanh approximation overflows at 1e13


def _network(reduce: Callable[..., tuple[Array, ...]], x: Projected, y: Projected, out: Array, offset: Array) -> Array:
    return reduce(_contributions, x, (y, out))[0] + offset


@pair_function()
def _network_pair(x: Array, y: Array, *, kernel: Array, bias: Array, out: Array, offset: Array) -> Array:
    out = out.reshape((1,) * (max(x.ndim, y.ndim) - 1) + out.shape)
    return _network(reduce_features, _project(x, kernel, bias), _project(y, kernel, bias), out, offset)


def _project_rows(x: Array, y: Array, *, kernel: Array, bias: Array, **_: Array) -> tuple[Projected, Projected]:
    return _project(promote_to_float32(x), kernel, bias), _project(promote_to_float32(y), kernel, bias)


def _network_matrix(x: Projected, y: Projected, *, out: Array, offset: Array, **_: Array) -> Array:
    return _network(reduce_features_of_tile, x, y, out[None], offset)


class TunedMeasure(nnx.Module):
    """A named measure with learned positive parameters, such as the gamma of a kernel.

    The logarithms of the parameters are stored, bounded to [-40, 40] like those of `Temperature`.

    Args:
        name: Name of a measure, see `similarity.measure`.
        **initial: Initial values of the learned parameters, positive numbers or arrays.

    Example:
        >>> tuned = TunedMeasure("tversky", alpha=1.0, beta=0.5)
        >>> print(tuned(jnp.array([1.0, 1.0, 0.0]), jnp.array([0.0, 1.0, 1.0])))
        0.4
    """

    def __init__(self, name: str, **initial: ArrayLike):
        similarity.measure(name, **initial)
        for parameter, value in initial.items():
            if not np.all(np.asarray(value) > 0):  # with jnp, the check would be traced when an encoder is loaded
                raise InputError(f"{parameter}: expected above 0, got {value}")
        self.name = name
        self.logarithms = nnx.Dict({p: nnx.Param(jnp.log(jnp.asarray(v, float))) for p, v in initial.items()})

    def __call__(self, x: ArrayLike, y: ArrayLike) -> Array:
        return self.measure()(x, y)

    def measure(self) -> similarity.Measure:
        """Return the measure with the learned parameters."""
        values = {p: jnp.exp(clip_logarithm(v[...])) for p, v in self.logarithms.items()}
        return similarity.measure(self.name, **values)
