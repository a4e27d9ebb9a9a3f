"""Approximate indexes: measured recall, exact scores, filters that find all, and tables that are not touched."""

import json

import numpy as np
import pytest

from simjax.cli import main
from simjax.core import InputError
from simjax.gallery import Gallery, Index, _index
from tests.gallery.conftest import build_encoder
from tests.gallery.servers import Postgres

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compile_faster")]

SIZE, ITEMS, QUERIES = 64, 2000, 50


@pytest.fixture(autouse=True)
def few_queries(monkeypatch):
    monkeypatch.setattr(_index, "QUERIES", QUERIES)


@pytest.fixture
def many(random) -> np.ndarray:
    return random.normal(size=(ITEMS, SIZE)).astype(np.float32)


@pytest.fixture
def stored(postgres, many):
    """A gallery without an index; three items are rare."""
    with Gallery.create(postgres.url(), build_encoder(SIZE, "euclidean")) as found:
        found.add(many, [f"{i // 2}" for i in range(ITEMS)], [{"rare": i % 700 == 50} for i in range(ITEMS)])
        yield found


def indexes(postgres: Postgres) -> list[tuple]:
    return postgres.execute(
        "SELECT schemaname, tablename FROM pg_indexes WHERE indexname = 'items_by_embedding' ORDER BY 1"
    )


def test_the_recall_is_that_of_searches_with_items_and_is_stored(postgres, stored, many):
    index = stored.create_index(10)
    shared = 0
    for i in np.random.default_rng(0).choice(ITEMS, QUERIES, replace=False).tolist():
        (found,) = stored.search([i + 1], 10, approximate=True)
        distances = np.linalg.norm(many.astype(float) - many[i], axis=1)
        distances[i] = np.inf
        shared += len({hit.id for hit in found.hits} & set((np.argsort(distances)[:10] + 1).tolist()))
    assert 0.3 < index.recall_at_10 < 1
    assert index.recall_at_10 == shared / (10 * QUERIES)
    ((size,),) = postgres.execute("SELECT pg_relation_size('gallery.items_by_embedding')")
    assert index == Index(10, index.recall_at_10, QUERIES, ITEMS, size)
    with Gallery.open(postgres.url()) as again:
        assert Index(**again.info()["index"]) == index
    better = stored.create_index(200)  # of the same index
    assert better.recall_at_10 > index.recall_at_10
    assert better.bytes == index.bytes


@pytest.mark.parametrize("measure", ["cosine", "cosine_distance", "dot", "euclidean", "squared_euclidean"])
def test_hits_have_exact_scores_and_no_embeddings_are_copied(postgres, many, measure):
    with Gallery.create(postgres.url(), build_encoder(SIZE, measure)) as gallery:
        gallery.add(many)
        gallery.create_index(200)
        exact = gallery.search(many[:9], 10)
        scores = gallery.encoder.similarity(many[:9], many)
    with Gallery.open(postgres.url()) as gallery:
        found = gallery.search(many[:9], 10, approximate=True)
        assert vars(gallery._store)["_contents"] is None
    for row, one, wanted in zip(scores, found, exact, strict=True):
        ids = [hit.id for hit in one.hits]
        np.testing.assert_allclose([hit.score for hit in one.hits], row[np.subtract(ids, 1)], rtol=1e-5)
        assert len(set(ids) & {hit.id for hit in wanted.hits}) >= 8


@pytest.mark.parametrize("max_scan_tuples", [1, 20000])
@pytest.mark.parametrize("seqscan", ["on", "off"])
def test_a_filter_never_finds_too_few(postgres, stored, many, max_scan_tuples, seqscan):
    stored.create_index(10)
    postgres.execute(
        f"ALTER ROLE postgres SET hnsw.max_scan_tuples = {max_scan_tuples}",
        f"ALTER ROLE postgres SET enable_seqscan = {seqscan}",
    )
    try:
        with Gallery.open(postgres.url()) as gallery:
            for where in ({"rare": True}, {"identity": ["7", "30"]}, {"rare": True, "identity": "25"}):
                queries = many[:4]
                assert gallery.search(queries, 5, where=where, approximate=True) == stored.search(
                    queries, 5, where=where
                )
            for k in (5, 300, ITEMS - 1):
                for result in gallery.search([1, 2], k, where={"rare": [True, False]}, approximate=True):
                    assert len({hit.id for hit in result.hits}) == k
    finally:
        postgres.execute("ALTER ROLE postgres RESET hnsw.max_scan_tuples", "ALTER ROLE postgres RESET enable_seqscan")


def test_items_that_are_removed_or_added_after_the_index_are_respected(stored, many):
    stored.create_index(100)
    nearest = [result.hits[0].id for result in stored.search(many[:20], 1, approximate=True)]
    assert nearest == list(range(1, 21))
    stored.remove(nearest)
    added = stored.add(many[:20])
    found = stored.search(many[:20], 30, approximate=True)
    assert [result.hits[0].id for result in found] == added
    assert not {hit.id for result in found for hit in result.hits} & set(nearest)
    assert stored.info()["index"]["items"] == ITEMS
    with pytest.raises(InputError, match="ids: the gallery has no item 1$"):
        stored.search(1, approximate=True)


