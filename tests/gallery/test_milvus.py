"""Galleries in Milvus: servers that end, locks, damaged files, and other collections."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from simjax.core import InputError
from simjax.gallery import Gallery
from simjax.gallery._store import NoGalleryError
from tests.gallery.conftest import SIZE, build_encoder
from tests.gallery.test_postgres import ROOT, write_in_process

pytestmark = pytest.mark.slow

LOCK = f"simjax_lock_{'_' * 52}gallery"
"""The lock of the gallery "gallery"."""


@pytest.fixture
def stored(milvus, encoder):
    with Gallery.create(milvus.url(), encoder, overwrite=True) as found:
        yield found


def connect(milvus):
    from pymilvus import MilvusClient

    return MilvusClient(f"http://127.0.0.1:{milvus.port}")


def wait_for_connection(gallery: Gallery) -> None:
    """Wait until gRPC connects again after the server was restarted."""
    for _ in range(600):
        try:
            gallery.info()
            return
        except InputError:
            time.sleep(0.1)
    raise TimeoutError("the gallery does not connect again")


def test_a_server_that_is_killed_while_items_are_added_leaves_a_whole_gallery(milvus, stored, random):
    stored.add(random.normal(size=(5, SIZE)), "before")
    errors = []

    def add():
        with pytest.raises(InputError) as error:
            stored.add(np.ones((200_000, SIZE), np.float32), "many")
        errors.append(str(error.value))

    thread = threading.Thread(target=add)
    thread.start()
    time.sleep(1)
    milvus.kill()
    thread.join()
    assert errors[0].startswith("cannot write milvus://127.0.0.1")
    assert "\n" not in errors[0]
    with pytest.raises(InputError, match="cannot read milvus://127.0.0.1"):
        len(stored)
    milvus.start()
    wait_for_connection(stored)
    assert len(stored) == 5
    assert stored.add(random.normal(size=(2, SIZE)), "after") == [6, 7]
    with Gallery.open(milvus.url()) as again:
        assert [item.identity for item in again.items()] == ["before"] * 5 + ["after"] * 2


def test_two_writers_lose_nothing(milvus, stored):
    code = "print([i for n in range(20) for i in gallery.add(np.full((3, 5), n + 1.0), 'x')])"
    processes = [write_in_process(milvus.url(), code) for _ in range(2)]
    ids = [json.loads(process.communicate()[0]) for process in processes]
    assert sorted(ids[0] + ids[1]) == list(range(1, 121))
    contents = stored._store.contents()
    assert contents.ids.tolist() == list(range(1, 121))
    assert np.all(np.diff(contents.rows) > 0)
    values = contents.embeddings[contents.rows][:, 0].reshape(-1, 3)
    assert np.all(values == values[:, :1])  # each item has its own embedding
    assert sorted(values[:, 0].tolist()) == sorted(2 * list(range(1, 21)))


def test_removals_of_two_processes_do_not_undo_each_other(milvus, stored, rows):
    stored.add(rows, "a")
    with Gallery.open(milvus.url()) as other:
        assert len(other) == 13
        store: Any = other._store
        select = store._existing

        def removed_meanwhile(ids):
            if len(stored) == 13:
                stored.remove([1, 2])
            return select(ids)

        store._existing = removed_meanwhile
        with pytest.raises(InputError, match="the gallery has no item 2; nothing was changed"):
            other.remove([2, 3])
        assert len(other) == 11


def test_removed_embeddings_are_deleted_from_the_collection(milvus, stored, rows):
    stored.add(rows, "a")
    stored.update(1, identity="b")
    stored.remove([1, 2])
    found = connect(milvus).query("gallery", filter="kind in ['item', 'update']", output_fields=["kind"], limit=100)
    assert [row["kind"] for row in found] == ["item"] * 11


def create_collection(milvus, name: str, key: str) -> Any:
    """Create a collection whose primary key has a name, as a lock has, and return a client."""
    from pymilvus import DataType, MilvusClient

    client: Any = connect(milvus)
    schema = MilvusClient.create_schema()
    schema.add_field(key, DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=2)
    client.create_collection(name, schema=schema)
    return client


def test_a_lock_is_waited_for_and_taken_from_a_process_that_died(milvus, stored, rows, monkeypatch):
    client = create_collection(milvus, LOCK, "held_by_other")
    with Gallery.open(milvus.url(), timeout=0.3) as gallery:
        with pytest.raises(InputError, match="^another process is writing milvus://.*; try again later$"):
            gallery.add(rows)
        assert len(gallery) == 0
        monkeypatch.setattr("simjax.gallery._milvus_lock.LEASE", 0.1)
        assert gallery.add(rows[:1]) == [1]
    assert not client.has_collection(LOCK)


def test_nothing_is_committed_after_the_lock_was_lost(milvus, stored, rows, monkeypatch):
    from simjax.gallery import _milvus

    client, locked = connect(milvus), _milvus.locked

    @contextlib.contextmanager
    def lose(*arguments):
        with locked(*arguments) as check:
            client.drop_collection(LOCK)
            create_collection(milvus, LOCK, "held_by_other")
            yield check

    monkeypatch.setattr(_milvus, "locked", lose)
    with pytest.raises(InputError, match="the server is too slow; try again later"):
        stored.add(rows)
    assert client.has_collection(LOCK)  # that of the other process
    client.drop_collection(LOCK)
    monkeypatch.undo()
    assert stored.add(rows[:1]) == [1]


def test_a_committed_change_is_no_error_if_rows_that_it_replaced_cannot_be_deleted(stored, rows, random, monkeypatch):
    from pymilvus import MilvusException

    def fail(*arguments, **options):
        raise MilvusException(message="server went away")

    stored.add(rows)
    stored.calibrate(random.normal(size=(8, 5)), list("bbccddee"))
    monkeypatch.setattr(stored._store._client, "delete", fail)
    assert stored.remove([1, 2]) == 2
    assert len(stored) == 11
    stored.calibrate(random.normal(size=(6, 5)), list("xxyyzz"))
    assert stored.calibration is not None
    assert len(stored.calibration.identities) == 6


def test_a_calibration_that_is_replaced_while_it_is_read_is_read_again(milvus, stored, random, monkeypatch):
    from simjax.gallery._milvus import MilvusStore

    stored.calibrate(random.normal(size=(8, 5)), list("bbccddee"))
    joined = MilvusStore._joined

    def replace_then(store, commit):
        monkeypatch.setattr(MilvusStore, "_joined", joined)
        with Gallery.open(milvus.url()) as other:
            other.calibrate(random.normal(size=(6, 5)), list("xxyyzz"))
        return joined(store, commit)

    with Gallery.open(milvus.url(), encoder=stored.encoder) as gallery:
        monkeypatch.setattr(MilvusStore, "_joined", replace_then)
        assert gallery.calibration is not None
        assert len(gallery.calibration.identities) == 6


def test_a_collection_that_is_not_a_lock_is_never_dropped(milvus, stored, encoder, rows, monkeypatch):
    monkeypatch.setattr("simjax.gallery._milvus_lock.LEASE", 0.1)
    with Gallery.create(milvus.url("gallery_lock"), encoder, overwrite=True) as other:
        other.add(rows)
        assert stored.add(rows[:1]) == [1]
        assert len(other) == 13
    client = create_collection(milvus, LOCK, "id")
    try:
        with pytest.raises(InputError, match=f"the collection {LOCK} is not its lock, but of something else"):
            stored.add(rows)
        assert client.has_collection(LOCK)
    finally:
        client.drop_collection(LOCK)


def test_a_lock_that_the_server_can_neither_create_nor_read_is_an_error_with_its_reason(milvus, stored, rows):
    folder = milvus.folder / "data" / "collections" / LOCK
    folder.mkdir()  # left by a server that was killed while it created the collection
    with Gallery.open(milvus.url(), timeout=0.3) as gallery:
        with pytest.raises(InputError, match="its lock can be neither created nor read .*File exists.*_gallery'"):
            gallery.add(rows)
        folder.rmdir()
        assert gallery.add(rows[:1]) == [1]


def test_a_file_needs_no_lock_that_a_killed_process_can_leave_behind(encoder, rows, tmp_path):
    url = f"milvus:{tmp_path}/file.db"
    Gallery.create(url, encoder).close()
    for name in ("gallery_lock", LOCK):
        (tmp_path / "file.db" / "collections" / name).mkdir()
    with Gallery.open(url, timeout=0.3) as gallery, Gallery.open(f"milvus:{tmp_path}/x/../file.db") as same:
        with ThreadPoolExecutor(4) as pool:
            lists = list(pool.map(lambda i: (gallery, same)[i % 2].add(rows[:2], f"{i}"), range(12)))
        assert sorted(i for ids in lists for i in ids) == list(range(1, 25))
        assert len(gallery) == len(same) == 24


FILLED = """
import sys
import numpy as np
from simjax.gallery import Gallery
from tests.gallery.conftest import build_encoder

