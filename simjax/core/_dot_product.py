"""Dot products of rows: the operation that dense layers, convolutions and attention share.

In a dense layer the rows of y are the weights of its neurons; in a convolution the rows of x are the patches of an
image and the rows of y the filters; in attention they are queries and keys.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core._arrays import as_float_array
from simjax.core._blocks import save_for_backward


def dot_products(x: Num[ArrayLike, "*batch n d"], y: Num[ArrayLike, "*batch m d"]) -> Num[Array, "*batch n m"]:
    """Compute the dot product of every row of x with every row of y, S_ij = x_i . y_j, in their common dtype.

    Example:
        By dot product b is closer to a than a is to itself:

        >>> a, b = jnp.array([[0.2, 0.99]]), jnp.array([[0.9, 0.99]])
        >>> [round(float(dot_products(a, v)[0, 0]), 4) for v in (a, b)]
        [1.0201, 1.1601]
    """
    return row_products(as_float_array("x", x), as_float_array("y", y))


def row_products(x: Array, y: Array) -> Array:
    """Compute `dot_products` of floating-point arrays, without conversion."""
    return save_for_backward(jnp.matmul(x, jnp.swapaxes(y, -1, -2), precision=current_precision()))


def dense(
    x: Num[ArrayLike, "... d"], kernel: Num[ArrayLike, "d k"], bias: Num[ArrayLike, " k"] | None = None
) -> Num[Array, "... k"]:
    """Compute a dense layer, x kernel + bias: the dot product of every row with the weights of every neuron."""
    x, kernel = as_float_array("x", x), as_float_array("kernel", kernel)
    rows = x.reshape(-1, x.shape[-1])  # XLA on a CPU computes contractions of three axes slowly
    out = dot_products(rows, kernel.T)
    out = out if bias is None else out + as_float_array("bias", bias)[None]
    return out.reshape(*x.shape[:-1], kernel.shape[1])


def matrix_product(a: ArrayLike, b: ArrayLike) -> Array:
    """Compute the product of a [*batch, n, m] and b [*batch, m, k] in float32 or wider.

    Its gradients have the matrix product precision in force at the call.
    """
    a, b = as_float_array("a", a), as_float_array("b", b)
    dtype = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    return jnp.matmul(a, b, precision=current_precision(), preferred_element_type=dtype)


def current_precision() -> Any:
    """Return the value of `jax.default_matmul_precision`, for gradients that are traced later."""
    options: Any = jax.config
    return options.jax_default_matmul_precision
