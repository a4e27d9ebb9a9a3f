"""Open-set identification: searches for people who may or may not be enrolled.

A probe is searched in a gallery. Its candidate is the closest row; the search returns the identity of this row if it is
at least as close as a threshold, else "unknown". A mated probe shows an enrolled identity, a non-mated one a stranger.

    FNIR    false negative identification rate: mated probes whose candidate is not their identity, or is not as close
            as the threshold / mated probes
    FPIR    false positive identification rate: unknown probes with a candidate at least as close as the threshold /
            unknown probes
    rank-1 identification rate: mated probes whose candidate is their identity, at any threshold / mated probes

References:
    Grother, Ngan, Hanaoka (2019), Face Recognition Vendor Test Part 2: Identification.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from simjax.core import InputError, check_number
from simjax.evaluate._checks import as_identities, as_rows
from simjax.similarity import Measure, top_k
from simjax.similarity import measure as as_measure


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
        probe_embeddings: Mated probes, [p, e].
        probe_identities: Integers or names [p], all of them in the gallery.
        unknown_embeddings: Probes of strangers, [u, e].
        gallery_embeddings: [m, e].
        gallery_identities: Integers or names [m]; several rows of one identity are allowed.
        measure: See `simjax.evaluate`.
        threshold: In units of the measure, from other images than these.
        unknown_identities: Integers or names [u], none of them in the gallery. Default: each is a stranger of its own.

    Returns:
        `fnir`, `fpir` and `rank_1_rate`, None without such probes; `gallery_size`, the number of identities N on which
        the rates depend; `probes` and `unknown_probes`. `by_identity` and `unknown_by_identity` have lists with one
        entry for each identity: `identities`, `probes`, and `false_negatives` and `rank_1_matches`, or
        `false_positives`. `open_set_estimates` computes intervals.

    Raises:
        InputError: If the gallery is empty, a mated probe is not in it or an unknown one is.

    Example:
        >>> gallery = np.eye(3)[:2]
        >>> names = ["ann", "bob"]
        >>> probes, strangers = [[1, 0.1, 0], [0, 1, 2]], [[0, 0, 1]]
        >>> found = open_set_metrics(probes, names, strangers, gallery, names, measure="cosine", threshold=0.5)
        >>> found["rank_1_rate"], found["fnir"], found["fpir"], found["gallery_size"]
        (1.0, 0.5, 0.0, 2)
    """
    check_number("threshold", threshold)
    m, gallery = as_measure(measure), as_rows("gallery_embeddings", gallery_embeddings)
    probes, strangers = as_rows("probe_embeddings", probe_embeddings), as_rows("unknown_embeddings", unknown_embeddings)
    if not len(gallery):
        raise InputError("gallery_embeddings: expected at least one row, got none")
    for argument, rows in (("probe_embeddings", probes), ("unknown_embeddings", strangers)):
        if rows.shape[1] != gallery.shape[1]:
            raise InputError(f"{argument}: expected rows of size {gallery.shape[1]}, got shape {rows.shape}")
    names = as_identities("gallery_identities", gallery_identities, len(gallery))
    known, enrolled = as_identities("probe_identities", probe_identities, len(probes)), set(names)
    if missing := set(known) - enrolled:
        expected = f"expected identities of the gallery, got {min(missing, key=str)!r}"
        raise InputError(f"probe_identities: {expected}; pass its images as unknown_embeddings")
    unknown: list[Any] = list(range(len(strangers)))
    if unknown_identities is not None:
        unknown = as_identities("unknown_identities", unknown_identities, len(strangers))
        if both := enrolled.intersection(unknown):
            raise InputError(f"unknown_identities: expected none of the gallery, got {min(both, key=str)!r}")
    values, nearest = (np.asarray(a)[:, 0] for a in top_k(np.concatenate([probes, strangers]), gallery, 1, m))
    sign = 1.0 if m.higher_is_closer else -1.0
    is_close = sign * values.astype(np.float64) >= sign * threshold
    is_rank_1 = np.array([names[row] == name for row, name in zip(nearest[: len(known)], known, strict=True)], bool)
    is_false_negative, is_false_positive = ~(is_rank_1 & is_close[: len(known)]), is_close[len(known) :]
    return {
        "fnir": _mean(is_false_negative),
        "fpir": _mean(is_false_positive),
        "rank_1_rate": _mean(is_rank_1),
        "gallery_size": len(enrolled),
        "probes": len(known),
        "unknown_probes": len(unknown),
        "by_identity": _by_identity(known, false_negatives=is_false_negative, rank_1_matches=is_rank_1),
        "unknown_by_identity": _by_identity(unknown, false_positives=is_false_positive),
    }


def _mean(events: np.ndarray) -> float | None:
    return float(np.mean(events)) if events.size else None


def _by_identity(identities: list[Any], **events: np.ndarray) -> dict[str, list[Any]]:
    """Count the probes and the events of each identity, in the order of first occurrence."""
    numbers = {identity: number for number, identity in enumerate(dict.fromkeys(identities))}
    index = np.array([numbers[identity] for identity in identities], int)
    counts = {name: np.bincount(index[happened], minlength=len(numbers)) for name, happened in events.items()}
    counts = {"probes": np.bincount(index, minlength=len(numbers)), **counts}
    return {"identities": list(numbers), **{name: count.tolist() for name, count in counts.items()}}
