"""Distances of boolean vectors: Jaccard, Dice, Rogers-Tanimoto, Russell-Rao, Sokal-Sneath, Yule.

Any number other than 0 counts as True. Each distance is a function of four counts over the features,

    TT both,    TF only x,    FT only y,    FF none

TT of all pairs is one matrix product of 0s and 1s; the others follow from it and the sizes of the sets. Products and
sums of 0s and 1s are exact in any precision (up to 2^24 features), so equal rows need no special care. A quotient 0 / 0
is 0. The distances are constant but for jumps: every gradient is 0. For weights with gradients there are
`jaccard_index`, `dice_coefficient` and others.

All values are those of SciPy 1.17, whose `dice` gives NaN and whose `sokalsneath` raises for two empty sets, where here
the distance is 0.

References:
    Choi, Cha, Tappert (2010), A Survey of Binary Similarity and Distance Measures.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.core import dot_products, promote_to_float32
from simjax.similarity._define import define, pair_function


@pair_function()
def jaccard_distance(x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"]) -> Num[Array, "*b"]:
    """(TF + FT) / (TT + TF + FT), for x, y [..., d]: the share of what two sets have that only one has, in [0, 1].

    Example:
        >>> print(jaccard_distance(jnp.array([1, 1, 1, 0]), jnp.array([0, 1, 1, 1])))
        0.5
    """
    return _jaccard(*_pair_counts(x, y))


@pair_function()
def dice_distance(x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"]) -> Num[Array, "*b"]:
    """(TF + FT) / (2 TT + TF + FT), for x, y [..., d], in [0, 1].

    Differs from:
        SciPy's `dice` multiplies numbers that are no booleans; here they are converted, as by SciPy's `cdist`.
    """
    return _dice(*_pair_counts(x, y))


@pair_function()
def rogers_tanimoto_distance(x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"]) -> Num[Array, "*b"]:
    """2 (TF + FT) / (TT + FF + 2 (TF + FT)), for x, y [..., d], in [0, 1]; also known as that of Sokal and Michener."""
    return _rogers_tanimoto(*_pair_counts(x, y))


@pair_function()
def russell_rao_distance(x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"]) -> Num[Array, "*b"]:
    """(TF + FT + FF) / d, for x, y [..., d]: the share of the features that not both have, in [0, 1].

    The distance of a vector to itself is the share of its features that are 0, so it need not be 0.

    Example:
        >>> print(russell_rao_distance(jnp.array([1, 1, 1, 0]), jnp.array([1, 1, 1, 0])))
        0.25
    """
    return _russell_rao(*_pair_counts(x, y))


@pair_function()
def sokal_sneath_distance(x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"]) -> Num[Array, "*b"]:
    """2 (TF + FT) / (TT + 2 (TF + FT)), for x, y [..., d], in [0, 1]."""
    return _sokal_sneath(*_pair_counts(x, y))


@pair_function()
def yule_distance(x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"]) -> Num[Array, "*b"]:
    """2 TF FT / (TT FF + TF FT), for x, y [..., d], in [0, 2]; 0 where one set is part of the other."""
    return _yule(*_pair_counts(x, y))


def _jaccard(tt: Array, tf: Array, ft: Array, ff: Array) -> Array:
    return _quotient(tf + ft, tt + tf + ft)


def _dice(tt: Array, tf: Array, ft: Array, ff: Array) -> Array:
    return _quotient(tf + ft, 2 * tt + tf + ft)


def _rogers_tanimoto(tt: Array, tf: Array, ft: Array, ff: Array) -> Array:
    return _quotient(2 * (tf + ft), tt + ff + 2 * (tf + ft))


def _russell_rao(tt: Array, tf: Array, ft: Array, ff: Array) -> Array:
    return _quotient(tf + ft + ff, tt + tf + ft + ff)


def _sokal_sneath(tt: Array, tf: Array, ft: Array, ff: Array) -> Array:
    return _quotient(2 * (tf + ft), tt + 2 * (tf + ft))


def _yule(tt: Array, tf: Array, ft: Array, ff: Array) -> Array:
    return _quotient(2 * tf * ft, tt * ff + tf * ft)


def _quotient(part: Array, whole: Array) -> Array:
    return part / jnp.where(whole > 0, whole, 1.0)  # where the whole is 0, so is the part


def _ones(x: ArrayLike) -> Array:
    x = jnp.asarray(x)
    return (x != 0).astype(promote_to_float32(x).dtype)


Counts = tuple[Array, Array, Array, Array]


def _counts(tt: Array, x_size: Array, y_size: Array, d: int) -> Counts:
    return tt, x_size - tt, y_size - tt, d - x_size - y_size + tt


def _pair_counts(x: ArrayLike, y: ArrayLike) -> Counts:
    """Of pairs [..., d], [...] each."""
    a, b = _ones(x), _ones(y)
    return _counts(jnp.sum(a * b, axis=-1), jnp.sum(a, axis=-1), jnp.sum(b, axis=-1), a.shape[-1])


def _sets(x: Array, y: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Rows of 0s and 1s, and their sums."""
    x, y = _ones(x), _ones(y)
    return (x, jnp.sum(x, axis=-1)), (y, jnp.sum(y, axis=-1))


def _of_all_pairs(distance: Callable[..., Array]) -> Callable[..., Array]:
    def matrix(x: tuple[Array, Array], y: tuple[Array, Array]) -> Array:
        return distance(*_counts(dot_products(x[0], y[0]), x[1][:, None], y[1][None], x[0].shape[-1]))

    return matrix


for _function, _distance, _name, _largest in (
    (jaccard_distance, _jaccard, "jaccard_distance", 1.0),  # "jaccard" and "dice" are the similarities
    (dice_distance, _dice, "dice_distance", 1.0),
    (rogers_tanimoto_distance, _rogers_tanimoto, "rogers_tanimoto", 1.0),
    (russell_rao_distance, _russell_rao, "russell_rao", 1.0),
    (sokal_sneath_distance, _sokal_sneath, "sokal_sneath", 1.0),
    (yule_distance, _yule, "yule", 2.0),
):
    _form = {"prepare": _sets, "matrix": _of_all_pairs(_distance), "range": (0.0, _largest), "precision": None}
    define(_function, _name, **_form)
