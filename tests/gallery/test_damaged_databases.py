"""Galleries in databases that something else has changed: every call works or raises one InputError."""

import contextlib
import io
import json
import tempfile
import zipfile
from typing import Any

import numpy as np
import pytest

from simjax.core import InputError
from simjax.gallery import Gallery
from simjax.gallery._store import read_calibration
from tests.gallery.conftest import SIZE

pytestmark = pytest.mark.slow


@pytest.fixture
def strangers(random) -> np.ndarray:
    return np.repeat(random.normal(size=(10, SIZE)), 2, axis=0) + 0.05 * random.normal(size=(20, SIZE))


def fill(gallery: Gallery, rows: np.ndarray, strangers: np.ndarray) -> None:
    """Add items in the first transaction, and a calibration in the second."""
    gallery.add(rows, "a", {"k": 1})
    gallery.calibrate(strangers, [f"stranger {i // 2}" for i in range(len(strangers))])


def check(url: str, rows: np.ndarray, message: str) -> None:
    """Check that calls raise no other error than InputErrors of one line, and one of these with a message."""
    messages = []
    try:
        with Gallery.open(url, timeout=3.0) as gallery:
            for call in (
                lambda: len(gallery),
                lambda: list(gallery.items({"k": 1})),
                lambda: gallery._store.contents(),
                lambda: gallery.search(rows[:2], 2),
                lambda: gallery.identify(rows[:2], fpir=0.5),
                lambda: gallery.add(rows[:1], "z"),
                lambda: gallery.info(),
            ):
                try:
                    call()
                except InputError as error:
                    messages.append(str(error))
    except InputError as error:
        messages.append(str(error))
    assert any(message in found for found in messages), messages
    for found in messages:
        assert found.isprintable()
        assert f"{tempfile.gettempdir()}/tmp" not in found  # a temporary folder


