"""Uniform histogram mining: pairs drawn so that every distance is seen about equally often."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Num

from simjax.core import check_at_least
from simjax.mining._mined import closeness, keep_pairs, related
from simjax.pairs import Relation
from simjax.similarity import Measure, histogram, max, min
from simjax.similarity import measure as as_measure


def uniform_histogram(
    embeddings: Num[ArrayLike, "n d"],
    labels: Any,
    *,
    key: Array,
    bins: int = 100,
    positives_per_bin: int = 10,
    negatives_per_bin: int = 10,
    ref_embeddings: Num[ArrayLike, "m d"] | None = None,
    ref_labels: Any = None,
    measure: str | Measure = "normalized_euclidean",
    block_size: int | None = None,
) -> Relation:
    """About as many pairs of each kind from every part of the range of their values.

    Args:
        embeddings: [n, d].
        labels: class ids [n] or a `Relation`.
        key: of the draw.
        bins: into which the range from the smallest to the largest value of a kind is cut.
        positives_per_bin: how many are kept of each bin on average; all where there are fewer.
        negatives_per_bin: the same of negatives.
        ref_embeddings: what rows are compared with, [m, d]; None is the embeddings, a row never with itself.
        ref_labels: class ids [m], where `labels` are class ids and there are reference embeddings.
        measure: a name or a `Measure`.
        block_size: rows computed at once; None chooses.

    Returns:
        A relation of the pairs that are kept.

    Raises:
        InputError: for shapes that do not fit, an unknown measure, or less than one bin or pair.
        TypeError: for labels that are no integers.

    Differs from pytorch-metric-learning, which draws a fixed number from each bin, the same pair perhaps more than
    once: here each pair is kept or not by itself, with the probability that gives that number on average.
    """
    numbers = {"bins": bins, "positives_per_bin": positives_per_bin, "negatives_per_bin": negatives_per_bin}
    for name, value in numbers.items():
        check_at_least(name, value, 1)
    x, y, relation = related(embeddings, labels, ref_embeddings, ref_labels)
    m = as_measure(measure)
    wanted = (jnp.float32(positives_per_bin), jnp.float32(negatives_per_bin))
    kinds = tuple(_chances(x, y, relation, m, kind, wanted[kind], bins, block_size) for kind in (0, 1))
    return keep_pairs(_drawn, closeness(x, y, m), relation, kinds=kinds, key=key, sign=m.as_score(jnp.ones(())))


@partial(jax.jit, static_argnames=("kind", "bins", "block_size"))
def _chances(
    x: Array,
    y: Array,
    relation: Relation,
    measure: Measure,
    kind: int,
    wanted: Array,
    bins: int,
    block_size: int | None,
) -> tuple[Array, Array]:
    """The edges of the bins [bins + 1] and with which probability a pair of each is kept [bins]."""
    options = {"measure": measure, "mask": Partial(partial(_of_kind, kind), relation), "block_size": block_size}
    low = jnp.min(min(x, y, **options)[0], initial=jnp.inf)
    high = jnp.max(max(x, y, **options)[0], initial=-jnp.inf)
    found = low <= high
    edges = jnp.linspace(jnp.where(found, low, 0), jnp.where(found, high, 1), bins + 1)
    counts = jnp.sum(histogram(x, y, edges=edges, **options), axis=0)
    return edges, wanted / jnp.maximum(counts, 1)


def _of_kind(kind: int, relation: Relation, i: Array, j: Array) -> Array:
    return relation.masks(i, j)[kind]


def _drawn(
    c: Array, i: Array, positive: Array, negative: Array, *, kinds: Any, key: Array, sign: Array
) -> tuple[Array, Array]:
    def uniform(row: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, row), c.shape[1:])

    drawn, values = jax.vmap(uniform)(i[:, 0]), sign * c
    masks = []
    for mask, (edges, chances) in zip((positive, negative), kinds, strict=True):
        place = (values - edges[0]) / jnp.where(edges[-1] > edges[0], edges[-1] - edges[0], 1) * len(chances)
        chance = chances[jnp.clip(place, 0, len(chances) - 1).astype(jnp.int32)]
        masks.append(mask & (drawn < chance))
    return masks[0], masks[1]
