"""A gallery in a database does what the gallery in a folder does, with the same numbers."""

import itertools
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from simjax.core import InputError
from simjax.gallery import Gallery, _copy
from tests.gallery.conftest import SIZE, build_encoder
from tests.slow import mostly_slow

numbers = itertools.count()


@pytest.fixture(params=mostly_slow(["postgresql", "milvus"], "postgresql"))
def url(request, tmp_path):
    """The URL of a gallery that does not exist."""
    if request.param == "milvus":
        pytest.importorskip("milvus_lite", reason="needs `pip install pymilvus[milvus-lite]`")
        return f"milvus:{tmp_path}/file.db"
    return request.getfixturevalue("server").url(f"gallery_{next(numbers)}")


@pytest.fixture
def stored(url, encoder):
    """An empty gallery in a database."""
    with Gallery.create(url, encoder) as found:
        yield found


class Both:
    """Calls methods of two galleries, and checks that their results are equal, or with `fails` their errors."""

    def __init__(self, *galleries: Gallery):
        self.galleries = galleries

    def __getattr__(self, name: str):
        def call(*arguments, fails=False, **options):
            results = []
            for gallery in self.galleries:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    try:
                        result = getattr(gallery, name)(*arguments, **options)
                        result = list(result) if name == "items" else result
                    except InputError as error:
                        if not fails:
                            raise
                        result = str(error)
                    else:
                        assert not fails, f"{name} of {gallery.address} raised no error"
                messages = [str(warning.message) for warning in caught]
                results.append((result, messages))
            assert results[0] == results[1]
            return results[0][0]

        return call

    def check_contents(self) -> None:
        """Compare items and embeddings; new galleries read them anew."""
        first, second = (gallery._store for gallery in self.galleries)
        assert list(first.items()) == list(second.items())
        for method in ("contents", "named_contents"):
            a, b = getattr(first, method)(), getattr(second, method)()
            np.testing.assert_array_equal(a.ids, b.ids)
            np.testing.assert_array_equal(a.embeddings[a.rows], b.embeddings[b.rows])
        numbers = ("transaction", "last_rewrite", "last_id", "calibrated", "fingerprint", "measure", "embedding_size")
        a, b = first.properties(), second.properties()
        assert {name: a[name] for name in numbers} == {name: b[name] for name in numbers}


METADATA = [
    {"n": 12, "text": "é'; DROP TABLE items; --"},
    {"n": 12.0, "a'b": True},
    {"n": "12", "a'b": 1},
    {"n": True, 'a"b %s': None},
    {"n": [12], "big": 2**53 + 1, "tiny": 1e-300},
    {"n": {"n": 12}, "b": 1, "a": 2},
    {},
]
FILTERS = [
    *({"n": value} for value in (12, 12.0, "12", True, 1, None, [12, "12"], [], [True, None], 13)),
    *({"a'b": 1}, {"a'b": True}, {'a"b %s': None}, {"missing": None}, {"big": 2**53 + 1}, {"big": 2**53}),
    *(
        {"tiny": 1e-300},
        {"text": METADATA[0]["text"]},
        {"identity": "a"},
        {"identity": None},
        {"identity": ["a", None]},
    ),
    *({"identity": "a", "n": 12}, {"identity": []}, {}),
]
WRONG_FILTERS = [
    *({"n": 2j}, {"n": list(range(101))}, {"n": float("nan")}, {"n": [1, -float("inf")]}),
    *({"n": "\udcff"}, {"\udcff": 1}, {"identity": ["a", "\udcff"]}),
]


