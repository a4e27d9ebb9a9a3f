"""Losses of soft ranks: how many columns of a row come before a positive, counted with a sigmoid.

    before(p) = sum over columns n of sigmoid((c_in - c_ip) / t)

A small temperature t is near to the true rank, but has a gradient only where two columns are nearly as close.

A row that is compared with its own batch is one of its own positives, and comes first: so do the implementations that
the papers came with. With reference embeddings there is no such column. A row without another positive has no term.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import as_float_array, check_positive
from simjax.losses._pair_loss import Form, pair_loss
from simjax.pairs._triplets import take_columns


def rank_loss(
    form: Form,
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    temperature: ArrayLike,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    **options: Any,
) -> Any:
    """`pair_loss` of a form that takes `itself`, the column of each row's own entry, -1 where there is none, too.

    Raises:
        InputError: for a temperature that is not positive, and what `pair_loss` does not take.
    """
    check_positive("temperature", temperature)
    rows = len(as_float_array("embeddings", embeddings))
    itself = jnp.arange(rows, dtype=jnp.int32) if ref_embeddings is None else jnp.full(rows, -1, jnp.int32)
    return pair_loss(
        form,
        embeddings,
        labels,
        ref_embeddings=ref_embeddings,
        row_parameters={"itself": itself},
        temperature=temperature,
        by_column=True,
        **options,
    )


def with_itself(positive: Array, itself: Array) -> Array:
    """Positives [r, m], and of rows that have any their own entry; `itself` [r, 1]."""
    own = jnp.arange(positive.shape[1], dtype=jnp.int32)[None] == itself
    return positive | (own & jnp.any(positive, axis=1, keepdims=True))


def before(columns: Array, c: Array, temperature: Array) -> Array:
    """How much each column comes before those of some columns [r, few]: [r, few, m] in [0, 1], 1/2 for itself."""
    return jax.nn.sigmoid((c[:, None] - take_columns(c, columns)) / temperature)
