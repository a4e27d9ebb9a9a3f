"""Arguments of every evaluation that are not finite, have 64 bits, or are not numbers.

The functions are those of the package and the arguments those of their signatures, so new ones are tested, too.
"""

import inspect

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from simjax import evaluate
from simjax.core import InputError

FUNCTIONS = {name: f for name, f in vars(evaluate).items() if inspect.isfunction(f) and name in evaluate.__all__}
LABELS = np.array([0, 1, 0, 1, 0, 1])
ROWS = np.random.default_rng(0).normal(size=(6, 3))
KNOWN = {
    **dict.fromkeys(("embeddings", "query", "gallery", "query_embeddings"), ROWS),
    **dict.fromkeys(("labels", "gallery_labels", "query_labels", "predicted"), LABELS),
    **dict.fromkeys(("x", "y"), ROWS),
    **dict.fromkeys(("scores", "distance"), ROWS[:, 0]),
    **dict.fromkeys(("probe_embeddings", "unknown_embeddings", "gallery_embeddings"), ROWS),
    **dict.fromkeys(("probe_identities", "gallery_identities", "identities"), LABELS),
    **dict.fromkeys(("values", "leave_one_out"), 1 / (1 + np.exp(ROWS[:, 0]))),
    **dict.fromkeys(("correct_a", "correct_b"), LABELS == 1),
    **dict.fromkeys(("estimates_a", "estimates_b"), evaluate.mean_estimate(LABELS, LABELS)),
    "statistics": lambda mask: {"rate": float(np.mean(LABELS[mask]))},
    "probabilities": np.linspace(0, 1, 6),
    "relevance": np.abs(np.random.default_rng(1).normal(size=(6, 6))),
    "measure": "cosine",
    "threshold": 0.5,
    "same": LABELS == 1,
    "value": 0.5,
    "by_chance": 0.01,
    "n": 6,
    "n_classes": 2,
    "n_pairs": 4,
    "k": 2,
    "seed": 0,
    "a": 1.0,
    "b": 0.0,
}
NUMBERS = {"embeddings", "query", "gallery", "query_embeddings", "scores", "distance", "values", "leave_one_out"}
NUMBERS |= {"probe_embeddings", "unknown_embeddings", "gallery_embeddings", "probabilities", "relevance", "x", "y"}


def arguments(name, *more):
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    found = {p.name: KNOWN[p.name] for p in parameters if p.default is p.empty or p.name in ("k", *more)}
    needs_labels = "query_embeddings" in found and "query_labels" in inspect.signature(FUNCTIONS[name]).parameters
    return found | ({"query_labels": LABELS} if needs_labels else {})


def of(kinds):
    """Return pairs of a function and one of its arguments whose name is in `kinds`."""
    return [(name, p) for name, f in FUNCTIONS.items() for p in inspect.signature(f).parameters if p in kinds]


def numbers(found):
    """Return a result with the values of its estimates, whose identities are the given ids."""
    return jax.tree.map(lambda leaf: leaf.value if isinstance(leaf, evaluate.Estimate) else leaf, found)


def test_every_argument_has_a_test_value():
    assert {p for _, p in of(NUMBERS)} == NUMBERS
    for name in FUNCTIONS:
        FUNCTIONS[name](**arguments(name))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_numbers_are_errors_with_argument_and_row(value):
    for name, argument in of(NUMBERS):
        given = arguments(name, argument)
        wrong = np.array(given[argument])
        wrong[[3, 5]] = value
        given[argument] = wrong
        message = rf"^{argument}: expected finite numbers in float\d+, got {value} in row 3, the first of 2 such rows$"
        with pytest.raises(InputError, match=message):
            FUNCTIONS[name](**given)


def test_numbers_beyond_the_dtype_are_errors():
    with pytest.raises(InputError, match=r"embeddings: expected finite numbers in float32, got 1e\+300 in row 1$"):
        evaluate.knn_accuracy(np.array([[1.0], [1e300]]), [0, 1])


@pytest.mark.usefixtures("unchecked")
def test_text_is_an_error_with_a_remedy():
    for name, argument in of({"labels", "gallery_labels", "query_labels", "predicted"}):
        given = arguments(name, argument, "query_embeddings")
        given[argument] = np.array(list("ababab"))
        with pytest.raises(InputError, match=rf"^{argument}: .*pass np.unique\({argument}, return_inverse=True\)\[1\]"):
            FUNCTIONS[name](**given)
    for name, argument in of(NUMBERS):
        with pytest.raises(TypeError, match=f"^{argument}: expected"):
            FUNCTIONS[name](**arguments(name, argument) | {argument: [["a"]]})


