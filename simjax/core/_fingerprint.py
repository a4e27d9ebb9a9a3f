"""Fingerprints of rows: 64 bits that are equal for identical rows, and only for them but for one chance in 2^64.

|x|^2 + |y|^2 - 2 x.y rounds, so that two identical rows seem 0.01 or more apart. Comparing all features of all pairs
would cost what the product saves; comparing two integers does not.
"""

import functools
import math
import operator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

PARTS = 8


def fingerprints(x: Array) -> Array:
    """uint32 [n, 2] of rows x [n, d]."""
    x = lax.stop_gradient(x)
    x = jnp.where(x == 0, jnp.zeros_like(x), x)  # -0 and 0 are the same number
    kind = {2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[x.dtype.itemsize]
    bits = lax.bitcast_convert_type(x, kind).astype(jnp.uint32)
    bits = bits.reshape(x.shape[0], math.prod(bits.shape[1:]))
    bits = mixed_bits(bits)  # round numbers have many zero bits at the end, which a sum of products would keep
    # By NumPy, so that they are constants of the compiled program.
    weights = mixed_bits(np.arange(1, 2 * bits.shape[1] + 1, dtype=np.uint32).reshape(2, -1)) | 1
    products = bits[:, None] * weights[None]
    # Parts of rows as whole vectors first: along a row a CPU adds one number after another.
    width = -(-bits.shape[1] // PARTS)
    products = jnp.pad(products, ((0, 0), (0, 0), (0, PARTS * width - bits.shape[1])))
    parts = (products[:, :, i * width : (i + 1) * width] for i in range(PARTS))
    return jnp.sum(functools.reduce(operator.add, parts), axis=-1, dtype=jnp.uint32)


def same_fingerprint(x: Array, y: Array) -> Array:
    """Which rows are identical: boolean [r, m] of fingerprints [r, 2] and [m, 2]."""
    return (x[:, :1] == y[None, :, 0]) & (x[:, 1:] == y[None, :, 1])


def mixed_bits(x: Any) -> Any:
    """Every bit of uint32 x moves every bit of the result, a bijection: MurmurHash3's finaliser (Austin Appleby).

    x is an array of JAX or of NumPy, and so is the result.
    """
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * np.uint32(factor)
    return x ^ (x >> 16)
