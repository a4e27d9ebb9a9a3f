"""Losses of the order of positives and negatives: of the columns of each row, or of all pairs (histogram).

    SmoothAP     average precision, with sigmoids in place of the steps that count ranks
    PNP          (penalizing negatives before positives) the number of negatives before each positive, by sigmoids
    FastAP       average precision, from histograms of distances
    histogram    probability that a negative pair is closer than a positive pair

SmoothAP and PNP count the columns j, of all or of the negatives, whose score s_ij (larger is closer) exceeds that of a
positive p of row i:

    before(p) = sum over j of sigmoid((s_ij - s_ip) / temperature)

With a small temperature the sum is close to the true count, but its gradient is almost 0 unless two scores are close.
Without reference embeddings, the column of the row itself counts as a positive, ranked first, in these two losses; a
row without another positive has no term.

A term function (`_..._terms`) takes the scores [r, m] of a tile, r rows of the similarity matrix, the masks of its
positive and negative pairs, and the parameters of the loss. It returns `Terms`, a dict from names to (terms, mask of
the valid ones), both [r, 1] with a term for each row, or to `RowSums`, the sum of the terms of each row.

References:
    Brown, Xie, Kalogeiton, Zisserman (2020), Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval
    (SmoothAP). Li, Min, Song, Zheng, Wang (2021), Rethinking the Optimization of Average Precision: Only Penalizing
    Negative Instances before Positive Ones is Enough (PNP). Cakir, He, Xia, Kulis, Sclaroff (2019), Deep Metric
    Learning to Rank (FastAP). Ustinova, Lempitsky (2016), Learning Deep Embeddings with Histogram Loss (histogram).
"""

from functools import partial
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.tree_util import Partial
from jax.typing import ArrayLike

from simjax.core import InputError, as_float_array, check_at_least, check_choice, check_positive, promote_to_float32
from simjax.losses._options import Labels, PairOptions, ReferenceOptions, ResolvedOptions, resolve_options
from simjax.losses._pair_loss import TermFunction, Terms, compute_pair_loss
from simjax.losses._terms import Embeddings, RowSums, Scalar
from simjax.pairs import Relation
from simjax.pairs._relation import rows_and_relation
from simjax.pairs._triplets import sum_over_positives, take_columns
from simjax.similarity import Measure, reduce_rows, unit_vectors

Bounds = tuple[float | Array, float | Array]
"""Lowest and highest score of a measure."""


def smooth_ap_loss(
    embeddings: Embeddings, labels: Labels, *, temperature: ArrayLike = 0.01, **options: Unpack[PairOptions]
) -> Scalar:
    """Compute 1 - smooth average precision, one term for each row with a positive.

        loss_i = 1 - mean over p of (1 + before(p) among other positives) / (1 + before(p) among all other columns)

    Takes O(n m P) time for n rows, m columns and at most P positives of a row.

    Args:
        temperature: Temperature of the sigmoid, in units of the measure, above 0; may be learned.

    Differs from pytorch-metric-learning, which is correct only if rows are ordered by class and each class has as many
    rows as there are classes, and which gives a row without positives a term.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> loss = smooth_ap_loss(x, jnp.array([0, 0, 1]))
        >>> print(round(float(loss), 4))  # 1 - mean of 1 / 1, 2 / 2.5, 1 / 1.5 and 2 / 3
        0.2167
    """
    resolved = resolve_options(smooth_ap_loss, options)
    return _sigmoid_rank_loss(_smooth_ap_terms, embeddings, labels, resolved, temperature)


def _sigmoid_rank_loss(
    term_function: TermFunction,
    embeddings: ArrayLike,
    labels: Labels,
    options: ResolvedOptions,
    temperature: ArrayLike,
    static: tuple[str, ...] = (),
    **parameters: Any,
) -> Array:
    """Compute a pair loss whose term function also takes the indices of columns, and the own column of each row.

    The own column of row i is i, or -1 with reference embeddings, where no column is the row itself. `static` and
    `parameters` are the other arguments of the term function, as in `compute_terms`.
    """
    check_positive("temperature", temperature)
    x, y = as_float_array("embeddings", embeddings), options.ref_embeddings
    own_columns = jnp.arange(len(x), dtype=jnp.int32) if y is None else jnp.full(len(x), -1, jnp.int32)
    return compute_pair_loss(
        term_function,
        x,
        labels,
        options,
        static=static,
        row_parameters={"own_columns": own_columns},  # [n], of which a term function gets its rows, [r, 1]
        column_parameters={"columns": jnp.arange(len(x if y is None else y), dtype=jnp.int32)},
        temperature=temperature,
        **parameters,
    )


