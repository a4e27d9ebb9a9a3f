"""Items that are closest to queries, as hits."""

from collections.abc import Callable

import numpy as np

from simjax.core import InputError
from simjax.evaluate import Calibration
from simjax.gallery._results import Hit
from simjax.gallery._search import closest
from simjax.gallery._store import Contents, Store
from simjax.similarity import Measure


def embeddings_of(store: Store, ids: np.ndarray) -> np.ndarray:
    """Return the embeddings of items, float32 [n, e]; an InputError names an id that does not exist."""
    contents = store.contents()
    if (unknown := ids[~np.isin(ids, contents.ids)]).size:
        raise InputError(f"ids: the gallery has no item {unknown[0]}")
    return contents.embeddings[contents.rows[np.searchsorted(contents.ids, ids)]]


def closest_hits(
    store: Store,
    select: Callable[[], Contents],
    queries: np.ndarray,
    k: int,
    measure: Measure,
    calibration: Calibration | None,
    *,
    ids: np.ndarray | None = None,
) -> list[list[Hit]]:
    """Find the items that are closest to each query.

    Args:
        store: The gallery.
        select: Returns the items that are searched.
        queries: float32 [q, e].
        k: Number of hits; fewer if there are fewer items.
        measure: Compares embeddings.
        calibration: Gives probabilities.
        ids: Ids of items [q], which are not hits of their own query. Default: none.
    """
    found = None
    while found is None:
        contents, exclude = select(), None
        if ids is not None:
            exclude = np.where(np.isin(ids, contents.ids), np.searchsorted(contents.ids, ids), -1)
        scores, positions = closest(queries, contents.embeddings, contents.rows, k, measure, exclude=exclude)
        found = as_hits(store, contents, positions, scores, calibration)
    return found


def as_hits(
    store: Store, contents: Contents, positions: np.ndarray, scores: np.ndarray, calibration: Calibration | None
) -> list[list[Hit]] | None:
    """Return the items at positions [q, k], -1 for none, as hits; None if an item was removed since the search."""
    is_hit, ids = positions >= 0, contents.ids[positions]
    wanted = np.unique(ids[is_hit]).tolist()
    items = store.items_by_id(wanted)
    if len(items) < len(wanted):
        return None
    probabilities = np.full(scores.shape, None)
    if calibration is not None:
        probabilities[is_hit] = calibration.probability(scores[is_hit])
    found: list[list[Hit]] = [[] for _ in positions]
    table = (ids[is_hit], scores[is_hit], probabilities[is_hit], np.nonzero(is_hit)[0])
    for i, score, probability, query in zip(*(column.tolist() for column in table), strict=True):
        found[query].append(Hit(i, items[i].identity, items[i].path, score, probability))
    return found