def test_class_ids_of_64_bits():
    """Results equal those of small ids, unless ids are numbers of classes."""
    large_ids = np.array([3, 2**32 + 3])[LABELS]
    cases = [(large_ids, large_ids), (large_ids.tolist(), large_ids), (large_ids.astype(np.uint64) + 2**63,) * 2]
    cases += [
        (np.where(LABELS, np.uint64(2**64 - 1), np.uint64(5)), np.where(LABELS, -1, 5))
    ]  # no query has a class of the gallery
    for name in sorted({name for name, _ in of({"labels", "gallery_labels"})}):
        if "n_classes" in arguments(name):
            with pytest.raises(
                InputError, match="labels: expected classes 0 to 1, got 3 in row 0, the first of 6 such rows"
            ):
                FUNCTIONS[name](**arguments(name) | {"labels": large_ids})
            continue
        for labels, asked in cases[: 3 if "query_labels" not in inspect.signature(FUNCTIONS[name]).parameters else 4]:
            given, ranked = arguments(name, "query_embeddings"), arguments(name, "query_embeddings")
            ranked |= {"query_labels": np.where(LABELS, 2, 0)} if labels is cases[3][0] else {}
            given |= {p: labels for p in ("labels", "gallery_labels") if p in given}
            given |= {"query_labels": asked} if "query_labels" in given else {}
            found, expected = FUNCTIONS[name](**given), FUNCTIONS[name](**ranked)
            if name == "knn_predict":
                assert found.tolist() == [np.asarray(labels)[k == LABELS][0] for k in expected]
            else:
                if name == "retrieval_metrics":  # which also returns the labels
                    assert found["per_class"].pop("label") == sorted({*np.asarray(labels).tolist()} & {*asked.tolist()})
                    expected["per_class"].pop("label")
                jax.tree.map(np.testing.assert_array_equal, numbers(found), numbers(expected))


@pytest.mark.parametrize("kind", [np.float64, np.int64])
def test_float64_and_integers_are_not_rounded(kind):
    """Distances of 1 to 30 at coordinates near 10^8, where neighbouring float32 numbers differ by 8."""
    random = np.random.default_rng(1)
    labels = np.arange(40) // 4
    x = (10**8 + random.integers(0, 2000, (10, 2))[labels] + random.integers(0, 30, (40, 2))).astype(kind)
    distance = cdist(x.astype(np.float64), x.astype(np.float64))
    np.fill_diagonal(distance, np.inf)
    order = np.argsort(distance, axis=1, kind="stable")
    hit = labels[order] == labels[:, None]
    precision = np.cumsum(hit[:, :3], axis=1) / np.arange(1, 4)
    with jax.enable_x64(True):
        found = evaluate.retrieval_metrics(x, labels, measure="euclidean", block_size=7)
        assert found["precision_at_1"] == pytest.approx(hit[:, 0].mean(), rel=1e-12)
        expected = (precision * hit[:, :3]).sum(axis=1).mean() / 3
        assert found["mean_average_precision_at_r"] == pytest.approx(expected, rel=1e-12)
        nearest = evaluate.knn_predict(x, x, np.arange(40), k=1, measure="euclidean", exclude=np.arange(40))
        np.testing.assert_array_equal(nearest, order[:, 0])
        assert evaluate.knn_accuracy(x, labels, k=1, measure="euclidean") == hit[:, 0].mean()
        by_class = evaluate.class_similarity(x, labels, 10, measure="euclidean")
        np.testing.assert_allclose(by_class[0, 1], distance[:4, 4:8].mean(), rtol=1e-12)
        few = evaluate.few_shot_accuracy(x, labels, ways=10, queries=3, episodes=20, measure="euclidean")
    moved = evaluate.few_shot_accuracy(x - 10**8, labels, ways=10, queries=3, episodes=20, measure="euclidean")
    assert few == moved  # exact in float32


def test_ties_of_float64_are_ranked_by_lowest_index(random):
    x = random.integers(0, 3, (23, 2)).astype(float)
    labels = random.integers(0, 3, 23)
    expected = evaluate.retrieval_metrics(x, labels, measure="manhattan")
    with jax.enable_x64(True):
        assert evaluate.retrieval_metrics(x, labels, measure="manhattan") == expected
