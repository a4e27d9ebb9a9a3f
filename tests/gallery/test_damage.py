"""Folders that are no gallery, damaged ones and those of another encoder or version are one clear error."""

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from simjax.core import InputError
from simjax.gallery import Gallery
from simjax.gallery._store import as_npy
from tests.gallery.conftest import build_encoder


@pytest.fixture
def filled(gallery, rows):
    gallery.add(rows, "a")
    gallery.close()
    return Path(gallery.address)


def run_sql(*statements):
    def change(path):
        connection = sqlite3.connect(path / "items.sqlite", isolation_level=None)
        for statement in statements:
            connection.execute(statement)
        connection.close()

    return change


def cut(name, size):
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:size])


def replace_by_infinite_view(table):
    columns = "x AS id, 'a' AS identity, NULL AS path, '{}' AS metadata, x AS row, 'a' || x AS name, x AS value"
    numbers = "WITH RECURSIVE numbers(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM numbers)"
    return run_sql(
        f"ALTER TABLE {table} RENAME TO old", f"CREATE VIEW {table} AS {numbers} SELECT {columns} FROM numbers"
    )


def link_embeddings(path):
    (path / "embeddings-0.f32").rename(path / "elsewhere")
    (path / "embeddings-0.f32").symlink_to(path / "elsewhere")


def overwrite_middle(path):
    content = bytearray((path / "items.sqlite").read_bytes())
    content[4096:] = b"x" * (len(content) - 4096)
    (path / "items.sqlite").write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such gallery"),
        (lambda path: (path / "items.sqlite").unlink(), r"is not a gallery: it has no items\.sqlite"),
        (lambda path: (path / "items.sqlite").write_text("hello" * 1000), "damaged.*file is not a database"),
        (lambda path: (path / "items.sqlite").write_bytes(b""), "damaged.*no such table"),
        (cut("items.sqlite", 9000), "damaged"),
        (overwrite_middle, "damaged"),
        (run_sql("DROP TABLE items"), "damaged.*no such table: items"),
        (run_sql("DROP TABLE properties", "CREATE TABLE properties (a)"), "damaged: its table properties is not"),
        (run_sql("CREATE INDEX i ON items (hex(zeroblob(row + 5000000)))"), "damaged: its index i is not"),
        (run_sql("UPDATE properties SET value = 'photos' WHERE name = 'format'"), "is not a gallery: .*something else"),
        (
            run_sql("UPDATE properties SET value = 2 WHERE name = 'version'"),
            "its format 2 is newer than 1; update simjax",
        ),
        (run_sql("UPDATE properties SET value = 'x' WHERE name = 'rows'"), "damaged: its rows is 'x'"),
        (run_sql("DELETE FROM properties WHERE name = 'generation'"), "damaged: its generation is None"),
        (run_sql("UPDATE properties SET value = 12 WHERE name = 'rows'"), "items do not belong to its embeddings"),
        (run_sql("UPDATE items SET row = row + 50"), "items do not belong to its embeddings"),
        (run_sql("UPDATE items SET row = -row - 1"), "items do not belong to its embeddings"),
        (run_sql("UPDATE items SET row = 'x' WHERE id = 3"), "damaged.*not integers"),
        (cut("embeddings-0.f32", 259), r"damaged: embeddings-0\.f32 is too short \(259 of 260 bytes\)"),
        (lambda path: (path / "embeddings-0.f32").unlink(), r"damaged: embeddings-0\.f32 is missing"),
        (link_embeddings, r"damaged: embeddings-0\.f32 is missing or a link"),
        (replace_by_infinite_view("items"), "damaged: its view items is not that of a gallery"),
        (replace_by_infinite_view("properties"), "damaged: its view properties is not"),
        (
            run_sql("CREATE TRIGGER t AFTER INSERT ON items BEGIN DELETE FROM items WHERE id < NEW.id; END"),
            "damaged: its trigger t is not",
        ),
        (run_sql("CREATE VIRTUAL TABLE t USING fts5(x)"), "damaged: its table t(_[a-z]+)? is not"),
        (
            run_sql("ALTER TABLE items ADD COLUMN x AS (zeroblob(row + 1000000000))"),
            "damaged: its table items is not",
        ),
        (run_sql("UPDATE properties SET value = 0 WHERE name = 'embedding_size'"), "damaged: its embedding_size is 0"),
        (
            run_sql("UPDATE properties SET value = 1 << 62 WHERE name = 'embedding_size'", "DELETE FROM items"),
            "damaged: its embedding_size is 4611686018427387904",
        ),
        (run_sql("UPDATE properties SET value = x'00' WHERE name = 'encoder'"), r"damaged: its encoder is b'\\x00'"),
        (run_sql("DELETE FROM properties WHERE name = 'fingerprint'"), "damaged: its fingerprint is None"),
    ],
)
def test_a_damaged_or_foreign_folder_is_refused(filled, damage, message):
    damage(filled)
    with pytest.raises(InputError, match=message):
        Gallery.open(filled)


def test_a_file_is_no_gallery(filled):
    with pytest.raises(InputError, match="it is a file, not a gallery"):
        Gallery.open(filled / "items.sqlite")


