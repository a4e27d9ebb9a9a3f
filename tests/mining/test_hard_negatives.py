"""Hard negatives against loops over all pairs."""

import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import pairs
from simjax.core import InputError
from simjax.mining import hard_negatives
from tests.losses.cases import RELATIONS, D, M, N, cosine, related
from tests.slow import mostly_slow


def euclidean(x, y):
    return np.linalg.norm(x[:, None] - y[None], axis=2)


def candidates(s, positive, negative, *, sign, range_min, range_max, positive_of, **bounds):
    """Return the columns of each row, closest first. `sign` is 1 for a similarity, -1 for a distance."""
    found = []
    for c, similar, different in zip(sign * s, positive, negative, strict=True):
        own = positive_of(c[similar]) if similar.any() else None
        passing = []
        for j in np.argsort(-c, kind="stable"):
            keeps = different[j]
            if bounds.get("max_score") is not None:
                keeps &= c[j] <= sign * bounds["max_score"]
            if bounds.get("min_score") is not None:
                keeps &= c[j] >= sign * bounds["min_score"]
            if bounds.get("absolute_margin") is not None and own is not None:
                keeps &= c[j] <= own - bounds["absolute_margin"]
            if bounds.get("relative_margin") is not None and own is not None:
                keeps &= c[j] <= own - bounds["relative_margin"] * abs(own)
            if keeps:
                passing.append(int(j))
        found.append(passing[range_min:range_max])
    return found


def first(k, lists):
    return [(row + [-1] * k)[:k] for row in lists]


POSITIVES = {"farthest": np.min, "nearest": np.max, "mean": np.mean}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"range_min": 2},
    {"range_min": 1, "range_max": 3},
    {"max_score": 0.3, "min_score": -0.5},
    {"absolute_margin": 0.1, "positive": "nearest"},
    {"relative_margin": 0.2, "positive": "mean"},
    {"absolute_margin": 0.0},
    {"relative_margin": 0.05, "absolute_margin": 0.01, "range_min": 1, "max_score": 0.9},
    {"range_max": 100},
]


def expected(s, positive, negative, *, k, sign, options):
    options = {"range_min": 0, "positive": "farthest", **options}
    stop = options.pop("range_max", options["range_min"] + k)
    positive_of = POSITIVES[options.pop("positive")]
    return first(k, candidates(s, positive, negative, sign=sign, range_max=stop, positive_of=positive_of, **options))


@pytest.mark.parametrize("measure", mostly_slow(["cosine", "euclidean"], "euclidean"))
def test_equals_loops(random, measure):
    x, labels = np.float32(random.normal(size=(N, D))), random.integers(0, 3, N)
    same = labels[:, None] == labels
    s, sign = (cosine(x, x), 1) if measure == "cosine" else (euclidean(x, x), -1)
    limits: dict[str, Any] = {} if measure == "cosine" else {"max_score": 2.0, "min_score": 3.5}
    cases: list[dict[str, Any]] = [o | {name: limits[name] for name in limits if name in o} for o in OPTIONS]
    every = jax.jit(
        lambda x, labels: [hard_negatives(x, labels, k=4, measure=measure, block_size=4, **o) for o in cases]
    )
    for options, found in zip(cases, every(x, labels), strict=True):
        wanted = expected(s, same & ~np.eye(N, dtype=bool), ~same, k=4, sign=sign, options=options)
        assert any(-1 in row for row in wanted) or not {"max_score", "absolute_margin"} & set(options)
        assert any(row[0] >= 0 for row in wanted)
        assert found.dtype == jnp.int32
        assert found.tolist() == wanted, options


@pytest.mark.slow
@pytest.mark.parametrize("kind", RELATIONS)
def test_every_relation_equals_loops(random, kind):
    labels, ref_labels, positive, negative = related(kind, random)
    x = np.float32(random.normal(size=(N, D)))
    y = x if ref_labels is None else np.float32(random.normal(size=(M, D)))
    if ref_labels is None:
        positive, negative = positive & ~np.eye(N, dtype=bool), negative & ~np.eye(N, dtype=bool)
    more: dict[str, Any] = {} if ref_labels is None else {"ref_embeddings": y, "ref_labels": ref_labels}
    options: dict[str, Any] = {"absolute_margin": 0.02, "positive": "nearest"}
    wanted = expected(cosine(x, y), positive, negative, k=2, sign=1, options=options)
    mine = jax.jit(lambda x, labels, more: hard_negatives(x, labels, k=2, block_size=3, **more, **options))
    assert mine(x, labels, more).tolist() == wanted


