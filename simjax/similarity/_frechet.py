"""Fréchet distance between two sets of samples (FID, for features of any encoder), and moments of samples in batches.

    |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))

with the means mu and the covariances S of the two sets; |.| is the Euclidean or the Frobenius norm. The matrix square
root is never computed. With factors S_1 = A^T A and S_2 = B^T B, the second summand is the minimum of

    |A - O B|^2    over all orthogonal O,

at O = U V^T for the singular value decomposition A B^T = U s V^T. The minimum is a sum of squares: never negative, and
accurate for nearly equal sets, where a difference of traces is only rounding error. The factors are computed from the
samples, if these are given, not from their covariance: singular covariances (fewer samples than features, constant
features) then lose no digits, while the root of an eigenvalue turns a rounding error of 1e-7 into 3e-4.

At the minimum a change of O has no effect to first order, so the gradient treats O as a constant. The gradient is exact
where S_1 S_2 has full rank, one of the subgradients elsewhere, and finite everywhere.

References:
    Dowson, Landau (1982), The Fréchet distance between multivariate normal distributions.
    Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter (2017), GANs Trained by a Two Time-Scale Update Rule Converge to
    a Local Nash Equilibrium.
    Bhatia, Jain, Lim (2019), On the Bures-Wasserstein distance between positive definite matrices.
    Chan, Golub, LeVeque (1979), Updating Formulae and a Pairwise Algorithm for Computing Sample Variances.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Num

from simjax.core import InputError, as_float_array, auto_axes, check_at_least, promote_to_float32
from simjax.similarity._finite import power_of_two


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of rows, accumulated over batches: a pytree of fixed shapes, made by `moments`.

    With delta = mean_b - mean_a and n = n_a + n_b, two sets a and b are merged by

        mean = mean_a + delta n_b / n,    scatter = scatter_a + scatter_b + delta delta^T n_a n_b / n,

    without a difference of sums of squares. The mean is stored with its rounding error, so the covariance stays
    accurate for means of 10,000 and for millions of rows. `jax.jit(Moments.update, donate_argnums=0)` updates in place;
    `merge` combines the moments from several devices or hosts, in any order.

    Args:
        count: Number of rows, uint32 []; exact up to 4,294,967,295.
        mean: [d], float32 or wider; 0 without rows.
        mean_rest: Rounding error of the mean (exact minus rounded mean), [d].
        scatter: Sum of (x - mean)(x - mean)^T, [d, d].

    Example:
        >>> seen = moments(jnp.array([[1.0, 2.0], [1.0, 2.0]]))
        >>> seen = seen.update(jnp.array([[4.0, 8.0], [4.0, 8.0]]))
        >>> print(seen.count, seen.mean, seen.covariance)
        4 [2.5 5. ] [[ 3.  6.]
         [ 6. 12.]]
    """

    # Any, because JAX also makes objects of this class with shapes, axes or shardings in the place of arrays.
    count: Any
    mean: Any
    mean_rest: Any
    scatter: Any

    @property
    def covariance(self) -> Float[Array, "d d"]:
        """The unbiased covariance [d, d], scatter / (count - 1) as in `numpy.cov`; 0 for fewer than two rows."""
        return self.scatter / jnp.maximum(self.count.astype(self.scatter.dtype) - 1, 1)

    def update(self, features: Num[ArrayLike, "n d"], mask: Bool[ArrayLike, " n"] | None = None) -> "Moments":
        """Return the moments with more rows, in the dtype of these moments; for arguments see `moments`."""
        return self.merge(moments(as_float_array("features", features).astype(self.mean.dtype), mask))

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of the rows of both, in the dtype of these moments."""
        if self.mean.shape != other.mean.shape:
            raise InputError(f"features: expected {self.mean.shape[-1]} as seen before, got {other.mean.shape[-1]}")
        return _merge(self, jax.tree.map(lambda a, b: b.astype(a.dtype), self, other))


def moments(features: Num[ArrayLike, "n d"], mask: Bool[ArrayLike, " n"] | None = None) -> Moments:
    """Compute the `Moments` of rows, to which `Moments.update` adds rows and `Moments.merge` adds other moments.

    Args:
        features: [n, d]; n = 0 gives the moments of no rows.
        mask: [n], True for valid rows, for batches that are padded to a fixed size. Default: all.
    """
    x = as_float_array("features", features)
    if x.ndim != 2:
        raise InputError(f"features: expected rows [n, d], got shape {x.shape}")
    valid = jnp.ones(x.shape[0], bool) if mask is None else jnp.asarray(mask)
    if valid.shape != x.shape[:1]:
        raise InputError(f"mask: expected {x.shape[0]} booleans, one for each row, got shape {valid.shape}")
    return _moments(promote_to_float32(x), valid)


def frechet_distance(x: Num[ArrayLike, "n d"] | Moments, y: Num[ArrayLike, "m d"] | Moments) -> Float[Array, ""]:
    """Compute |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of the means and unbiased covariances of two sets.

    x and y are samples [n, d] and [m, d], or the `Moments` of samples in batches. Samples are more accurate than
    `Moments`: a covariance has lost half of the digits of its smallest eigenvalues.

    Returns:
        A squared distance in the dtype of the samples, at least 0. For equal sets it is 0 up to the square of the
        rounding error, with zero gradient. The covariance of a single sample is 0. Differentiable once, in forward or
        reverse mode; a second derivative raises NotImplementedError.

    Example:
        >>> x = jnp.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
        >>> print(frechet_distance(x, x), frechet_distance(x, x + jnp.array([[3.0, 4.0]])))
        0.0 25.0

    Differs from torchmetrics and pytorch-fid, which sum the roots of the eigenvalues of S_1 S_2. For singular
    covariances the error of this sum is the root of the rounding error, and the sum may be negative or complex. One
    sample gives NaN.
    """
    (x, d, x_dtype), (y, e, y_dtype) = _samples("x", x), _samples("y", y)
    if d != e:
        raise InputError(f"y: expected {d} features as in x, got {e}")
    return _frechet_distance(x, y).astype(jnp.promote_types(x_dtype, y_dtype))


def _samples(name: str, x: ArrayLike | Moments) -> tuple[Array | Moments, int, Any]:
    """Return samples or their moments, the number of features and the dtype."""
    if isinstance(x, Moments):
        return x, x.mean.shape[-1], x.mean.dtype
    x = as_float_array(name, x)
    if x.ndim != 2:
        raise InputError(f"{name}: expected samples [n, d], got shape {x.shape}")
    check_at_least(f"samples of {name}", x.shape[0], 1)
    return x, x.shape[-1], x.dtype


@jax.jit
@auto_axes
def _frechet_distance(x: Array | Moments, y: Array | Moments) -> Array:
    with jax.default_matmul_precision("highest"):
        (x_mean, a, a_finite), (y_mean, b, b_finite) = _mean_and_factor(x), _mean_and_factor(y)
        shift = (x_mean[0] - y_mean[0]) + (x_mean[1] - y_mean[1])
        # Divided by a power of two, so that no square overflows unless the distance does.
        scale = power_of_two(jnp.max(jnp.array([jnp.max(jnp.abs(v), initial=0.0) for v in (a, b, shift)])))
        scaled = _squared_procrustes(a / scale, b / scale) + jnp.sum((shift / scale) ** 2)
    finite = a_finite & b_finite & ~jnp.isinf(scaled * scale * scale)
    return jnp.where(finite, jnp.where(finite, scaled, 0.0) * scale * scale, jnp.inf)


def _mean_and_factor(x: Array | Moments) -> tuple[tuple[Array, Array], Array, Array | bool]:
    """Return the mean and its rounding error, a factor A [r, d] of the covariance A^T A, and whether A^T A is finite.

    A function of the covariance does not depend on the choice of the factor, so the derivative of the factor must only
    reproduce that of the covariance. The derivative of a QR or eigenvalue decomposition would divide by small numbers.
    """
    if isinstance(x, Moments):
        finite = ~jnp.any(jnp.isinf(x.covariance))
        covariance = jnp.where(finite, x.covariance, 0.0)
        constant = lax.stop_gradient(covariance)
        values, vectors = jnp.linalg.eigh(constant)  # eigenvalues below 0 are rounding errors
        root = jnp.sqrt(jax.nn.relu(values))
        usable = values > len(values) * jnp.finfo(values.dtype).eps * jnp.max(values, initial=0.0)
        inverse = jnp.where(usable, 1 / jnp.where(usable, root, 1.0), 0.0)
        # The second summand is 0; with its derivative dA, A^T dA + dA^T A = dS on the range of S.
        factor = root[:, None] * vectors.T + 0.5 * (inverse[:, None] * vectors.T) @ (covariance - constant)
        return (x.mean, x.mean_rest), factor, finite
    n, d = x.shape
    centered, *mean = center(promote_to_float32(x), True, n)
    factor = centered / max(n - 1, 1) ** 0.5
    if n > d:
        q, _ = jnp.linalg.qr(lax.stop_gradient(factor))
        factor = q.T @ factor  # R of the QR decomposition; with a constant Q, R^T dR = X^T dX
    return (mean[0], mean[1]), factor, True


def _squared_procrustes(a: Array, b: Array) -> Array:
    """Compute the minimum of |a - O b|^2 over all orthogonal O, of a [r, d] and b [s, d]."""
    rows = max(a.shape[0], b.shape[0])
    a, b = (_differentiable_once(jnp.pad(f, ((0, rows - f.shape[0]), (0, 0)))) for f in (a, b))
    constant_a, constant_b = lax.stop_gradient((a, b))
    u, _, v_transposed = jnp.linalg.svd(constant_a @ constant_b.T)
    rotation = u @ v_transposed
    # Equal factors need no rotation; the identity has no rounding error.
    is_identity = jnp.sum((constant_a - constant_b) ** 2) <= jnp.sum((constant_a - rotation @ constant_b) ** 2)
    rotation = jnp.where(is_identity, jnp.eye(rows, dtype=a.dtype), rotation)
    return jnp.sum((a - rotation @ b) ** 2)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _differentiable_once(x: Array, order: int = 0) -> Array:
    """Return x. A second derivative raises NotImplementedError, because O and the QR factor are not constants in it."""
    return x


@_differentiable_once.defjvp
def _differentiable_once_jvp(order: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    if order:
        raise NotImplementedError("frechet_distance: has no second derivative, only a first one")
    return _differentiable_once(primals[0], 1), tangents[0]


@jax.jit
@auto_axes  # XLA chooses how intermediate results are sharded
def _moments(x: Array, valid: Array) -> Moments:
    count = jnp.sum(valid, dtype=jnp.uint32)
    centered, mean, error = center(x, valid[:, None], count)
    with jax.default_matmul_precision("highest"):
        scatter = centered.T @ centered
    return Moments(count, *_fast_two_sum(mean, error), scatter)


def center(x: Array, valid: Array | bool, count: Array | int) -> tuple[Array, Array, Array]:
    """Return rows x [n, d] minus their mean, the computed mean [d], and its rounding error [d], to be added to it.

    `valid` is [n, 1], or True for all rows. The rounding error is the mean of x minus the computed mean.
    """
    n = jnp.maximum(jnp.asarray(count).astype(x.dtype), 1)
    x = jnp.where(valid, x, 0.0)
    mean = jnp.sum(x / n, axis=0)  # divided first: the sum of n large numbers can overflow
    x = jnp.where(valid, x - mean[None], 0.0)
    error = jnp.sum(x, axis=0) / n
    return jnp.where(valid, x - error[None], 0.0), mean, error


@jax.jit
def _merge(a: Moments, b: Moments) -> Moments:
    count = a.count + b.count
    n_a, n_b = (c.astype(a.mean.dtype) for c in (a.count, b.count))
    n = jnp.maximum(count.astype(a.mean.dtype), 1)
    delta = (b.mean - a.mean) + (b.mean_rest - a.mean_rest)
    shift = delta * jnp.sqrt(n_a * (n_b / n))  # the root before the square: with n_a = 0, delta^2 may overflow
    # From the mean of the larger set, so that the mean of an empty set is never the start.
    from_a = n_a >= n_b
    step = jnp.where(from_a, delta * (n_b / n), -delta * (n_a / n))
    mean, error = jnp.where(from_a, a.mean, b.mean), jnp.where(from_a, a.mean_rest, b.mean_rest)
    return Moments(count, *_fast_two_sum(mean, error + step), a.scatter + b.scatter + shift[:, None] * shift[None])


def _fast_two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a + b and its rounding error, which is exact for |a| >= |b| (Dekker, 1971)."""
    total = a + b
    return total, b - (total - a)
