"""Fingerprints of rows: 64 bits that are equal for identical rows, and for two other rows with probability 2^-64.

|x|^2 + |y|^2 - 2 x.y is rounded, so the computed distance of two identical rows can be 0.01 or more. Comparing all
features of all pairs would take as much time as the matrix product saves; comparing two integers does not.
"""

import math
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Uint32 = TypeVar("Uint32", Array, np.ndarray)


def fingerprints(x: Array) -> Array:
    """Return the fingerprints, uint32 [n, 2], of rows x [n, d] in float32 or wider."""
    x = lax.stop_gradient(jnp.where(x == 0, 0.0, x))  # -0 equals 0, but has other bits
    words = lax.bitcast_convert_type(x, jnp.uint32)
    words = words.reshape(x.shape[0], math.prod(words.shape[1:]))
    weights = mixed_bits(np.arange(1, 2 * words.shape[1] + 1, dtype=np.uint32).reshape(2, -1)) | 1
    # Mixed before the sum: round numbers end in many zero bits, which products modulo 2^32 would keep.
    return jnp.sum(mixed_bits(words)[:, None] * weights[None], axis=-1, dtype=jnp.uint32)


def same_fingerprint(x: Array, y: Array) -> Array:
    """Return which rows are identical, boolean [r, m], by their fingerprints [r, 2] and [m, 2]."""
    return (x[:, :1] == y[None, :, 0]) & (x[:, 1:] == y[None, :, 1])


def mixed_bits(x: Uint32) -> Uint32:
    """Permute the uint32 numbers such that each bit of x changes every bit of the result with probability 1/2.

    The permutation is the finalizer of MurmurHash3 (Austin Appleby).
    """
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * np.uint32(factor)
    return x ^ (x >> 16)
