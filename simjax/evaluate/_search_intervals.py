"""Intervals of retrieval and of open-set identification, whose galleries are made of the identities left out.

Leaving out an identity removes its queries and its gallery rows. The other queries then see the same ranking without
these rows, which one search, somewhat deeper than usual, tells: no search is repeated.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, check_number
from simjax.evaluate._checks import as_open_set_identities, as_open_set_rows, gallery_and_queries
from simjax.evaluate._image_intervals import leave_out_images
from simjax.evaluate._intervals import Estimate, estimate_of_sums, mean_of_units, number_identities
from simjax.evaluate._retrieval import nearest_rows
from simjax.similarity import Measure, top_k
from simjax.similarity import measure as as_measure


def retrieval_estimates(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    identities: ArrayLike | None = None,
    query_embeddings: ArrayLike | None = None,
    query_labels: ArrayLike | None = None,
    query_identities: ArrayLike | None = None,
    measure: str | Measure = "cosine",
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, Any]:
    """Estimate the metrics of retrieval, with the queries and the gallery rows of one identity left out at a time.

    Args:
        embeddings: The gallery, [m, d].
        labels: Integers [m].
        identities: Integers or names [m]. Default: the labels. For fixed classes pass the numbers of the images,
            `np.arange(m)`, so that one image is left out at a time.
        query_embeddings: [q, d]. Default: every embedding searches among all others.
        query_labels: Integers [q]. Required with `query_embeddings`.
        query_identities: Integers or names [q]. Required with `query_embeddings` if `identities` are given.
        measure: Name of a measure, or a `Measure`. Ties are ranked by lowest index.
        ks: Values of k for recall at k.

    Returns:
        `precision_at_1`, `mean_average_precision_at_r`, `r_precision` and `recall_at_k` {"1": ..., "5": ...}, as
        `retrieval_metrics` defines them.

    Raises:
        InputError: If a k is below 1.

    Example:
        >>> x = np.array([[0.0], [1.0], [4.0], [5.0], [5.5], [9.0]])
        >>> found = retrieval_estimates(x, [0, 0, 1, 1, 2, 2], measure="euclidean")
        >>> round(found["precision_at_1"].value, 2), found["precision_at_1"].leave_one_out.tolist()
        (0.67, [0.5, 1.0, 1.0])
    """
    if any(k < 1 for k in ks):
        raise InputError(f"ks: expected at least 1, got {tuple(ks)}")
    m, is_self_search = as_measure(measure), query_embeddings is None
    gallery, gallery_ids, query, query_ids = gallery_and_queries(embeddings, labels, query_embeddings, query_labels)
    if (identities is None) != (query_identities is None) and not is_self_search:
        raise InputError("identities, query_identities: expected both or neither, got one")
    if identities is None:
        given, asked = gallery_ids, query_ids
    else:
        given, asked = identities, identities if query_identities is None else query_identities
    units, query_units, names = _number_both(("identities", "query_identities"), given, asked, len(gallery), len(query))
    units, query_units = units[:, 0], query_units[:, 0]
    classes, ids = np.unique(np.concatenate([gallery_ids, query_ids]), return_inverse=True)
    gallery_ids, query_ids = ids[: len(gallery)], ids[len(gallery) :]
    n_relevant = np.bincount(gallery_ids, minlength=len(classes))[query_ids] - is_self_search
    if is_self_search and len(names) == len(gallery):  # every image is an identity of its own
        return _by_name([_reordered(e, units, names) for e in leave_out_images(gallery, gallery_ids, m, ks)], ks)
    active = np.flatnonzero(n_relevant > 0)
    relevant_in_units = _relevant_in_units(gallery_ids, units, len(classes), len(names))
    largest_unit = int(np.bincount(units, minlength=1).max())
    depth = min(max([*ks, int(n_relevant.max(initial=0))]) + largest_unit, len(gallery) - is_self_search)
    values = np.empty((len(active), 3 + len(ks)))
    changes = np.zeros((len(names), 3 + len(ks)))  # of the sums over all queries, caused by missing gallery rows
    lost = np.zeros(len(names), int)  # queries of other identities without a relevant row
    place = np.zeros(len(query), int)  # of each query in `values`
    place[active] = np.arange(len(active))
    for rows, nearest in nearest_rows(query, gallery, m, depth, active, exclude_itself=is_self_search):
        values[place[rows]], block_changes, block_lost = _leave_out_rows(
            gallery_ids[nearest] == query_ids[rows, None],
            units[nearest],
            query_units[rows],
            n_relevant[rows],
            None if relevant_in_units is None else relevant_in_units[query_ids[rows]],
            ks,
            len(names),
        )
        changes += block_changes
        lost += block_lost
    own = query_units[active]
    n_queries = np.bincount(own, minlength=len(names))
    counts, sample_size = len(active) - n_queries - lost, int(np.count_nonzero(n_queries))
    estimates = []
    for value, change in zip(values.T, changes.T, strict=True):
        sums = value.sum() - np.bincount(own, value, minlength=len(names)) + change
        estimates.append(estimate_of_sums(value.sum(), len(active), sums, counts, names, sample_size))
    return _by_name(estimates, ks)


def open_set_estimates(
    probe_embeddings: ArrayLike,
    probe_identities: ArrayLike,
    unknown_embeddings: ArrayLike,
    gallery_embeddings: ArrayLike,
    gallery_identities: ArrayLike,
    *,
    measure: str | Measure,
    threshold: float,
    unknown_identities: ArrayLike | None = None,
) -> dict[str, Estimate]:
    """Estimate the error rates of open-set identification, with one identity left out at a time.

    For `fnir_at_rank_1` and `rank_1_rate`, leaving out an enrolled identity removes its probes and its gallery rows, so
    that other probes may find another candidate: the intervals are for galleries of as many other identities. For
    `fpir`, leaving out an unknown identity removes its probes: the interval is for unknown identities searched in this
    gallery. FNIR at any rank depends on the mates only, so that `mean_estimate` serves it.

    Args:
        probe_embeddings, probe_identities, unknown_embeddings, gallery_embeddings, gallery_identities, measure,
            unknown_identities: See `open_set_search`.
        threshold: In units of the measure, from other images than these.

    Returns:
        `fnir_at_rank_1`, `rank_1_rate` and `fpir`, as `open_set_metrics` defines them.

    Example:
        >>> gallery, probes = [[0.0], [2.0], [7.0]], [[0.2], [1.1], [7.5]]
        >>> names = ["ann", "bob", "cy"]
        >>> found = open_set_estimates(probes, names, [[4.5]], gallery, names, measure="euclidean", threshold=0.4)
        >>> round(found["fnir_at_rank_1"].value, 2), found["fnir_at_rank_1"].leave_one_out.tolist()
        (0.67, [1.0, 0.5, 0.5])
    """
    check_number("threshold", threshold)
    m = as_measure(measure)
    probes, unknown_rows, gallery = as_open_set_rows(probe_embeddings, unknown_embeddings, gallery_embeddings)
    given, sizes = (probe_identities, unknown_identities, gallery_identities), map(len, (probes, unknown_rows, gallery))
    known, unknown, enrolled = as_open_set_identities(*given, *sizes)
    arguments = ("gallery_identities", "probe_identities")
    units, mates, names = _number_both(arguments, enrolled, known, len(gallery), len(probes))
    unknown_units, unknown_names = number_identities("unknown_identities", unknown, len(unknown_rows))

    depth = min(int(np.bincount(units[:, 0]).max()) + 1, len(gallery))
    scores, nearest = (np.asarray(a) for a in top_k(np.concatenate([probes, unknown_rows]), gallery, depth, m))
    sign = 1.0 if m.higher_is_closer else -1.0
    is_close = sign * scores.astype(np.float64) >= sign * threshold
    fpir = mean_of_units(is_close[len(probes) :, 0] * 1.0, unknown_units, unknown_names)
    is_close, candidates = is_close[: len(probes)], units[nearest[: len(probes)], 0]
    second = np.argmax(candidates != candidates[:, :1], axis=1)  # 0, the first one, if one identity fills the gallery
    pick = np.stack([np.zeros_like(second), second], axis=1)
    candidates, is_close = (np.take_along_axis(a, pick, axis=1) for a in (candidates, is_close))
    is_rank_1 = candidates == mates
    return {
        "fnir_at_rank_1": _search_estimate(~(is_rank_1 & is_close), mates[:, 0], candidates[:, 0], names),
        "rank_1_rate": _search_estimate(is_rank_1, mates[:, 0], candidates[:, 0], names),
        "fpir": fpir,
    }


def _search_estimate(outcomes: np.ndarray, unit: np.ndarray, candidate: np.ndarray, names: tuple[Any, ...]) -> Estimate:
    """Return the estimate of searches whose outcomes [n, 2] are those with and without the first candidate's unit."""
    value, other = outcomes.T.astype(np.float64)
    of_unit = np.bincount(unit, minlength=len(names))
    is_changed = candidate != unit
    change = np.bincount(candidate[is_changed], (other - value)[is_changed], minlength=len(names))
    sums = value.sum() - np.bincount(unit, value, minlength=len(names)) + change
    counts = len(value) - of_unit if len(names) > 1 else np.zeros_like(of_unit)  # without the only one, no gallery
    return estimate_of_sums(value.sum(), len(value), sums, counts, names, int(np.count_nonzero(of_unit)))


