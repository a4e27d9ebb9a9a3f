"""Contrastive loss: pull similar pairs together, push different ones at least a margin apart.

With d the distance of a pair, three forms are in use:

    squared    same: d^2    different: max(0, margin^2 - d^2)
    hadsell    same: d^2    different: max(0, margin - d)^2
    linear     same: d      different: max(0, margin - d)

References:
    Hadsell, Chopra, LeCun (2006), Dimensionality Reduction by Learning an Invariant Mapping.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Int, Num

from simjax.core import InputError, check_choice, reduce_rows
from simjax.losses._relation import check_embeddings, same_class
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure

FORMS = ("squared", "hadsell", "linear")


def contrastive_terms(
    distance: Num[ArrayLike, "*s"], same: Bool[ArrayLike, "*s"], *, margin: float | Array = 1.0, form: str = "hadsell"
) -> Num[Array, "*s"]:
    """The loss of each pair.

    Args:
        distance: of the pairs, any shape, at least 0.
        same: boolean of the same shape, True where a pair is similar. (Sources disagree on what y = 1 means.)
        margin: how far apart different pairs should be.
        form: squared, hadsell or linear, see above.

    Returns:
        An array of the same shape. The gradient at a margin is 0.

    Example:
        >>> print(contrastive_terms(jnp.array([0.5, 0.5]), jnp.array([True, False]), margin=2.0))
        [0.25 2.25]
    """
    check_choice("form", form, FORMS)
    d = jnp.asarray(distance)
    if form == "squared":
        return jnp.where(same, d**2, jax.nn.relu(margin**2 - d**2))
    if form == "hadsell":
        return jnp.where(same, d**2, jax.nn.relu(margin - d) ** 2)
    return jnp.where(same, d, jax.nn.relu(margin - d))


def contrastive_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    *,
    margin: float = 1.0,
    form: str = "linear",
    measure: str | Measure = "euclidean",
    block: int | None = None,
) -> Num[Array, ""]:
    """Contrastive loss over all pairs of a batch.

    Args:
        embeddings: [n, d].
        labels: integer class ids [n].
        margin: how far apart different classes should be, in units of the measure.
        form: squared, hadsell or linear, see above.
        measure: a distance, by name or as a `Measure`.
        block: rows of the distance matrix computed at once; None chooses.

    Returns:
        The mean over the similar pairs with a loss above 0 plus the mean over the different pairs with a loss
        above 0 (there are many more of these); 0 with zero gradient where there are none.

    Raises:
        InputError: for shapes that do not fit, an unknown form or measure, or a measure that is no distance.
    """
    x, y = check_embeddings(embeddings, labels)
    check_choice("form", form, FORMS)
    m = as_measure(measure)
    if m.higher_is_closer:
        raise InputError(f"measure: expected a distance, got {m.name}, which is larger when closer")
    return _contrastive(x, y, margin, m, form=form, block=block)


@partial(jax.jit, static_argnames=("form", "block"))
def _contrastive(x: Array, labels: Array, margin: Array, measure: Measure, *, form: str, block: int | None) -> Array:
    def sums(s: Array, i: Array, j: Array) -> dict[str, Array]:
        same, different = same_class(i, j, labels)
        terms = contrastive_terms(s, same, margin=margin, form=form)
        return {
            name: jnp.stack([jnp.sum(jnp.where(mask, terms, 0), 1), jnp.sum(mask & (terms > 0), 1)], 1)
            for name, mask in (("same", same), ("different", different))
        }  # of each row the total and the count, [r, 2]

    rows = reduce_rows(sums, x, measure=measure, copies=8, block=block)
    return sum((t / jnp.maximum(c, 1) for t, c in (jnp.sum(s, 0) for s in rows.values())), start=jnp.zeros(()))
