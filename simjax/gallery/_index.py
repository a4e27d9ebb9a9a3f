"""Approximate search: the index of a store proposes candidates for each query, which are scored exactly."""

import functools

import numpy as np

from simjax.core import InputError
from simjax.evaluate import Calibration
from simjax.gallery._hits import closest_hits, hits_among
from simjax.gallery._results import Hit, Index
from simjax.gallery._search import passes
from simjax.gallery._store import IndexedStore, Store, Where
from simjax.similarity import Measure

CANDIDATES, MAX_CANDIDATES = 100, 1000
"""Default and largest number of candidates of a query; the latter is that of pgvector."""

K, QUERIES = 10, 1000
"""Numbers of hits and of queries of the measured recall."""


def indexed(store: Store) -> IndexedStore:
    """Return the store; an InputError if it cannot have an index."""
    if not isinstance(store, IndexedStore):
        raise InputError(f"{store.address}: only galleries in PostgreSQL have an index; this one is searched exactly")
    return store


def index_of(store: Store) -> Index | None:
    """Return the index of a store, or None."""
    found = store.properties().get("index") if isinstance(store, IndexedStore) else None
    if found is None:
        return None
    is_index = isinstance(found, dict) and found.keys() == set(Index._fields)
    if not is_index or not all(isinstance(value, int | float) for value in found.values()):
        raise InputError(f"{store.address}: the gallery is damaged: its index is {found!r}")
    return Index(**found)


def existing_index(store: Store) -> Index:
    """Return the index of a store; an InputError if there is none."""
    if (index := index_of(indexed(store))) is None:
        raise InputError("approximate: the gallery has no index, which `simjax gallery index` creates")
    return index


def create_index(store: IndexedStore, candidates: int, measure: Measure) -> Index:
    """Create an index unless it exists, measure its recall, and store that; see `Gallery.create_index`."""
    if not K <= candidates <= MAX_CANDIDATES:
        raise InputError(f"candidates: expected {K} to {MAX_CANDIDATES:,}, got {candidates}")
    if (items := store.count()) < 2:
        raise InputError(f"expected a gallery of two or more items, with which the recall is measured, got {items}")
    size = store.create_index()
    contents = store.contents()
    items = len(contents.ids)
    sample = np.sort(np.random.default_rng(0).choice(items, min(items, QUERIES), replace=False))
    queries, ids = contents.embeddings[contents.rows[sample]], contents.ids[sample]
    exact = closest_hits(store, store.contents, queries, K, measure, None, ids=ids)
    found = approximate_hits(store, candidates, queries, K, measure, None, ids=ids)
    index = Index(candidates, _recall(found, exact, measure), len(sample), items, size)
    store.save_index(index._asdict())
    return index


def approximate_hits(
    store: IndexedStore,
    count: int,
    queries: np.ndarray,
    k: int,
    measure: Measure,
    calibration: Calibration | None,
    *,
    where: Where = None,
    ids: np.ndarray | None = None,
) -> list[list[Hit]]:
    """Find the closest candidates of each query; if there are too few of them, the closest items by exact search.

    Args:
        store: The gallery.
        count: Number of candidates besides the query itself; k if that is more.
        queries, k, measure, calibration, ids: See `closest_hits`.
        where: See `Gallery.search`.
    """
    count = max(count, k) + (ids is not None)
    found: list[list[Hit]] = []
    for i in range(len(queries)):
        query, own, hits = queries[i : i + 1], None if ids is None else ids[i : i + 1], None
        while hits is None:
            contents = store.candidates(query[0], count, where)
            if len(contents.ids) < count:  # few items match, or the scan of the index ended before it found them
                select = functools.partial(store.selected_contents, where)
                return closest_hits(store, select, queries, k, measure, calibration, ids=ids)
            hits = hits_among(store, contents, query, k, measure, calibration, own)
        found += hits
    return found


def _recall(found: list[list[Hit]], exact: list[list[Hit]], measure: Measure) -> float:
    """Return the share of the hits of exact searches that were found. Equal scores are equally good hits."""
    shared = 0
    for hits, wanted in zip(found, exact, strict=True):
        ids = {hit.id for hit in wanted}
        shared += sum(hit.id in ids or passes(hit.score, wanted[-1].score, measure) for hit in hits)
    return shared / sum(map(len, exact))