def _by_name(estimates: list[Estimate], ks: Sequence[int]) -> dict[str, Any]:
    first = dict(zip(("mean_average_precision_at_r", "r_precision", "precision_at_1"), estimates, strict=False))
    return {**first, "recall_at_k": {str(k): found for k, found in zip(ks, estimates[3:], strict=True)}}


def _reordered(estimate: Estimate, units: np.ndarray, names: tuple[Any, ...]) -> Estimate:
    """Return an estimate over images in the order of their names; `units` has the place of each image."""
    if estimate.leave_one_out is None:
        return replace(estimate, identities=names)
    return replace(estimate, leave_one_out=estimate.leave_one_out[np.argsort(units)], identities=names)


def _number_both(
    arguments: tuple[str, str], first: ArrayLike, second: ArrayLike, n: int, m: int
) -> tuple[np.ndarray, np.ndarray, tuple[Any, ...]]:
    """Return the indices of two lists of identities, [n, 1] and [m, 1], among the identities of both."""
    numbered = [number_identities(*given) for given in zip(arguments, (first, second), (n, m), strict=True)]
    index = {name: number for number, name in enumerate(dict.fromkeys(numbered[0][1] + numbered[1][1]))}
    units, others = (np.array([index[name] for name in names], int)[units] for units, names in numbered)
    return units, others, tuple(index)


