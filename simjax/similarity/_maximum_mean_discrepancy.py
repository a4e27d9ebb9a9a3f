"""Maximum mean discrepancy: how far apart the means of two sets of samples are, in the space of a kernel.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)

Estimated with each sample's pair with itself (biased, at least 0) or without (unbiased, about 0 for two sets of one
distribution, and then as often below as above). A kernel that is characteristic, as the Gaussian, gives 0 for equal
distributions only. A distance enters with its sign turned: "euclidean" gives the energy distance.

References:
    Gretton, Borgwardt, Rasch, Schölkopf, Smola: A Kernel Two-Sample Test, 2012.
    Sejdinovic, Sriperumbudur, Gretton, Fukumizu: Equivalence of distance-based and RKHS-based statistics, 2013.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from simjax.core import as_matrices, auto_axes, check_at_least, promote_to_float32
from simjax.similarity._masks import Mask, exclude_self
from simjax.similarity._measure import Measure
from simjax.similarity._measure import measure as as_measure
from simjax.similarity._reductions import mean


def maximum_mean_discrepancy(
    x: Num[ArrayLike, "n d"],
    y: Num[ArrayLike, "m d"],
    *,
    measure: str | Measure = "rbf",
    unbiased: bool = True,
    block_size: int | None = None,
) -> Float[Array, ""]:
    """The squared maximum mean discrepancy of samples, without a matrix [n, m], going forward or backward.

    Args:
        x: samples [n, d].
        y: samples [m, d].
        measure: the kernel, a name or a `Measure`; a distance is a kernel with its sign turned.
        unbiased: leave out the pairs of a sample with itself; False keeps them.
        block_size: rows computed at once; None chooses.

    Returns:
        A squared distance in the samples' type: biased at least 0, with gradient 0 there; unbiased may be below.

    Raises:
        InputError: for shapes that do not fit, an unknown measure, or fewer samples than 1 (unbiased: 2).
        TypeError: for values that are no real numbers.

    Example:
        The energy distance of two sets, 2 E|x - y| - E|x - x'| - E|y - y'|:

        >>> x, y = jnp.array([[0.0], [2.0]]), jnp.array([[4.0], [6.0]])
        >>> print(maximum_mean_discrepancy(x, y, measure="euclidean"))
        4.0
    """
    x, y = as_matrices(x, y)
    for name, size in (("samples of x", x.shape[0]), ("samples of y", y.shape[0])):
        check_at_least(name, size, 2 if unbiased else 1)
    discrepancy = _maximum_mean_discrepancy(x, y, as_measure(measure), unbiased=unbiased, block_size=block_size)
    return discrepancy.astype(jnp.result_type(x, y))


@partial(jax.jit, static_argnames=("unbiased", "block_size"))
@auto_axes
def _maximum_mean_discrepancy(x: Array, y: Array, measure: Measure, *, unbiased: bool, block_size: int | None) -> Array:
    def closeness(a: Array, b: Array, mask: Mask | None) -> Array:
        """For each row of a its mean closeness to the rows of b: [n]."""
        return measure.as_score(mean(a, b, mask=mask, measure=measure, block_size=block_size, precision="highest"))

    x, y = promote_to_float32(x), promote_to_float32(y)
    own = exclude_self if unbiased else None
    xx, yy, xy = closeness(x, x, own), closeness(y, y, own), closeness(x, y, None)
    # All three are moved by a number near them, which cancels: what is summed then is small, and so is its rounding.
    near = lax.stop_gradient(xy[0])
    total = jnp.mean(xx - near) + jnp.mean(yy - near) - 2 * jnp.mean(xy - near)
    overflow = ~jnp.isfinite(total) & jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(y))
    total = jnp.where(overflow, jnp.inf, total)
    return total if unbiased else jax.nn.relu(total)
