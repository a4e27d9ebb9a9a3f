"""Dot products of rows: the operation that dense layers, convolutions and attention share.

`dot_products(x, y)` compares every row of x with every row of y. In a dense layer the rows of y are the weights of its
neurons; in a convolution the rows of x are the patches of an image and those of y the filters; in attention the rows
are queries and keys.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core._arrays import as_float_array
from simjax.core._blocks import save_for_backward


def dot_products(x: Num[ArrayLike, "*batch n d"], y: Num[ArrayLike, "*batch m d"]) -> Num[Array, "*batch n m"]:
    """Compute the dot product of every row of x with every row of y, S_ij = x_i . y_j.

    Args:
        x: [*batch, n, d].
        y: [*batch, m, d], with the same leading axes.

    Returns:
        [*batch, n, m], in the common dtype of the inputs; integers become floats.

    Example:
        By dot product b is closer to a than a is to itself:

        >>> a, b = jnp.array([[0.2, 0.99]]), jnp.array([[0.9, 0.99]])
        >>> [round(float(dot_products(a, v)[0, 0]), 4) for v in (a, b)]
        [1.0201, 1.1601]
    """
    return save_for_backward(_dot_products(as_float_array("x", x), as_float_array("y", y), current_precision()))


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _dot_products(x: Array, y: Array, precision: Any) -> Array:
    return jnp.matmul(x, jnp.swapaxes(y, -1, -2), precision=precision)


def _dot_products_jvp(precision: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, y), (dx, dy) = primals, tangents
    s = _dot_products(x, y, precision)
    of_x = [] if isinstance(dx, SymbolicZero) else [_dot_products(dx, y, precision)]
    of_y = [] if isinstance(dy, SymbolicZero) else [_dot_products(x, transposed_layout(dy), precision)]
    return s, sum(of_x + of_y, jnp.zeros_like(s))


_dot_products.defjvp(_dot_products_jvp, symbolic_zeros=True)


def dense(
    x: Num[ArrayLike, "... d"], kernel: Num[ArrayLike, "d k"], bias: Num[ArrayLike, " k"] | None = None
) -> Num[Array, "... k"]:
    """Compute a dense layer, x kernel + bias: the dot product of every row with the weights of every neuron.

    Args:
        x: [..., d].
        kernel: [d, k].
        bias: [k]. Default: no bias.

    Returns:
        [..., k].
    """
    x, kernel = as_float_array("x", x), as_float_array("kernel", kernel)
    rows = x.reshape(-1, x.shape[-1])  # XLA on a CPU computes contractions of three axes slowly
    out = dot_products(rows, kernel.T)
    out = out if bias is None else out + as_float_array("bias", bias)[None]
    return out.reshape(*x.shape[:-1], kernel.shape[1])


def matrix_product(a: ArrayLike, b: ArrayLike) -> Array:
    """Compute the product of a [*batch, n, m] and b [*batch, m, k] in float32 or wider.

    Its gradients have the matrix product precision in force at the call.
    """
    return _product(as_float_array("a", a), as_float_array("b", b), current_precision())


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _product(a: Array, b: Array, precision: Any) -> Array:
    dtype = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    return jnp.matmul(a, b, precision=precision, preferred_element_type=dtype)


@_product.defjvp
def _(precision: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (a, b), (da, db) = primals, tangents
    return _product(a, b, precision), _product(da, b, precision) + _product(transposed_layout(a), db, precision)


def current_precision() -> Any:
    """Return the value of `jax.default_matmul_precision`, for gradients that are traced later."""
    options: Any = jax.config
    return options.jax_default_matmul_precision


def transposed_layout(a: ArrayLike) -> Array:
    """Return a [..., n, m], stored transposed on a CPU, so that the gradient of b in a b reads contiguous memory."""
    if jax.default_backend() != "cpu":
        return jnp.asarray(a)
    return jnp.swapaxes(lax.optimization_barrier(jnp.swapaxes(a, -1, -2)), -1, -2)
