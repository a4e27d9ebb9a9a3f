"""Items of a gallery and results of its searches. `_asdict` gives the objects of the JSON output."""

from typing import Any, NamedTuple


class Item(NamedTuple):
    """An image of a gallery.

    Attributes:
        id: Number of the item. It is never used again after the item is removed.
        identity: Name of the person, object or class; None for an item without one.
        path: File of the image when it was added, or None.
        metadata: Values by name, as in JSON.
    """

    id: int
    identity: str | None
    path: str | None
    metadata: dict[str, Any]


class Hit(NamedTuple):
    """An item that a search found.

    Attributes:
        id, identity, path: See `Item`.
        score: Value of the measure of the query and the item; for a recommendation, the mean over the given items.
        probability: P(same identity) of the score, or None without a calibration.
    """

    id: int
    identity: str | None
    path: str | None
    score: float
    probability: float | None


class SearchResult(NamedTuple):
    """The items that are closest to one query.

    Attributes:
        query: Path of the image, id of the item, position in the array of queries, or the ids of a recommendation.
        hits: Closest first; items with equal scores in the order in which they were added.
    """

    query: str | int | list[int]
    hits: list[Hit]


class Verification(NamedTuple):
    """Whether two images show the same identity.

    Attributes:
        score: Value of the measure.
        probability: P(same identity), or None without a calibration.
        same: Whether the score is at least as close as the threshold, or None without a calibration.
        threshold: Value of the measure, or None without a calibration.
        fmr: Wanted false match rate, the share of pairs of different identities that pass the threshold, or None
            without a calibration.
    """

    score: float
    probability: float | None
    same: bool | None
    threshold: float | None
    fmr: float | None


class Identification(NamedTuple):
    """Whose image the query is.

    Attributes:
        query: See `SearchResult`.
        identity: Identity of the closest item; None if that item is beyond the threshold, or without a calibration.
        score: Value of the measure of the query and the closest item; None if no item has an identity.
        probability: P(same identity) of the score, or None without a calibration.
        threshold: Value of the measure, or None without a calibration.
        closest: Identity of the closest item, whatever its score.
        id, path: Of the closest item.
    """

    query: str | int | list[int]
    identity: str | None
    score: float | None
    probability: float | None
    threshold: float | None
    closest: str | None
    id: int | None
    path: str | None


class Duplicate(NamedTuple):
    """Two items that are at least as close as a given score.

    Attributes:
        a, b: Ids of items of a gallery, or rows of an array; a < b.
        score: Value of the measure.
    """

    a: int
    b: int
    score: float


class Index(NamedTuple):
    """An approximate index, and its recall.

    Attributes:
        candidates: Number of candidates of each query, which are scored exactly.
        recall_at_10: Share of the 10 closest items of exact searches that approximate searches found.
        queries: Number of items of the gallery that were searched for this. An item is not its own hit.
        items: Number of items of the gallery at that time.
        bytes: Size of the index at that time.
    """

    candidates: int
    recall_at_10: float
    queries: int
    items: int
    bytes: int
