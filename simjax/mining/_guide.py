"""A guide: another model's embeddings say which negatives of a batch are false.

In a large batch some of the rows that are called negative are in truth similar: other pictures of the same thing,
other answers to the same question. A guide, trained before, finds them: a negative that it takes for more similar to
the row than the row's own positive counts nowhere.

References:
    Solatorio (2024), GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.mining._mined import closeness, keep_pairs, related
from simjax.pairs import Relation
from simjax.similarity import Measure


def guided(
    guide: Num[ArrayLike, "n e"],
    labels: Any,
    *,
    margin: ArrayLike = 0.0,
    ref_guide: Num[ArrayLike, "m e"] | None = None,
    ref_labels: Any = None,
    measure: str | Measure = "cosine",
) -> Relation:
    """All pairs but the negatives that a guide takes for more similar to the row than its positive.

    Where a row has several positives, it is the one that the guide takes for the most similar; where it has none, all
    its negatives stay.

    Args:
        guide: what the guide makes of the rows, [n, e].
        labels: class ids [n] or a `Relation`, of which the positives stay as they are.
        margin: negatives up to this much less similar than the positive are left out, too, in units of the measure.
        ref_guide: what it makes of the columns, [m, e]; None is the rows'.
        ref_labels: class ids [m], where `labels` are class ids and there is a `ref_guide`.
        measure: of the guide, a name or a `Measure`.

    Returns:
        A relation of the pairs that are kept.

    Raises:
        InputError: for shapes that do not fit or an unknown measure.
        TypeError: for labels that are no integers.

    Example:
        Two questions and two answers each. To the guide the second answer is closer to the first question than the
        first answer is:

        >>> from simjax.core import by_position
        >>> questions, answers = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([[1.0, 2.0], [1.0, 1.0]])
        >>> relation = guided(questions, by_position(2), ref_guide=answers)
        >>> positive, negative = relation.masks(jnp.arange(2)[:, None], jnp.arange(2)[None])
        >>> print(positive.astype(int) - negative.astype(int))
        [[1 0]
         [0 1]]
    """
    x, y, relation = related(guide, labels, ref_guide, ref_labels, ("guide", "ref_guide"))
    return keep_pairs(_no_nearer, closeness(x, y, measure), relation, margin=margin)


def _no_nearer(c: Array, i: Array, positive: Array, negative: Array, *, margin: Array) -> tuple[Array, Array]:
    nearest = jnp.max(jnp.where(positive, c, -jnp.inf), axis=1, keepdims=True, initial=-jnp.inf)
    return positive, negative & ((c <= nearest - margin) | (nearest == -jnp.inf))