def _with_itself(positive: Array, own_columns: Array, columns: Array) -> Array:
    """Add the own column [r, 1] of each row that has a positive to the positives [r, m]; `columns` is [m]."""
    return positive | ((columns[None] == own_columns) & jnp.any(positive, axis=1, keepdims=True))


def _before(indices: Array, scores: Array, temperature: Array) -> Array:
    """Return sigmoids [r, k, m]: near 1 for columns before `indices` [r, k], 1/2 for equal scores, near 0 after."""
    return jax.nn.sigmoid((scores[:, None] - take_columns(scores, indices)) / temperature)


def _smooth_ap_terms(
    scores: Array, positive: Array, negative: Array, *, own_columns: Array, columns: Array, temperature: Array
) -> Terms:
    has_positive = jnp.any(positive, axis=1, keepdims=True)
    positive = _with_itself(positive, own_columns, columns)
    # Columns that are in no pair get a score so low that they are ranked last: the sigmoid of -100 is 4e-44.
    in_pair = positive | negative
    lowest = jnp.min(scores, axis=1, keepdims=True, where=in_pair, initial=0.0) - 100 * temperature
    scores = jnp.where(in_pair, scores, lax.stop_gradient(lowest))
    zeros = jnp.zeros(scores.shape[0], scores.dtype)
    total = sum_over_positives(_precision, zeros, positive, (positive,), scores, temperature)
    return {"row": (1 - total[:, None] / jnp.maximum(jnp.sum(positive, axis=1, keepdims=True), 1), has_positive)}


def _precision(indices: Array, is_valid: Array, positive: Array, scores: Array, temperature: Array) -> Array:
    """Return the sum over the positives `indices` [r, k] of the precision at the rank of each, [r]."""
    before = _before(indices, scores, temperature)
    # A positive is 1/2 before itself; another 1/2 makes its rank start at 1.
    positives = 0.5 + jnp.sum(jnp.where(positive[:, None], before, 0), axis=2)
    precision = positives / (0.5 + jnp.sum(before, axis=2))
    return jnp.sum(jnp.where(is_valid, precision, 0), axis=1)


def pnp_loss(
    embeddings: Embeddings,
    labels: Labels,
    *,
    variant: Literal["O", "Iu", "Ib", "Ds", "Dq"] = "O",
    temperature: ArrayLike = 0.01,
    alpha: ArrayLike = 1.0,
    b: ArrayLike = 2.0,
    **options: Unpack[PairOptions],
) -> Scalar:
    """Penalize the negatives before each positive, one term for each row with a positive.

    Takes O(n m P) time for n rows, m columns and at most P positives of a row. With R the smooth count of negatives
    before a positive, the loss of a row is the mean over positives of a penalty:

        O     R                              all negatives have the same weight
        Iu    (1 + R) log(1 + R)             many negatives have a larger weight, without bound
        Ib    (b R - log(1 + b R)) / b^2     many negatives have a larger weight, up to a bound
        Ds    log(1 + R)                     few negatives have a larger weight
        Dq    1 - (1 + R)^-alpha             few negatives have a larger weight, and many have almost none

    Args:
        variant: See above.
        temperature: Temperature of the sigmoid, in units of the measure, above 0; may be learned.
        alpha, b: Parameters of the variants Dq and Ib, above 0.

    Example:
        >>> from simjax.losses import unreduced
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> print(unreduced(pnp_loss)(x, jnp.array([0, 0, 1])).total)  # 0.5 / 2, (0.5 + 1) / 2
        [0.25 0.75 0.  ]
    """
    check_choice("variant", variant, ("O", "Iu", "Ib", "Ds", "Dq"))
    check_positive("alpha", alpha)
    check_positive("b", b)
    resolved = resolve_options(pnp_loss, options)
    parameters = {"alpha": as_float_array("alpha", alpha), "b": as_float_array("b", b)}
    return _sigmoid_rank_loss(_pnp_terms, embeddings, labels, resolved, temperature, static=(variant,), **parameters)


