"""The gallery: enrolling images, searching, verifying, identifying and finding duplicates."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import EllipsisType
from typing import Any, Literal

import numpy as np

from simjax.core import check_at_least, check_between, check_number
from simjax.data import Progress
from simjax.encoder import Encoder
from simjax.evaluate import Calibration, Threshold
from simjax.gallery._copy import copy_store
from simjax.gallery._hits import (
    closest_hits,
    duplicate_items,
    embeddings_of,
    items_of,
    recommended_hits,
    score_of_pair,
    warn_if_fewer,
)
from simjax.gallery._index import CANDIDATES, approximate_hits, create_index, existing_index, index_of, indexed
from simjax.gallery._inputs import (
    Ids,
    as_identities,
    as_ids,
    as_queries,
    changed_values,
    check_not_enrolled,
    checked_encoder,
    embed,
    new_items,
    stored_paths,
)
from simjax.gallery._locations import check_place, create_store, open_store
from simjax.gallery._results import Duplicate, Identification, Index, Item, SearchResult, Verification
from simjax.gallery._store import Store, StoredCalibration, properties_of
from simjax.gallery._thresholds import FMR, FPIR, Thresholds
from simjax.similarity import Measure

TIMEOUT = 30.0


class Gallery:
    """Images with identities and metadata, which are searched by the embeddings of an encoder.

    `Gallery.create` and `Gallery.open` return one. Each call is one transaction: it is complete, or nothing was
    changed. Any number of processes may search a gallery while one writes; a second one waits for it.

    Images are paths of files and folders, arrays and all else that the encoder takes, or embeddings of that encoder: a
    floating-point array of two axes, [n, embedding_size]. A score is the value of the encoder's measure, so that a
    distance is smaller for closer pairs.
    """

    def __init__(self, store: Store, encoder: Encoder | None):
        self._store = store
        self._encoder = None if encoder is None else checked_encoder(encoder, encoder.name, store)
        self._thresholds = Thresholds(store, lambda: self.encoder)

    @classmethod
    def create(
        cls,
        path_or_url: str | os.PathLike[str],
        encoder: Encoder,
        images: Any = None,
        identities: str | Sequence[str | None] | None = None,
        metadata: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None = None,
        *,
        paths: Sequence[str | Path | None] | None = None,
        progress: Progress | None = None,
        overwrite: bool = False,
        timeout: float = TIMEOUT,
    ) -> "Gallery":
        """Create a gallery, empty or with images, whose ids are 1, 2, ... An error or a kill changes nothing.

        Args:
            path_or_url: Path of a folder, `postgresql://USER@HOST:PORT/DATABASE?gallery=NAME` (with pgvector),
                `milvus://USER:PASSWORD@HOST:PORT?gallery=NAME` or `milvus:FILE.db?gallery=NAME`. NAME is a schema of
                PostgreSQL or a collection of Milvus. Default: "gallery".
            encoder: Computes embeddings. The gallery stores a copy of it.
            images, identities, metadata, paths, progress: See `add`. Default: the gallery is empty.
            overwrite: Replace a gallery that is there. Other files or tables are never replaced.
            timeout: Seconds to wait for another process that writes, in this and all later calls.

        Raises:
            InputError: If the gallery exists, or cannot be written, or for a reason of `add`.
        """
        properties, items = properties_of(encoder), []
        if images is not None:
            check_place(path_or_url, overwrite=overwrite, timeout=timeout)  # before the images are encoded
            encode = partial(embed, size=encoder.embedding_size, encoder=lambda: encoder)
            items = [new_items(encode, images, identities, metadata, paths, progress)]
        store = create_store(path_or_url, properties, encoder.save, items, overwrite=overwrite, timeout=timeout)
        return cls(store, encoder)

    @classmethod
    def open(
        cls, path_or_url: str | os.PathLike[str], *, encoder: Encoder | None = None, timeout: float = TIMEOUT
    ) -> "Gallery":
        """Open a gallery.

        Args:
            path_or_url, timeout: See `create`.
            encoder: The encoder that made its embeddings. Default: the copy in the gallery, loaded when it is needed.

        Raises:
            InputError: If there is no gallery, it is damaged or of a newer format, or the encoder is another one.
        """
        store = open_store(path_or_url, timeout)
        try:
            return cls(store, encoder)
        except BaseException:
            store.close()
            raise

    def copy(self, path_or_url: str | os.PathLike[str], *, timeout: float = TIMEOUT) -> "Gallery":
        """Copy items, ids, calibration and encoder to a new or empty gallery, and return it; see `create`.

        An InputError, for instance if this gallery is changed meanwhile, leaves the other one as it was, or empty.
        """
        return Gallery(copy_store(self._store, path_or_url, self.encoder, timeout), self.encoder)

    def close(self) -> None:
        """Close the files of the gallery, or its connection."""
        self._store.close()

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._store.count()

    def __bool__(self) -> bool:
        return True  # also an empty gallery is one

    def __repr__(self) -> str:
        return f"Gallery({self.address}: {len(self):,} items, {self._store.properties()['encoder']})"

    @property
    def address(self) -> str:
        """Path of the folder, or URL of the database without its password."""
        return self._store.address

    @property
    def encoder(self) -> Encoder:
        """The encoder of the gallery."""
        if self._encoder is None:
            self._encoder = checked_encoder(self._store.load_encoder(), f"{self.address}/encoder", self._store)
        return self._encoder

    @property
    def measure(self) -> Measure:
        """Compares embeddings."""
        return self.encoder.measure

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of the gallery, otherwise of its encoder, otherwise None."""
        return self._thresholds.calibration

    def search_threshold(self, fpir: float = FPIR) -> Threshold:
        """Return the threshold of `identify` for a false positive identification rate.

        An InputError says if calibration images or items with an identity are missing.
        """
        return self._thresholds.of_search(fpir)

    @property
    def index(self) -> Index | None:
        """The approximate index, see `create_index`."""
        return index_of(self._store)

    def count_identities(self) -> int:
        """Return the number of different identities."""
        return self._store.count_identities()

    def info(self) -> dict[str, Any]:
        """Describe the gallery, as a dictionary for JSON. The thresholds need a search with all calibration images.

        Returns:
            `items` and `identities`, their numbers; `encoder`, its name, and its `fingerprint`, `embedding_size` and
            `measure`; `store`, the `address`; `calibration`, None or a dictionary: `of`, "gallery" or
            "encoder", and the numbers of its `images` and `identities`; and `thresholds`, a list: for a false match
            rate of 0.001 and for a false positive identification rate of 0.01, as dictionaries of `Threshold` with a
            sentence `text`. It is empty without a calibration. `index` is None or the dictionary of an `Index`.
        """
        return self._thresholds.gallery_info()

    def items(self, where: Mapping[str, Any] | None = None) -> Iterator[Item]:
        """Yield the items in the order in which they were added; see `search` for `where`."""
        return self._store.items(where)

    def get(self, ids: Ids) -> list[Item]:
        """Return items in the order of their ids [n]. An id that does not exist is an InputError."""
        return items_of(self._store, as_ids(ids))

    def embeddings(self, ids: Ids) -> np.ndarray:
        """Return the embeddings of items, float32 [n, embedding_size]. An id that does not exist is an InputError."""
        return embeddings_of(self._store, as_ids(ids))

    def known_paths(self, paths: Sequence[str | Path]) -> set[str]:
        """Return those of these paths that items have: a `Path` as an absolute path, text as it is."""
        return self._store.known_paths(filter(None, stored_paths(paths, None, len(paths))))

    def add(
        self,
        images: Any,
        identities: str | Sequence[str | None] | None = None,
        metadata: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None = None,
        *,
        paths: Sequence[str | Path | None] | None = None,
        progress: Progress | None = None,
    ) -> list[int]:
        """Add images.

        Args:
            images: Images or embeddings, see `Gallery`.
            identities: Name of the person, object or class: one for all images, or one for each. Default: the images
                have no identity. They are found by searches, but never identified.
            metadata: Values by name, as in JSON: for all images, or one dictionary for each.
            paths: Paths to store, one for each image: a `Path` is stored as an absolute path, text as it is. Default:
                the paths of images that are files.
            progress: See `Encoder.encode`.

        Returns:
            The ids of the new items.

        Raises:
            InputError: If an image cannot be read, an embedding is not finite, or numbers of images and others differ.
        """
        return self._store.add([new_items(self._embed, images, identities, metadata, paths, progress)])

    def update(
        self,
        ids: Ids,
        *,
        identity: str | None | EllipsisType = ...,
        metadata: Mapping[str, Any] | None | EllipsisType = ...,
    ) -> None:
        """Change the identity or the metadata of items. An id that does not exist is an InputError.

        Args:
            ids: Ids of items.
            identity: New identity, or None for no identity. Default: unchanged.
            metadata: Replaces all metadata of the items. Default: unchanged.
        """
        if values := changed_values(identity, metadata):
            self._store.update(as_ids(ids).tolist(), values)

    def remove(self, ids: Ids) -> int:
        """Remove items, and return their number. An id that does not exist is an InputError."""
        return self._store.remove(as_ids(ids).tolist())

    def remove_identity(self, name: str) -> int:
        """Remove all items of an identity, and return their number."""
        return self._store.remove_identity(name)

    def create_index(self, candidates: int = CANDIDATES) -> Index:
        """Create an approximate index unless it exists, measure its recall, and store both for `approximate=True`.

        Args:
            candidates: Number of items that the index proposes for each query, 10 to 1,000: more find more, slower.

        Raises:
            InputError: If the gallery is not in PostgreSQL, has fewer than two items or a measure without an index.
        """
        return create_index(indexed(self._store), candidates, self.measure)

    def drop_index(self) -> bool:
        """Drop the approximate index, and return whether there was one."""
        return indexed(self._store).drop_index()

    def search(
        self, images_or_ids: Any, k: int = 5, *, where: Mapping[str, Any] | None = None, approximate: bool = False
    ) -> list[SearchResult]:
        """Find the items that are closest to each query, by exact search as `similarity.top_k`.

        Args:
            images_or_ids: Images or embeddings, see `Gallery`, or ids of items. An item is not its own hit.
            k: Number of hits. If the gallery has fewer items, all are returned with a warning.
            where: Only items are searched whose metadata have all of these values; the key "identity" is their
                identity. Values are text, numbers, booleans and None; a list means any of its values.
            approximate: Score only items that the index proposes (see `create_index`), without copying all embeddings.

        Raises:
            InputError: If an image cannot be read, an id does not exist, or there is no index for `approximate`.
        """
        check_at_least("k", k, 1)
        index = existing_index(self._store) if approximate else None
        queries, embeddings, ids = self._queries(images_or_ids)
        options = (embeddings, k, self.measure, self.calibration)
        if index is None:
            found = closest_hits(self._store, lambda: self._store.contents(where), *options, ids=ids)
        else:
            found = approximate_hits(indexed(self._store), index.candidates, *options, where=where, ids=ids)
        warn_if_fewer(found, k, where, "items" if ids is None else "other items")
        return [SearchResult(query, hits) for query, hits in zip(queries, found, strict=True)]

    def recommend(
        self, ids: Ids, k: int = 5, *, where: Mapping[str, Any] | None = None, same_identity: bool = False
    ) -> SearchResult:
        """Find the items that are most similar to several items: those with the closest mean score.

        Args:
            ids: Ids of items. They are not among the hits.
            k, where: See `search`.
            same_identity: Other items of the identities of these items can be hits, too.
        """
        check_at_least("k", k, 1)
        given = np.unique(as_ids(ids))
        check_at_least("number of ids", given.size, 1)
        hits = recommended_hits(self._store, given, k, self.measure, self.calibration, where, same_identity)
        warn_if_fewer([hits], k, where, "other items" if same_identity else "items of other identities")
        return SearchResult(given.tolist(), hits)

    def verify(self, a: Any, b: Any, fmr: float = FMR) -> Verification:
        """Decide whether two images show the same identity.

        Args:
            a, b: An image or an embedding, see `Gallery`, or the id of an item.
            fmr: Wanted false match rate: the share of pairs of different identities that are taken for the same.

        Raises:
            InputError: If an image cannot be read, or the calibration has too few images for this rate.
        """
        check_between("fmr", fmr, 0, 1)
        score = score_of_pair(self._queries(a)[1], self._queries(b)[1], self.measure)
        return self._thresholds.verification(score, fmr)

    def identify(self, images: Any, fpir: float = FPIR) -> list[Identification]:
        """Find out whose images these are: the identity of the closest item, if it is close enough.

        Args:
            images: Images or embeddings, see `Gallery`, or ids of items. An item does not identify itself.
            fpir: Wanted false positive identification rate: the share of images of unknown identities that get one.
                The threshold for it follows the gallery as it grows.

        Raises:
            InputError: If an image cannot be read, or the calibration has too few images for this rate.
        """
        check_between("fpir", fpir, 0, 1)
        queries, embeddings, ids = self._queries(images)
        options = (embeddings, 1, self.measure, self.calibration)
        found = closest_hits(self._store, self._store.named_contents, *options, ids=ids)
        return self._thresholds.identifications(queries, found, fpir)

    def duplicates(self, min_score: float | None = None, k: int | None = None) -> list[Duplicate]:
        """Find all pairs of items at least as close as a score, each once, closest first, by exact search.

        Args:
            min_score: Value of the measure; for a distance, the largest one. Default: `duplicates_threshold`.
            k: At most this many pairs of each item are found, its closest ones. Default: all.

        Raises:
            InputError: If there is neither `min_score` nor a calibration.
        """
        check_number("min_score", min_score)
        check_at_least("k", k, 1)
        if min_score is None:
            min_score = self._thresholds.of_duplicates(len(self)).value
        return duplicate_items(self._store, min_score, self.measure, k)

    def calibrate(
        self,
        images: Any,
        identities: Sequence[str],
        *,
        method: Literal["logistic", "isotonic"] = "logistic",
        progress: Progress | None = None,
    ) -> Calibration:
        """Fit probabilities and thresholds to images of identities that are not in the gallery, and store them.

        Args:
            images: Images or embeddings, see `Gallery`, two or more of some identities.
            identities: Name of the identity of each image.
            method: See `Calibration.fit`.
            progress: See `Encoder.encode`.

        Raises:
            InputError: If an identity is enrolled (the gallery has items of it), or has no images to compare.
        """
        names = list(identities)
        check_not_enrolled(as_identities(names, len(names)), self._store)
        embeddings, _ = self._embed(images, progress=progress)
        calibration = Calibration.fit(embeddings, names, measure=self.measure, method=method)
        self._store.save_calibration(StoredCalibration(*calibration.to_arrays(), names))
        return calibration

    def _queries(self, images_or_ids: Any) -> tuple[Sequence[str | int], np.ndarray, np.ndarray | None]:
        return as_queries(images_or_ids, self._store, self._embed)

    def _embed(self, images: Any, **options: Any) -> tuple[np.ndarray, list[Path] | None]:
        return embed(images, self._store.properties()["embedding_size"], lambda: self.encoder, **options)
