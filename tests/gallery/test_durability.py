"""Processes are killed while they write, write at once, meet a read-only folder and a full disk."""

import contextlib
import sqlite3
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from simjax.core import InputError
from simjax.gallery import Gallery
from tests.gallery.test_format import read_gallery
from tests.gallery.writers import GROUP, embeddings_of

ROOT = Path(__file__).parents[2]


def check_whole_groups(path):
    """Check that the gallery is in a state between two transactions, also for a reader without simjax."""
    items = [(identity, row) for _, identity, _, _, row in read_gallery(path)]
    assert all(count == GROUP for count in Counter(identity for identity, _ in items).values())
    for group in {identity for identity, _ in items}:
        np.testing.assert_array_equal([row for identity, row in items if identity == group], embeddings_of(group))
    with Gallery.open(path, timeout=5.0) as gallery:
        assert [item.identity for item in gallery.items()] == [identity for identity, _ in items]


def last_transaction(path):
    """Return the number of the last transaction, which every writer increments."""
    with contextlib.closing(sqlite3.connect(path / "items.sqlite", timeout=60)) as connection:
        return connection.execute("SELECT value FROM properties WHERE name = 'transaction'").fetchone()[0]


def wait_until_locked(path):
    """Wait until another process holds the lock of a writer."""
    with contextlib.closing(sqlite3.connect(path / "items.sqlite", timeout=0, isolation_level=None)) as connection:
        for _ in range(6000):
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return
            connection.execute("ROLLBACK")
            time.sleep(0.01)
    raise TimeoutError("no process took the lock")


@pytest.mark.parametrize("kills", [6, pytest.param(30, marks=pytest.mark.slow)])
def test_a_killed_process_leaves_the_gallery_between_two_transactions(writers, path, random, kills):
    for seed in range(kills):
        before = last_transaction(path)
        number = writers.start("add_and_remove", path, seed)
        while last_transaction(path) == before:  # a slow machine takes long until the first one
            assert writers.is_alive(number)
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.25))
        writers.kill(number)
        check_whole_groups(path)
        with Gallery.open(path, timeout=5.0) as gallery:  # the lock of the killed process does not block
            gallery.add(embeddings_of(f"after {seed}"), f"after {seed}")
        check_whole_groups(path)


def test_two_writers_lose_nothing(writers, path):
    numbers = [writers.start("add_groups", path, name, 20) for name in "ab"]
    ids = [writers.result(number) for number in numbers]
    assert sorted(ids[0] + ids[1]) == list(range(1, 2 * 20 * GROUP + 1))
    check_whole_groups(path)
    with Gallery.open(path) as gallery:
        assert {item.identity for item in gallery.items()} == {f"{name}{n}" for name in "ab" for n in range(20)}


@pytest.mark.filterwarnings("ignore:the gallery has")
def test_a_reader_finds_the_items_that_belong_to_the_embeddings_while_another_process_writes(writers, path, random):
    query = random.normal(size=(1, 5)).astype(np.float32)
    number = writers.start("add_and_remove", path, 0)
    with Gallery.open(path) as gallery:
        seen, transactions = 0, set()
        while len(transactions) < 10:
            assert writers.is_alive(number)
            transactions.add(gallery._store.contents().properties["transaction"])
            assert all(count == GROUP for count in Counter(item.identity for item in gallery.items()).values())
            for hit in gallery.search(query, 6)[0].hits:
                rows = embeddings_of(str(hit.identity))
                scores = rows @ query[0] / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
                assert np.abs(scores - hit.score).min() < 1e-5
                seen += 1
    writers.kill(number)
    assert seen > 5


def test_a_lock_is_waited_for_and_does_not_outlive_its_process(writers, path):
    number = writers.start("hold_lock", path)
    with Gallery.open(path, timeout=0.3) as gallery:
        wait_until_locked(path)
        with pytest.raises(InputError, match=f"^another process is writing {path}; try again later$"):
            gallery.add(embeddings_of("x"), "x")
        assert len(gallery) == 0  # readers are not locked out
        writers.kill(number)
        gallery.add(embeddings_of("y"), "y")
    check_whole_groups(path)


def test_a_read_only_folder_is_searched_and_not_changed(writers, path, rows):
    with Gallery.open(path) as gallery:
        gallery.add(rows)
    folder = path.parent
    for entry in (*folder.rglob("*"), folder):
        entry.chmod(0o555 if entry.is_dir() else 0o444)
    try:
        size, nearest, *errors = writers.result(writers.start("use_read_only", path))
    finally:
        for entry in (folder, *folder.rglob("*")):
            entry.chmod(0o755)
    assert size == 13
    with Gallery.open(path) as gallery:
        assert nearest == gallery.search(1, 1)[0].hits[0].id
    assert [error.split(":")[0].replace(str(folder), "") for error in errors] == [
        "cannot write /gallery",
        "cannot write /gallery",
        "cannot write /other",
    ]


@pytest.mark.parametrize("limit", [5_000, 20_000])  # the embeddings do not fit; they do, but the database does not
def test_a_full_disk_changes_nothing(writers, path, rows, limit):
    with Gallery.open(path) as gallery:
        gallery.add(rows)
    error, items, size, added = writers.result(writers.start("fill_disk", path, limit))
    assert error.startswith(f"cannot write {path}: ")
    assert (items, size, added) == (13, 13 * 5 * 4, 400)
    assert len(read_gallery(path)) == 413