Gallery.create(sys.argv[1], build_encoder(seed=0)).add(np.ones((13, 5), np.float32))
"""

KILLED = """
import os, sys
from pymilvus import MilvusClient
from simjax.gallery import Gallery, _milvus_create
from tests.gallery.conftest import build_encoder

def kill(*_):
    os.kill(os.getpid(), 9)

rename = MilvusClient.rename_collection
if sys.argv[2] == "write":
    _milvus_create.insert_commit = kill
elif sys.argv[2] == "rename":
    MilvusClient.rename_collection = lambda self, old, new: rename(self, old, new) if old == "gallery" else kill()
else:
    MilvusClient.drop_collection = kill
Gallery.create(sys.argv[1], build_encoder(seed=1), overwrite=True)
"""


@pytest.mark.parametrize(("death", "items"), [("write", 13), ("rename", None), ("drop", 0)])
def test_a_replacement_that_is_interrupted_leaves_the_old_gallery_or_the_new_one_or_none(
    encoder, rows, tmp_path, death, items
):
    url = f"milvus:{tmp_path}/file.db"
    for code, status in ((FILLED, 0), (KILLED, -9)):
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, url, death], cwd=ROOT)
        assert done.returncode == status
    if items is None:
        with pytest.raises(NoGalleryError, match="no such gallery"):
            Gallery.open(url)
        Gallery.create(url, encoder).close()
    else:
        with Gallery.open(url) as gallery:
            assert len(gallery) == items
            assert gallery.encoder.fingerprint == build_encoder(seed=int(not items)).fingerprint
            assert gallery.add(rows[:1]) == [items + 1]
        with pytest.raises(InputError, match="exists; choose another name"):
            Gallery.create(url, encoder)
    with Gallery.create(url, encoder, overwrite=True) as gallery:
        assert len(gallery) == 0


def test_a_replacement_that_fails_leaves_the_old_gallery_and_nothing_else(milvus, stored, encoder, rows, monkeypatch):
    from pymilvus import MilvusClient, MilvusException

    stored.add(rows)
    rename = MilvusClient.rename_collection

    def fail_for_the_new_gallery(client, old, new):
        if new == "gallery" and "_new_" in old:
            raise MilvusException(1, "two\nlines")
        return rename(client, old, new)

    monkeypatch.setattr(MilvusClient, "rename_collection", fail_for_the_new_gallery)
    with pytest.raises(InputError, match="^cannot write milvus://.*: two lines$"):
        Gallery.create(milvus.url(), encoder, overwrite=True)
    assert len(stored) == 13
    client: Any = connect(milvus)
    assert [name for name in client.list_collections() if "simjax" in name] == []


def test_one_of_several_processes_that_create_a_gallery_at_once_creates_it(milvus, encoder):
    def create(_) -> str:
        barrier.wait()
        try:
            Gallery.create(milvus.url("new"), encoder).close()
            return "created"
        except InputError as error:
            return str(error).partition(" exists; ")[2]

    barrier = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        found = sorted(pool.map(create, range(4)))
    assert found == [*["choose another name, or create it with `overwrite=True`"] * 3, "created"]


def test_a_collection_of_something_else_is_refused_and_not_changed(milvus, encoder):
    client = connect(milvus)
    client.create_collection("foreign", dimension=5)
    for call in (
        lambda: Gallery.open(milvus.url("foreign")),
        lambda: Gallery.create(milvus.url("foreign"), encoder, overwrite=True),
    ):
        with pytest.raises(InputError, match="is not a gallery: it is of something else"):
            call()
    assert client.has_collection("foreign")
    with pytest.raises(InputError, match="exists; choose another name"):
        Gallery.create(milvus.url("foreign"), encoder)
    with pytest.raises(InputError, match=r"milvus://127.0.0.1:\d+\?gallery=missing: no such gallery"):
        Gallery.open(milvus.url("missing", "user:s3cret@"))


def test_long_metadata_are_refused(stored, rows):
    with pytest.raises(InputError, match="expected at most 65,535 bytes of metadata"):
        stored.add(rows, metadata={"a": "é" * 40_000})
    assert stored.add(rows[:1], metadata={"a": "é" * 30_000}) == [1]


def test_a_file_is_used_by_one_process_and_may_be_damaged(encoder, tmp_path):
    url = f"milvus:{tmp_path}/file.db"
    with pytest.raises(InputError, match=r"file\.db: no such gallery"):
        Gallery.open(url)
    code = "import sys\nfrom simjax.gallery import Gallery\nfrom tests.gallery.conftest import build_encoder\n"
    code += "gallery = Gallery.create(sys.argv[1], build_encoder())\nprint(len(gallery), flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-W", "ignore", "-c", code, url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        with pytest.raises(
            InputError, match=r"cannot open .*file\.db: it is damaged, or another process has opened it"
        ):
            Gallery.open(url)
        process.communicate("")
    for file in (tmp_path / "file.db").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"cannot open milvus:.*file\.db.*: Expecting value") as error:
        Gallery.open(url)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"cannot open .*missing/file\.db: .*not exist"):
        Gallery.create(f"milvus:{tmp_path}/missing/file.db", encoder)
    with pytest.raises(InputError, match=r"expected a file that ends in \.db, got .*file\.sqlite"):
        Gallery.open(f"milvus:{tmp_path}/file.sqlite")


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    monkeypatch.delitem(sys.modules, "simjax.gallery._milvus", raising=False)
    monkeypatch.delattr("simjax.gallery._milvus", raising=False)
    with pytest.raises(InputError, match=r"pip install 'simjax\[milvus\]'"):
        Gallery.open("milvus:file.db")
