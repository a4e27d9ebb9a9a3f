"""Searches, recommendations and duplicates equal those of `similarity.top_k` and of NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from simjax.core import InputError
from simjax.gallery import Gallery, _search, duplicates_of
from simjax.similarity import Measure, measure, pairwise, top_k
from simjax.similarity._measure import MEASURES
from tests.gallery.conftest import SIZE, build_encoder
from tests.slow import mostly_slow


def ids_of(result):
    return [hit.id for hit in result.hits]


def scores_of(result):
    return [hit.score for hit in result.hits]


def cosine(a, b):
    unit_a, unit_b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a.astype(float), b.astype(float)))
    return unit_a @ unit_b.T


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 16 rows and blocks of 4 queries, so that few items fill many."""
    monkeypatch.setattr(_search, "SHARD_BYTES", 16 * 4 * SIZE)
    monkeypatch.setattr(_search, "MIN_ROWS", 16)
    monkeypatch.setattr(_search, "QUERIES", 4)


def test_a_search_equals_top_k_and_numpy(gallery, rows, random):
    gallery.add(rows, "known")
    queries = random.normal(size=(4, SIZE)).astype(np.float32)
    found = gallery.search(queries, 3)
    values, columns = top_k(queries, rows, 3)
    assert [ids_of(result) for result in found] == (np.asarray(columns) + 1).tolist()
    np.testing.assert_array_equal([scores_of(result) for result in found], values)
    expected = cosine(queries, rows)
    np.testing.assert_array_equal(columns, np.argsort(-expected, axis=1)[:, :3])
    np.testing.assert_allclose(values, -np.sort(-expected, axis=1)[:, :3], atol=1e-6)
    assert [result.query for result in found] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", mostly_slow(["cosine", "euclidean"], "euclidean"))
def test_shards_and_removed_rows_change_nothing(name, tmp_path, random, small_shards):
    rows = random.integers(0, 2, (71, SIZE)).astype(np.float32)  # many equal ones: ties are ordered by item
    queries = rows[:7] + 1
    with Gallery.create(tmp_path / "gallery", build_encoder(measure=name)) as gallery:
        ids = np.array(gallery.add(rows))
        gallery.remove(ids[[3, 20, 21, 22, 70]])
        left = np.delete(np.arange(71), [3, 20, 21, 22, 70])
        found = gallery.search(queries, 20)
    values, columns = top_k(queries, rows[left], 20, name)
    assert [ids_of(result) for result in found] == ids[left[np.asarray(columns)]].tolist()
    np.testing.assert_allclose([scores_of(result) for result in found], values, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MEASURES))
def test_every_measure_is_searched_as_by_top_k(name, random):
    size = 2 if name == "haversine" else SIZE
    rows, queries = (random.random((n, size)).astype(np.float32) for n in (20, 3))
    values, columns = top_k(queries, rows, 5, name)
    found, positions = _search.closest(queries, rows, np.arange(20), 5, measure(name))
    np.testing.assert_array_equal(positions, columns)
    np.testing.assert_allclose(found, values, rtol=1e-5)


def test_a_measure_that_gives_nan_a_meaning_is_searched_without_padding(random):
    ignoring_nan = Measure.from_pair(lambda x, y: jnp.nan_to_num(abs(x - y)).max(-1), higher_is_closer=False)
    rows, queries = random.normal(size=(11, 3)).astype(np.float32), np.zeros((1, 3), np.float32)
    values, positions = _search.closest(queries, rows, np.arange(11), 2, ignoring_nan)
    expected = abs(rows).max(axis=1)
    assert positions.tolist() == [np.argsort(expected)[:2].tolist()]
    np.testing.assert_allclose(values[0], np.sort(expected)[:2])


def test_an_item_is_not_its_own_hit(gallery, rows):
    ids = gallery.add(rows)
    gallery.add(rows[:1])  # an equal one is
    (found, other) = gallery.search(ids[:2], 3)
    assert found.query == ids[0]
    assert found.hits[0].id == ids[-1] + 1
    assert found.hits[0].score == pytest.approx(1)
    assert ids[0] not in ids_of(found)
    values, columns = top_k(rows[1:2], np.concatenate([rows, rows[:1]]), 3, exclude=np.array([1]))
    assert ids_of(other) == (np.asarray(columns[0]) + 1).tolist()
    np.testing.assert_array_equal(scores_of(other), values[0])


def test_a_k_beyond_the_size_returns_all_and_says_so(gallery, rows):
    gallery.add(rows)
    with pytest.warns(UserWarning, match="^the gallery has only 13 items: all are listed$"):
        (found,) = gallery.search(rows[:1], 20)
    assert sorted(ids_of(found)) == list(range(1, 14))
    with pytest.warns(UserWarning, match="only 12 other items"):
        (found,) = gallery.search(4, 20)
    assert sorted(ids_of(found)) == [1, 2, 3, *range(5, 14)]
    with pytest.raises(InputError, match="k: expected at least 1, got 0"):
        gallery.search(4, 0)


def test_an_empty_gallery_has_no_hits(gallery, rows):
    with pytest.warns(UserWarning, match="^the gallery has no items$"):
        found = gallery.search(rows[:2])
    assert [result.hits for result in found] == [[], []]
    assert gallery.search(np.zeros((0, SIZE), np.float32)) == []


