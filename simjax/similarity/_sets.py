"""Similarities and distances of sets: of weighted sets, and of sets as boolean vectors.

Weighted sets. A set is a vector of weights at least 0, the amount of each feature; 0s and 1s make it an ordinary set.
`jaccard_index`, `tversky_index`, `dice_coefficient` and `overlap_coefficient` are functions of

    common = sum_k min(x_k, y_k),    only x = sum_k x_k - common,    only y = sum_k y_k - common

in [0, 1], larger when closer. Two empty sets are equal and give 1; an empty and a nonempty set give 0; both with zero
gradient. At ties, x_k = y_k or sets of equal size for the overlap, the gradient is the mean of its one-sided limits.
Negative weights are not an error; with them the result may leave [0, 1].

Boolean vectors. Every number other than 0 is True. `jaccard_distance`, `dice_distance` and the other distances are
functions of four counts over the features,

    TT both,    TF only x,    FT only y,    FF none

A quotient 0 / 0 is 0. The matrix form is one product of 0s and 1s, which is exact in any precision up to 2^24 features.
The distances are piecewise constant: every gradient is 0. Values are those of SciPy 1.17, except for two empty sets,
where SciPy's `dice` gives NaN and its `sokalsneath` raises, and these distances are 0.

`pair_function` checks the arguments of a measure, x and y [..., d]. `_dot_products` describes their types and errors.

References:
    Choi, Cha, Tappert (2010), A Survey of Binary Similarity and Distance Measures.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from simjax.core import row_products
from simjax.similarity._define import Values, Vectors, define, pair_function
from simjax.similarity._featurewise import reduce_features, reduce_features_of_tile
from simjax.similarity._finite import clip_to_range, power_of_two, ratio


@pair_function()
def jaccard_index(x: Vectors, y: Vectors) -> Values:
    """Compute sum_k min(x_k, y_k) / sum_k max(x_k, y_k), the Jaccard index of weighted sets.

    Example:
        >>> print(jaccard_index(jnp.array([1, 1, 1, 0]), jnp.array([0, 1, 1, 1])))
        0.5

    References:
        Jaccard (1912), The Distribution of the Flora in the Alpine Zone. With weights: Ruzicka (1958).

    Differs from scikit-learn's `jaccard_score`, which gives 0 for two empty sets and warns.
    """
    return _index_of_pairs(_tversky, x, y)


@pair_function(minimum={"alpha": 0.0, "beta": 0.0})
def tversky_index(x: Vectors, y: Vectors, *, alpha: ArrayLike = 1.0, beta: ArrayLike = 1.0) -> Values:
    """Compute common / (common + alpha (only x) + beta (only y)), the Tversky index of weighted sets.

    alpha = beta = 1 is the Jaccard index, 1/2 the Dice coefficient; alpha = 1, beta = 0 the share of x that is in y.

    Args:
        alpha, beta: Weights of the features that only x has and that only y has, at least 0.

    Example:
        A horse is part of a herd, a herd is not part of a horse:

        >>> horse, herd = jnp.array([1, 0, 0, 0]), jnp.array([1, 1, 1, 1])
        >>> print(tversky_index(horse, herd, alpha=1, beta=0), tversky_index(herd, horse, alpha=1, beta=0))
        1.0 0.25

    References:
        Tversky (1977), Features of Similarity.
    """
    return _index_of_pairs(_tversky, x, y, alpha=alpha, beta=beta)


@pair_function()
def dice_coefficient(x: Vectors, y: Vectors) -> Values:
    """Compute 2 sum_k min(x_k, y_k) / (sum_k x_k + sum_k y_k), the Dice (or Sorensen) coefficient of weighted sets.

    Example:
        >>> print(dice_coefficient(jnp.array([1, 1, 1, 0]), jnp.array([0, 1, 1, 1])).round(4))
        0.6667

    References:
        Dice (1945), Measures of the Amount of Ecologic Association Between Species.
    """
    return _index_of_pairs(_dice, x, y)


@pair_function()
def overlap_coefficient(x: Vectors, y: Vectors) -> Values:
    """Compute sum_k min(x_k, y_k) / min(sum_k x_k, sum_k y_k), the overlap (or Szymkiewicz-Simpson) coefficient.

    It is the share of the smaller of two weighted sets that is in the other, 1 if one set is part of the other.

    Example:
        >>> print(overlap_coefficient(jnp.array([1, 1, 0, 0]), jnp.array([1, 1, 1, 1])))
        1.0
    """
    return _index_of_pairs(_overlap, x, y)


@pair_function()
def jaccard_distance(x: Vectors, y: Vectors) -> Values:
    """Compute (TF + FT) / (TT + TF + FT), in [0, 1], 1 - the Jaccard index of boolean vectors.

    Example:
        >>> print(jaccard_distance(jnp.array([1, 1, 1, 0]), jnp.array([0, 1, 1, 1])))
        0.5
    """
    return _distance_of_pairs("jaccard_distance", x, y)


@pair_function()
def dice_distance(x: Vectors, y: Vectors) -> Values:
    """Compute (TF + FT) / (2 TT + TF + FT), in [0, 1], 1 - the Dice coefficient of boolean vectors.

    Differs from SciPy's `dice`, which multiplies numbers; here they are converted to booleans, as in SciPy's `cdist`.
    """
    return _distance_of_pairs("dice_distance", x, y)


@pair_function()
def rogers_tanimoto_distance(x: Vectors, y: Vectors) -> Values:
    """Compute 2 (TF + FT) / (TT + FF + 2 (TF + FT)), in [0, 1], also known as the Sokal-Michener distance."""
    return _distance_of_pairs("rogers_tanimoto", x, y)


@pair_function()
def russell_rao_distance(x: Vectors, y: Vectors) -> Values:
    """Compute (TF + FT + FF) / d, in [0, 1].

    The distance of a vector to itself is the share of its features that are 0.

    Example:
        >>> print(russell_rao_distance(jnp.array([1, 1, 1, 0]), jnp.array([1, 1, 1, 0])))
        0.25
    """
    return _distance_of_pairs("russell_rao", x, y)


@pair_function()
def sokal_sneath_distance(x: Vectors, y: Vectors) -> Values:
    """Compute 2 (TF + FT) / (TT + 2 (TF + FT)), in [0, 1]."""
    return _distance_of_pairs("sokal_sneath", x, y)


@pair_function()
def yule_distance(x: Vectors, y: Vectors) -> Values:
    """Compute 2 TF FT / (TT FF + TF FT), in [0, 2]; 0 if one set is a subset of the other."""
    return _distance_of_pairs("yule", x, y)


def _tversky(common: Array, x_size: Array, y_size: Array, *, alpha: ArrayLike = 1.0, beta: ArrayLike = 1.0) -> Array:
    only_x, only_y = _difference(x_size, common), _difference(y_size, common)
    return _share(common, common + alpha * only_x + beta * only_y, x_size + y_size)


_dice = partial(_tversky, alpha=0.5, beta=0.5)


def _overlap(common: Array, x_size: Array, y_size: Array) -> Array:
    smaller = common + jnp.minimum(_difference(x_size, common), _difference(y_size, common))
    return _share(common, smaller, x_size + y_size)


def _difference(size: Array, common: Array) -> Array:
    return clip_to_range(size - common, 0.0, jnp.inf)


def _share(part: Array, whole: Array, sizes: Array) -> Array:
    """Compute part / whole, and 1 if both sets are empty."""
    return jnp.where(sizes == 0, 1.0, ratio(part, whole))


# The derivative of `jnp.minimum` needs 3.5 times the memory and the time, for 1,024 rows of 32 features.
@jax.custom_jvp
def _minimum(x: Array, y: Array) -> Array:
    return jnp.minimum(x, y)


@_minimum.defjvp
def _minimum_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, y), (dx, dy) = primals, tangents
    return _minimum(x, y), (dx + dy - jnp.sign(x - y) * (dx - dy)) / 2


def _common(x: Array, y: Array) -> tuple[Array]:
    return (_minimum(x, y),)


def _without_overflow(x: Array, y: Array, axis: int | None = None) -> tuple[Array, Array]:
    """Divide x and y by a power of two, for each pair or for all, such that no sum of their features overflows."""
    x_size, y_size = (jnp.max(jnp.abs(a), axis=axis, keepdims=True, initial=0.0) for a in (x, y))
    size = jnp.maximum(x_size, y_size)
    scale = power_of_two(jnp.maximum(size / (jnp.finfo(size.dtype).max / (8 * max(x.shape[-1], 1))), 1.0))
    return x / scale, y / scale


def _index_of_pairs(index: Callable[..., Array], x: Any, y: Any, **parameters: ArrayLike) -> Array:
    x, y = _without_overflow(x, y, axis=-1)
    return index(*reduce_features(_common, x, y), jnp.sum(x, axis=-1), jnp.sum(y, axis=-1), **parameters)


Sets = tuple[Array, Array]
"""Rows of weights, or of 0s and 1s, [n, d], and their sums [n]."""


def _prepare_weights(x: Array, y: Array, **_: Any) -> tuple[Sets, Sets]:
    x, y = _without_overflow(x, y)
    return (x, jnp.sum(x, axis=-1)), (y, jnp.sum(y, axis=-1))


def _index_of_tile(x: Sets, y: Sets, *, index: Callable[..., Array], **parameters: ArrayLike) -> Array:
    (a, x_size), (b, y_size) = x, y
    return index(*reduce_features_of_tile(_common, a, b), x_size[:, None], y_size[None], **parameters)


BOOLEAN: dict[str, Callable[[Array, Array, Array, Array], Array]] = {
    "jaccard_distance": lambda tt, tf, ft, ff: ratio(tf + ft, tt + tf + ft),
    "dice_distance": lambda tt, tf, ft, ff: ratio(tf + ft, 2 * tt + tf + ft),
    "rogers_tanimoto": lambda tt, tf, ft, ff: ratio(2 * (tf + ft), tt + ff + 2 * (tf + ft)),
    "russell_rao": lambda tt, tf, ft, ff: ratio(tf + ft + ff, tt + tf + ft + ff),
    "sokal_sneath": lambda tt, tf, ft, ff: ratio(2 * (tf + ft), tt + 2 * (tf + ft)),
    "yule": lambda tt, tf, ft, ff: ratio(2 * tf * ft, tt * ff + tf * ft),
}
"""Distances of boolean vectors by name, as functions of the counts TT, TF, FT and FF."""


def _as_boolean_sets(x: Any) -> Sets:
    x = (x != 0).astype(x.dtype)
    return x, jnp.sum(x, axis=-1)


def _from_counts(name: str, tt: Array, x_size: Array, y_size: Array, d: int) -> Array:
    return BOOLEAN[name](tt, x_size - tt, y_size - tt, d - x_size - y_size + tt)


def _distance_of_pairs(name: str, x: Any, y: Any) -> Array:
    (a, x_size), (b, y_size) = _as_boolean_sets(x), _as_boolean_sets(y)
    return _from_counts(name, jnp.sum(a * b, axis=-1), x_size, y_size, a.shape[-1])


def _prepare_booleans(x: Array, y: Array) -> tuple[Sets, Sets]:
    return _as_boolean_sets(x), _as_boolean_sets(y)


def _distance_of_tile(x: Sets, y: Sets, *, name: str) -> Array:
    (a, x_size), (b, y_size) = x, y
    return _from_counts(name, row_products(a, b), x_size[:, None], y_size[None], a.shape[-1])


for _function, _index in (
    (jaccard_index, _tversky),
    (tversky_index, _tversky),
    (dice_coefficient, _dice),
    (overlap_coefficient, _overlap),
):
    define(
        _function,
        prepare=_prepare_weights,
        matrix=partial(_index_of_tile, index=_index),
        range=(0.0, 1.0),
        symmetric=_function is not tversky_index,
    )
for _name, _function in (
    ("jaccard_distance", jaccard_distance),  # "jaccard" and "dice" are the similarities
    ("dice_distance", dice_distance),
    ("rogers_tanimoto", rogers_tanimoto_distance),
    ("russell_rao", russell_rao_distance),
    ("sokal_sneath", sokal_sneath_distance),
    ("yule", yule_distance),
):
    matrix = partial(_distance_of_tile, name=_name)
    define(_function, _name, prepare=_prepare_booleans, matrix=matrix, range=(0.0, 2.0 if _name == "yule" else 1.0))
