"""Items are added, changed and removed in transactions, and found again after the gallery is opened."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simjax.core import InputError
from simjax.gallery import Gallery, Item, _folder_embeddings, _folder_store
from tests.gallery.conftest import SIZE, build_encoder


def nested(depth: int) -> list:
    """A list in a list in a list."""
    found: list = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.fixture
def images(random):
    return random.integers(0, 256, (6, 8, 8, 1), np.uint8)


def test_added_images_are_found_after_opening_a_copy_of_the_folder(gallery, encoder, images, tmp_path):
    ids = gallery.add(images, ["a", "a", "b", None, "c", "c"], [{"n": i} for i in range(6)])
    assert ids == [1, 2, 3, 4, 5, 6]
    gallery.close()
    shutil.copytree(tmp_path / "gallery", tmp_path / "elsewhere" / "copy")
    with Gallery.open(tmp_path / "elsewhere" / "copy") as copy:  # with the encoder in the folder
        assert copy.encoder.fingerprint == encoder.fingerprint
        assert len(copy) == 6
        assert list(copy.items())[3] == Item(4, None, None, {"n": 3})
        (found,) = copy.search(images[2:3], 1)
        assert (found.hits[0].id, found.hits[0].identity) == (3, "b")
        assert found.hits[0].score == pytest.approx(1, abs=1e-6)


def test_paths_of_files_and_folders_are_stored_as_absolute_paths(gallery, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("folder/b.png", "folder/a.png", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(images[0, ..., 0]).save(tmp_path / name)
    gallery.add(["c.png", "folder"], "x")
    names = [str(tmp_path / name) for name in ("c.png", "folder/a.png", "folder/b.png")]
    assert [item.path for item in gallery.items()] == names
    gallery.add(images[:2], paths=["s3://bucket/1", None])
    assert [item.path for item in gallery.items()][3:] == ["s3://bucket/1", None]
    (found,) = gallery.search("c.png", 1)
    assert found.query == "c.png"
    with pytest.raises(InputError, match="identities: expected 3, one for each image, got 2"):
        gallery.add(["c.png", "folder"], ["x", "y"])
    with pytest.raises(InputError, match="no such file"):
        gallery.add("d.png")
    assert len(gallery) == 5
    assert gallery.known_paths([tmp_path / "c.png", "s3://bucket/1", "c.png", tmp_path / "d.png"]) == {
        names[0],
        "s3://bucket/1",
    }


def test_the_text_of_a_gallery_is_its_place_its_size_and_its_encoder(gallery, encoder, images):
    gallery.add(images)
    assert repr(gallery) == f"Gallery({gallery.address}: 6 items, {encoder.name})"


@pytest.mark.parametrize("kind", [iter, tuple, lambda paths: (path for path in paths)])
def test_paths_of_any_iterable_are_stored(gallery, images, tmp_path, kind):
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, image in zip(paths, images, strict=False):
        Image.fromarray(image[:, :, 0]).save(path)
    gallery.add(kind(paths))
    assert [item.path for item in gallery.items()] == list(map(str, paths))


def test_items_and_embeddings_are_read_by_id(gallery, rows):
    ids = gallery.add(rows, [f"name {i}" for i in range(13)], {"weight": np.float64(1.5), "count": np.int64(2)})
    assert [item.identity for item in gallery.get([ids[4], ids[2]])] == ["name 4", "name 2"]
    np.testing.assert_array_equal(gallery.embeddings(np.array(ids[5:2:-1])), rows[5:2:-1])
    assert gallery.get(ids[0])[0].metadata == {"weight": 1.5, "count": 2}
    assert len(gallery.search(rows[:1], 3, where={"count": np.int64(2)})[0].hits) == 3
    for read in (gallery.get, gallery.embeddings):
        with pytest.raises(InputError, match="no item 99"):
            read([ids[0], 99])
    assert gallery
    gallery.remove(ids)
    assert gallery


def test_embeddings_are_stored_as_they_are(gallery, encoder, images, rows):
    gallery.add(rows.astype(np.float64))
    gallery.add(images)
    file = Path(gallery.address) / "embeddings-0.f32"
    stored = np.fromfile(file, "<f4").reshape(-1, SIZE)
    np.testing.assert_array_equal(stored[:13], rows)
    np.testing.assert_array_equal(stored[13:], encoder.encode(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"images": np.array([[0.0] * 5, [np.nan] * 5, [np.inf] * 5])},
            "images: expected finite .* in row 1, the first of 2",
        ),
        ({"images": np.full((1, 5), 1e300)}, "finite numbers in float32"),
        ({"images": np.zeros((2, 4))}, r"images: expected embeddings \[n, 5\], got shape \(2, 4\)"),
        ({"identities": ["a"]}, "identities: expected 2, one for each image, got 1"),
        ({"identities": ["a", ""]}, "identities: expected names or None, got ''"),
        ({"identities": ["a", 3]}, "identities: expected names or None, got 3; pass text, such as '3'"),
        ({"identities": 3}, "identities: expected names or None, got 3; pass text, such as '3'"),
        ({"paths": ["a", 3]}, "paths: expected text, `Path` or None, got int"),
        ({"identities": "\udce9"}, "expected Unicode text"),
        ({"metadata": [{}]}, "metadata: expected 2"),
        ({"metadata": {"a": {1, 2}}}, "metadata: expected values of JSON"),
        ({"metadata": {"a": np.nan}}, "metadata: expected values of JSON"),
        ({"metadata": {"identity": "a"}}, "metadata: expected names other than 'identity'"),
        ({"metadata": {3: "a"}}, "metadata: expected names other than 'identity', got 3"),
        ({"paths": ["a"]}, "paths: expected 2"),
        ({"paths": "ab"}, "paths: expected a sequence, one path for each image, got 'ab'"),
        (
            {"metadata": {"a": nested(101)}},
            "metadata: expected lists and objects of at most 100 levels",
        ),
    ],
)
def test_bad_arguments_are_one_clear_error_and_change_nothing(gallery, rows, arguments, message, unchecked):
    gallery.add(rows[:3], "first")
    with pytest.raises(InputError, match=message):
        gallery.add(**{"images": rows[:2], **arguments})
    assert len(gallery) == 3
    assert (Path(gallery.address) / "embeddings-0.f32").stat().st_size == 3 * SIZE * 4
    assert gallery.add(rows[:1]) == [4]


def test_names_of_files_that_are_no_unicode_are_refused_before_they_are_read(gallery, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_text("no image")
    with pytest.raises(InputError, match=r"expected Unicode text, .* got .*caf.udce9\.png'; rename the file"):
        gallery.add([tmp_path / name])


def test_paths_are_normalized(gallery, images, tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(images[0, :, :, 0]).save(tmp_path / "0.png")
    gallery.add([tmp_path / "a" / ".." / "0.png"])
    assert gallery.get(1)[0].path == str(tmp_path / "0.png")


def test_arrays_of_other_libraries_are_ids_or_images(gallery, rows):
    class Foreign:
        dtype, ndim = "Int64", 1

        def __iter__(self):
            return iter([1, 2])

        def __array__(self, dtype=None, copy=None):
            return np.array([1, 2])

    gallery.add(rows)
    foreign: Any = Foreign()
    assert [result.query for result in gallery.search(foreign, 1)] == [1, 2]


def test_items_are_updated_and_removed_by_id_and_identity(gallery, rows):
    ids = gallery.add(rows, ["a", "b"] * 6 + ["c"], {"old": True})
    gallery.update(ids[:2], identity="d")
    gallery.update(ids[2], metadata={"old": False}, identity=None)
    gallery.update(np.array(ids[3:4]), metadata=None)
    items = list(gallery.items())
    assert [item.identity for item in items[:4]] == ["d", "d", None, "b"]
    assert [item.metadata for item in items[:4]] == [{"old": True}, {"old": True}, {"old": False}, {}]
    assert gallery.remove([ids[5], ids[0], ids[0]]) == 2
    assert gallery.remove_identity("a") == 4
    assert gallery.remove_identity("nobody") == 0
    assert [item.id for item in gallery.items()] == [2, 3, 4, 8, 10, 12, 13]
    assert gallery.info()["identities"] == 3
    for change in (gallery.remove, lambda ids: gallery.update(ids, identity="z")):
        with pytest.raises(InputError, match="ids: the gallery has no item 1; nothing was changed"):
            change([2, 1])
    assert len(gallery) == 7
    assert gallery.add(rows[:1]) == [14]  # the id of a removed item is never used again


@pytest.mark.parametrize("ids", ["a", [1.0], [[1, 2], [3, 4]], [None], None, True, 2**70])
def test_ids_are_integers(gallery, ids, unchecked):
    with pytest.raises(InputError, match="ids: expected integers"):
        gallery.remove(ids)


def test_the_embeddings_are_rewritten_when_most_rows_are_of_removed_items(gallery, random, monkeypatch):
    monkeypatch.setattr(_folder_store, "MIN_DEAD_ROWS", 4)
    rows = random.normal(size=(11, SIZE)).astype(np.float32)
    with Gallery.open(gallery.address, encoder=gallery.encoder) as reader:
        ids = gallery.add(rows, [f"{i}" for i in range(11)])
        assert len(reader) == 11
        gallery.remove(ids[:5])
        assert (Path(gallery.address) / "embeddings-0.f32").stat().st_size == 11 * SIZE * 4
        gallery.remove(ids[6])
        assert [p.name for p in Path(gallery.address).glob("*.f32")] == ["embeddings-1.f32"]
        left = [5, 7, 8, 9, 10]
        np.testing.assert_array_equal(
            np.fromfile(Path(gallery.address) / "embeddings-1.f32", "<f4").reshape(-1, SIZE), rows[left]
        )
        for opened in (gallery, reader):
            hits = [result.hits[0].identity for result in opened.search(rows[left], 1)]
            assert hits == [str(i) for i in left]
        assert gallery.add(rows[:1], "new") == [12]
        assert reader.search(rows[:1], 1)[0].hits[0].identity == "new"


def test_an_emptied_gallery_is_used_again(gallery, rows, monkeypatch):
    monkeypatch.setattr(_folder_store, "MIN_DEAD_ROWS", 4)
    gallery.remove(gallery.add(rows))
    assert (Path(gallery.address) / "embeddings-1.f32").stat().st_size == 0
    assert gallery.add(rows[:2]) == [14, 15]
    assert [hit.id for hit in gallery.search(14, 1)[0].hits] == [15]
    assert gallery.add([]) == []


def test_a_reader_sees_every_transaction_of_another_process(gallery, rows):
    with Gallery.open(gallery.address, encoder=gallery.encoder) as reader:
        ids = gallery.add(rows[:4], "a")
        assert len(reader) == 4
        gallery.add(rows[4:5], "b")
        assert reader.search(rows[4:5], 1)[0].hits[0].identity == "b"
        gallery.update(ids[0], identity="c")
        assert reader.search(rows[:1], 1)[0].hits[0].identity == "c"
        gallery.remove(ids[0])
        assert [item.id for item in reader.items()] == [2, 3, 4, 5]
        assert all(hit.id != 1 for hit in reader.search(rows[:1], 4)[0].hits)
        before = reader._store.contents().ids
        assert reader._store.contents().ids is before  # nothing changed, nothing is read


def test_items_can_be_removed_while_they_are_listed(gallery, rows, monkeypatch):
    monkeypatch.setattr(_folder_store, "ITEMS_PER_READ", 4)
    gallery.add(rows)
    seen = []
    for item in gallery.items():
        seen.append(item.id)
        gallery.remove(item.id)
    assert seen == list(range(1, 14))
    assert len(gallery) == 0


def test_a_description_is_json(gallery, encoder, rows):
    gallery.add(rows, ["a", "b"] * 6 + [None])
    found = gallery.info()
    assert json.loads(json.dumps(found)) == {
        "items": 13,
        "identities": 2,
        "encoder": "random-0",
        "fingerprint": encoder.fingerprint,
        "embedding_size": 5,
        "measure": "cosine",
        "store": gallery.address,
        "calibration": None,
        "thresholds": [],
        "index": None,
    }


def test_an_existing_folder_is_replaced_only_if_asked_and_only_if_it_is_a_gallery(gallery, rows, tmp_path):
    gallery.add(rows)
    other = build_encoder(seed=1)
    with pytest.raises(InputError, match=r"gallery exists; .* `overwrite=True`"):
        Gallery.create(gallery.address, other)
    (tmp_path / "empty").mkdir()
    Gallery.create(tmp_path / "empty", other).close()
    with Gallery.create(gallery.address, other, overwrite=True) as created:
        assert len(created) == 0
        created.add(rows[:2])
        for change in (lambda: gallery.add(rows), lambda: gallery.remove(1), lambda: len(gallery)):
            with pytest.raises(InputError, match="replaced by another gallery"):
                change()
        assert len(created) == 2
    (Path(gallery.address) / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt, which no gallery wrote"):
        Gallery.create(gallery.address, other, overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        Gallery.create(Path(gallery.address) / "notes.txt", other, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "gallery"]


def test_threads_share_a_gallery(gallery, rows):
    with ThreadPoolExecutor(4) as pool:
        lists = list(pool.map(lambda i: gallery.add(rows[i : i + 2], f"{i}"), range(12)))
        assert sorted(i for ids in lists for i in ids) == list(range(1, 25))
        found = list(pool.map(lambda i: gallery.search(i, 1)[0].hits[0].score, range(1, 25)))
    assert np.sum(np.abs(np.subtract(found, 1)) < 1e-6) == 22  # all rows but the first and the last were added twice


def test_a_closed_gallery_says_so(gallery, rows):
    gallery.close()
    with pytest.raises(InputError, match="the gallery was closed"):
        gallery.add(rows)


def test_embeddings_are_on_the_disk_before_their_items_are_committed(gallery, rows, monkeypatch):
    ids = gallery.add(rows)
    write = _folder_store.write_durably

    def interrupted(file, arrays):
        write(file, arrays)
        raise KeyboardInterrupt

    monkeypatch.setattr(_folder_store, "MIN_DEAD_ROWS", 4)
    for module in (_folder_store, _folder_embeddings):
        monkeypatch.setattr(module, "write_durably", interrupted)
    for change in (lambda: gallery.add(rows), lambda: gallery.remove(ids[:12])):  # which rewrites the embeddings
        with pytest.raises(KeyboardInterrupt):
            change()
        assert [item.id for item in gallery.items()] == ids
        assert [(p.name, p.stat().st_size) for p in Path(gallery.address).glob("*.f32")] == [
            ("embeddings-0.f32", 13 * SIZE * 4)
        ]


def test_any_sequence_of_changes_gives_the_items_of_a_dictionary(gallery, random, monkeypatch):
    monkeypatch.setattr(_folder_store, "MIN_DEAD_ROWS", 6)
    expected: dict[int, tuple[str | None, dict, np.ndarray]] = {}
    with Gallery.open(gallery.address, encoder=gallery.encoder) as reader:
        for step in range(120):
            writer = gallery if random.random() < 0.5 else reader
            chosen = [int(i) for i in random.permutation(list(expected))[: random.integers(1, 5)]]
            action = random.choice(["add", "add", "identity", "metadata", "remove", "remove identity"])
            if action == "add" or not chosen:
                rows = random.normal(size=(int(random.integers(0, 5)), SIZE)).astype(np.float32)
                name = random.choice(["a", "b", "c"])
                for i, row in zip(writer.add(rows, name, {"step": step}), rows, strict=True):
                    expected[i] = (name, {"step": step}, row)
            elif action == "identity":
                writer.update(chosen, identity=None)
                expected |= {i: (None, *expected[i][1:]) for i in chosen}
            elif action == "metadata":
                writer.update(chosen, metadata={"step": -step})
                expected |= {i: (expected[i][0], {"step": -step}, expected[i][2]) for i in chosen}
            elif action == "remove":
                assert writer.remove(chosen) == len(chosen)
                expected = {i: item for i, item in expected.items() if i not in chosen}
            else:
                removed = writer.remove_identity("b")
                assert removed == sum(item[0] == "b" for item in expected.values())
                expected = {i: item for i, item in expected.items() if item[0] != "b"}
            for opened in (gallery, reader):
                assert [(i.id, i.identity, i.metadata) for i in opened.items()] == [
                    (i, *expected[i][:2]) for i in expected
                ]
                contents = opened._store.contents()
                rows = [item[2] for item in expected.values()]
                np.testing.assert_array_equal(contents.embeddings[contents.rows], np.reshape(rows, (-1, SIZE)))
                named = [i for i, item in expected.items() if item[0] is not None]
                assert opened._store.named_contents().ids.tolist() == named
    assert next(Path(gallery.address).glob("*.f32")).name != "embeddings-0.f32"
