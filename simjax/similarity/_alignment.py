"""Centred kernel alignment (CKA): how alike two representations of the same inputs are, layer by layer.

With K_ij = k(x_i, x_j) and L_ij = k(y_i, y_j), both centred (rows and columns sum to 0),

    CKA = <K, L> / sqrt(<K, K> <L, L>),    in [0, 1], 1 for equal representations,

whatever a rotation or a common scale does to either. For the linear kernel <K, L> = |X^T Y|^2 of the centred features,
which needs no matrix of the inputs.

The inner product of matrices centred in the plain way is biased: with few inputs all representations look alike. It is
unbiased when the diagonal is left out and the means are divided by n - 2 and n - 1 instead of n, and only then may it
be averaged over batches, which is how `Alignment` compares layers over a data set.

References:
    Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Network Representations Revisited, 2019.
    Song, Smola, Gretton, Bedo, Borgwardt: Feature Selection via Dependence Maximization, 2012 (the unbiased form).
    Nguyen, Raghu, Kornblith: Do Wide and Deep Networks Learn the Same Things?, 2021 (over batches).
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from simjax.core import InputError, as_float_array, auto_axes, check_at_least, check_choice, map_rows
from simjax.similarity._finite import power_of_two, ratio, safe_sqrt
from simjax.similarity._measure import Measure
from simjax.similarity._measure import measure as as_measure
from simjax.similarity._median_distance import median_squared_distance
from simjax.similarity._moments import centre
from simjax.similarity._reduce_rows import reduce_rows


def centered_kernel_alignment(
    x: Num[ArrayLike, "n d"],
    y: Num[ArrayLike, "n e"],
    *,
    kernel: str | Measure = "linear",
    bandwidth: float = 0.8,
    unbiased: bool = False,
    block_size: int | None = None,
) -> Float[Array, ""]:
    """<K, L> / sqrt(<K, K> <L, L>) of the centred kernel matrices of two representations, never stored.

    Args:
        x: features [n, d] of n inputs.
        y: features [n, e] of the same inputs in the same order.
        kernel: "linear"; "rbf", exp(-|x - x'|^2 / (2 s^2)), whose s is a share of the median distance within each of
            x and y; or a `Measure`, such as `measure("rbf", gamma=0.1)`, the same for both.
        bandwidth: that share. The median is of the n (n - 1) / 2 pairs, the lower of two middle ones, and counts as a
            constant in the gradient.
        unbiased: leave out the pairs of an input with itself.
        block_size: rows computed at once; None chooses.

    Returns:
        In [0, 1], unbiased in [-1, 1], in the features' type; 0, with zero gradient, where a representation is the
        same for all inputs.

    Raises:
        InputError: for shapes that do not fit, an unknown kernel, a negative bandwidth, or fewer inputs than 1
            (unbiased: 4).
        TypeError: for values that are no real numbers.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
        >>> print(centered_kernel_alignment(x, 5 * x[:, ::-1]).round(4))  # the same but for a reflection and a scale
        1.0
    """
    x, y = _same_inputs(x, y, 4 if unbiased else 1)
    found = _alignment(x, y, _kernel(kernel, bandwidth), unbiased=unbiased, block_size=block_size)
    return found.value.astype(jnp.result_type(x, y))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Kernel:
    """How the inputs of a representation are compared.

    Args:
        name: linear, rbf, or measure.
        measure: a `Measure` where the name says so.
        bandwidth: of rbf.
    """

    name: str = dataclasses.field(metadata={"static": True})
    measure: Measure | None
    bandwidth: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Alignment:
    """Centred kernel alignment over a data set, batch by batch: a pytree of fixed shapes, made by `alignment`.

    `jax.jit(Alignment.update, donate_argnums=0)` updates it in place; `merge` joins what several devices or hosts saw.
    Batches count alike, whatever their size. A bandwidth is each batch's own median.

    Args:
        products: [3], the sums over batches of the unbiased <K, L>, <K, K> and <L, L>.
        scales: [2], the powers of two that x and y are divided by in them.
        kernel: of both representations.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (20, 8, 3))  # 20 batches of 8 inputs
        >>> seen = alignment(x[0], 2 * x[0])
        >>> for batch in x[1:]:
        ...     seen = seen.update(batch, 2 * batch)
        >>> print(seen.value.round(4))
        1.0
    """

    # Any: JAX also puts shapes, axes and shardings where the arrays are.
    products: Any
    scales: Any
    kernel: Kernel

    @property
    def value(self) -> Array:
        """The alignment of what was seen so far: []; 0 where a representation is the same for all inputs."""
        xy, xx, yy = self.products
        return ratio(xy, safe_sqrt(xx) * safe_sqrt(yy))

    def update(
        self, x: Num[ArrayLike, "n d"], y: Num[ArrayLike, "n e"], *, block_size: int | None = None
    ) -> "Alignment":
        """With one more batch; arguments as in `alignment`. The type stays the state's own."""
        x, y = _same_inputs(x, y, 4)
        return self.merge(_alignment(x, y, self.kernel, unbiased=True, block_size=block_size))

    def merge(self, other: "Alignment") -> "Alignment":
        """Of the batches of both, which are of one kernel; the type stays the state's own."""
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
    """Unbiased centred kernel alignment of a first batch: the state that `update` and `merge` continue.

    Args:
        x: features [n, d] of n inputs, at least 4.
        y: features [n, e] of the same inputs.
        kernel: as in `centered_kernel_alignment`.
        bandwidth: as there.
        block_size: rows computed at once; None chooses.

    Raises:
        InputError: for shapes that do not fit, an unknown kernel, a negative bandwidth or fewer inputs than 4.
        TypeError: for values that are no real numbers.
    """
    x, y = _same_inputs(x, y, 4)
    return _alignment(x, y, _kernel(kernel, bandwidth), unbiased=True, block_size=block_size)


