"""Probabilities and thresholds of a gallery. The threshold of a search follows the gallery as it grows."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from simjax.core import InputError
from simjax.encoder import Encoder
from simjax.evaluate import Calibration, Threshold
from simjax.gallery._index import index_of
from simjax.gallery._inputs import first_names
from simjax.gallery._results import Hit, Identification, Verification
from simjax.gallery._search import closest, passes
from simjax.gallery._store import ENCODER_PROPERTIES, Contents, Store

FMR, FPIR = 0.001, 0.01
"""Default rates of false matches: of a pair, and of a search."""

NOT_CALIBRATED = (
    "the gallery is not calibrated: there is no probability and no threshold; `gallery.calibrate(images, identities)` "
    "sets them from images of identities that are not in the gallery"
)


def duplicates_threshold(calibration: Calibration, images: int) -> Threshold:
    """Return the default threshold of duplicates among a number of images.

    At its false match rate at most one false pair is expected. The rate is at most 0.001, and at least that of one pair
    of the calibration, the smallest that can be stated.
    """
    counts = np.unique(calibration.identities, return_counts=True)[1]
    strictest = 2 / (int(counts.sum()) ** 2 - int((counts**2).sum()))
    return calibration.pair_threshold(max(min(FMR, 2 / max(images * (images - 1), 1)), strictest))


class Calibrated(NamedTuple):
    """A calibration, the transaction that stored it, and its `pair_threshold` with a cache."""

    transaction: int
    calibration: Calibration
    pair_threshold: Callable[[float], Threshold]


class BestScores(NamedTuple):
    """The best score of each calibration image, among the items with an identity in the first rows of the embeddings.

    Attributes:
        state: Transactions that stored the calibration and that last did more than adding items.
        rows: Number of rows.
        scores: float32 [n].
    """

    state: tuple[int, int]
    rows: int
    scores: np.ndarray


class Thresholds:
    """The calibration of a gallery, or else of its encoder, and the thresholds that follow from it and the items."""

    def __init__(self, store: Store, encoder: Callable[[], Encoder]):
        self._store, self._encoder = store, encoder
        self._calibrated: Calibrated | None = None
        self._best: BestScores | None = None

    @property
    def calibration(self) -> Calibration | None:
        """The current calibration, or None."""
        found = self._current()
        return None if found is None else found.calibration

    def of_pair(self, fmr: float) -> Threshold:
        """Return the threshold for a false match rate; an InputError without a calibration."""
        if (found := self._current()) is None:
            raise InputError(NOT_CALIBRATED)
        return found.pair_threshold(fmr)

    def of_search(self, fpir: float) -> Threshold:
        """Return the threshold for a false positive identification rate among the items with an identity.

        Raises:
            InputError: If the gallery has no calibration or no such item, or the calibration has too few images.
        """
        if (found := self._current()) is None:
            raise InputError(NOT_CALIBRATED)
        contents = self._store.named_contents()
        if not contents.ids.size:
            raise InputError("the gallery has no item with an identity")
        if enrolled := self._store.enrolled():
            warnings.warn(
                f"the threshold is too strict: identities of the calibration are enrolled now "
                f"({first_names(enrolled)}); calibrate again with others",
                stacklevel=2,
            )
        best = self._best_scores(found, contents)
        return found.calibration.threshold_of_best_scores(fpir, best, gallery_size=self._store.count_identities())

    def of_duplicates(self, images: int) -> Threshold:
        """Return `duplicates_threshold`; an InputError without a calibration."""
        if (calibration := self.calibration) is None:
            raise InputError("min_score: expected a score; without a calibration there is no default")
        return duplicates_threshold(calibration, images)

    def verification(self, score: float, fmr: float) -> Verification:
        """Return the decision about a pair; see `Gallery.verify`."""
        if (found := self._current()) is None:
            warnings.warn(NOT_CALIBRATED, stacklevel=3)
            return Verification(score, None, None, None, None)
        calibration, threshold = found.calibration, found.pair_threshold(fmr).value
        probability = float(calibration.probability(score))
        return Verification(score, probability, passes(score, threshold, calibration.measure), threshold, fmr)

    def identifications(
        self, queries: Sequence[str | int], found: list[list[Hit]], fpir: float
    ) -> list[Identification]:
        """Return the decision about the closest item of each query, if there is one; see `Gallery.identify`."""
        threshold = None
        if self.calibration is None:
            warnings.warn(NOT_CALIBRATED, stacklevel=3)
        elif any(found):
            threshold = self.of_search(fpir).value
        results = []
        for query, hits in zip(queries, found, strict=True):
            if not hits:
                results.append(Identification(query, None, None, None, threshold, None, None, None))
            for id_, name, path, score, probability in hits:
                is_known = threshold is not None and passes(score, threshold, self._encoder().measure)
                identity = name if is_known else None
                results.append(Identification(query, identity, score, probability, threshold, name, id_, path))
        return results

    def gallery_info(self) -> dict[str, Any]:
        """Return `Gallery.info`."""
        properties, index = self._store.properties(), index_of(self._store)
        return {
            **{"items": self._store.count(), "identities": self._store.count_identities()},
            **{name: properties[name] for name in ENCODER_PROPERTIES},
            **{"store": self._store.address, **self._describe()},
            **{"index": None if index is None else index._asdict()},
        }

    def _describe(self) -> dict[str, Any]:
        """Return the calibration and the thresholds of `Gallery.info`, without those that need more images or items."""
        if (current := self._current()) is None:
            return {"calibration": None, "thresholds": []}
        identities = current.calibration.identities
        sizes = {"images": len(identities), "identities": len(np.unique(identities))}
        described = []
        for threshold, rate in ((self.of_pair, FMR), (self.of_search, FPIR)):
            with contextlib.suppress(InputError):
                found = threshold(rate)
                described.append({**vars(found), "text": str(found)})
        calibration = {"of": "gallery" if current.transaction else "encoder", **sizes}
        return {"calibration": calibration, "thresholds": described}

    def _current(self) -> Calibrated | None:
        """Return the calibration. It is read again if any process has stored another one."""
        transaction, known = self._store.properties()["calibrated"], self._calibrated
        if known is None or known.transaction != transaction:
            encoder, stored = self._encoder(), self._store.calibration()
            calibration = encoder.calibration
            if stored is not None:
                calibration = Calibration.from_arrays(stored.arrays, stored.description, measure=encoder.measure)
            if calibration is None:
                return None
            self._calibrated = known = Calibrated(transaction, calibration, functools.cache(calibration.pair_threshold))
        return known

    def _best_scores(self, calibrated: Calibrated, contents: Contents) -> np.ndarray:
        """Return the best score of each calibration image, float32 [n]. Usually only new items are searched."""
        properties, measure, known = contents.properties, calibrated.calibration.measure, self._best
        state = (calibrated.transaction, properties["last_rewrite"])
        if known is not None and (known.state != state or known.rows > properties["rows"]):
            known = None
        rows = contents.rows[contents.rows >= known.rows] if known else contents.rows
        scores = known.scores if known else np.empty(0, np.float32)
        if rows.size:
            queries = calibrated.calibration.embeddings
            new = closest(queries, contents.embeddings, rows, 1, measure)[0][:, 0]
            scores = (np.maximum if measure.higher_is_closer else np.minimum)(scores, new) if known else new
        self._best = BestScores(state, properties["rows"], scores)
        return scores