def test_items_and_searches_are_those_of_the_folder(gallery, stored, url, random):
    both = Both(gallery, stored)
    rows = random.normal(size=(21, SIZE)).astype(np.float32)
    rows[14:] = rows[:7]  # equal scores are in the order of the ids
    names = ["a", "b", "O'Brien\n", None, "a", "c", "b"]
    assert both.add(rows[:7], names, METADATA, paths=["x", "y'", None, "%s", "é", "x", "\\"]) == list(range(1, 8))
    both.add(rows[7:], "late", [{"n": i} for i in range(14)])
    both.search(rows[:3], 5)  # the items are read here; what changes from now on is read in addition
    both.remove([3, 20])
    both.update([1, 9], identity="O'Brien\n", metadata={"n": 12})
    assert both.add(rows[2:3], "new") == [22]
    assert both.remove([22, 99], fails=True) == "ids: the gallery has no item 99; nothing was changed"
    assert both.update([100, 22], identity="x", fails=True) == "ids: the gallery has no item 100; nothing was changed"
    assert both.remove(22) == 1
    assert both.add(rows[2:3]) == [23]
    assert both.add([]) == []
    assert both.remove_identity("c'; --") == 0
    assert both.remove_identity("c") == 1
    for where in FILTERS:
        both.items(where)
        both.search(rows[:3], 15, where=where)
    for where in WRONG_FILTERS:
        assert both.items(where, fails=True).startswith("where: expected")
    both.search([1, 9, 23], 4)
    both.search([3], 1, fails=True)
    both.known_paths(["x", "y'", "%s", "z", "é"])
    both.identify(rows[:3])  # without a calibration
    both.check_contents()
    with Gallery.open(url, encoder=gallery.encoder) as again:
        Both(gallery, again).check_contents()
        Both(gallery, again).search(rows[:3], 15)


def test_only_postgresql_has_an_index_whose_candidates_get_exact_scores(gallery, stored, url, random):
    rows = random.normal(size=(99, SIZE)).astype(np.float32)
    gallery.add(rows)
    stored.add(rows)
    unindexed = [gallery] if url.startswith("postgresql") else [gallery, stored]
    for each in unindexed:
        for call in (each.create_index, each.drop_index, lambda: each.search(1, approximate=True)):  # noqa: B023
            with pytest.raises(InputError, match="only galleries in PostgreSQL have an index; this one is searched"):
                call()
    if unindexed[-1] is gallery:
        assert stored.create_index(50).recall_at_10 > 0.9
        exact = gallery.search(rows[:5], 99)
        for all_hits, found in zip(exact, stored.search(rows[:5], 7, approximate=True), strict=True):
            scores = {hit.id: hit.score for hit in all_hits.hits}
            np.testing.assert_allclose([hit.score for hit in found.hits], [scores[h.id] for h in found.hits], rtol=1e-6)
            assert len(found.hits) == 7
            assert found.hits[0].id == all_hits.hits[0].id


@pytest.mark.slow
def test_calibration_recommendations_and_duplicates_are_those_of_the_folder(gallery, stored, url, encoder, random):
    both = Both(gallery, stored)
    rows = random.normal(size=(21, SIZE)).astype(np.float32)
    rows[14:] = rows[:7]
    both.add(rows, ["a", "b", None] * 7, [{"n": i % 3} for i in range(21)])
    for k in (1, 4, 30):
        both.search(rows, k)
        both.recommend([1, 2], k)
    both.recommend([1, 2], 3, where={"n": 1}, same_identity=True)
    both.duplicates(0.9)
    strangers = np.repeat(random.normal(size=(20, SIZE)), 3, axis=0) + 0.05 * random.normal(size=(60, SIZE))
    labels = [f"stranger {i // 3}" for i in range(60)]
    both.calibrate(strangers, ["a", *labels[1:]], fails=True)  # "a" is enrolled
    for opened in both.galleries:
        opened.calibrate(strangers[:30], labels[:30])
        opened.calibrate(strangers, labels)
    both.verify(rows[:1], rows[14:15], fmr=0.05)
    (enrolled,) = both.add(rows[3:4], labels[0])
    both.identify(rows[:9], fpir=0.1)
    both.remove(enrolled)
    both.identify(rows[:9], fpir=0.1)
    folder, database = (opened.info() for opened in both.galleries)
    assert folder | {"store": database["store"]} == database
    with Gallery.open(url) as again:
        assert again.encoder.fingerprint == encoder.fingerprint
        Both(gallery, again).identify(rows[:3], fpir=0.1)