def _same_inputs(x: ArrayLike, y: ArrayLike, least: int) -> tuple[Array, Array]:
    x, y = as_float_array("x", x), as_float_array("y", y)
    for name, a in (("x", x), ("y", y)):
        if a.ndim != 2:
            raise InputError(f"{name}: expected features [n, d], got shape {a.shape}")
    if len(x) != len(y):
        raise InputError(f"y: expected features of the same {len(x)} inputs as x, got shape {y.shape}")
    check_at_least("inputs", len(x), least)
    return x, y


def _kernel(kernel: str | Measure, bandwidth: float) -> Kernel:
    check_at_least("bandwidth", bandwidth, 0)
    share = jnp.asarray(bandwidth, float)
    if isinstance(kernel, Measure):
        return Kernel("measure", kernel, share)
    return Kernel(check_choice("kernel", kernel, ("linear", "rbf")), None, share)


@jax.jit
def _merge(a: Alignment, b: Alignment) -> Alignment:
    scales = jnp.maximum(a.scales, b.scales)

    def products(s: Alignment) -> Array:
        x, y = (s.scales / scales) ** 2
        return s.products * jnp.stack([x * y, x * x, y * y])

    merged = Alignment(products(a) + products(b), scales, a.kernel)
    return jax.tree.map(lambda new, old: new.astype(jnp.result_type(old)), merged, a)


@partial(jax.jit, static_argnames=("unbiased", "block_size"))
@auto_axes
def _alignment(x: Array, y: Array, kernel: Kernel, *, unbiased: bool, block_size: int | None) -> Alignment:
    (n, d), e = x.shape, y.shape[1]
    kind = jnp.promote_types(jnp.result_type(x, y), jnp.float32)
    x, y, scales = x.astype(kind), y.astype(kind), jnp.ones(2, kind)
    x_measure = y_measure = as_measure("dot") if kernel.measure is None else kernel.measure
    if kernel.measure is None:
        (x, x_scale), (y, y_scale) = _normalised(x), _normalised(y)
        if kernel.name == "rbf":  # which a scale does not change
            x_measure, y_measure = (as_measure("rbf", gamma=_gamma(a, kernel.bandwidth, block_size)) for a in (x, y))
        else:
            scales = jnp.stack([x_scale, y_scale])
    if kernel.name == "linear" and max(d, e) <= n and not unbiased:
        products = jnp.stack([_squared_products(a, b, block_size) for a, b in ((x, y), (x, x), (y, y))])
    else:
        products = _kernel_products(x, y, x_measure, y_measure, unbiased, block_size)
    return Alignment(products, scales, kernel)


