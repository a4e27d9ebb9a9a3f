"""Open-set identification: searches for people who may or may not be enrolled.

A probe is searched in a gallery of N identities; an identity is as close as its closest row. A mated probe shows an
enrolled identity, its mate; an unknown probe shows an identity that is not enrolled. With a threshold t and a rank R,

    FPIR(N, t)       false positive identification rate: unknown probes with one or more identities at least as close
                     as t / unknown probes
    FNIR(N, R, t)    false negative identification rate: mated probes whose mate is not among the R closest identities,
                     or not as close as t / mated probes
    DIR(N, R, t)     detection and identification rate: 1 - FNIR(N, R, t)

These are NIST's definitions. Two ranks have names here: "at rank 1" the search must return the mate first, as a search
that returns one identity or "unknown"; "at any rank" (R = N) the mate must be anywhere above the threshold, as for an
examiner who sees all candidates. The rank-1 identification rate, DIR(N, 1) without a threshold, says nothing about
unknown identities, so it is no open-set rate.

FPIR is a rate of searches. An unknown probe is a false positive if any of the N comparisons passes, so FPIR grows with
N, and no rate means anything without N. A threshold that passes the fraction f of the single comparisons of unknown
probes passes up to f N of their searches; and if the other comparisons of mated probes are counted, too, look-alikes
among the enrolled identities move the threshold although no unknown probe passes.

References:
    Grother, Ngan, Hanaoka (2019), Face Recognition Vendor Test Part 2: Identification.
    Phillips, Grother, Micheals (2011), Evaluation Methods in Face Recognition.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import check_at_least, check_between, check_number
from simjax.evaluate._checks import as_open_set_identities, as_open_set_rows
from simjax.evaluate._retrieval import tiles
from simjax.evaluate._verification import allowed_count
from simjax.similarity import Measure, top_k
from simjax.similarity import measure as as_measure


@dataclass(frozen=True, eq=False)
class OpenSetSearch:
    """The result of each search, from which rates at any threshold follow. `open_set_search` makes it.

    Args:
        probe_identities: Identity of each mated probe, [p].
        mate_scores: Value of the measure for the closest row of the mate, float64 [p].
        ranks: Number of identities that are at least as close as the mate, the mate included, int64 [p]: 1 if the mate
            is first. Equal scores are ranked by the index of the row.
        unknown_identities: Identity of each unknown probe, [u].
        unknown_scores: Value of the measure for the closest row of the gallery, float64 [u].
        gallery_size: The number of identities N.
        higher_is_closer: True for a similarity, False for a distance.

    Example:
        >>> names = ["ann", "bob"]
        >>> probes, unknown = [[1, 0.1, 0], [1, 0.9, 0]], [[0, 0.1, 1], [0.5, 0, 1]]
        >>> search = open_set_search(probes, names, unknown, np.eye(3)[:2], names, measure="cosine")
        >>> search.mate_scores.round(2).tolist(), search.ranks.tolist(), search.unknown_scores.round(2).tolist()
        ([1.0, 0.67], [1, 2], [0.1, 0.45])
        >>> search.dir_at_fpir(0.5)["dir"], search.dir_at_fpir(0.5, rank=2)["dir"], search.dir_at_fpir(0.4)["dir"]
        (0.5, 1.0, None)
    """

    probe_identities: list[Any]
    mate_scores: np.ndarray
    ranks: np.ndarray
    unknown_identities: list[Any]
    unknown_scores: np.ndarray
    gallery_size: int
    higher_is_closer: bool

    def metrics(self, threshold: float) -> dict[str, Any]:
        """Compute the rates at a threshold, see `open_set_metrics`."""
        check_number("threshold", threshold)
        sign = 1.0 if self.higher_is_closer else -1.0
        is_below = sign * self.mate_scores < sign * threshold
        is_rank_1, is_false_positive = self.ranks == 1, sign * self.unknown_scores >= sign * threshold
        is_missed = ~is_rank_1 | is_below
        mated = {"missed_at_rank_1": is_missed, "missed_at_any_rank": is_below, "rank_1_matches": is_rank_1}
        return {
            "fnir_at_rank_1": _mean(is_missed),
            "fnir_at_any_rank": _mean(is_below),
            "fpir": _mean(is_false_positive),
            "rank_1_rate": _mean(is_rank_1),
            "gallery_size": self.gallery_size,
            "probes": len(self.probe_identities),
            "unknown_probes": len(self.unknown_identities),
            "by_identity": _by_identity(self.probe_identities, **mated),
            "unknown_by_identity": _by_identity(self.unknown_identities, false_positives=is_false_positive),
        }

    def curve(self) -> dict[str, Any]:
        """Compute FNIR and FPIR at every threshold that changes one of them, from strict to lenient.

        Returns:
            `thresholds`, `fpir`, `fnir_at_rank_1` and `fnir_at_any_rank`, float64 [t], the first with no match at all;
            empty without mated or without unknown probes. `gallery_size`.
        """
        sign = 1.0 if self.higher_is_closer else -1.0
        mates, unknown = sign * self.mate_scores, np.sort(sign * self.unknown_scores)
        first, thresholds = np.sort(mates[self.ranks == 1]), np.zeros(0)
        if mates.size and unknown.size:
            thresholds = np.unique(np.concatenate([mates, unknown]))[::-1]
            thresholds = np.concatenate([np.nextafter(thresholds[:1], np.inf), thresholds])
        # Numbers of unknown probes at least as close as each threshold, and of mates that are missed.
        passing = len(unknown) - np.searchsorted(unknown, thresholds)
        missed = [len(mates) - len(found) + np.searchsorted(found, thresholds) for found in (first, np.sort(mates))]
        return {
            "thresholds": sign * thresholds,
            "fpir": passing / max(len(unknown), 1),
            "fnir_at_rank_1": missed[0] / max(len(mates), 1),
            "fnir_at_any_rank": missed[1] / max(len(mates), 1),
            "gallery_size": self.gallery_size,
        }

    def dir_at_fpir(self, fpir: float, *, rank: int = 1) -> dict[str, Any]:
        """Compute the detection and identification rate at a rank and a wanted FPIR.

        The threshold is the most lenient observed score at which at most fpir * u of these u unknown probes have a
        match. A threshold for use comes from other images, by `Calibration.search_threshold`.

        Args:
            fpir: Wanted FPIR, between 0 and 1.
            rank: Largest rank of the mate. With `gallery_size`, the mate may be at any rank.

        Returns:
            `dir`, `rank`, `wanted_fpir`; `fpir`, the observed rate, and `threshold`; `gallery_size` N, `probes`,
            `unknown_probes`. `dir`, `fpir` and `threshold` are None without mated probes, and where the wanted rate is
            less than one unknown probe: 0.01 needs at least 100.
        """
        check_between("fpir", fpir, 0, 1)
        check_at_least("rank", rank, 1)
        sign = 1.0 if self.higher_is_closer else -1.0
        mates, unknown = sign * self.mate_scores, np.sort(sign * self.unknown_scores)[::-1]
        found: dict[str, Any] = dict.fromkeys(("dir", "fpir", "threshold"))
        allowed = allowed_count(fpir, len(unknown))
        if allowed and mates.size:
            too_far = unknown[allowed]  # fpir < 1, so at least one unknown probe has no match
            scores = np.concatenate([mates, unknown])
            threshold = np.min(scores, where=scores > too_far, initial=np.inf)
            if np.isinf(threshold):
                threshold = np.nextafter(too_far, np.inf)
            is_identified = (mates >= threshold) & (self.ranks <= rank)
            found = {
                "dir": _mean(is_identified),
                "fpir": _mean(unknown >= threshold),
                "threshold": float(sign * threshold),
            }
        sizes = {"gallery_size": self.gallery_size, "probes": len(mates), "unknown_probes": len(unknown)}
        return {**found, "rank": rank, "wanted_fpir": fpir, **sizes}


def open_set_search(
    probe_embeddings: ArrayLike,
    probe_identities: ArrayLike,
    unknown_embeddings: ArrayLike,
    gallery_embeddings: ArrayLike,
    gallery_identities: ArrayLike,
    *,
    measure: str | Measure,
    unknown_identities: ArrayLike | None = None,
) -> OpenSetSearch:
    """Search a gallery for mated and unknown probes, once for all thresholds.

    Args:
        probe_embeddings: Mated probes, [p, e].
        probe_identities: Integers or names [p], all of them in the gallery.
        unknown_embeddings: Unknown probes, [u, e].
        gallery_embeddings: [m, e].
        gallery_identities: Integers or names [m]; several rows of one identity are allowed.
        measure: See `simjax.evaluate`.
        unknown_identities: Integers or names [u], none of them in the gallery. Default: each probe is an identity of
            its own.

    Raises:
        InputError: If the gallery is empty, a mated probe is not in it or an unknown one is.
    """
    m = as_measure(measure)
    probes, unknown_rows, gallery = as_open_set_rows(probe_embeddings, unknown_embeddings, gallery_embeddings)
    given, sizes = (probe_identities, unknown_identities, gallery_identities), map(len, (probes, unknown_rows, gallery))
    known, unknown, names = as_open_set_identities(*given, *sizes)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    probe_ids, gallery_ids = (np.array([numbers[name] for name in part], int) for part in (known, names))
    mates, ranks = _mates_and_ranks(probes, probe_ids, gallery, gallery_ids, m)
    # The measure of the rows that were found, because the values of a tile are rounded differently.
    mate_scores = np.asarray(m(probes, gallery[mates]), np.float64)
    unknown_scores = np.asarray(top_k(unknown_rows, gallery, 1, m)[0], np.float64)[:, 0]
    rest = (len(numbers), m.higher_is_closer)
    return OpenSetSearch(known, mate_scores, ranks, unknown, unknown_scores, *rest)


def open_set_metrics(
    probe_embeddings: ArrayLike,
    probe_identities: ArrayLike,
    unknown_embeddings: ArrayLike,
    gallery_embeddings: ArrayLike,
    gallery_identities: ArrayLike,
    *,
    measure: str | Measure,
    threshold: float,
    unknown_identities: ArrayLike | None = None,
) -> dict[str, Any]:
    """Compute the error rates of open-set identification at a threshold.

    Args:
        probe_embeddings, probe_identities, unknown_embeddings, gallery_embeddings, gallery_identities, measure,
            unknown_identities: See `open_set_search`.
        threshold: In units of the measure, from other images than these.

    Returns:
        `fnir_at_rank_1` (the mate is not first, or not as close as the threshold), `fnir_at_any_rank` (the mate is not
        as close as the threshold), `fpir` and `rank_1_rate`, None without such probes; `gallery_size`, the number of
        identities N on which the rates depend; `probes` and `unknown_probes`. `by_identity` and `unknown_by_identity`
        have lists with one entry for each identity: `identities`, `probes`, and `missed_at_rank_1`,
        `missed_at_any_rank` and `rank_1_matches`, or `false_positives`.

    Raises:
        InputError: If the gallery is empty, a mated probe is not in it or an unknown one is.

    Example:
        >>> gallery = np.eye(3)[:2]
        >>> names = ["ann", "bob"]
        >>> probes, unknown = [[1, 0.1, 0], [0, 1, 2]], [[0, 0, 1]]
        >>> found = open_set_metrics(probes, names, unknown, gallery, names, measure="cosine", threshold=0.5)
        >>> found["rank_1_rate"], found["fnir_at_rank_1"], found["fpir"], found["gallery_size"]
        (1.0, 0.5, 0.0, 2)
    """
    arguments = (probe_embeddings, probe_identities, unknown_embeddings, gallery_embeddings, gallery_identities)
    check_number("threshold", threshold)
    return open_set_search(*arguments, measure=measure, unknown_identities=unknown_identities).metrics(threshold)


def _mates_and_ranks(
    probes: np.ndarray, probe_ids: np.ndarray, gallery: np.ndarray, gallery_ids: np.ndarray, measure: Measure
) -> tuple[np.ndarray, np.ndarray]:
    """Return the closest row of the mate and the rank of the mate, both int [p]. Ids are numbers from 0."""
    mates, ranks = np.zeros((2, len(probes)), int)
    columns, by_identity = np.arange(len(gallery)), np.argsort(gallery_ids, kind="stable")
    starts = np.searchsorted(gallery_ids[by_identity], np.arange(gallery_ids.max() + 1))
    for rows, values in tiles(probes, gallery, measure):
        scores = values if measure.higher_is_closer else -values
        scores = np.maximum(scores, np.finfo(scores.dtype).min)  # above -inf, the score of rows that are left out
        is_mate = probe_ids[rows, None] == gallery_ids
        mates[rows] = np.where(is_mate, scores, -np.inf).argmax(axis=1)
        mate = mates[rows, None]
        own = np.take_along_axis(scores, mate, axis=1)
        is_before = (scores > own) | ((scores == own) & (columns < mate))
        ranks[rows] = 1 + np.logical_or.reduceat(is_before[:, by_identity], starts, axis=1).sum(axis=1)
    return mates, ranks


def _mean(events: np.ndarray) -> float | None:
    return float(np.mean(events)) if events.size else None


def _by_identity(identities: list[Any], **events: np.ndarray) -> dict[str, list[Any]]:
    """Count the probes and the events of each identity, in the order of first occurrence."""
    numbers = {identity: number for number, identity in enumerate(dict.fromkeys(identities))}
    index = np.array([numbers[identity] for identity in identities], int)
    counts = {name: np.bincount(index[happened], minlength=len(numbers)) for name, happened in events.items()}
    counts = {"probes": np.bincount(index, minlength=len(numbers)), **counts}
    return {"identities": list(numbers), **{name: count.tolist() for name, count in counts.items()}}