@pytest.mark.slow
def test_any_sequence_of_changes_gives_what_the_folder_gives(gallery, stored, url, encoder, random):
    with Gallery.open(url, encoder=encoder) as other:
        for step in range(80):
            both = Both(gallery, stored if random.random() < 0.5 else other)
            ids = gallery._store.contents().ids
            chosen = random.permutation(ids)[: random.integers(1, 5)].tolist()
            action = random.choice(["add", "add", "update", "remove", "remove_identity", "search"])
            if action == "add" or not chosen:
                rows = random.normal(size=(int(random.integers(0, 5)), SIZE)).astype(np.float32)
                both.add(rows, random.choice(["a", "b", "c"]), {"step": step})
            elif action == "update":
                both.update(chosen, identity=None, metadata={"step": -step})
            elif action == "remove":
                both.remove(chosen)
            elif action == "remove_identity":
                both.remove_identity("b")
            else:
                both.search(chosen, 3, where={"identity": ["a", None]})
            if step % 3 == 0:
                for opened in (stored, other):
                    Both(gallery, opened).check_contents()


@pytest.mark.slow
def test_a_copy_has_the_same_items_ids_and_calibration(gallery, url, encoder, random, tmp_path, monkeypatch):
    monkeypatch.setattr(_copy, "ITEMS_PER_READ", 4)
    rows = random.normal(size=(13, SIZE)).astype(np.float32)
    gallery.add(rows, ["a", None] * 6 + ["b"], METADATA[:6] * 2 + [{}], paths=["x", None] * 6 + ["y"])
    gallery.remove([2, 13])
    gallery.calibrate(random.normal(size=(20, SIZE)), [f"stranger {i // 2}" for i in range(20)])
    with (
        Gallery.open(Path(gallery.address)) as source,  # loads the encoder from the gallery
        source.copy(url) as database,
        database.copy(tmp_path / "again") as again,
        gallery.copy(tmp_path / "folder") as folder,
    ):
        for copy in (database, again, folder):
            assert list(copy.items()) == list(gallery.items())
            both = Both(gallery, copy)
            both.search(rows, 3)
            both.identify(rows, fpir=0.2)
            assert copy.info() | {"store": None} == gallery.info() | {"store": None}
            assert copy._store.enrolled(["a"]) == ["a"]
            copy.add(rows[:1], "stranger 3")
            assert copy._store.enrolled() == ["stranger 3"]
            assert copy._store.contents().ids[-1] == 14  # ids of removed items are not used again
        with pytest.raises(
            InputError, match="exists and is not an empty gallery of this encoder; choose another place"
        ):
            gallery.copy(url)