def archive(flags: int = 0, method: int | None = None, content: str = "{}") -> bytes:
    """A ZIP archive with a config.json; optionally its flags and its method of compression are changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("config.json", content)
    changed = bytearray(file.getvalue())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = changed.find(signature) + offset
        changed[start] |= flags
        changed[start + 2] = changed[start + 2] if method is None else method
    return bytes(changed)


def set_property(name: str, value: object) -> str:
    return f"UPDATE gallery.properties SET value = '{json.dumps(value)}' WHERE name = '{name}'"


def set_encoder(content: bytes) -> str:
    return f"UPDATE gallery.encoder SET archive = '\\x{content.hex()}'"


FREE_METADATA = "ALTER TABLE gallery.items DROP CONSTRAINT items_metadata_check"


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ([set_property("version", 2)], "its format 2 is newer than 1; update simjax"),
        ([set_property("last_id", "x")], "the gallery is damaged: its last_id is 'x'"),
        (["DROP TABLE gallery.items"], 'is damaged, or its tables are of something else (relation "items" does not'),
        ([set_encoder(b"x")], "the encoder is damaged"),
        ([set_encoder(archive(flags=1))], "the encoder is damaged"),
        ([set_encoder(archive(method=99))], "the encoder is damaged (That compression method is not supported)"),
        ([set_encoder(archive())], "gallery=gallery: has no encoder; expected"),
        (["DELETE FROM gallery.encoder"], "its table `encoder` is empty"),
        ([set_property("embedding_size", 10)], "vectors of 10 numbers, its embedding_size"),
        ([set_property("embedding_size", 4)], "vectors of 4 numbers, its embedding_size"),
        ([set_property("embedding_size", 0)], "its embedding_size is 0"),
        ([set_property("embedding_size", 2**62)], f"its embedding_size is {2**62}"),
        (["ALTER TABLE gallery.items ALTER id TYPE int"], "expected ids of the type bigint"),
        (["ALTER TABLE gallery.items ALTER embedding TYPE real[] USING embedding::real[]"], "embeddings that are vect"),
        (
            ["ALTER TABLE gallery.items ALTER embedding TYPE vector", "UPDATE gallery.items SET embedding = '[1,2]'"],
            "embeddings that are vectors of 5 numbers",
        ),
        (
            [
                "ALTER TABLE gallery.items ALTER embedding DROP NOT NULL",
                "UPDATE gallery.items SET embedding = NULL WHERE id = 2",
            ],
            "embeddings that are vectors of 5 numbers",
        ),
        (["ALTER TABLE gallery.items ALTER identity TYPE bytea USING identity::bytea"], "of item 1 have another type"),
        ([FREE_METADATA, "UPDATE gallery.items SET metadata = '[1]'"], "of item 1 have another type"),
        ([FREE_METADATA, "ALTER TABLE gallery.items ALTER metadata TYPE text USING '{'"], "invalid input syntax"),
        (["UPDATE gallery.calibration SET content = '\\x504b0304'"], "the calibration is damaged"),
        ([set_property("calibration", 5)], "the calibration is damaged"),
        (["INSERT INTO gallery.properties VALUES ('index', '5')"], "the gallery is damaged: its index is 5"),
        (["INSERT INTO gallery.properties VALUES ('index', '{\"items\": 1}')"], "damaged: its index is {'items': 1}"),
    ],
)
def test_a_damaged_gallery_in_postgresql_is_refused(postgres, encoder, rows, strangers, statements, message):
    with Gallery.create(postgres.url(), encoder, overwrite=True) as gallery:
        fill(gallery, rows, strangers)
    try:
        postgres.execute(*statements)
        check(postgres.url(), rows, message)
    finally:
        postgres.execute("DROP SCHEMA gallery CASCADE")


def commit(number: int = 2, rows: Any = None, **properties: Any):
    """Return a change of the content of a commit."""

    def change(change_row):
        def changed(content: str) -> str:
            token, count, stored = json.loads(content)
            return json.dumps([token, count if rows is None else rows, {**stored, **properties}])

        change_row(f"commit {number}", changed)

    return change


def content_of(key: str, content: str):
    """Return a change of the content of a row; a key "NUMBER POSITION" is that of a row of a commit."""
    return lambda change_row: change_row(key, lambda _: content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            (content_of("commit 2", content), "the gallery is damaged")
            for content in ("{}", "[1]", "5", "null", '["t", 1, 5]', '["t", -1, {}]', "[" * 5000, "xx")
        ),
        (content_of("commit 2", '["t", 1, {}]'), "is not a gallery: it is of something else"),
        (commit(rows="x"), "commit 2 has another form"),
        (commit(rows=10**9), "commit 2 has 1,000,000,000 rows, but only 13 items were ever added"),
        (commit(embedding_size=7), "its embedding_size is 7, its embeddings have 5 numbers"),
        (commit(embedding_size=0), "its embedding_size is 0"),
        (commit(embedding_size=10**12), "its embedding_size is 1000000000000"),
        (commit(calibrated=99), "commit 2 has the properties of another one"),
        (commit(calibrated=1), "the gallery is damaged"),
        (commit(transaction=7), "commit 2 has the properties of another one"),
        (commit(1, last_id="x"), "the gallery is damaged: its last_id is 'x'"),
        *(
            (content_of("1 0", content), "of item 1 have another type")
            for content in (
                "5",
                "[]",
                "[1, 2, 3]",
                "[1, 2, 3, 4]",
                '["a", null, [1]]',
                '{"a": 1}',
                "[null, null, null]",
            )
        ),
        (content_of("1 0", "x"), "the gallery is damaged"),
        *((content_of("0 0", content), "expected Base64") for content in ("x", "é")),
        (content_of("0 0", ""), "the encoder is damaged"),
        *((content_of("2 0", content), "the gallery is damaged") for content in ("x", "5", "[" * 5000, "{}")),
    ],
)
def test_a_damaged_gallery_in_milvus_is_refused(milvus, encoder, rows, strangers, change, message):
    from pymilvus import MilvusClient

    with Gallery.create(milvus.url(), encoder, overwrite=True) as gallery:
        fill(gallery, rows, strangers)
        client: Any = MilvusClient(f"http://127.0.0.1:{milvus.port}")
        gallery._store.properties()  # reads the last commit
        tokens = [found.token for found in gallery._store._commits]  # type: ignore[attr-defined]

    def change_row(key, changed):
        number, _, position = key.partition(" ")
        key = f"{tokens[int(number)]} {position}" if number.isdecimal() else key
        client.load_collection("gallery")
        (row,) = client.get("gallery", [key], output_fields=["key", "kind", "number", "content", "embedding"])
        embedding = [float(value) for value in row["embedding"]]
        client.upsert("gallery", [{**row, "embedding": embedding, "content": changed(row["content"])}])

    with contextlib.closing(client):
        change(change_row)
        check(milvus.url(), rows, message)


def npy(header: str, content: bytes = b"") -> bytes:
    """A file in NumPy's .npy format with any header."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


def saved(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize(
    ("array", "description", "identities"),
    [
        (b"PK\x03\x04 and so on", "{}", []),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}\n"), "{}", []),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (\n"), "{}", []),
        (npy("(" * 5000), "{}", []),
        (saved(np.array(["text"])), "{}", []),
        (saved(np.ones(3))[:-1], "{}", []),
        (saved(np.ones(3)), "[" * 100_000, []),
        (saved(np.ones(3)), "[]", []),
        (saved(np.ones(3)), "{}", [5]),
    ],
    ids=["zip", "large", "open header", "deep header", "text", "short", "deep description", "list", "identity"],
)
def test_a_damaged_calibration_is_refused(array, description, identities):
    with pytest.raises(InputError, match="^the gallery: the calibration is damaged"):
        read_calibration({"embeddings": array}, description, identities, "the gallery")
