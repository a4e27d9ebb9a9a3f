"""Fréchet distance between two sets of samples, each taken as a Gaussian: FID, of any encoder's features.

    |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))

The root of S_1 S_2 is never taken. With factors S_1 = A^T A and S_2 = B^T B, the samples less their mean, the trace
of that root is the sum of the singular values of A B^T, and the part of the covariances is the smallest

    |A - O B|^2    over all orthogonal O,

which the singular vectors give: O = U V for A B^T = U s V. So it is computed as a sum of squares: never negative, and
accurate for sets that are nearly equal, where a difference of traces is all rounding error. The covariances are never
formed from samples, so singular ones (fewer samples than features, constant features) lose nothing: a root of their
eigenvalues would turn rounding errors of 1e-7 into 3e-4.

O is where the smallest is reached, so that to first order a change of it changes nothing: the gradient is that of
|A - O B|^2 with O held fixed. It is exact where S_1 S_2 has full rank and finite everywhere, one of the subgradients
where it has not; no difference of singular values divides it. The gradient at equal sets is 0.

References:
    Dowson, Landau: The Fréchet distance between multivariate normal distributions, 1982.
    Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter: GANs Trained by a Two Time-Scale Update Rule Converge to a
    Local Nash Equilibrium, 2017.
    Bhatia, Jain, Lim: On the Bures-Wasserstein distance between positive definite matrices, 2019.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from simjax.core import InputError, as_float_array, auto_axes, check_at_least, promote_to_float32
from simjax.similarity._finite import power_of_two
from simjax.similarity._moments import Moments, centre


def frechet_distance(x: Num[ArrayLike, "n d"] | Moments, y: Num[ArrayLike, "m d"] | Moments) -> Float[Array, ""]:
    """|mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of the means and unbiased covariances of two sets.

    Differentiable once, forward or in reverse; a second derivative raises NotImplementedError.

    Args:
        x: samples [n, d], or the `Moments` of samples that were seen in batches.
        y: samples [m, d], or `Moments`.

    Returns:
        A squared distance in the samples' type, at least 0; of equal sets 0 within the square of the rounding error.
        The covariance of a single sample is 0. Samples are more exact than `Moments`: a covariance has lost half of
        the digits of its smallest eigenvalues.

    Raises:
        InputError: for shapes that do not fit or no samples.
        TypeError: for complex numbers, text and objects.

    Example:
        >>> x = jnp.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
        >>> print(frechet_distance(x, x), frechet_distance(x, x + jnp.array([[3.0, 4.0]])))
        0.0 25.0

    Differs from:
        torchmetrics, pytorch-fid: they sum the roots of the eigenvalues of S_1 S_2, which for singular covariances is
        off by the root of the rounding error and may come out negative or complex. One sample gives NaN there.
    """
    x, y = _checked("x", x), _checked("y", y)
    if _mean_like(x).shape != _mean_like(y).shape:
        raise InputError(f"y: expected {_mean_like(x).shape[0]} features as in x, got {_mean_like(y).shape[0]}")
    return _frechet_distance(x, y).astype(jnp.result_type(_mean_like(x), _mean_like(y)))


def _checked(name: str, x: ArrayLike | Moments) -> Array | Moments:
    if isinstance(x, Moments):
        return x
    x = as_float_array(name, x)
    if x.ndim != 2:
        raise InputError(f"{name}: expected samples [n, d], got shape {x.shape}")
    check_at_least(f"samples of {name}", x.shape[0], 1)
    return x


def _mean_like(x: Array | Moments) -> jax.ShapeDtypeStruct:
    """Shape and type of the mean."""
    a = x.mean if isinstance(x, Moments) else x
    return jax.ShapeDtypeStruct(a.shape[-1:], a.dtype)


@jax.jit
@auto_axes
def _frechet_distance(x: Array | Moments, y: Array | Moments) -> Array:
    with jax.default_matmul_precision("highest"):
        (mu, mu_rest, a, a_fits), (nu, nu_rest, b, b_fits) = _mean_and_factor(x), _mean_and_factor(y)
        shift = (mu - nu) + (mu_rest - nu_rest)
        rows = max(a.shape[0], b.shape[0])
        a, b = (jnp.pad(f, ((0, rows - f.shape[0]), (0, 0))) for f in (a, b))  # [r, d]
        # Divided by a power of two, so that no square overflows that the distance itself does not need.
        scale = power_of_two(jnp.max(jnp.array([jnp.max(jnp.abs(v), initial=0.0) for v in (a, b, shift)])))
        scaled = _squared_procrustes(a / scale, b / scale) + jnp.sum((shift / scale) ** 2)
    fits = a_fits & b_fits & ~jnp.isinf(scaled * scale * scale)
    return jnp.where(fits, jnp.where(fits, scaled, 0.0) * scale * scale, jnp.inf)


def _mean_and_factor(x: Array | Moments) -> tuple[Array, Array, Array, Array | bool]:
    """The mean as a number and its rest, a factor [r, d] of the covariance S = factor^T factor, r at most d, and
    whether the covariance fits the type.
    """
    if isinstance(x, Moments):
        fits = ~jnp.any(jnp.isinf(x.covariance))
        return x.mean, x.mean_rest, _root(jnp.where(fits, x.covariance, 0.0)), fits
    n, d = x.shape
    centred, mean, rest = centre(promote_to_float32(x), True, n)
    centred = centred / max(n - 1, 1) ** 0.5
    return mean, rest, centred if n <= d else _triangle(centred), True


# A factor is any of many, and a distance of S does not see which. So its derivative need only give that of S, which
# never divides by a small number as the derivative of a QR or of an eigendecomposition does.


@jax.custom_jvp
def _triangle(x: Array) -> Array:
    """R of x = Q R: [n, d] to [d, d]. R^T R = x^T x."""
    return jnp.linalg.qr(x, mode="r")


@_triangle.defjvp
def _triangle_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    q, r = jnp.linalg.qr(*primals)
    return r, q.T @ tangents[0]  # R^T Q^T dx = x^T dx


@jax.custom_jvp
def _root(s: Array) -> Array:
    """R [d, d] with R^T R = s, of a symmetric s whose eigenvalues below 0 are rounding errors."""
    return _root_and_inverse(s)[0]


@_root.defjvp
def _root_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    root, inverse = _root_and_inverse(*primals)
    return root, 0.5 * inverse @ tangents[0]  # R^T dR + dR^T R = ds on the range of s


def _root_and_inverse(s: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(s)
    least = s.shape[0] * jnp.finfo(s.dtype).eps * jnp.max(values, initial=0.0)
    root = jnp.sqrt(jax.nn.relu(values))
    inverse = jnp.where(values > least, 1 / jnp.where(values > least, root, 1.0), 0.0)
    return root[:, None] * vectors.T, inverse[:, None] * vectors.T


@jax.custom_jvp
def _squared_procrustes(a: Array, b: Array) -> Array:
    """The smallest |a - O b|^2 over all orthogonal O, of a, b [r, d]."""
    return _with_gradients(a, b)[0]


@_squared_procrustes.defjvp
def _squared_procrustes_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    value, *gradients = _with_gradients(*primals)
    return value, sum((jnp.sum(g * t) for g, t in zip(gradients, tangents, strict=True)), jnp.zeros_like(value))


@jax.custom_jvp
def _with_gradients(a: Array, b: Array) -> tuple[Array, Array, Array]:
    u, _, v = jnp.linalg.svd(a @ b.T)
    rotation = u @ v
    # Equal factors need no rotation, and have then no rounding error of one.
    still = jnp.sum((a - b) ** 2) <= jnp.sum((a - rotation @ b) ** 2)
    rotation = jnp.where(still, jnp.eye(a.shape[0], dtype=a.dtype), rotation)
    difference = a - rotation @ b
    return jnp.sum(difference**2), 2 * difference, -2 * rotation.T @ difference


@_with_gradients.defjvp
def _no_second_derivative(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Any, Any]:
    # A rotation held fixed would give a wrong one without a word.
    raise NotImplementedError("frechet_distance: has no second derivative, only a first one")
