"""Intervals of retrieval and of identification: values without an identity are those of a search without it."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from simjax.core import InputError
from simjax.evaluate import open_set_estimates, random_groups, retrieval_estimates
from tests.slow import mostly_slow

KS = (1, 3, 8)


def flat(found):
    rates = ("mean_average_precision_at_r", "r_precision", "precision_at_1")
    return {**{name: found[name] for name in rates}, **found["recall_at_k"]}


def tied_rows(random, labels):
    """Return integer coordinates near a centre of each label, so that many distances are equal."""
    x = random.integers(0, 4, (labels.max() + 1, 3))[labels] + random.integers(-1, 2, (len(labels), 3))
    return x.astype(np.float32)


def mean_over_queries(x, labels, query=None, query_labels=None):
    """Compute the metrics with a loop over queries, of which those without a relevant row are ignored."""
    found = []
    distances = cdist(x if query is None else query, x)
    for index, distance in enumerate(distances):
        order = np.argsort(distance, kind="stable")
        order = order[order != index] if query is None else order
        hits = labels[order] == (labels if query_labels is None else query_labels)[index]
        r = hits.sum()
        if r:
            precision = [hits[: k + 1].mean() for k in range(r) if hits[k]]
            found.append([sum(precision) / r, hits[:r].mean(), hits[0], *(hits[:k].any() for k in KS)])
    names = ("mean_average_precision_at_r", "r_precision", "precision_at_1", *map(str, KS))
    return dict(zip(names, np.mean(found, axis=0), strict=True))


@pytest.mark.parametrize("kind", mostly_slow(["labels", "groups", "families", "images"], "labels", "groups", "images"))
def test_retrieval_without_an_identity_is_that_of_the_other_rows(random, kind):
    labels = np.concatenate([random.integers(0, 7, 40), [7]])  # the last one has no relevant row
    x = tied_rows(random, labels)
    kinds = {"labels": labels, "groups": random_groups(41, groups=6), "families": labels // 3}
    units = (kinds | {"images": random.permutation(41)})[kind]
    found = flat(
        retrieval_estimates(x, labels, identities=None if kind == "labels" else units, measure="euclidean", ks=KS)
    )
    metrics = mean_over_queries(x, labels)
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(metrics, rel=1e-6)
    assert 0.1 < metrics["mean_average_precision_at_r"] < 0.9
    for index, unit in enumerate(found["1"].identities):
        others = units != unit
        metrics = mean_over_queries(x[others], labels[others])
        assert {name: e.leave_one_out[index] for name, e in found.items()} == pytest.approx(metrics, rel=1e-6)
    expected = {"labels": 7, "images": np.sum(np.bincount(labels)[labels] > 1)}
    assert found["1"].sample_size == expected.get(kind, len(found["1"].identities))


def test_retrieval_without_an_image_of_a_pair_ignores_the_other_one():
    found = flat(
        retrieval_estimates(
            np.array([[0.0], [1], [2], [9]]), [0, 0, 1, 1], identities=np.arange(4), ks=KS, measure="euclidean"
        )
    )
    assert found["precision_at_1"].value == 0.75
    assert found["precision_at_1"].leave_one_out.tolist() == [0.5, 0.5, 1.0, 1.0]


def test_retrieval_with_queries_leaves_out_queries_and_gallery_rows(random):
    labels, query_labels = np.arange(6).repeat(4), np.array([0, 0, 1, 3, 4, 4, 5, 9])  # nothing is relevant to 9
    people, query_people = np.array(list("aabbcd"))[labels], np.array(list("aaabccdz"))
    x, query = tied_rows(random, labels), random.integers(0, 4, (8, 3)).astype(np.float32)
    given = {"query_embeddings": query, "query_labels": query_labels, "measure": "euclidean", "ks": KS}
    found = flat(retrieval_estimates(x, labels, identities=people, query_identities=query_people, **given))
    assert found["1"].identities == ("a", "b", "c", "d", "z")
    assert found["1"].sample_size == 4
    for index, person in enumerate(found["1"].identities):
        rows, asked = people != person, query_people != person
        metrics = mean_over_queries(x[rows], labels[rows], query[asked], query_labels[asked])
        assert {name: e.leave_one_out[index] for name, e in found.items()} == pytest.approx(metrics, rel=1e-6)


def test_retrieval_without_relevant_rows_has_no_value():
    found = retrieval_estimates(np.eye(3), [0, 1, 2])
    assert found["precision_at_1"].value is None
    assert found["recall_at_k"]["5"].interval() is None
    # Without class 0, no query has a relevant row.
    found = retrieval_estimates(np.eye(3), [0, 0, 2])
    assert found["precision_at_1"].value == 1
    assert found["precision_at_1"].interval() is None


@pytest.mark.parametrize("threshold", [1.0, 1.5, 9.0])
def test_identification_without_an_identity_is_that_of_the_others(random, threshold):
    ids = {
        "gallery": np.array([0, 0, 1, 2, 2, 2, 3, 4]),
        "probe": random.integers(0, 4, 23),
        "unknown": 5 + np.arange(11) % 2,
    }
    x = {name: random.integers(0, 4, (len(of), 2)).astype(np.float32) for name, of in ids.items()}
    names = np.array(["ann", "bob", "cy", "dee", "eve", "fay", "gus"])

    def rates(left_out):
        rows, of_rows = x["gallery"][ids["gallery"] != left_out], ids["gallery"][ids["gallery"] != left_out]
        missed, first, false = [], [], []
        for kind, results in (("probe", missed), ("unknown", false)):
            for row, identity in zip(x[kind], ids[kind], strict=True):
                distance = np.linalg.norm(rows - row, axis=1)
                is_close = distance.min() <= threshold
                is_mate = of_rows[distance.argmin()] == identity
                if identity != left_out:
                    results.append(not (is_mate and is_close) if kind == "probe" else is_close)
                    first += [is_mate] if kind == "probe" else []
        return {"fnir_at_rank_1": np.mean(missed), "rank_1_rate": np.mean(first), "fpir": np.mean(false)}

    found = open_set_estimates(
        x["probe"],
        names[ids["probe"]],
        x["unknown"],
        x["gallery"],
        names[ids["gallery"]],
        measure="euclidean",
        threshold=threshold,
        unknown_identities=names[ids["unknown"]],
    )
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(rates(-1))
    for name, estimate in found.items():
        numbers = (5, 6) if name == "fpir" else range(5)
        assert estimate.identities == tuple(names[list(numbers)])
        assert estimate.sample_size == (2 if name == "fpir" else 4)
        assert estimate.leave_one_out == pytest.approx([rates(number)[name] for number in numbers], rel=1e-12)


def test_identification_without_probes_or_without_others_has_no_interval():
    none = np.zeros((0, 1))
    found = open_set_estimates(none, [], [[1.0], [2.0]], [[1.0], [4.0]], [5, 6], measure="euclidean", threshold=0.5)
    assert found["fnir_at_rank_1"].value is found["rank_1_rate"].value is None
    assert found["fpir"].value == 0.5
    assert found["fpir"].sample_size == 2
    one = open_set_estimates([[1.0]], [5], none, [[1.0], [4.0]], [5, 5], measure="euclidean", threshold=0.5)
    assert one["fnir_at_rank_1"].value == 0
    assert one["fnir_at_rank_1"].interval() is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"probe_identities": [1, 9]}, "^probe_identities: .* got 9; pass its images as unknown_embeddings$"),
        ({"unknown_identities": [2]}, "^unknown_identities: expected none of the gallery, got 2$"),
        ({"unknown_identities": [4, 5]}, "^unknown_identities: expected .* for each of 1 rows, got int64"),
        ({"gallery_embeddings": np.zeros((0, 2)), "gallery_identities": []}, "^gallery_embeddings: expected at least"),
        ({"unknown_embeddings": [[1.0]]}, r"^unknown_embeddings: expected rows of size 2, got shape \(1, 1\)$"),
        ({"threshold": float("nan")}, "^threshold: expected a number"),
    ],
)
def test_wrong_input_of_identification_is_an_error(changed, message):
    given = {
        "probe_embeddings": np.eye(2),
        "probe_identities": [1, 2],
        "unknown_embeddings": np.ones((1, 2)),
        "gallery_embeddings": np.eye(2),
        "gallery_identities": [1, 2],
        "threshold": 0.5,
    }
    with pytest.raises(InputError, match=message):
        open_set_estimates(measure="cosine", **given | changed)


def test_wrong_input_of_retrieval_is_an_error():
    with pytest.raises(InputError, match="^ks: expected at least 1"):
        retrieval_estimates(np.eye(2), [0, 1], ks=(0,))
    with pytest.raises(InputError, match="^identities, query_identities: expected both or neither, got one$"):
        retrieval_estimates(np.eye(2), [0, 1], identities=[0, 1], query_embeddings=np.eye(2), query_labels=[0, 1])
