"""The dot product: how a neuron, a filter and an attention head all measure similarity.

`dot_products(x, y)` compares every row of x with every row of y. A dense layer's rows y are its neurons' weights,
a convolution's rows x are the patches of an image and its rows y the filters, attention's rows are queries and
keys. The three differ in what the rows are, and in nothing else.
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
    """The dot product of every row of x with every row of y, S_ij = x_i . y_j.

    Args:
        x: [*batch, n, d].
        y: [*batch, m, d], with the same leading axes.

    Returns:
        [*batch, n, m], in the inputs' common type; integers become floats.

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
    """A dense layer: every input row against every neuron, whose weights are a column of the kernel.

    Args:
        x: [..., d].
        kernel: [d, k].
        bias: [k] or None.

    Returns:
        [..., k].
    """
    x, kernel = as_float_array("x", x), as_float_array("kernel", kernel)
    rows = x.reshape(-1, x.shape[-1])  # one flat matrix product: XLA on a CPU runs 3-d contractions slowly
    out = dot_products(rows, kernel.T)
    out = out if bias is None else out + as_float_array("bias", bias)[None]
    return out.reshape(*x.shape[:-1], kernel.shape[1])


def matrix_product(a: ArrayLike, b: ArrayLike) -> Array:
    """a [*batch, n, m] times b [*batch, m, k] in float32 or wider, where the gradient of b is wanted, too.

    The precision in force at the call is that of the gradients as well.
    """
    return _product(as_float_array("a", a), as_float_array("b", b), current_precision())


def current_precision() -> Any:
    """What `jax.default_matmul_precision` says at the moment, for gradients that are traced later."""
    options: Any = jax.config
    return options.jax_default_matmul_precision


def transposed_layout(a: ArrayLike) -> Array:
    """a [..., n, m] itself, from memory in which it lies transposed: for a product with b whose gradient is wanted.

    The gradient of b is a^T times what comes from behind. Written in the obvious way both factors are read across
    their rows, which XLA on a CPU runs several times slower where there are many small ones (docs/performance.md).
    """
    if jax.default_backend() != "cpu":
        return jnp.asarray(a)
    return jnp.swapaxes(lax.optimization_barrier(jnp.swapaxes(a, -1, -2)), -1, -2)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _product(a: Array, b: Array, precision: Any) -> Array:
    return jnp.matmul(
        a, b, precision=precision, preferred_element_type=jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    )


@_product.defjvp
def _(precision: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (a, b), (da, db) = primals, tangents
    return _product(a, b, precision), _product(da, b, precision) + _product(transposed_layout(a), db, precision)
