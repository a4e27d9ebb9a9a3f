"""Two sets of samples compared through a kernel: centered kernel alignment and maximum mean discrepancy.

Centered kernel alignment (CKA) compares two representations of the same inputs. With K_ij = k(x_i, x_j) and
L_ij = k(y_i, y_j), both centered (rows and columns sum to 0),

    CKA = <K, L> / sqrt(<K, K> <L, L>),    in [0, 1], 1 for equal representations,

and a rotation or a scaling of either representation does not change it. For the linear kernel
<K, L> = |X^T Y|^2 of the centered features, which needs no matrix of the inputs. The plain inner product of centered
matrices is biased: for a small number of inputs the alignment of independent representations is high. The unbiased
inner product leaves out the diagonal and divides the means by n - 2 and n - 1 instead of n. Only the unbiased one may
be averaged over batches, as `Alignment` does.

Maximum mean discrepancy (MMD) compares the means of two distributions in the feature space of a kernel. With x' an
independent copy of x, and y' of y,

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)

With a characteristic kernel, such as the Gaussian, it is 0 only for equal distributions. The biased estimate includes
the pairs of each sample with itself and is at least 0. The unbiased estimate leaves them out; its expectation is 0 for
two samples of the same distribution, so it can be negative. Kernels are scores (larger is closer): a distance is
negated, so "euclidean" gives the energy distance. A tile is a block of rows of a kernel matrix, with all columns; no
n x n matrix is stored. All functions raise InputError for shapes that do not match or too few samples.

References:
    Kornblith, Norouzi, Lee, Hinton (2019), Similarity of Neural Network Representations Revisited.
    Song, Smola, Gretton, Bedo, Borgwardt (2012), Feature Selection via Dependence Maximization (the unbiased form).
    Nguyen, Raghu, Kornblith (2021), Do Wide and Deep Networks Learn the Same Things? (over batches)
    Gretton, Borgwardt, Rasch, Schölkopf, Smola (2012), A Kernel Two-Sample Test.
    Sejdinovic, Sriperumbudur, Gretton, Fukumizu (2013), Equivalence of distance-based and RKHS-based statistics.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np  # noqa: F401 (in doctests)
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from simjax.core import (
    InputError,
    as_carry,
    as_float_array,
    as_matrices,
    auto_axes,
    check_at_least,
    check_choice,
    map_rows,
    promote_to_float32,
)
from simjax.similarity._finite import power_of_two, ratio, safe_sqrt
from simjax.similarity._frechet import center
from simjax.similarity._masks import Mask, exclude_self
from simjax.similarity._measure import Measure
from simjax.similarity._measure import measure as as_measure
from simjax.similarity._reduce_rows import reduce_rows_of_arrays
from simjax.similarity._reductions import mean


def centered_kernel_alignment(
    x: Num[ArrayLike, "n d"],
    y: Num[ArrayLike, "n e"],
    *,
    kernel: str | Measure = "linear",
    bandwidth: float = 0.8,
    unbiased: bool = False,
    block_size: int | None = None,
) -> Float[Array, ""]:
    """Compute the centered kernel alignment <K, L> / sqrt(<K, K> <L, L>) of two representations.

    Args:
        x, y: Two sets of features, [n, d] and [n, e], of the same inputs in the same order.
        kernel: "linear"; "rbf", which is exp(-|x - x'|^2 / (2 s^2)) with s relative to the median distance within
            each of x and y; or a `Measure` such as `measure("rbf", gamma=0.1)` for both.
        bandwidth: s divided by the median distance, for "rbf". The median is the lower median of the n (n - 1) / 2
            distances; no gradient flows through it.
        unbiased: Leave out the pairs of an input with itself, which needs 4 inputs.
        block_size: Rows per block. Default: chosen from a memory budget.

    Returns:
        Scalar in [0, 1], or in [-1, 1] if unbiased, in the dtype of the features; 0, with zero gradient, if a
        representation is the same for all inputs.

    Example:
        >>> x = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
        >>> print(f"{centered_kernel_alignment(x, 5 * x[:, ::-1]):.4f}")  # the same but for a reflection and a scale
        1.0000
    """
    x, y = _same_inputs(x, y, 4 if unbiased else 1)
    state = _alignment(x, y, _kernel(kernel, bandwidth), unbiased=unbiased, block_size=block_size)
    return state.value.astype(jnp.result_type(x, y))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Kernel:
    """Kernel of an alignment: its name, "linear", "rbf", or "measure" with a `Measure`, and the bandwidth of "rbf"."""

    name: str = dataclasses.field(metadata={"static": True})
    measure: Measure | None
    bandwidth: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Alignment:
    """Centered kernel alignment over a data set, batch by batch: a pytree of fixed shapes, made by `alignment`.

    `jax.jit(Alignment.update, donate_argnums=0)` updates in place; `merge` joins the states of several devices or
    hosts. All batches have the same weight, whatever their size, and their own median distances.

    Args:
        products: Sums over batches of the unbiased <K, L>, <K, K> and <L, L>, [3].
        scales: Powers of two by which x and y are divided in the products, [2].
        kernel: Kernel of both representations.

    Example:
        >>> first, *others = np.random.default_rng(0).normal(size=(20, 8, 3))  # 20 batches of 8 inputs
        >>> seen = alignment(first, 2 * first)
        >>> for batch in others:
        ...     seen = seen.update(batch, 2 * batch)
        >>> print(f"{seen.value:.4f}")
        1.0000
    """

    # Any, because JAX also makes objects of this class with shapes, axes or shardings in the place of arrays.
    products: Any
    scales: Any
    kernel: Kernel

    @property
    def value(self) -> Float[Array, ""]:
        """The alignment over all batches; 0 if a representation is the same for all inputs."""
        xy, xx, yy = self.products
        return ratio(xy, safe_sqrt(xx) * safe_sqrt(yy))

    def update(
        self, x: Num[ArrayLike, "n d"], y: Num[ArrayLike, "n e"], *, block_size: int | None = None
    ) -> "Alignment":
        """Return the alignment with one more batch, in the dtype of this one; for arguments see `alignment`."""
        x, y = _same_inputs(x, y, 4)
        return self.merge(_alignment(x, y, self.kernel, unbiased=True, block_size=block_size))

    def merge(self, other: "Alignment") -> "Alignment":
        """Return the alignment of the batches of both, which have the same kernel, in the dtype of this one."""
        if jax.tree.structure(self) != jax.tree.structure(other):
            raise InputError(f"kernel: expected {self.kernel} as seen before, got {other.kernel}")
        return _merge(self, other)


def alignment(
    x: Num[ArrayLike, "n d"],
    y: Num[ArrayLike, "n e"],
    *,
    kernel: str | Measure = "linear",
    bandwidth: float = 0.8,
    block_size: int | None = None,
) -> Alignment:
    """Compute the `Alignment` of a first batch, to which `update` adds batches and `merge` adds other alignments.

    Args:
        x, y: Two sets of features, [n, d] and [n, e], of the same inputs, at least 4.
        kernel, bandwidth: See `centered_kernel_alignment`.
        block_size: Rows per block. Default: chosen from a memory budget.
    """
    x, y = _same_inputs(x, y, 4)
    return _alignment(x, y, _kernel(kernel, bandwidth), unbiased=True, block_size=block_size)


def maximum_mean_discrepancy(
    x: Num[ArrayLike, "n d"],
    y: Num[ArrayLike, "m d"],
    *,
    measure: str | Measure = "rbf",
    unbiased: bool = True,
    block_size: int | None = None,
) -> Float[Array, ""]:
    """Estimate the squared maximum mean discrepancy of two samples, MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y).

    Args:
        x, y: Samples of the two distributions, [n, d] and [m, d].
        measure: The kernel k, a name or a `Measure`; a distance is negated. Default: "rbf" with gamma = 1 / d.
        unbiased: Leave out the pairs of a sample with itself.
        block_size: Rows per block. Default: chosen from a memory budget.

    Returns:
        Scalar, MMD^2 in the dtype of the samples. The biased estimate is at least 0, with zero gradient at 0; the
        unbiased estimate can be negative.

    Example:
        The energy distance of two sets, 2 E|x - y| - E|x - x'| - E|y - y'|:

        >>> x, y = np.array([[0.0], [2.0]]), np.array([[4.0], [6.0]])
        >>> print(maximum_mean_discrepancy(x, y, measure="euclidean"))
        4.0
    """
    x, y = as_matrices(x, y)
    for name, size in (("samples of x", x.shape[0]), ("samples of y", y.shape[0])):
        check_at_least(name, size, 2 if unbiased else 1)
    discrepancy = _maximum_mean_discrepancy(x, y, as_measure(measure), unbiased=unbiased, block_size=block_size)
    return discrepancy.astype(jnp.result_type(x, y))


@partial(jax.jit, static_argnames=("unbiased", "block_size"))
@auto_axes
def _maximum_mean_discrepancy(x: Array, y: Array, measure: Measure, *, unbiased: bool, block_size: int | None) -> Array:
    def mean_scores(a: Array, b: Array, mask: Mask | None) -> Array:
        return measure.as_score(mean(a, b, mask=mask, measure=measure, block_size=block_size, precision="highest"))

    x, y = promote_to_float32(x), promote_to_float32(y)
    mask = exclude_self if unbiased else None
    xx, yy, xy = mean_scores(x, x, mask), mean_scores(y, y, mask), mean_scores(x, y, None)
    # The offset, the mean of the first row, cancels in the total: smaller terms have smaller rounding errors.
    offset = lax.stop_gradient(xy[0])
    total = jnp.mean(xx - offset) + jnp.mean(yy - offset) - 2 * jnp.mean(xy - offset)
    # If the scores of finite samples overflow, the total may be inf - inf = NaN; the result is inf instead.
    overflow = ~jnp.isfinite(total) & jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(y))
    total = jnp.where(overflow, jnp.inf, total)
    return total if unbiased else jax.nn.relu(total)


def _same_inputs(x: ArrayLike, y: ArrayLike, minimum: int) -> tuple[Array, Array]:
    x, y = as_float_array("x", x), as_float_array("y", y)
    for name, a in (("x", x), ("y", y)):
        if a.ndim != 2:
            raise InputError(f"{name}: expected features [n, d], got shape {a.shape}")
    if len(x) != len(y):
        raise InputError(f"y: expected features of the same {len(x)} inputs as x, got shape {y.shape}")
    check_at_least("inputs", len(x), minimum)
    return x, y


def _kernel(kernel: str | Measure, bandwidth: float) -> Kernel:
    check_at_least("bandwidth", bandwidth, 0)
    name = "measure" if isinstance(kernel, Measure) else check_choice("kernel", kernel, ("linear", "rbf"))
    return Kernel(name, kernel if isinstance(kernel, Measure) else None, jnp.asarray(bandwidth, float))


@jax.jit
def _merge(a: Alignment, b: Alignment) -> Alignment:
    scales = jnp.maximum(a.scales, b.scales)

    def products(state: Alignment) -> Array:
        x, y = (state.scales / scales) ** 2
        return state.products * jnp.stack([x * y, x * x, y * y])

    merged = Alignment(products(a) + products(b), scales, a.kernel)
    return jax.tree.map(lambda new, old: new.astype(jnp.result_type(old)), merged, a)


@partial(jax.jit, static_argnames=("unbiased", "block_size"))
@auto_axes
def _alignment(x: Array, y: Array, kernel: Kernel, *, unbiased: bool, block_size: int | None) -> Alignment:
    (n, d), e = x.shape, y.shape[1]
    dtype = jnp.promote_types(jnp.result_type(x, y), jnp.float32)
    x, y, scales = x.astype(dtype), y.astype(dtype), jnp.ones(2, dtype)
    x_measure = y_measure = as_measure("dot") if kernel.measure is None else kernel.measure
    if kernel.measure is None:
        (x, x_scale), (y, y_scale) = _centered_and_scaled(x), _centered_and_scaled(y)
        if kernel.name == "rbf":  # the bandwidth is relative to the median distance, so the scale has no effect
            x_measure, y_measure = (as_measure("rbf", gamma=_gamma(a, kernel.bandwidth, block_size)) for a in (x, y))
        else:
            scales = jnp.stack([x_scale, y_scale])
    if kernel.name == "linear" and max(d, e) <= n and not unbiased:
        # <K, L> = |X^T Y|^2 / n^2, from the dot products of the features of x and y
        options: dict[str, Any] = {"block_size": block_size, "precision": "highest"}
        squares = [reduce_rows_of_arrays(_SQUARES, x_measure, a.T, b.T, **options) for a, b in ((x, y), (x, x), (y, y))]
        products = jnp.stack([jnp.sum(s / n**2) for s in squares])
    else:
        products = _kernel_products(x, y, x_measure, y_measure, unbiased, block_size)
    return Alignment(products, scales, kernel)


def _centered_and_scaled(x: Array) -> tuple[Array, Array]:
    """Return centered features divided by a power of two, and that power; a constant feature is exactly 0."""
    scale = power_of_two(jnp.max(jnp.abs(x), initial=0.0))
    varies = jnp.any(x != x[:1], axis=0, keepdims=True)
    return center(x / scale, varies, x.shape[0])[0], scale


_SQUARES = Partial(lambda s, i, j: jnp.sum(s * s, axis=1))  # of the values s [r, m] of a tile


def _kernel_products(
    x: Array, y: Array, x_measure: Measure, y_measure: Measure, unbiased: bool, block_size: int | None
) -> Array:
    """Compute <K, L>, <K, K> and <L, L> of the centered kernels, as means over pairs of inputs, [3].

    The tiles are computed twice, once for the means of the kernels and once for the products. A single computation
    would subtract products of kernels that are not centered, and lose most digits.
    """
    n = x.shape[0]
    i = jnp.arange(n, dtype=jnp.int32)
    row_bytes = max(x_measure.row_bytes(x, x), y_measure.row_bytes(y, y))
    row_divisor, total_divisor, pair_divisor = (n - 2, n - 1, n - 3) if unbiased else (n, n, n)

    def without_diagonal(s: Array, i: Array) -> Array:
        return jnp.where(i[:, None] == jnp.arange(n)[None], 0.0, s) if unbiased else s

    def centered_kernel(a: Array, measure: Measure) -> tuple[Any, Any]:
        rows, columns = measure.tile_inputs(a, a)

        def tile(block: Any, i: Array) -> Array:
            return without_diagonal(measure.as_score(measure.tile(block, columns, "highest")), i)

        def sums(block: Any, i: Array) -> tuple[Array, Array]:
            s = tile(block, i)
            return jnp.sum(s, axis=1) / row_divisor, jnp.sum(s * s, axis=1) / (n * pair_divisor)

        means, squares = map_rows(sums, rows, i, block_size=block_size, row_bytes=row_bytes)
        mean = jnp.sum(means) / total_divisor

        def centered_tile(block: Any, own_means: Array, i: Array) -> Array:
            return without_diagonal(tile(block, i) - own_means[:, None] - means[None] + mean, i)

        # After centering, a kernel that is the same for all pairs consists of rounding errors; they count as 0.
        noise = (16 * jnp.finfo(a.dtype).eps) ** 2 * jnp.sum(squares)
        return (rows, means), (centered_tile, noise)

    x_rows, (x_tile, x_noise) = centered_kernel(x, x_measure)
    y_rows, (y_tile, y_noise) = centered_kernel(y, y_measure)

    def products_of_block(x_block: Any, y_block: Any, i: Array) -> Array:
        x, y = x_tile(*x_block, i), y_tile(*y_block, i)
        return jnp.stack([jnp.sum(a * b, axis=1) for a, b in ((x, y), (x, x), (y, y))], axis=1) / (n * pair_divisor)

    products = map_rows(products_of_block, x_rows, y_rows, i, block_size=block_size, row_bytes=row_bytes)  # [n, 3]
    products = jnp.sum(products, axis=0)
    _, xx, yy = products
    x_varies, y_varies = ~(xx <= x_noise), ~(yy <= y_noise)
    return jnp.where(jnp.stack([x_varies & y_varies, x_varies, y_varies]), products, 0.0)


def _gamma(x: Array, bandwidth: Array, block_size: int | None) -> Array:
    """Return 1 / (2 s^2), where s is bandwidth times the median distance; for s = 0 different rows have kernel 0."""
    square = median_squared_distance(lax.stop_gradient(x), block_size).astype(x.dtype)
    return 1 / jnp.maximum(2 * bandwidth.astype(x.dtype) ** 2 * square, 1e-30)


def median_squared_distance(x: Float[Array, "n d"], block_size: int | None = None) -> Float[Array, ""]:
    """Return the lower median of |x_i - x_j|^2 over the pairs i < j, rounded to float32; 0 for a single row.

    No n x n matrix is stored. Read as integers, the bits of nonnegative floats have the order of the floats, so the
    median is found four bits at a time: each of eight steps counts the distances up to 15 thresholds, which divide the
    remaining range into sixteen parts.
    """
    n, measure = x.shape[0], as_measure("squared_euclidean")

    def refine(lower: Array, shift: Array) -> tuple[Array, None]:
        thresholds = lower + (jnp.arange(1, 16, dtype=jnp.uint32) << shift) - 1
        count = Partial(_count_up_to, thresholds)
        counts = reduce_rows_of_arrays(count, measure, x, x, block_size=block_size)  # [n, 15]
        below = jnp.sum(counts.astype(jnp.float32), axis=0) < n * (n - 1) / 2  # pairs (i, j) and (j, i) are counted
        return lower + (jnp.sum(below, dtype=jnp.uint32) << shift), None

    lower = as_carry(lambda lower: refine(lower, jnp.uint32(0))[0], jnp.uint32(0))
    bits, _ = lax.scan(refine, lower, jnp.arange(28, -1, -4, dtype=jnp.uint32))
    return lax.bitcast_convert_type(bits, jnp.float32)


def _count_up_to(thresholds: Array, distances: Array, i: Array, j: Array) -> Array:
    """Count the distances [r, m] of rows i [r, 1] and other rows j [1, m] whose bits are at most each threshold."""
    bits = lax.bitcast_convert_type(distances.astype(jnp.float32), jnp.uint32)
    return jnp.stack([jnp.sum((bits <= t) & (i != j), axis=1, dtype=jnp.int32) for t in thresholds], axis=1)