def _normalised(x: Array) -> tuple[Array, Array]:
    """Features centred and divided by a power of two, and that power. One that is the same for all is exactly 0."""
    scale = power_of_two(jnp.max(jnp.abs(x), initial=0.0))
    varies = jnp.any(x != x[:1], axis=0, keepdims=True)
    return centre(x / scale, varies, x.shape[0])[0], scale


def _squared_products(x: Array, y: Array, block_size: int | None) -> Array:
    """|X^T Y|^2, features of x against features of y, over n^2 as a mean over pairs of inputs is."""
    squares = reduce_rows(_sum_of_squares, x.T, y.T, measure="dot", block_size=block_size, precision="highest")
    return jnp.sum(squares / x.shape[0] ** 2)


def _sum_of_squares(s: Array, i: Array, j: Array) -> Array:
    return jnp.sum(s * s, axis=1)


def _kernel_products(
    x: Array, y: Array, x_measure: Measure, y_measure: Measure, unbiased: bool, block_size: int | None
) -> Array:
    """<K, L>, <K, K> and <L, L> of the centred kernels, as means over pairs of inputs: [3].

    Once for the kernels' means and once for the products: the products of kernels that are not centred are much
    larger than what their differences would leave.
    """
    n = x.shape[0]
    i = jnp.arange(n, dtype=jnp.int32)
    row_bytes = max(x_measure.row_bytes(x, x), y_measure.row_bytes(y, y))
    of_rows, of_all, of_pairs = (n - 2, n - 1, n - 3) if unbiased else (n, n, n)

    def side(a: Array, measure: Measure) -> tuple[Any, Any]:
        rows, columns = measure.tile_inputs(a, a)

        def tile(part: Any, i: Array) -> Array:
            s = measure.as_score(measure.tile(part, columns, "highest"))
            return jnp.where(i[:, None] == jnp.arange(n)[None], 0.0, s) if unbiased else s

        def sums(part: Any, i: Array) -> tuple[Array, Array]:
            s = tile(part, i)
            return jnp.sum(s, axis=1) / of_rows, jnp.sum(s * s, axis=1) / (n * of_pairs)

        means, squares = map_rows(sums, rows, i, block_size=block_size, row_bytes=row_bytes)
        mean = jnp.sum(means) / of_all

        def centred(part: Any, own: Array, i: Array) -> Array:
            s = tile(part, i) - own[:, None] - means[None] + mean
            return jnp.where(i[:, None] == jnp.arange(n)[None], 0.0, s) if unbiased else s

        # A kernel that is the same for all pairs leaves its rounding errors, which are nobody's alignment.
        noise = (16 * jnp.finfo(a.dtype).eps) ** 2 * jnp.sum(squares)
        return (rows, means), (centred, noise)

    (x_rows, (x_centred, x_noise)), (y_rows, (y_centred, y_noise)) = side(x, x_measure), side(y, y_measure)

    def products(x_part: Any, y_part: Any, i: Array) -> Array:
        of_x, of_y = x_centred(*x_part, i), y_centred(*y_part, i)
        pairs = ((of_x, of_y), (of_x, of_x), (of_y, of_y))
        return jnp.stack([jnp.sum(a * b, axis=1) for a, b in pairs], axis=1) / (n * of_pairs)  # [r, 3]

    found = jnp.sum(map_rows(products, x_rows, y_rows, i, block_size=block_size, row_bytes=row_bytes), axis=0)
    x_varies, y_varies = ~(found[1] <= x_noise), ~(found[2] <= y_noise)
    return jnp.where(jnp.stack([x_varies & y_varies, x_varies, y_varies]), found, 0.0)


def _gamma(x: Array, bandwidth: Array, block_size: int | None) -> Array:
    """1 / (2 s^2), s a share of the median distance; for s = 0 so large that only equal rows are alike."""
    square = median_squared_distance(lax.stop_gradient(x), block_size).astype(x.dtype)
    return 1 / jnp.maximum(2 * bandwidth.astype(x.dtype) ** 2 * square, 1e-30)