def _pnp_terms(
    scores: Array,
    positive: Array,
    negative: Array,
    variant: str,
    *,
    own_columns: Array,
    columns: Array,
    **parameters: Array,
) -> Terms:
    has_positive = jnp.any(positive, axis=1, keepdims=True)
    positive = _with_itself(positive, own_columns, columns)
    zeros = jnp.zeros(scores.shape[0], scores.dtype)
    total = sum_over_positives(partial(_penalty, variant), zeros, positive, (negative,), scores, parameters)
    return {"row": (total[:, None] / jnp.maximum(jnp.sum(positive, axis=1, keepdims=True), 1), has_positive)}


def _penalty(
    variant: str, indices: Array, is_valid: Array, negative: Array, scores: Array, parameters: dict[str, Array]
) -> Array:
    """Return the sum of the penalties of the positives `indices` [r, k] of each row, [r]."""
    alpha, b = parameters["alpha"], parameters["b"]
    r = jnp.sum(jnp.where(negative[:, None], _before(indices, scores, parameters["temperature"]), 0), axis=2)
    if variant == "Iu":
        penalty = (1 + r) * jnp.log1p(r)
    elif variant == "Ib":
        penalty = (b * r - jnp.log1p(b * r)) / (b * b)
    elif variant == "Ds":
        penalty = jnp.log1p(r)
    else:
        penalty = -jnp.expm1(-alpha * jnp.log1p(r)) if variant == "Dq" else r
    return jnp.sum(jnp.where(is_valid, penalty, 0), axis=1)


def fast_ap_loss(
    embeddings: Embeddings, labels: Labels, *, bins: int = 10, **options: Unpack[ReferenceOptions]
) -> Scalar:
    """Compute 1 - average precision from soft histograms of distances, one term for each row with a positive.

        loss_i = 1 - (1 / N+) * (sum over bins of h+ * H+ / H)

    The squared distances of unit vectors are in [0, 4], a range of `bins` + 1 triangular bins. h+ is the number of
    positives of a row in a bin, h the number of positives and negatives, H+ and H are the cumulative sums of h+ and h,
    and N+ is the number of positives. Takes O(n m (d + bins)) time.

    Args:
        embeddings: [n, d]; scaled to unit length.
        bins: Number of bins without the one that starts at 0, at least 1.
        **options: See `ReferenceOptions`. Reference rows are scaled to unit length.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
        >>> print(fast_ap_loss(x, jnp.array([0, 0, 1])))  # the positive is ranked before the negative
        0.0
    """
    check_at_least("bins", bins, 1)
    resolved = resolve_options(fast_ap_loss, options, accepted=ReferenceOptions, measure="squared_euclidean")
    x = unit_vectors(embeddings)
    return compute_pair_loss(_fast_ap_terms, x, labels, resolved.with_unit_vectors(), static=(int(bins),))


def _fast_ap_terms(scores: Array, positive: Array, negative: Array, bins: int) -> Terms:
    width = 4 / bins

    def counts(center: Array) -> tuple[Array, Array]:
        share = jax.nn.relu(1 - jnp.abs(-scores - center) / width)
        return jnp.sum(jnp.where(positive, share, 0), axis=1), jnp.sum(jnp.where(positive | negative, share, 0), axis=1)

    centers = width * jnp.arange(bins + 1, dtype=scores.dtype)
    positives, pairs = lax.map(jax.checkpoint(counts), centers)  # h+ and h, [bins + 1, r]
    cumulative_positives, cumulative_pairs = jnp.cumsum(positives, axis=0), jnp.cumsum(pairs, axis=0)
    has_any = cumulative_pairs > 0
    precision = jnp.where(has_any, positives * cumulative_positives / jnp.where(has_any, cumulative_pairs, 1), 0)
    count = jnp.sum(positive, axis=1)
    loss = 1 - jnp.sum(precision, axis=0) / jnp.maximum(count, 1)
    return {"row": (loss[:, None], (count > 0)[:, None])}


