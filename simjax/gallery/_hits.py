"""Items that are closest to queries, as hits."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from simjax.core import InputError
from simjax.evaluate import Calibration
from simjax.gallery._results import Duplicate, Hit, Item
from simjax.gallery._search import close_pairs, closest, mean_values
from simjax.gallery._store import Contents, IndexedStore, Store, Where
from simjax.similarity import Measure


def embeddings_of(store: Store, ids: np.ndarray) -> np.ndarray:
    """Return the embeddings of items, float32 [n, e]; an InputError names an id that does not exist."""
    is_indexed = isinstance(store, IndexedStore)
    contents = store.selected_contents(ids=ids.tolist()) if is_indexed else store.contents()
    if (unknown := ids[~np.isin(ids, contents.ids)]).size:
        raise InputError(f"ids: the gallery has no item {unknown[0]}")
    return contents.embeddings[contents.rows[np.searchsorted(contents.ids, ids)]]


def items_of(store: Store, ids: np.ndarray) -> list[Item]:
    """Return items in the order of ids [n]; an InputError names an id that does not exist."""
    wanted = ids.tolist()
    found = store.items_by_id(wanted)
    if unknown := [i for i in wanted if i not in found]:
        raise InputError(f"ids: the gallery has no item {unknown[0]}")
    return [found[i] for i in wanted]


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
        found = hits_among(store, select(), queries, k, measure, calibration, ids)
    return found


def hits_among(
    store: Store,
    contents: Contents,
    queries: np.ndarray,
    k: int,
    measure: Measure,
    calibration: Calibration | None,
    ids: np.ndarray | None,
) -> list[list[Hit]] | None:
    """Find the items of `contents` that are closest to each query; None if one of them was removed meanwhile."""
    exclude = None
    if ids is not None:
        exclude = np.where(np.isin(ids, contents.ids), np.searchsorted(contents.ids, ids), -1)
    scores, positions = closest(queries, contents.embeddings, contents.rows, k, measure, exclude=exclude)
    return as_hits(store, contents, positions, scores, calibration)


def recommended_hits(
    store: Store, ids: np.ndarray, k: int, measure: Measure, calibration: Calibration | None, where: Where, same: bool
) -> list[Hit]:
    """Find the items with the closest mean score to these items; if `same`, also others of their identities."""
    queries, found = embeddings_of(store, ids), None
    while found is None:
        excluded, contents = ids, store.contents(where)
        identities = {item.identity for item in store.items_by_id(ids.tolist()).values()} - {None}
        if identities and not same:
            excluded = np.concatenate([ids, *(store.contents({"identity": name}).ids for name in identities)])
        is_other = ~np.isin(contents.ids, excluded)
        contents = contents._replace(ids=contents.ids[is_other], rows=contents.rows[is_other])
        scores = mean_values(queries, contents.embeddings, contents.rows, measure)
        order = np.argsort(-scores if measure.higher_is_closer else scores, kind="stable")[None, :k]
        found = as_hits(store, contents, order, scores[order], calibration)
    return found[0]


def duplicate_items(store: Store, min_score: float, measure: Measure, k: int | None) -> list[Duplicate]:
    """Find pairs of items at least as close as `min_score`, see `Gallery.duplicates`."""
    contents = store.contents()
    pairs, scores = close_pairs(contents.embeddings, contents.rows, min_score, measure, k)
    found = zip(contents.ids[pairs].tolist(), scores.tolist(), strict=True)
    return [Duplicate(a, b, score) for (a, b), score in found]


def score_of_pair(a: np.ndarray, b: np.ndarray, measure: Measure) -> float:
    """Return the score of two embeddings, [1, e] each, of the arguments a and b of `Gallery.verify`."""
    for name, embeddings in (("a", a), ("b", b)):
        if len(embeddings) != 1:
            raise InputError(f"{name}: expected one image or id, got {len(embeddings)}")
    return float(closest(a, b, np.arange(1), 1, measure)[0][0, 0])


def warn_if_fewer(found: Sequence[Sequence[Hit]], k: int, where: Where, items: str) -> None:
    """Warn about searches that find nothing, or all `items` (a plural) of the gallery though more were wanted."""
    if (fewest := min(map(len, found), default=k)) >= k or (where and fewest):
        return
    item = items.replace("items", "item")
    number = f"only {fewest:,} {item if fewest == 1 else items}: all are listed" if fewest else f"no {items}"
    warnings.warn(f"no {item} matches `where`" if where else f"the gallery has {number}", stacklevel=3)


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
