"""The median distance within a set of samples, from which kernels take their bandwidth, without a matrix [n, n].

The bits of numbers from 0 up are in the numbers' order, so that the median is found four bits at a time: each of eight
passes counts, row by row, the distances up to each of the 15 numbers that end a sixteenth of what is left.
"""

import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jaxtyping import Float

from simjax.core import as_carry
from simjax.similarity._reduce_rows import reduce_rows


def median_squared_distance(x: Float[Array, "n d"], block_size: int | None = None) -> Float[Array, ""]:
    """The lower median of |x_i - x_j|^2 over the pairs i < j, rounded to float32; 0 of a single row."""
    n = x.shape[0]

    def narrow(least: Array, shift: Array) -> tuple[Array, None]:
        ends = least + (jnp.arange(1, 16, dtype=jnp.uint32) << shift) - 1
        options = {"measure": "squared_euclidean", "block_size": block_size}
        counts = reduce_rows(Partial(_count_up_to, ends), x, **options)  # [n, 15]
        below = jnp.sum(counts.astype(jnp.float32), axis=0) < n * (n - 1) / 2  # (i, j) and (j, i) are both counted
        return least + (jnp.sum(below, dtype=jnp.uint32) << shift), None

    least = as_carry(lambda least: narrow(least, jnp.uint32(0))[0], jnp.uint32(0))
    bits, _ = lax.scan(narrow, least, jnp.arange(28, -1, -4, dtype=jnp.uint32))
    return lax.bitcast_convert_type(bits, jnp.float32)


def _count_up_to(ends: Array, s: Array, i: Array, j: Array) -> Array:
    bits = lax.bitcast_convert_type(s.astype(jnp.float32), jnp.uint32)
    return jnp.stack([jnp.sum((bits <= end) & (i != j), axis=1, dtype=jnp.int32) for end in ends], axis=1)
