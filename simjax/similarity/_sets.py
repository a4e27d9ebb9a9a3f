"""How much two sets have in common: the indices of Jaccard, Tversky, Dice, and the overlap coefficient.

A set is a vector of weights at least 0, how much of each feature it has; 0s and 1s make it an ordinary set. With

    common = sum_k min(x_k, y_k),    only x = sum_k x_k - common,    only y = sum_k y_k - common

all four are the share of what is common in some part of the whole, in [0, 1] and larger when closer. Two empty sets are
equal and give 1; an empty set has nothing in common with another and gives 0; both with zero gradient. Where x_k = y_k,
and for the overlap where both sets are of equal size, the gradient is the mean of those on both sides. Weights below 0
are not checked for; they leave the range.

On 0s and 1s `jaccard_distance` and `dice_distance` are 1 - the index and cost one matrix product.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Num, Shaped

from simjax.core import promote_to_float32
from simjax.similarity._define import define, pair_function
from simjax.similarity._featurewise import reduce_features, reduce_features_of_tile
from simjax.similarity._finite import power_of_two, ratio


@pair_function()
def jaccard_index(x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"]) -> Num[Array, "*b"]:
    """Jaccard index, the share of what two sets have in common in what they have together.

        sum_k min(x_k, y_k) / sum_k max(x_k, y_k)

    Args:
        x: weights at least 0, [..., d].
        y: the same.

    Returns:
        [...] in [0, 1]; 1 for two empty sets, 0 for one.

    Example:
        >>> print(jaccard_index(jnp.array([1, 1, 1, 0]), jnp.array([0, 1, 1, 1])))
        0.5

    References:
        Jaccard (1912), The Distribution of the Flora in the Alpine Zone. With weights: Ruzicka (1958).

    Differs from:
        scikit-learn's `jaccard_score` gives 0 for two empty sets and warns.
    """
    return _of_pairs(_tversky, x, y)


@pair_function(alpha=0.0, beta=0.0)
def tversky_index(
    x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"], *, alpha: ArrayLike = 1.0, beta: ArrayLike = 1.0
) -> Num[Array, "*b"]:
    """Tversky index, in which what only one of two sets has counts as much as one likes.

        common / (common + alpha (only x) + beta (only y))

    alpha = beta = 1 is the Jaccard index, 1/2 the Dice coefficient; alpha = 1, beta = 0 the share of x that is in y.

    Args:
        x: weights at least 0, [..., d].
        y: the same.
        alpha: how much counts what only x has, at least 0.
        beta: how much counts what only y has, at least 0.

    Returns:
        [...] in [0, 1]; 1 for two empty sets, 0 for one and wherever nothing is common.

    Raises:
        InputError: for alpha or beta below 0.

    Example:
        A horse is part of a herd, a herd is not part of a horse:

        >>> horse, herd = jnp.array([1, 0, 0, 0]), jnp.array([1, 1, 1, 1])
        >>> print(tversky_index(horse, herd, alpha=1, beta=0), tversky_index(herd, horse, alpha=1, beta=0))
        1.0 0.25

    References:
        Tversky (1977), Features of Similarity.
    """
    return _of_pairs(_tversky, x, y, alpha=alpha, beta=beta)


@pair_function()
def dice_coefficient(x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"]) -> Num[Array, "*b"]:
    """Dice coefficient (of Dice and Sorensen; also F1), what is common against the mean size of two sets.

        2 sum_k min(x_k, y_k) / (sum_k x_k + sum_k y_k)

    Args:
        x: weights at least 0, [..., d].
        y: the same.

    Returns:
        [...] in [0, 1]; 1 for two empty sets, 0 for one.

    Example:
        >>> print(dice_coefficient(jnp.array([1, 1, 1, 0]), jnp.array([0, 1, 1, 1])).round(4))
        0.6667

    References:
        Dice (1945), Measures of the Amount of Ecologic Association Between Species.
    """
    return _of_pairs(_dice, x, y)


@pair_function()
def overlap_coefficient(x: Shaped[ArrayLike, "*#b d"], y: Shaped[ArrayLike, "*#b d"]) -> Num[Array, "*b"]:
    """Overlap coefficient (of Szymkiewicz and Simpson), the share of the smaller of two sets that is in the other.

        sum_k min(x_k, y_k) / min(sum_k x_k, sum_k y_k)

    Args:
        x: weights at least 0, [..., d].
        y: the same.

    Returns:
        [...] in [0, 1]; 1 where one set is part of the other and for two empty sets, 0 for one empty set.

    Example:
        >>> print(overlap_coefficient(jnp.array([1, 1, 0, 0]), jnp.array([1, 1, 1, 1])))
        1.0
    """
    return _of_pairs(_overlap, x, y)


Share = Callable[..., Array]  # of what is common and the sizes of x and y, and of the parameters


def _tversky(common: Array, x_size: Array, y_size: Array, *, alpha: ArrayLike = 1.0, beta: ArrayLike = 1.0) -> Array:
    only_x, only_y = _rest(x_size, common), _rest(y_size, common)
    return _quotient(common, common + alpha * only_x + beta * only_y, x_size + y_size)


_dice = partial(_tversky, alpha=0.5, beta=0.5)


def _overlap(common: Array, x_size: Array, y_size: Array) -> Array:
    smaller = common + jnp.minimum(_rest(x_size, common), _rest(y_size, common))
    return _quotient(common, smaller, x_size + y_size)


def _rest(size: Array, common: Array) -> Array:
    """size - common, which rounding must not bring below 0; the gradient is that of the difference everywhere."""
    rest = size - common
    return rest + lax.stop_gradient(jax.nn.relu(-rest))


def _quotient(part: Array, whole: Array, sizes: Array) -> Array:
    """part / whole, 1 if both sets are empty."""
    return jnp.where(sizes == 0, 1.0, ratio(part, whole))


@jax.custom_jvp
def _smaller(x: Array, y: Array) -> Array:
    """min(x, y), by whose derivative JAX goes back with a third of the memory of that of `jnp.minimum`."""
    return jnp.minimum(x, y)


@_smaller.defjvp
def _smaller_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, y), (dx, dy) = primals, tangents
    return _smaller(x, y), (dx + dy - jnp.sign(x - y) * (dx - dy)) / 2


def _common(x: Array, y: Array) -> tuple[Array]:
    return (_smaller(x, y),)


def _fitting(x: ArrayLike, y: ArrayLike, axis: int | None = None) -> tuple[Array, Array]:
    """Both divided by a power of two, of all or of each pair, where the sums of their features would overflow."""
    x, y = promote_to_float32(jnp.asarray(x)), promote_to_float32(jnp.asarray(y))
    x_most, y_most = (jnp.max(jnp.abs(a), axis=axis, keepdims=True, initial=0.0) for a in (x, y))
    most = jnp.maximum(x_most, y_most)
    scale = power_of_two(jnp.maximum(most / (jnp.finfo(most.dtype).max / (8 * max(x.shape[-1], 1))), 1.0))
    return x / scale, y / scale


def _of_pairs(share: Share, x: ArrayLike, y: ArrayLike, **parameters: ArrayLike) -> Array:
    x, y = _fitting(x, y, axis=-1)
    return share(*reduce_features(_common, x, y), jnp.sum(x, axis=-1), jnp.sum(y, axis=-1), **parameters)


def _rows(x: Array, y: Array, **_: Any) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Weights and their sums."""
    x, y = _fitting(x, y)
    return (x, jnp.sum(x, axis=-1)), (y, jnp.sum(y, axis=-1))


def _of_all_pairs(share: Share) -> Callable[..., Array]:
    def matrix(x: tuple[Array, Array], y: tuple[Array, Array], **parameters: ArrayLike) -> Array:
        return share(*reduce_features_of_tile(_common, x[0], y[0]), x[1][:, None], y[1][None], **parameters)

    return matrix


for _function, _share in (
    (jaccard_index, _tversky),
    (tversky_index, _tversky),
    (dice_coefficient, _dice),
    (overlap_coefficient, _overlap),
):
    _form = {"prepare": _rows, "matrix": _of_all_pairs(_share), "range": (0.0, 1.0)}
    define(_function, symmetric=_function is not tversky_index, **_form)