def test_searches_are_exact_by_default_and_an_index_can_be_dropped(postgres, stored, many):
    exact = stored.search(many[:9], 20)
    stored.create_index(10)
    assert stored.search(many[:9], 20) == exact
    assert stored.drop_index()
    assert indexes(postgres) == []
    assert stored.info()["index"] is None
    assert not stored.drop_index()
    assert stored.search(many[:9], 20) == exact
    with pytest.raises(InputError, match="approximate: the gallery has no index, which `simjax gallery index` creates"):
        stored.search(many[:1], approximate=True)


def test_indexes_of_other_tables_are_not_touched(postgres, stored, many):
    with Gallery.create(postgres.url("other"), stored.encoder) as other:
        other.add(many[:50])
        other.create_index()
        stored.create_index()
        stored.drop_index()
        assert indexes(postgres) == [("other", "items")]
        assert other.search(many[:1], 1, approximate=True)[0].hits[0].id == 1
    postgres.execute("CREATE TABLE gallery.notes (a int)", "CREATE INDEX items_by_embedding ON gallery.notes (a)")
    with pytest.raises(InputError, match='cannot write .*"items_by_embedding" already exists$'):
        stored.create_index()
    assert not stored.drop_index()
    assert indexes(postgres) == [("gallery", "notes"), ("other", "items")]


def test_an_index_counts_when_its_recall_is_measured(stored, many, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_index, "_recall", stop)
        with pytest.raises(KeyboardInterrupt):
            stored.create_index()
    assert stored.info()["index"] is None
    with pytest.raises(InputError, match="has no index"):
        stored.search(many[:1], approximate=True)
    assert stored.create_index().recall_at_10 > 0.7


def test_what_cannot_be_indexed_is_one_error(postgres, many):
    with Gallery.create(postgres.url(), build_encoder(SIZE, "manhattan")) as gallery:
        for items in (0, 1):
            with pytest.raises(InputError, match=f"two or more items, with which the recall is measured, got {items}$"):
                gallery.create_index()
            gallery.add(many[:1])
        with pytest.raises(InputError, match=r"a measure that pgvector can index \(cosine, .*\), got manhattan"):
            gallery.create_index()
        for candidates in (9, 1001):
            with pytest.raises(InputError, match=f"candidates: expected 10 to 1,000, got {candidates}"):
                gallery.create_index(candidates)
    with Gallery.create(postgres.url("wide"), build_encoder(2001)) as gallery:
        gallery.add(np.eye(2, 2001, dtype=np.float32))
        with pytest.raises(InputError, match="cannot write .*more than 2000 dimensions"):
            gallery.create_index()
    assert indexes(postgres) == []


def test_a_reader_searches_by_the_index_and_does_not_change_it(postgres, stored, many):
    stored.create_index()
    postgres.execute(
        "CREATE ROLE index_reader LOGIN",
        "GRANT USAGE ON SCHEMA gallery TO index_reader",
        "GRANT SELECT ON ALL TABLES IN SCHEMA gallery TO index_reader",
    )
    with Gallery.open(postgres.url(user="index_reader")) as gallery:
        assert gallery.search(many[:1], 1, approximate=True)[0].hits[0].id == 1
        for call in (gallery.create_index, gallery.drop_index):
            with pytest.raises(InputError, match="cannot write .*permission denied"):
                call()
    assert indexes(postgres) == [("gallery", "items")]


def test_a_copy_has_no_index(postgres, stored):
    stored.create_index()
    with stored.copy(postgres.url("copied")) as copied:
        assert copied.info()["index"] is None


def test_the_commands_describe_the_index(postgres, stored, tmp_path, capsys):
    url = postgres.url()

    def printed(*arguments: str) -> str:
        main(["gallery", *arguments])
        return capsys.readouterr().out

    def error(*arguments: str) -> str:
        with pytest.raises(SystemExit) as status:
            main(["gallery", *arguments])
        assert status.value.code == 2
        return capsys.readouterr().err

    assert "--approximate: the gallery has no index" in error("search", url, "--id", "1", "--approximate")
    line = printed("index", url, "--candidates", "50")
    found = json.loads(printed("index", url, "--candidates", "50", "--json"))
    assert found == stored.info()["index"] == json.loads(printed("info", url, "--json"))["index"]
    recall = f"{found['recall_at_10']:.4f}"
    assert line == (
        f"index: recall@10 {recall} with 50 candidates, measured with 50 queries among 2,000 items; "
        f"{found['bytes'] / 2**20:.1f} MB\n"
    )
    assert line in printed("info", url)
    hits = json.loads(printed("search", url, "--id", "1", "--approximate", "-k", "3", "--json"))[0]["hits"]
    assert len(hits) == 3
    assert "--candidates: expected 10 to 1,000" in error("index", url, "--candidates", "5")
    assert printed("index", url, "--drop") == "dropped the index\n"
    assert "has no index" in error("index", url, "--drop")
    with Gallery.create(tmp_path / "folder", stored.encoder):
        assert "only galleries in PostgreSQL have an index" in error("index", f"{tmp_path}/folder")
