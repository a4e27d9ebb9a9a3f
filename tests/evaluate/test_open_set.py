"""Open-set identification, against NumPy loops."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from simjax.core import InputError
from simjax.evaluate import open_set_metrics


def drawn(seed):
    """Return a gallery of 7 people, mated probes and strangers, in one dimension more than 2."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(12, 3))
    people = {"gallery": np.arange(7).repeat(2), "probe": random.integers(0, 7, 29), "unknown": 7 + np.arange(23) % 5}
    x = {name: np.float32(centres[ids] + 0.5 * random.normal(size=(len(ids), 3))) for name, ids in people.items()}
    return x, people


@pytest.mark.parametrize("measure", ["euclidean", "cosine"])
def test_equals_a_loop_over_probes(measure):
    x, people = drawn(0)
    sign = -1 if measure == "euclidean" else 1
    threshold = 0.7 if measure == "euclidean" else 0.93
    found = open_set_metrics(
        x["probe"],
        people["probe"],
        x["unknown"],
        x["gallery"],
        people["gallery"],
        measure=measure,
        threshold=threshold,
        unknown_identities=people["unknown"],
    )
    missed, first, false = np.zeros(7, int), np.zeros(7, int), np.zeros(12, int)
    for kind in ("probe", "unknown"):
        distance = cdist(x[kind], x["gallery"], measure)
        for row, identity in zip(distance, people[kind], strict=True):
            nearest = row.argmin()
            passes = (row[nearest] if measure == "euclidean" else 1 - row[nearest]) * sign >= sign * threshold
            if kind == "unknown":
                false[identity] += passes
                continue
            is_mate = people["gallery"][nearest] == identity
            first[identity] += is_mate
            missed[identity] += not (is_mate and passes)
    assert 29 > first.sum() > 29 - missed.sum() > 0
    assert 0 < false.sum() < 23
    assert found["fnir"] == missed.sum() / 29
    assert found["rank_1_rate"] == first.sum() / 29
    assert found["fpir"] == false.sum() / 23
    assert (found["probes"], found["unknown_probes"], found["gallery_size"]) == (29, 23, 7)
    known, unknown = found["by_identity"], found["unknown_by_identity"]
    assert known["probes"] == [np.sum(people["probe"] == i) for i in known["identities"]]
    assert known["false_negatives"] == missed[known["identities"]].tolist()
    assert known["rank_1_matches"] == first[known["identities"]].tolist()
    assert unknown["identities"] == [7, 8, 9, 10, 11]
    assert (unknown["probes"], unknown["false_positives"]) == ([5, 5, 5, 4, 4], false[7:].tolist())


def test_a_score_equal_to_the_threshold_passes_and_names_are_identities():
    arguments = ([[0.5]], ["ann"], [[3.0], [2.75]], [[1.0], [2.0]], ["ann", "bob"])
    found = open_set_metrics(*arguments, measure="euclidean", threshold=0.75)
    assert (found["fnir"], found["fpir"]) == (0.0, 0.5)
    assert found["unknown_by_identity"]["identities"] == [0, 1]
    assert open_set_metrics(*arguments, measure="euclidean", threshold=0.4)["fnir"] == 1


def test_rates_of_no_probes_are_none():
    none = np.zeros((0, 1))
    found = open_set_metrics(none, [], none, [[1.0]], [5], measure="dot", threshold=0.0)
    assert (found["fnir"], found["fpir"], found["rank_1_rate"], found["gallery_size"]) == (None, None, None, 1)
    assert found["by_identity"]["probes"] == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"probe_identities": [1, 9]}, "^probe_identities: .* got 9; pass its images as unknown_embeddings$"),
        ({"unknown_identities": [2]}, "^unknown_identities: expected none of the gallery, got 2$"),
        ({"unknown_identities": [4, 5]}, "^unknown_identities: expected an integer or a name for each of 1 rows"),
        ({"gallery_embeddings": np.zeros((0, 2)), "gallery_identities": []}, "^gallery_embeddings: expected at least"),
        ({"unknown_embeddings": [[1.0]]}, r"^unknown_embeddings: expected rows of size 2, got shape \(1, 1\)$"),
        ({"threshold": float("nan")}, "^threshold: expected a number"),
    ],
)
def test_wrong_input_is_an_error_that_names_the_argument(changed, message):
    given = {
        "probe_embeddings": np.eye(2),
        "probe_identities": [1, 2],
        "unknown_embeddings": np.ones((1, 2)),
        "gallery_embeddings": np.eye(2),
        "gallery_identities": [1, 2],
        "threshold": 0.5,
    }
    with pytest.raises(InputError, match=message):
        open_set_metrics(measure="cosine", **given | changed)