def histogram_loss(
    embeddings: Embeddings, labels: Labels, *, bins: int = 100, **options: Unpack[PairOptions]
) -> Scalar:
    """Compute the probability that a negative pair is closer than a positive pair, one term for each negative pair.

        loss = sum over edges k of p-(k) * (p+(1) + ... + p+(k))

    p+ and p- are soft histograms of the scores of all positive and of all negative pairs of the batch; each pair is
    shared linearly by the two nearest edges. The loss is the mean, over the negative pairs, of the share of positive
    pairs that are no closer, in [0, 1]. The histogram of the positives is computed first, and then the loss.

    Args:
        bins: Number of bins of the histogram, at least 1.
        **options: See `PairOptions`; the reducer must not have bounds, as "mean_active" has, and the measure must have
            a bounded range. Default measure: cosine.

    Differs from pytorch-metric-learning, which ignores negative pairs of two rows without positives, and fails if a
    similarity is 1.

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> print(round(float(histogram_loss(x, jnp.array([0, 0, 1]))), 4))  # both negative pairs are closer
        1.0
    """
    check_at_least("bins", bins, 1)
    resolved = resolve_options(histogram_loss, options)
    measure = resolved.measure
    if not np.isfinite(measure.range).all():
        raise InputError(f"measure: expected one with a bounded range, got {measure.name} with {measure.range}")
    bounds = measure.range if measure.higher_is_closer else (-measure.range[1], -measure.range[0])
    x, y, relation = rows_and_relation(embeddings, labels, resolved.ref_embeddings, resolved.ref_labels)
    no_closer = _share_of_positives(x, y, relation, measure, bounds, bins=bins, block_size=resolved.block_size)
    return compute_pair_loss(_histogram_terms, x, labels, resolved, bounds=bounds, no_closer=no_closer)


@partial(jax.jit, static_argnames=("bins", "block_size"))
def _share_of_positives(
    x: Array, y: Array, relation: Relation, measure: Measure, bounds: Bounds, *, bins: int, block_size: int | None
) -> Array:
    """Return the share of positive pairs that are no closer than each edge, [bins + 1]; 0 without positive pairs."""
    function = Partial(partial(_histogram_of_positives, bins), relation, measure, bounds)
    sums = jnp.cumsum(jnp.sum(reduce_rows(function, x, y, measure=measure, block_size=block_size), axis=0))
    return sums / jnp.where(sums[-1] > 0, sums[-1], 1)


def _histogram_of_positives(
    bins: int, relation: Relation, measure: Measure, bounds: Bounds, tile: Array, i: Array, j: Array
) -> Array:
    """Return the soft histogram of the positives of each row, [r, bins + 1].

    The tile [r, m] has values of the measure, of the row indices i [r, 1] and the column indices j [1, m].
    """
    edge, fraction = _edge(promote_to_float32(measure.as_score(tile)), bounds, bins)
    positive = relation.masks(i, j)[0]
    rows = jnp.arange(len(edge), dtype=jnp.int32)[:, None]
    counts = jnp.zeros((len(edge), bins + 1), fraction.dtype)
    for k, share in ((edge, 1 - fraction), (edge + 1, fraction)):
        counts = counts.at[rows, k].add(jnp.where(positive, share, 0), mode="promise_in_bounds")
    return counts


def _histogram_terms(scores: Array, positive: Array, negative: Array, *, bounds: Bounds, no_closer: Array) -> Terms:
    edge, fraction = _edge(scores, bounds, len(no_closer) - 1)
    below, above = (no_closer.at[k].get(mode="promise_in_bounds") for k in (edge, edge + 1))
    total = jnp.sum(jnp.where(negative, (1 - fraction) * below + fraction * above, 0), axis=1)
    has_positives = no_closer[-1] > 0
    return {"negative": RowSums(total, None, jnp.sum(negative, axis=1, dtype=jnp.int32) * has_positives)}


def _edge(scores: Array, bounds: Bounds, bins: int) -> tuple[Array, Array]:
    """Return the index of the edge below each score, and the fraction of the way to the next edge, 0 to 1."""
    low, high = bounds
    position = (jnp.clip(scores, low, high) - low) * (bins / (high - low))  # rounding errors may leave the range
    edge = jnp.clip(position.astype(jnp.int32), 0, bins - 1)
    return edge, position - edge
