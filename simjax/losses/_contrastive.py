"""Contrastive loss: pull similar pairs together, push different ones at least a margin apart.

With d the distance of a pair, three forms are in use:

    squared    same: d^2    different: max(0, margin^2 - d^2)
    hadsell    same: d^2    different: max(0, margin - d)^2
    linear     same: d      different: max(0, margin - d)

References:
    Hadsell, Chopra, LeCun (2006), Dimensionality Reduction by Learning an Invariant Mapping.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Num

from simjax.core import InputError, as_float_array, auto_axes, check_at_least, check_choice, check_number
from simjax.losses._legacy import pair_loss
from simjax.losses._pair_loss import TermFunction
from simjax.similarity import Measure
from simjax.similarity import measure as as_measure

FORMS = ("squared", "hadsell", "linear")


@auto_axes
def contrastive_terms(
    distance: Num[ArrayLike, "*s"],
    same: Bool[ArrayLike, "*s"],
    *,
    margin: ArrayLike = 1.0,
    positive_margin: ArrayLike = 0.0,
    form: str = "hadsell",
) -> Num[Array, "*s"]:
    """The loss of each pair.

    Args:
        distance: of the pairs, any shape, at least 0.
        same: boolean of the same shape, True where a pair is similar. (Sources disagree on what y = 1 means.)
        margin: how far apart different pairs should be.
        positive_margin: how far apart similar pairs may be.
        form: squared, hadsell or linear, see above.

    Returns:
        An array of the same shape. The gradient at a margin is 0.

    Example:
        >>> print(contrastive_terms(jnp.array([0.5, 0.5]), jnp.array([True, False]), margin=2.0))
        [0.25 2.25]
    """
    check_choice("form", form, FORMS)
    d = as_float_array("distance", distance)
    apart = jax.nn.relu(d - positive_margin)
    if form == "squared":
        return jnp.where(same, apart**2, jax.nn.relu(jnp.square(margin) - d**2))
    if form == "hadsell":
        return jnp.where(same, apart**2, jax.nn.relu(margin - d) ** 2)
    return jnp.where(same, apart, jax.nn.relu(margin - d))


def contrastive_loss(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    margin: ArrayLike = 1.0,
    positive_margin: ArrayLike | None = None,
    form: str = "linear",
    measure: str | Measure = "normalized_euclidean",
    **options: Any,
) -> Any:
    """Contrastive loss over all pairs of a batch: pairs of any relation, memory of a strip.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        margin: how far apart different pairs should be, in units of the measure.
        positive_margin: how far apart similar pairs may be; None is 0 for a distance.
        form: squared, hadsell or linear, see above.
        measure: a distance, or a similarity with both margins given, where the negative pairs should stay below
            `margin` and the positive ones reach `positive_margin`.
        **options: ref_embeddings, ref_labels, weights, reducer, block_size: see `pair_loss`.

    Returns:
        The mean over the similar pairs with a loss above 0 plus the mean over the different pairs with a loss
        above 0 (there are many more of these); 0 with zero gradient where there are none.

    Raises:
        InputError: for shapes that do not fit, an unknown form or measure, or a similarity without its margins.
    """
    check_choice("form", form, FORMS)
    m = as_measure(measure)
    if m.higher_is_closer and (positive_margin is None or form == "squared"):
        raise InputError(
            f"measure: expected a distance, got {m.name}, which is larger when closer and needs a positive_margin "
            "and the form linear or hadsell"
        )
    positive_margin = 0.0 if positive_margin is None else positive_margin
    for name, value in (("margin", margin), ("positive_margin", positive_margin)):
        check_number(name, value) if m.higher_is_closer else check_at_least(name, value, 0)
    margins = {"margin": margin, "positive_margin": positive_margin}
    if m.higher_is_closer:  # minus the similarity takes the place of the distance
        margins = {name: -jnp.asarray(value) for name, value in margins.items()}
    return pair_loss(
        TERMS[form],
        embeddings,
        labels,
        measure=m,
        default_reducer="mean_active",
        symmetric=True,
        **margins,
        **options,
    )


def _terms_of(form: str) -> TermFunction:
    def terms(c: Array, positive: Array, negative: Array, *, margin: Array, positive_margin: Array) -> Any:
        def loss(same: bool) -> Array:
            return contrastive_terms(-c, same, margin=margin, positive_margin=positive_margin, form=form)

        return {"positive": (loss(True), positive), "negative": (loss(False), negative)}

    return terms


TERMS = {form: _terms_of(form) for form in FORMS}