def _relevant_in_units(labels: np.ndarray, units: np.ndarray, n_labels: int, n_units: int) -> np.ndarray | None:
    """Count the rows of each label in each unit, [labels, units]; None if no label has rows in several units."""
    unit_of_label = np.zeros(n_labels, int)
    unit_of_label[labels] = units
    if np.array_equal(unit_of_label[labels], units):
        return None
    return np.bincount(labels * n_units + units, minlength=n_labels * n_units).reshape(n_labels, n_units)


def _leave_out_rows(
    is_relevant: np.ndarray,
    units: np.ndarray,
    query_units: np.ndarray,
    n_relevant: np.ndarray,
    relevant_in_units: np.ndarray | None,
    ks: Sequence[int],
    n_units: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the metrics of queries [r], and the sums of their changes when the gallery rows of a unit are left out.

    Args:
        is_relevant: Of the ranked neighbours, [r, depth].
        units: Units of the ranked neighbours, [r, depth].
        query_units: [r]. The change of a query without its own unit is not counted.
        n_relevant: Relevant gallery rows of each query, [r].
        relevant_in_units: Those of each unit, [r, n_units]; None if all of them are in the unit of the query.
        ks: Values of k for recall at k.
        n_units: The number of units.

    Returns:
        Values [r, 3 + ks], changes [n_units, 3 + ks], and [n_units] queries without a relevant row that is left.
    """
    values = _rates(is_relevant, np.ones_like(is_relevant), n_relevant, ks)
    changes, lost = np.zeros((n_units, values.shape[1])), np.zeros(n_units, int)
    # Leaving out a unit that is not among the neighbours changes a query only if it has relevant rows.
    left_out = _distinct(units) if relevant_in_units is None else np.tile(np.arange(n_units), (len(units), 1))
    for unit in left_out.T:
        rows = np.flatnonzero((unit >= 0) & (unit != query_units))
        unit = unit[rows]
        r = n_relevant[rows] if relevant_in_units is None else n_relevant[rows] - relevant_in_units[rows, unit]
        found = _rates(is_relevant[rows], units[rows] != unit[:, None], r, ks)
        lost += np.bincount(unit[r == 0], minlength=n_units)
        for name, change in enumerate((found - values[rows]).T):
            changes[:, name] += np.bincount(unit, change, minlength=n_units)
    return values, changes, lost


def _rates(is_relevant: np.ndarray, is_left: np.ndarray, n_relevant: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Compute MAP at R, R-precision, precision at 1 and recall at k of ranked neighbours [r, depth] that are left."""
    rank = np.cumsum(is_left, axis=1, dtype=np.int32)
    is_relevant = is_relevant & is_left
    is_hit = is_relevant & (rank <= n_relevant[:, None])
    precision = np.cumsum(is_hit, axis=1, dtype=np.int32) / np.maximum(rank, 1, dtype=np.float32)
    r = np.maximum(n_relevant, 1)
    first = np.argmax(is_relevant, axis=1)[:, None]
    has_any = np.take_along_axis(is_relevant, first, axis=1)[:, 0]
    first_rank = np.take_along_axis(rank, first, axis=1)[:, 0]
    recall = [has_any & (first_rank <= k) for k in (1, *ks)]
    return np.stack([np.sum(precision * is_hit, axis=1) / r, np.sum(is_hit, axis=1) / r, *recall], axis=1)


def _distinct(units: np.ndarray) -> np.ndarray:
    """Return the distinct units of each row, [r, most distinct units of a row], followed by -1."""
    units = np.sort(units, axis=1)
    is_first = np.diff(units, axis=1, prepend=-1) != 0
    place = np.cumsum(is_first, axis=1) - 1
    found = np.full((len(units), int(place.max(initial=-1)) + 1), -1)
    row = np.nonzero(is_first)[0]
    found[row, place[is_first]] = units[is_first]
    return found
