"""Count, mean and covariance of rows that come in batches: a million images are never in memory at once.

Two sets a and b merge by (delta = mean_b - mean_a, n = n_a + n_b)

    mean = mean_a + delta n_b / n,    scatter = scatter_a + scatter_b + delta delta^T n_a n_b / n,

where scatter is the sum of (x - mean)(x - mean)^T. Nothing large is subtracted, so that a mean of 10,000 costs no
digits. What a small batch adds to a long sum may be less than the sum's last digit: mean and scatter are each kept as
a number and the rest that its rounding left (Knuth's exact sum of two numbers), and the count as an integer.

References:
    Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
    Knuth: The Art of Computer Programming, volume 2, section 4.2.2.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Num

from simjax.core import InputError, as_float_array, auto_axes, promote_to_float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and covariance of the rows seen so far: a pytree of fixed shapes, made by `moments`.

    `jax.jit(Moments.update, donate_argnums=0)` updates it in place; `merge` joins what several devices or hosts saw,
    in any order.

    Args:
        count: uint32 [], how many rows; exact up to 4,294,967,295.
        mean: [d], float32 or wider.
        mean_rest: [d], what rounding left of the mean.
        scatter: [d, d], the sum of (x - mean)(x - mean)^T.
        scatter_rest: [d, d], what rounding left of the scatter.

    Example:
        >>> seen = moments(jnp.array([[1.0, 2.0], [1.0, 2.0]]))
        >>> seen = seen.update(jnp.array([[4.0, 8.0], [4.0, 8.0]]))
        >>> print(seen.count, seen.mean, seen.covariance)
        4 [2.5 5. ] [[ 3.  6.]
         [ 6. 12.]]
    """

    # Any: JAX also puts shapes, axes and shardings where the arrays are.
    count: Any
    mean: Any
    mean_rest: Any
    scatter: Any
    scatter_rest: Any

    @property
    def covariance(self) -> Array:
        """The unbiased covariance [d, d], divided by count - 1 as `numpy.cov` does; 0 for less than two rows."""
        return (self.scatter + self.scatter_rest) / jnp.maximum(self.count.astype(self.mean.dtype) - 1, 1)

    def update(self, features: Num[ArrayLike, "n d"], mask: Bool[ArrayLike, " n"] | None = None) -> "Moments":
        """With more rows; arguments as in `moments`. The type stays the state's own."""
        return self.merge(moments(as_float_array("features", features).astype(self.mean.dtype), mask))

    def merge(self, other: "Moments") -> "Moments":
        """Of the rows of both; the type stays the state's own."""
        if self.mean.shape != other.mean.shape:
            raise InputError(f"features: expected {self.mean.shape[-1]} as seen before, got {other.mean.shape[-1]}")
        return _merge(self, jax.tree.map(lambda a, b: b.astype(a.dtype), self, other))


def moments(features: Num[ArrayLike, "n d"], mask: Bool[ArrayLike, " n"] | None = None) -> Moments:
    """Count, mean and covariance of rows: the state that `update` and `merge` continue.

    Args:
        features: [n, d]; n = 0 is the state that has seen nothing.
        mask: booleans [n], True keeps; for batches that are filled up to a fixed size. None keeps all.

    Raises:
        InputError: for features that are no matrix or a mask of another length.
        TypeError: for complex numbers, text and objects.
    """
    x = as_float_array("features", features)
    if x.ndim != 2:
        raise InputError(f"features: expected rows [n, d], got shape {x.shape}")
    keep = jnp.ones(x.shape[0], bool) if mask is None else jnp.asarray(mask)
    if keep.shape != x.shape[:1]:
        raise InputError(f"mask: expected {x.shape[0]} booleans, one for each row, got shape {keep.shape}")
    return _moments(promote_to_float32(x), keep)


@jax.jit
@auto_axes
def _moments(x: Array, keep: Array) -> Moments:
    count = jnp.sum(keep, dtype=jnp.uint32)
    centred, mean, rest = centre(x, keep[:, None], count)
    with jax.default_matmul_precision("highest"):
        scatter = centred.T @ centred
    return Moments(count, *_add(mean, jnp.zeros_like(mean), rest), scatter, jnp.zeros_like(scatter))


def centre(x: Array, keep: Array | bool, count: Array | int) -> tuple[Array, Array, Array]:
    """Rows [n, d] less their mean, and the mean as a number and its rest.

    A float32 sum of many rows is rounded; the mean of what is left when it is subtracted says by how much.
    """
    n = jnp.maximum(jnp.asarray(count).astype(x.dtype), 1)
    x = jnp.where(keep, x, 0.0)
    mean = jnp.sum(x / n, axis=0)  # divided first: a sum of n large numbers can overflow
    x = jnp.where(keep, x - mean[None], 0.0)
    rest = jnp.sum(x, axis=0) / n
    return jnp.where(keep, x - rest[None], 0.0), mean, rest


@jax.jit
def _merge(a: Moments, b: Moments) -> Moments:
    count = a.count + b.count
    n_a, n_b, n = (jnp.maximum(c.astype(a.mean.dtype), least) for c, least in ((a.count, 0), (b.count, 0), (count, 1)))
    delta = (b.mean - a.mean) + (b.mean_rest - a.mean_rest)
    shift = delta * jnp.sqrt(n_a * (n_b / n))  # the root first: 0 rows times delta^2 is 0 also where delta^2 overflows
    between = shift[:, None] * shift[None]
    # From the mean of the more rows, so that the whole of a mean is never the delta that is added to an empty state.
    a_has_more = n_a >= n_b
    mean, mean_rest = _add(
        jnp.where(a_has_more, a.mean, b.mean),
        jnp.where(a_has_more, a.mean_rest, b.mean_rest),
        jnp.where(a_has_more, delta * (n_b / n), -delta * (n_a / n)),
    )
    scatter, scatter_rest = _add(a.scatter, a.scatter_rest, b.scatter)
    return Moments(count, mean, mean_rest, *_add(scatter, scatter_rest, b.scatter_rest + between))


def _add(total: Array, rest: Array, x: Array) -> tuple[Array, Array]:
    """total + rest + x as a number and the rest that rounding leaves; the rest of infinity is 0."""
    x = x + rest
    rounded = total + x
    back = rounded - total
    rest = (total - (rounded - back)) + (x - back)
    return rounded, jnp.where(jnp.isfinite(rounded), rest, 0.0)
