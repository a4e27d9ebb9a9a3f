"""The k largest entries of each row of an array."""

import jax.numpy as jnp
from jax import Array, lax

from simjax.core._checks import InputError

GROUP = 16  # columns that are searched through their maximum first


def top_k_of_rows(s: Array, k: int) -> tuple[Array, Array]:
    """The k largest entries of each row of a strip [r, m] and their columns, the lowest first among equals, NaN last.

    Columns stand in groups of neighbours, and the k largest lie in the k groups with the largest maxima; taking maxima
    is much cheaper than ordering.

    Raises:
        InputError: if k is not 1 to m.
    """
    r, m = s.shape
    if not 1 <= k <= m:
        raise InputError(f"k: expected 1 to {m}, the number of columns, got {k}")
    if m < 4 * GROUP * k:
        columns = lax.top_k(_nan_last(s), k)[1].astype(jnp.int32)
        return jnp.take_along_axis(s, columns, axis=1), columns
    groups = -(-m // GROUP)
    filled = jnp.pad(s, ((0, 0), (0, groups * GROUP - m)), constant_values=-jnp.inf)
    filled = filled.reshape(r, groups, GROUP)
    # The maximum without NaN: `jnp.where` and a maximum take five times as long on a CPU (python -m benchmarks.engine).
    maxima = lax.reduce(
        lax.stop_gradient(filled), jnp.array(-jnp.inf, s.dtype), lambda a, b: lax.select(b > a, b, a), (2,)
    )
    _, chosen = top_k_of_rows(maxima, k)
    chosen = jnp.sort(chosen, axis=1)  # so that columns ascend, and the lowest is the first among equals
    columns = (chosen[:, :, None] * GROUP + jnp.arange(GROUP, dtype=jnp.int32)).reshape(r, k * GROUP)
    candidates = jnp.take_along_axis(filled, chosen[:, :, None], axis=1).reshape(r, k * GROUP)
    place = lax.top_k(_nan_last(candidates), k)[1]
    return jnp.take_along_axis(candidates, place, axis=1), jnp.take_along_axis(columns, place, axis=1)


def _nan_last(s: Array) -> Array:
    return jnp.where(jnp.isnan(s), -jnp.inf, lax.stop_gradient(s))


def rank_keys(s: Array, valid: Array) -> Array:
    """Numbers that are in the order of the scores s, NaN below all scores, and invalid entries at -inf, below NaN."""
    lowest = jnp.finfo(s.dtype).min
    return jnp.where(valid, jnp.where(jnp.isnan(s), lowest, jnp.maximum(s, jnp.nextafter(lowest, 0))), -jnp.inf)
