"""The dot product: how a neuron, a filter and an attention head all measure similarity.

`dot_products(x, y)` compares every row of x with every row of y. A dense layer's rows y are its neurons' weights,
a convolution's rows x are the patches of an image and its rows y the filters, attention's rows are queries and
keys. The three differ in what the rows are, and in nothing else.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num


def dot_products(x: Num[ArrayLike, "*batch n d"], y: Num[ArrayLike, "*batch m d"]) -> Num[Array, "*batch n m"]:
    """The dot product of every row of x with every row of y, S_ij = x_i . y_j.

    Args:
        x: [*batch, n, d].
        y: [*batch, m, d], with the same leading axes.

    Returns:
        [*batch, n, m], in the inputs' common type.

    Example:
        By dot product b is closer to a than a is to itself:

        >>> a, b = jnp.array([[0.2, 0.99]]), jnp.array([[0.9, 0.99]])
        >>> [round(float(dot_products(a, v)[0, 0]), 4) for v in (a, b)]
        [1.0201, 1.1601]
    """
    return jnp.matmul(x, jnp.swapaxes(jnp.asarray(y), -1, -2))


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
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    rows = x.reshape(-1, x.shape[-1])  # one flat matrix product: XLA on a CPU runs 3-d contractions slowly
    out = dot_products(rows, kernel.T)
    out = out if bias is None else out + jnp.asarray(bias)[None]
    return out.reshape(*x.shape[:-1], kernel.shape[1])
