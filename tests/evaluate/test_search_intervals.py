"""Intervals of retrieval and of identification: values without an identity are those of a search without it."""

import numpy as np
import pytest

from simjax.core import InputError
from simjax.evaluate import (
    open_set_estimates,
    open_set_metrics,
    random_groups,
    retrieval_estimates,
    retrieval_metrics,
)

RATES = ("precision_at_1", "mean_average_precision_at_r", "r_precision")
KS = (1, 3, 8)


def flat(found):
    return {**{name: found[name] for name in RATES}, **found["recall_at_k"]}


def tied_rows(random, labels):
    """Return integer coordinates near a centre of each label, so that many distances are equal."""
    x = random.integers(0, 4, (labels.max() + 1, 3))[labels] + random.integers(-1, 2, (len(labels), 3))
    return x.astype(np.float32)


@pytest.mark.parametrize("kind", ["labels", "groups", "families"])
def test_retrieval_without_an_identity_is_that_of_the_other_rows(random, kind):
    labels = np.concatenate([random.integers(0, 7, 40), [7]])  # the last one has no relevant row
    x = tied_rows(random, labels)
    units = {"labels": labels, "groups": random_groups(41, groups=6), "families": labels // 3}[kind]
    found = flat(
        retrieval_estimates(x, labels, identities=None if kind == "labels" else units, measure="euclidean", ks=KS)
    )
    metrics = flat(retrieval_metrics(x, labels, measure="euclidean", ks=KS))
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(metrics, rel=1e-6)
    assert 0.1 < metrics["mean_average_precision_at_r"] < 0.9
    for index, unit in enumerate(found["1"].identities):
        others = units != unit
        metrics = flat(retrieval_metrics(x[others], labels[others], measure="euclidean", ks=KS))
        assert {name: e.leave_one_out[index] for name, e in found.items()} == pytest.approx(metrics, rel=1e-6)
    assert found["1"].sample_size == (7 if kind == "labels" else len(found["1"].identities))


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
        given |= {"query_embeddings": query[asked], "query_labels": query_labels[asked]}
        metrics = flat(retrieval_metrics(x[rows], labels[rows], **given))
        assert {name: e.leave_one_out[index] for name, e in found.items()} == pytest.approx(metrics, rel=1e-6)


def test_retrieval_in_blocks_is_that_of_one_block(random, monkeypatch):
    labels = np.arange(9).repeat(3)
    x = random.normal(size=(27, 2))
    whole = flat(retrieval_estimates(x, labels))
    monkeypatch.setattr("simjax.evaluate._search_intervals.BLOCK_ENTRIES", 100)
    for name, estimate in flat(retrieval_estimates(x, labels)).items():
        assert estimate.value == pytest.approx(whole[name].value, rel=1e-12)
        np.testing.assert_allclose(estimate.leave_one_out, whole[name].leave_one_out, rtol=1e-12)


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
    names = np.array(["ann", "bob", "cy", "dee", "eve", "fay", "gus"])
    ids = {
        "gallery": np.array([0, 0, 1, 2, 2, 2, 3, 4]),
        "probe": random.integers(0, 4, 23),
        "unknown": np.arange(11) % 2,
    }
    x = {name: random.integers(0, 4, (len(of), 2)).astype(np.float32) for name, of in ids.items()}
    people = {"gallery": names[ids["gallery"]], "probe": names[ids["probe"]], "unknown": names[5:][ids["unknown"]]}

    def given(left_out):
        rows = {name: people[name] != left_out for name in people}
        return {
            "probe_embeddings": x["probe"][rows["probe"]],
            "probe_identities": people["probe"][rows["probe"]],
            "unknown_embeddings": x["unknown"][rows["unknown"]],
            "gallery_embeddings": x["gallery"][rows["gallery"]],
            "gallery_identities": people["gallery"][rows["gallery"]],
            "unknown_identities": people["unknown"][rows["unknown"]],
            "measure": "euclidean",
            "threshold": threshold,
        }

    found, metrics = open_set_estimates(**given("nobody")), open_set_metrics(**given("nobody"))
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx({n: metrics[n] for n in found})
    for name, estimate in found.items():
        assert estimate.identities == tuple(names[5:] if name == "fpir" else names[:5])
        assert estimate.sample_size == (2 if name == "fpir" else 4)
        assert estimate.leave_one_out is not None
        for person, left_out in zip(estimate.identities, estimate.leave_one_out, strict=True):
            assert left_out == pytest.approx(open_set_metrics(**given(person))[name], rel=1e-12), (name, person)


def test_identification_without_probes_or_without_others_has_no_interval():
    none = np.zeros((0, 1))
    found = open_set_estimates(none, [], [[1.0], [2.0]], [[1.0], [4.0]], [5, 6], measure="euclidean", threshold=0.5)
    assert found["fnir"].value is found["rank_1_rate"].value is None
    assert found["fpir"].value == 0.5
    assert found["fpir"].sample_size == 2
    one = open_set_estimates([[1.0]], [5], none, [[1.0], [4.0]], [5, 5], measure="euclidean", threshold=0.5)
    assert one["fnir"].value == 0
    assert one["fnir"].interval() is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"probe_identities": [1, 9]}, "^probe_identities: .* got 9; pass its images as unknown_embeddings$"),
        ({"unknown_identities": [2]}, "^unknown_identities: expected none of the gallery, got 2$"),
        ({"unknown_identities": [4, 5]}, r"^unknown_identities: expected integers or names \(1,\), got int64"),
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