def test_damage_behind_an_open_gallery_is_noticed_before_anything_is_written(filled, rows):
    with Gallery.open(filled) as gallery:
        cut("embeddings-0.f32", 100)(filled)
        with pytest.raises(InputError, match="too short"):
            gallery.add(rows)
    assert (filled / "embeddings-0.f32").stat().st_size == 100


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("metadata", "'{'", "damaged: the metadata of item 1 is not JSON"),
        ("metadata", "replace(hex(zeroblob(50000)), '0', '[')", "damaged: the metadata of item 1 is not JSON"),
        ("metadata", "'[]'", "damaged: the metadata of item 1 is list, not an object"),
        ("metadata", "'5'", "damaged: the metadata of item 1 is int, not an object"),
        ("identity", "x'ff00'", "damaged: the identity of item 1 is bytes, not text"),
        ("identity", "CAST(x'ff00' AS TEXT)", "damaged: Could not decode to UTF-8"),
        ("path", "x'ff00'", "damaged: the path of item 1 is bytes, not text"),
    ],
)
def test_an_item_with_a_damaged_column_is_refused(filled, column, value, message):
    run_sql(f"UPDATE items SET {column} = {value} WHERE id = 1")(filled)
    with Gallery.open(filled) as gallery:
        for read in (lambda: next(gallery.items()), lambda: gallery.get(1)):
            with pytest.raises(InputError, match=message):
                read()


@pytest.mark.parametrize("value", ["'x'", "NULL", "x'00'", "1e300", "-5"])
def test_a_damaged_highest_id_is_refused(filled, rows, value):
    run_sql(f"UPDATE sqlite_sequence SET seq = {value}")(filled)
    with Gallery.open(filled) as gallery:
        for use in (lambda: gallery.add(rows), gallery.info, lambda: gallery.search(rows, 1)):
            with pytest.raises(InputError, match="damaged: its highest id is"):
                use()
        assert len(gallery) == 13


@pytest.mark.parametrize("name", ["x'ff00'", "NULL"])
def test_a_damaged_name_of_a_calibrated_identity_is_refused(filled, name):
    run_sql(
        "INSERT INTO properties VALUES ('calibration', '{}')",
        f"INSERT INTO calibration_identities VALUES ({name})",
    )(filled)
    with Gallery.open(filled) as gallery, pytest.raises(InputError, match="damaged: a name of an identity is"):
        gallery.calibration  # noqa: B018


def test_a_damaged_calibration_is_refused(filled):
    run_sql(
        "INSERT INTO properties VALUES ('calibration', '{}')", "INSERT INTO calibration VALUES ('embeddings', x'00')"
    )(filled)
    with Gallery.open(filled) as gallery, pytest.raises(InputError, match="calibration is damaged"):
        gallery.calibration  # noqa: B018


def test_a_calibration_of_complex_numbers_is_refused(filled):
    content = as_npy(np.zeros((4, 5), np.complex64)).hex()
    run_sql(
        "INSERT INTO properties VALUES ('calibration', '{}')",
        f"INSERT INTO calibration VALUES ('embeddings', x'{content}')",
    )(filled)
    with Gallery.open(filled) as gallery, pytest.raises(InputError, match="calibration is damaged .expected arrays"):
        gallery.calibration  # noqa: B018


def test_an_index_that_a_folder_cannot_have_is_ignored(filled):
    run_sql("INSERT INTO properties VALUES ('index', 'x')")(filled)
    with Gallery.open(filled) as gallery:
        assert gallery.info()["index"] is None


def test_embeddings_of_another_encoder_are_refused(filled, encoder):
    other = build_encoder(seed=1)
    with pytest.raises(
        InputError, match=f"of the encoder random-0 .*{encoder.fingerprint}.*, not of random-1 .*{other.fingerprint}"
    ):
        Gallery.open(filled, encoder=other)
    shutil.rmtree(filled / "encoder")
    other.save(filled / "encoder")
    with Gallery.open(filled) as gallery, pytest.raises(InputError, match="not of .*/encoder"):
        gallery.search(1, 1)


def test_what_an_interrupted_transaction_left_is_discarded(filled, rows):
    with (filled / "embeddings-0.f32").open("ab") as file:
        file.write(b"torn" * 7)
    (filled / "embeddings-1.f32").write_bytes(b"of a rewrite that was interrupted")
    (filled / "embeddings-mine.f32").write_bytes(b"of somebody else")
    with Gallery.open(filled) as gallery:
        assert len(gallery) == 13
        gallery.add(rows[:2], "b")
    assert sorted(path.name for path in filled.glob("*.f32")) == ["embeddings-0.f32", "embeddings-mine.f32"]
    stored = np.fromfile(filled / "embeddings-0.f32", "<f4").reshape(-1, 5)
    np.testing.assert_array_equal(stored, np.concatenate([rows, rows[:2]]))


def test_a_damaged_gallery_is_replaced_if_asked(filled, encoder):
    (filled / "items.sqlite").write_text("hello" * 1000)
    with Gallery.create(filled, encoder, overwrite=True) as gallery:
        assert len(gallery) == 0