def test_a_range_beyond_the_rows_is_padded():
    x, labels = np.arange(4, dtype=np.float32)[:, None], np.arange(4)

    @jax.jit
    def mine(x, labels):
        mine = functools.partial(hard_negatives, measure="euclidean")
        return {
            "many": mine(x, labels, k=6),
            "late": mine(x, labels, k=2, range_min=4),
            "one class": mine(x, 0 * labels, k=2),
            "one row": mine(x[:1], labels[:1], k=2),
            "no row": mine(x[:0], labels[:0], k=2),
        }

    assert {name: found.tolist() for name, found in mine(x, labels).items()} == {
        "many": [[1, 2, 3, -1, -1, -1], [0, 2, 3, -1, -1, -1], [1, 3, 0, -1, -1, -1], [2, 1, 0, -1, -1, -1]],
        "late": [[-1, -1]] * 4,
        "one class": [[-1, -1]] * 4,
        "one row": [[-1, -1]],
        "no row": [],
    }


def test_a_relative_margin_of_a_negative_similarity_excludes_closer_negatives():
    """10% below -0.5 is -0.55, not -0.45."""
    x = np.array([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.52, 1.0], [-0.6, 0.8]], np.float32)
    relation = pairs.by_matrix(np.eye(4, k=1, dtype=bool), np.arange(4)[None] >= np.array([[2], [9], [9], [9]]))
    cases: list[dict[str, Any]] = [{"relative_margin": 0.1}, {}]
    mine = jax.jit(lambda x: [hard_negatives(x, relation, k=2, **options)[0] for options in cases])
    assert [found.tolist() for found in mine(x)] == [[3, -1], [2, 3]]


@pytest.mark.slow
def test_random_candidates_are_equally_likely(random):
    x, labels = np.float32(random.normal(size=(N, D))), random.integers(0, 3, N)
    options: dict[str, Any] = {"range_min": 1, "range_max": 6, "max_score": 0.7}

    @jax.jit
    def mine(x, labels, keys):
        def draw(key, **more):
            return hard_negatives(x, labels, k=2, sampling="random", key=key, **more, **options)

        pool = hard_negatives(x, labels, k=5, **options)
        return jax.vmap(draw)(keys), draw(keys[0], block_size=4), pool

    drawn, first_in_blocks, pool = (np.asarray(a) for a in mine(x, labels, jax.random.split(jax.random.key(0), 3000)))
    np.testing.assert_array_equal(first_in_blocks, drawn[0])
    for i, row in enumerate(pool):
        row = row[row >= 0].tolist()
        if len(row) < 2:
            assert (drawn[:, i] == [*row, *[-1] * (2 - len(row))]).all()
            continue
        place = np.array([[row.index(j) for j in pair] for pair in drawn[:, i].tolist()])
        assert (place[:, 0] < place[:, 1]).all()  # closest first, and two different ones
        share = np.bincount(place.ravel(), minlength=len(row)) / 3000
        np.testing.assert_allclose(share, 2 / len(row), atol=0.05)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_size_of_the_matrix():
    n = 60_000
    mine = jax.jit(lambda x, y: hard_negatives(x, y, k=10, range_min=5, relative_margin=0.05, max_score=0.9))
    compiled = mine.lower(jax.ShapeDtypeStruct((n, 128), jnp.float32), jax.ShapeDtypeStruct((n,), jnp.int32)).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 200e6  # the matrix has 14.4 GB


def test_other_bounds_and_labels_do_not_compile_again(random, caplog):
    x = np.float32(random.normal(size=(29, D)))
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for seed in range(4):
            labels = np.random.default_rng(seed).integers(0, 1 + seed, 29)
            hard_negatives(x, labels, k=2, max_score=0.9 - 0.1 * seed, relative_margin=0.01 * seed)
    messages = [r.getMessage() for r in caplog.records]
    assert sum("Finished XLA compilation of jit(_hard_negatives)" in message for message in messages) == 1


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_raise_errors():
    x, labels = np.zeros((3, 2)), np.array([0, 1, 1])
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"sampling": "topp"}, "unknown sampling 'topp'.*did you mean top"),
        ({"positive": "near"}, "unknown positive 'near'"),
        ({"k": 0}, "k: expected at least"),
        ({"range_min": -1}, "range_min: expected at least"),
        ({"absolute_margin": -0.1}, "absolute_margin: expected at least"),
        ({"relative_margin": np.nan}, "relative_margin: expected at least"),
        ({"range_min": 3, "range_max": 3}, "range_max: expected more than range_min = 3, got 3"),
        ({"sampling": "random"}, "key: expected a PRNG key"),
    ]
    for options, message in wrong:
        with pytest.raises(InputError, match=message):
            hard_negatives(x, labels, **options)
    with pytest.raises(InputError, match=r"relation of \(3, 3\) rows and columns, got \(2, 2\)"):
        hard_negatives(x, labels[:2])
    with pytest.raises(InputError, match="one without the other"):
        hard_negatives(x, labels, ref_embeddings=x)
    with pytest.raises(TypeError, match="integer class ids"):
        hard_negatives(x, np.zeros(3))