def test_filters_come_before_the_search(gallery, rows):
    colours = ["red", "blue", "red", None] * 3 + ["red"]
    metadata = [{"colour": colour, "size": i % 2, "new": i < 5} for i, colour in enumerate(colours)]
    gallery.add(rows, [f"name {i % 4}" for i in range(13)], metadata)
    near = rows[:1]

    def found(where, k):
        (result,) = gallery.search(near, k, where=where)
        return sorted(ids_of(result))

    assert found({"colour": "red"}, 7) == [1, 3, 5, 7, 9, 11, 13]
    assert found({"colour": "red"}, 20) == [1, 3, 5, 7, 9, 11, 13]  # without a warning
    assert found({"colour": None}, 3) == [4, 8, 12]
    assert found({"colour": ["blue", None], "size": [0, 1]}, 6) == [2, 4, 6, 8, 10, 12]
    assert found({"identity": ["name 1", "name 2"]}, 6) == [2, 3, 6, 7, 10, 11]
    assert found({"colour": "red", "size": 0, "new": True}, 3) == [1, 3, 5]
    assert found({"identity": "name 1"}, 3) == [2, 6, 10]
    assert found({"identity": "name 1", "new": False}, 2) == [6, 10]
    for nothing in (
        {"colour": "green"},
        {"size": "0"},
        {"size": False},
        {"new": 1},
        {"new": []},
        {"shape": None},
        {"identity": None},
    ):
        with pytest.warns(UserWarning, match="^no item matches `where`$"):
            assert found(nothing, 3) == []
    with pytest.raises(InputError, match="where: expected text, numbers.*'colour', got list"):
        found({"colour": [["red"]]}, 1)
    assert found({"colour": ["red"] * 100}, 1) == [1]
    with pytest.raises(InputError, match="where: expected at most 100 values for 'colour', got 101"):
        found({"colour": ["red"] * 101}, 1)


def test_a_filter_does_not_match_the_text_of_lists_and_reads_any_key(gallery, rows):
    gallery.add(rows[:3], metadata=[{"a": [1]}, {"a": "[1]"}, {'a"b.$': "[1]"}])
    assert [item.id for item in gallery.items({"a": "[1]"})] == [2]
    assert [item.id for item in gallery.items({'a"b.$': "[1]"})] == [3]


def test_recommendations_have_the_closest_mean_score(gallery, rows):
    ids = gallery.add(rows, metadata=[{"half": i % 2} for i in range(13)])
    found = gallery.recommend([ids[4], ids[0]], 3, where={"half": 1})
    mean = cosine(rows[[0, 4]], rows[1::2]).mean(axis=0)
    assert found.query == [1, 5]
    assert ids_of(found) == [ids[1::2][i] for i in np.argsort(-mean)[:3]]
    np.testing.assert_allclose(scores_of(found), -np.sort(-mean)[:3], atol=1e-6)
    with pytest.warns(UserWarning, match="only 11 items of other identities"):
        assert sorted(ids_of(gallery.recommend(ids[:2], 20))) == ids[2:]


def test_recommendations_leave_out_other_items_of_the_same_identities(gallery, rows):
    ids = gallery.add(rows, ["a", "a", "b", "b", None, None, *"cdefghi"])
    found = gallery.recommend([ids[0], ids[4]], 10)
    assert sorted(ids_of(found)) == [3, 4, *range(6, 14)]
    assert sorted(ids_of(gallery.recommend([ids[0], ids[4]], 11, same_identity=True))) == [2, 3, 4, *range(6, 14)]
    with pytest.warns(UserWarning, match="no item of other identities matches `where`"):
        assert gallery.recommend(ids[0], where={"identity": "a"}).hits == []


@pytest.mark.parametrize(
    ("name", "limit"), mostly_slow([("cosine", 0.8), ("signal_to_noise", 0.5)], ("signal_to_noise", 0.5))
)
def test_duplicates_are_all_close_pairs_once(name, limit, random, small_shards):
    rows = np.round(random.normal(size=(47, SIZE)), 1).astype(np.float32)
    rows[30:] = rows[0]  # more equal rows than the neighbours that are considered first
    found = duplicates_of(rows, name, limit)
    values = np.asarray(pairwise(rows, measure=name))
    closest = np.maximum(values, values.T) if name == "cosine" else np.minimum(values, values.T)  # of an asymmetric one
    i, j = np.triu_indices(47, 1)
    passes = (closest[i, j] >= limit) if name == "cosine" else (closest[i, j] <= limit)
    assert {(pair.a, pair.b) for pair in found} == set(zip(i[passes].tolist(), j[passes].tolist(), strict=True))
    assert len(found) == np.sum(passes) > 18 * 17 / 2
    np.testing.assert_allclose([pair.score for pair in found], [closest[p.a, p.b] for p in found], atol=1e-5)
    ordered = [-pair.score for pair in found] if name == "cosine" else [pair.score for pair in found]
    assert ordered == sorted(ordered)


def test_duplicates_are_limited_to_the_closest_of_each_row():
    rows = np.array([[0.0], [1], [3], [6], [10]], np.float32)
    found = duplicates_of(rows, "euclidean", 5.0, k=1)
    assert [tuple(pair) for pair in found] == [(0, 1, 1.0), (1, 2, 2.0), (2, 3, 3.0), (3, 4, 4.0)]
    assert duplicates_of(rows[:1], "euclidean", 5.0) == []
    with pytest.raises(InputError, match="embeddings: expected finite numbers.* in row 1, the first of 2"):
        duplicates_of(np.array([[0.0], [np.nan], [np.inf]]), "euclidean", 5.0)


def test_duplicates_of_a_gallery_are_named_by_ids(gallery, rows):
    ids = gallery.add(np.concatenate([rows, rows[:2] * 2]))
    gallery.remove(ids[0])
    assert [(pair.a, pair.b) for pair in gallery.duplicates(0.9999)] == [(ids[1], ids[14])]
    with pytest.raises(InputError, match="min_score: expected a score"):
        gallery.duplicates()
