"""Galleries in PostgreSQL: servers that end, locks, rights, and schemas of something else."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from simjax.cli import main
from simjax.core import InputError
from simjax.gallery import Gallery, _postgres_create
from simjax.gallery._locations import split_url
from simjax.gallery._store import NoGalleryError
from tests.cli.runs import image_folder
from tests.gallery.conftest import SIZE, build_encoder
from tests.gallery.servers import Postgres
from tests.gallery.test_durability import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def stored(postgres, encoder):
    with Gallery.create(postgres.url(), encoder) as found:
        yield found


def write_in_process(url: str, code: str) -> subprocess.Popen:
    """Start a process that has opened a gallery and then runs code."""
    head = "import sys, numpy as np\nfrom simjax.gallery import Gallery\ngallery = Gallery.open(sys.argv[1])\n"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", head + code, url]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def wait_for_copy(postgres: Postgres) -> None:
    """Wait until a process adds items."""
    for _ in range(3000):
        if postgres.execute("SELECT 1 FROM pg_stat_progress_copy"):
            return
        time.sleep(0.01)
    raise TimeoutError("no process adds items")


def test_a_server_that_is_killed_while_items_are_added_leaves_a_whole_gallery(postgres, stored, random):
    stored.add(random.normal(size=(5, SIZE)), "before")
    many = random.normal(size=(200_000, SIZE)).astype(np.float32)
    errors = []

    def add():
        with pytest.raises(InputError) as error:
            stored.add(many, "many")
        errors.append(str(error.value))

    thread = threading.Thread(target=add)
    thread.start()
    wait_for_copy(postgres)
    postgres.kill()
    thread.join()
    with pytest.raises(InputError, match="cannot read postgresql:"):
        len(stored)
    postgres.start()
    assert errors[0].startswith("cannot write postgresql:")
    assert "\n" not in errors[0]
    assert len(stored) == 5  # the gallery connects again
    assert stored.add(many[:2], "after") == [6, 7]


def test_a_killed_process_leaves_a_whole_gallery_and_no_lock(postgres, stored, random):
    stored.add(random.normal(size=(5, SIZE)), "before")
    process = write_in_process(postgres.url(), "gallery.add(np.ones((200_000, 5), np.float32), 'many')")
    wait_for_copy(postgres)
    with process:
        process.send_signal(signal.SIGKILL)
    assert stored.add(random.normal(size=(2, SIZE)), "after") == [6, 7]
    assert {item.identity for item in stored.items()} == {"before", "after"}


def test_two_writers_lose_nothing(postgres, stored):
    code = "print([i for n in range(20) for i in gallery.add(np.full((3, 5), n + 1.0), 'x')])"
    processes = [write_in_process(postgres.url(), code) for _ in range(2)]
    ids = [json.loads(process.communicate()[0]) for process in processes]
    assert sorted(ids[0] + ids[1]) == list(range(1, 121))
    contents = stored._store.contents()
    assert contents.ids.tolist() == list(range(1, 121))
    assert sorted(contents.embeddings[:, 0].tolist()) == sorted(2 * [n for n in range(1, 21) for _ in range(3)])


def test_a_writer_waits_for_another_one_and_readers_do_not(postgres, stored, rows):
    import psycopg

    with (
        psycopg.connect(postgres.url().removesuffix("&gallery=gallery")) as connection,
        Gallery.open(postgres.url(), timeout=0.3) as gallery,
    ):
        connection.execute("LOCK TABLE gallery.properties IN EXCLUSIVE MODE")
        with pytest.raises(InputError, match=r"^another process is writing postgresql:.*; try again later$"):
            gallery.add(rows)
        assert len(gallery) == 0
        connection.rollback()
        assert gallery.add(rows[:1]) == [1]


def test_passwords_and_rights_are_checked_by_the_server(postgres, stored, rows, monkeypatch):
    postgres.execute(
        "CREATE ROLE guarded SUPERUSER LOGIN PASSWORD 'right'",
        "CREATE ROLE reader LOGIN",
        "GRANT USAGE ON SCHEMA gallery TO reader",
        "GRANT SELECT ON ALL TABLES IN SCHEMA gallery TO reader",
    )
    stored.add(rows)
    with pytest.raises(InputError, match="cannot open .*password authentication failed.* ~/.pgpass$") as error:
        Gallery.open(postgres.url(user="guarded:s3cret"))
    assert "s3cret" not in str(error.value)
    with pytest.raises(InputError, match="no password supplied; write the password to the variable PGPASSWORD or to"):
        Gallery.open(postgres.url(user="guarded"))
    monkeypatch.setenv("PGPASSWORD", "right")
    Gallery.open(postgres.url(user="guarded")).close()
    with Gallery.open(postgres.url(user="reader")) as gallery:
        assert gallery.search(rows[:1], 1)[0].hits[0].id == 1
        with pytest.raises(InputError, match="cannot write .*permission denied"):
            gallery.add(rows)
    with pytest.raises(InputError, match="cannot write .*permission denied for database"):
        Gallery.create(postgres.url("other", user="reader"), build_encoder())
    with pytest.raises(InputError, match='cannot open .*role "nobody" does not exist'):
        Gallery.open(postgres.url(user="nobody"))
    postgres.execute("REVOKE USAGE ON SCHEMA gallery FROM reader")
    with pytest.raises(InputError, match="permission denied for schema gallery; its owner runs GRANT USAGE ON SCHEMA"):
        Gallery.open(postgres.url(user="reader"))


def test_a_server_that_does_not_run_is_one_readable_sentence(tmp_path):
    with pytest.raises(InputError) as error:
        Gallery.open(f"postgresql:///images?host={tmp_path}")
    assert str(error.value) == (
        f"cannot open postgresql:///images?host={tmp_path}&gallery=gallery: connection to server on socket "
        f'"{tmp_path}/.s.PGSQL.5432" failed: No such file or directory. Is the server running locally and accepting '
        "connections on that socket?"
    )


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://ada:s3cret@db.example.org/images", "postgresql://ada@db.example.org/images?gallery=shop"),
        ("postgres://ada@[::1]:5432/images", "postgresql://ada@[::1]:5432/images?gallery=shop"),
        ("postgresql://a%40b:p%40@h/d%20e", "postgresql://a%40b@h/d%20e?gallery=shop"),
        ("postgresql://%2Ftmp%2Fpg:5433/d", "postgresql:///d?host=/tmp/pg&port=5433&gallery=shop"),
        ("postgresql://h1:1,h2:2/d?password=s", "postgresql:///d?host=h1,h2&port=1,2&gallery=shop"),
        ("postgresql://h/d?sslmode=require&options=-c%20a%3D5", None),
        ("postgresql:///", "postgresql:///?gallery=shop"),
    ],
)
def test_an_address_has_all_of_the_url_but_its_password(url, address):
    from psycopg.conninfo import conninfo_to_dict

    from simjax.gallery._postgres_sql import address_of

    found = address_of(url, "shop")
    assert address in (None, found)
    again, name = split_url(found) or ("", "")
    assert name == "shop"
    secrets = {"password": None}
    assert conninfo_to_dict(again) | secrets == conninfo_to_dict(url) | secrets
    assert address_of(again, name) == found


def test_processes_that_create_galleries_at_once_do_not_disturb_each_other(postgres, encoder):
    def create(name: str) -> str:
        barrier.wait()
        try:
            Gallery.create(postgres.url(name), encoder).close()
            return "created"
        except InputError as error:
            return str(error).partition(" exists; ")[2]

    barrier = threading.Barrier(6)
    for _ in range(3):
        postgres.use_new_database()
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(create, "aaabcd"))
        assert sorted(found[:3]) == [*["choose another name, or create it with `overwrite=True`"] * 2, "created"]
        assert found[3:] == ["created"] * 3


def test_a_database_without_pgvector_says_who_can_create_it(postgres, encoder):
    postgres.execute("CREATE ROLE writer LOGIN")
    with pytest.raises(InputError, match="expected the extension pgvector, and it cannot be created .*a superuser"):
        Gallery.create(postgres.url(user="writer"), encoder)
    postgres.execute("ALTER ROLE postgres SET extension_control_path = '/nowhere'")
    with pytest.raises(InputError, match="expected the extension pgvector, and it cannot be created .*not available"):
        Gallery.create(postgres.url(), encoder)
    assert postgres.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'gallery'") == []
    postgres.execute("ALTER ROLE postgres RESET extension_control_path")
    Gallery.create(postgres.url(), encoder).close()


def test_a_schema_of_something_else_is_refused_and_not_changed(postgres, stored, encoder, rows):
    stored.add(rows)
    postgres.execute(
        "CREATE SCHEMA empty",
        "CREATE SCHEMA foreign_one",
        "CREATE TABLE foreign_one.items (a int)",
        "CREATE SCHEMA foreign_two",
        "CREATE TABLE foreign_two.properties (name text, value json)",
        "CREATE SCHEMA foreign_three",
        "CREATE TABLE foreign_three.notes (a int)",
        "CREATE VIEW public.names AS SELECT identity FROM gallery.items",
    )
    for name in ("missing", "empty"):
        with pytest.raises(NoGalleryError, match=rf"&gallery={name}: no such gallery$"):
            Gallery.open(postgres.url(name))
    for name in ("foreign_one", "foreign_three"):
        with pytest.raises(InputError) as error:
            Gallery.open(postgres.url(name))
        assert not isinstance(error.value, NoGalleryError)
        reason = 'its tables are of something else (relation "properties" does not exist)'
        assert str(error.value).endswith(f"gallery={name}: the gallery is damaged, or {reason}")
    with pytest.raises(InputError, match="is not a gallery: it is of something else"):
        Gallery.open(postgres.url("foreign_two"))
    for name, message in (
        ("foreign_one", "the gallery is damaged, or its tables are of something else"),
        ("foreign_two", "is not a gallery: it is of something else"),
        ("foreign_three", "contains notes, which no gallery wrote: not overwritten"),
        ("gallery", "something depends on its tables: not overwritten"),
    ):
        with pytest.raises(InputError, match=message):
            Gallery.create(postgres.url(name), encoder, overwrite=True)
    assert len(stored) == 13
    with Gallery.create(postgres.url("empty"), encoder) as gallery:
        assert gallery.add(rows[:1]) == [1]


@pytest.mark.filterwarnings("ignore:the gallery has")
def test_readers_wait_for_a_replacement_and_read_the_new_gallery(postgres, stored, encoder, rows, monkeypatch):
    began, finish = threading.Event(), threading.Event()
    add_items = _postgres_create.add_items

    def wait_and_add(*arguments):
        began.set()
        finish.wait(60)
        return add_items(*arguments)

    monkeypatch.setattr(_postgres_create, "add_items", wait_and_add)
    with ThreadPoolExecutor(2) as pool:
        replaced = pool.submit(Gallery.create, postgres.url(), encoder, rows, overwrite=True)
        assert began.wait(60)
        opened = pool.submit(Gallery.open, postgres.url())
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while not postgres.execute(waiting) and not opened.done():
            time.sleep(0.01)
        finish.set()
        with replaced.result() as new, opened.result() as gallery:
            assert len(new) == len(gallery) == 13
    with pytest.raises(InputError, match="replaced by another gallery; open it again"):
        len(stored)


def test_a_gallery_without_some_tables_is_replaced(postgres, stored, encoder, rows):
    postgres.execute("DROP TABLE gallery.encoder, gallery.items")
    with Gallery.create(postgres.url(), encoder, rows, overwrite=True) as gallery:
        assert len(gallery) == 13


def test_text_with_nul_is_refused_and_changes_nothing(stored, rows):
    stored.add(rows[:2], "a")
    bad = "nul \0"
    for options in ({"identities": bad}, {"paths": ["x", bad]}, {"metadata": {"a": bad}}, {"metadata": {bad: 1}}):
        with pytest.raises(InputError, match="NUL"):
            stored.add(rows[:2], **options)
    for call in (
        lambda: list(stored.items({"k": bad})),
        lambda: list(stored.items({bad: 1})),
        lambda: list(stored.items({"identity": bad})),
        lambda: stored.known_paths([bad]),
        lambda: stored.remove_identity(bad),
    ):
        with pytest.raises(InputError, match="^expected Unicode text without NUL"):
            call()
    assert stored.add(rows[:1]) == [3]


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "simjax.gallery._postgres", raising=False)
    monkeypatch.delattr("simjax.gallery._postgres", raising=False)
    with pytest.raises(InputError, match=r"pip install 'simjax\[postgres\]'"):
        Gallery.open("postgresql://localhost/x")


def test_all_commands_take_a_url_and_never_print_its_password(postgres, encoder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    image_folder(tmp_path / "images", each=4)
    encoder.save(tmp_path / "encoder")
    url = postgres.url().replace("postgres@", "postgres:s3cret@")
    with Gallery.create(url, encoder) as gallery:
        shown = gallery.address
    assert shown == postgres.url()
    main(["gallery", "create", url, "--encoder", "encoder", "--images", "images", "--overwrite"])
    for command in (
        ["add", url, "images/a/0.png", "--again", "--metadata", "shop=Lyon"],
        ["search", url, "images/a/0.png", "--html", "page.html"],
        ["search", url, "--id", "1", "--where", "shop=Lyon", "--json"],
        ["identify", url, "images/a/0.png", "--html", "page.html"],
        ["recommend", url, "--like", "1", "-k", "2"],
        ["duplicates", url, "--min-score", "0.99", "--html", "page.html"],
        ["info", url],
        ["list", url],
        ["remove", url, "1"],
        ["copy", url, "copied"],
        ["copy", "copied", url.replace("gallery=gallery", "gallery=copied")],
    ):
        main(["gallery", *command])
    for command in (["create", url, "--encoder", "encoder"], ["duplicates", url, "--encoder", "encoder"]):
        with pytest.raises(SystemExit) as status:
            main(["gallery", *command])
        assert status.value.code == 2
    printed = "".join(capsys.readouterr())
    assert f"8 items of 2 identities: {shown}" in printed
    assert "s3cret" not in printed + (tmp_path / "page.html").read_text()
    with Gallery.open(url) as gallery, Gallery.open("copied") as copied:
        assert list(gallery.items()) == list(copied.items())