@pytest.mark.slow
def test_a_gallery_that_changes_while_it_is_copied_is_not_copied(stored, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(_copy, "ITEMS_PER_READ", 4)
    stored.add(rows)
    read = type(stored._store).items_by_id

    def changing(store, ids):
        found = read(store, ids)
        if 9 in found:
            stored.update(1, identity="new")
        return found

    monkeypatch.setattr(type(stored._store), "items_by_id", changing)
    with pytest.raises(InputError, match="was changed while it was copied; copy it again"):
        stored.copy(tmp_path / "copy")
    with Gallery.open(tmp_path / "copy") as copy:
        assert len(copy) == 0


@pytest.mark.slow
def test_embeddings_of_another_encoder_are_refused(stored, url):
    with pytest.raises(InputError, match="its embeddings are of the encoder random-0"):
        Gallery.open(url, encoder=build_encoder(seed=1))
    with pytest.raises(InputError, match=r"expected embeddings \[n, 5\]"):
        stored.add(np.zeros((1, 4)))


@pytest.mark.slow
def test_an_existing_gallery_is_replaced_only_if_asked(stored, url, rows):
    stored.add(rows)
    other = build_encoder(seed=1)
    with pytest.raises(InputError, match="exists; choose another name, or create it with `overwrite=True`"):
        Gallery.create(url, other)
    assert len(stored) == 13
    with Gallery.create(url, other, overwrite=True) as created:
        assert len(created) == 0
        for call in (lambda: stored.add(rows), lambda: stored.remove(1), lambda: len(stored)):
            with pytest.raises(InputError, match="replaced by another gallery"):
                call()
        assert created.add(rows[:2]) == [1, 2]


def test_a_gallery_is_created_with_its_items_or_not_at_all(url, encoder, rows, tmp_path):
    items = (rows, [None, *"abcdefghijkl"], {"price": 1})
    with Gallery.create(url, encoder, *items) as stored, Gallery.create(tmp_path / "folder", encoder, *items) as folder:
        both = Both(folder, stored)
        both.check_contents()
        assert both.add(rows[:2]) == [14, 15]
        assert {gallery._store.properties()["transaction"] for gallery in both.galleries} == {2}
    with pytest.raises(InputError, match="expected Unicode text"):
        Gallery.create(url, encoder, rows, ["a"] * 12 + ["\ud800"], overwrite=True)
    with Gallery.open(url) as stored:
        assert len(stored) == 15
    with Gallery.create(url, encoder, rows[:3], overwrite=True) as stored:
        assert [item.id for item in stored.items()] == [1, 2, 3]


@pytest.mark.slow
def test_identities_are_compared_as_text_and_conditions_are_limited(stored, gallery, rows):
    both = Both(gallery, stored)
    both.add(rows[:4], ["1", "True", "12", None])
    found = [[item.id for item in both.items({"identity": value})] for value in (1, True, 12, [None, "True"])]
    assert found == [[1], [2], [3], [2, 4]]
    both.items({str(n): n for n in range(101)}, fails=True)


@pytest.mark.slow
def test_threads_share_a_gallery(stored, rows):
    with ThreadPoolExecutor(4) as pool:
        lists = list(pool.map(lambda i: stored.add(rows[i : i + 2], f"{i}"), range(12)))
        assert sorted(i for ids in lists for i in ids) == list(range(1, 25))
        found = list(pool.map(lambda i: stored.search(i, 1)[0].hits[0].score, range(1, 25)))
    assert np.sum(np.abs(np.subtract(found, 1)) < 1e-6) == 22


@pytest.mark.slow
def test_a_closed_gallery_says_so(stored, rows):
    stored.close()
    with pytest.raises(InputError, match="the gallery was closed"):
        stored.add(rows)


@pytest.mark.slow
def test_text_that_a_database_cannot_store_changes_nothing(stored, rows):
    bad = "\udce9"
    stored.add(rows[:2], "a")
    for options in ({"identities": bad}, {"paths": ["x", bad]}, {"metadata": {"a": bad}}, {"metadata": {bad: 1}}):
        with pytest.raises(InputError, match="expected Unicode text"):
            stored.add(rows[:2], **options)
    with pytest.raises(InputError, match="expected Unicode text"):
        stored.update(1, identity=bad)
    assert [item.identity for item in stored.items()] == ["a", "a"]
    assert stored.add(rows[:1]) == [3]


@pytest.mark.slow
@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:s3cret@localhost/x",
        "postgresql://user:s3cret@localhost/x?gallery=a;b",
        "postgresql://user:s3cr%et@localhost/x",
        "postgresql://user:s3cret@x@localhost/x",
        "postgresql://user:s3cret/x@localhost/x",
        "postgresql://user:s3cret?x@localhost/x",
        "postgresql://user:s3cret@localhost:port/x",
        "postgresql://user:s3cret@localhost:1/x",
        "postgresql://user@localhost:1/x?password=s3cret",
        "milvus://user:s3cret@localhost:1",
        "milvus://user:s3cret?x@localhost:1/x?gallery=a",
        "milvus://user:s3cret/x@localhost:1/x",
        "milvus://user:s3cret@localhost:1/x?gallery=a/b",
        "milvus://user:s3cret@[::1",
        "milvus://user:s3cret@localhost:port",
        "milvus://localhost:s3cret",
        "milvus:s3cret\udcff.db",
        "postgresql://user:s3cret@\udcff/x",
        "postgresql://user:s3cret@localhost\0/x",
    ],
)
def test_a_wrong_url_is_one_error_without_its_password(url, postgres, encoder):
    for call in (lambda: Gallery.open(url), lambda: Gallery.create(url, encoder)):
        with pytest.raises(InputError) as found:
            call()
        assert "s3c" not in str(found.value)
        assert str(found.value).isprintable()


@pytest.mark.slow
@pytest.mark.parametrize("timeout", [float("inf"), float("nan"), -1.0, 1e9])
def test_a_wrong_timeout_is_refused(timeout, url, encoder):
    for call in (lambda: Gallery.open(url, timeout=timeout), lambda: Gallery.create(url, encoder, timeout=timeout)):
        with pytest.raises(InputError, match="^timeout: expected seconds from 0 to 1,000,000, got "):
            call()
