"""A gallery in Milvus: a collection to which rows are only appended, and which is replayed.

Milvus has no transactions. A change is therefore written as rows that nobody sees, and then a row of the kind "commit"
with the same token makes them count. Rows without a commit are of a process that died. A commit is written while the
collection NAME_lock exists, which one process creates and drops. The rows are

    kind         number                        content (JSON but for files)               embedding
    encoder      position of the part          part of a ZIP archive in Base64            0
    calibration  position of the part          part of a JSON object                      0
    item         position in the transaction   [identity, path, metadata]                 the embedding
    update       id                            new identity and metadata by name          0
    remove       id                            null                                       0
    commit       number of the transaction     properties                                 0

The id of a new item is the highest id before the transaction, plus one, plus the position.

After the commit, the rows of removed items are deleted.
"""

import base64
import contextlib
import itertools
import json
import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from simjax.core import InputError
from simjax.encoder import Encoder
from simjax.gallery._results import Item
from simjax.gallery._store import (
    FORMAT,
    VERSION,
    Contents,
    NewItems,
    Properties,
    StoredCalibration,
    Where,
    archive_of,
    as_npy,
    check_properties,
    load_archived_encoder,
    read_calibration,
    values_of,
)

FIELDS = ("key", "kind", "token", "number", "content", "embedding")
INTEGERS = ("embedding_size", "transaction", "last_rewrite", "calibrated", "last_id")
MAX_BYTES = 65_535
"""Largest size of a text in Milvus."""

ROWS_PER_CALL = 2000
MAX_TOKENS = 100
"""Largest number of new transactions whose rows are selected by their tokens instead of reading all rows."""

LEASE = 10.0
"""Seconds after which a lock is taken from a process that has died. It is held for the insertion of one row."""

Row = dict[str, Any]


class Commit(NamedTuple):
    """A transaction.

    Attributes:
        token: Of the rows that it makes count.
        first_id: Added to the position of new items.
        properties: Of the gallery after it.
    """

    token: int
    first_id: int
    properties: Properties


def create_gallery(
    url: str,
    name: str,
    properties: Properties,
    save_encoder: Callable[[Path], None],
    *,
    overwrite: bool,
    timeout: float,
) -> None:
    """Create the collection of an empty gallery; see `create_store`."""
    address = address_of(url, name)
    archive = archive_of(save_encoder)
    stored = {"format": FORMAT, "version": VERSION, **dict.fromkeys(INTEGERS, 0), **properties}
    with _input_errors("write", address), contextlib.closing(_connect(url, timeout, create=True)) as client:
        if client.has_collection(name):
            if not overwrite:
                raise InputError(f"{address} exists; choose another name, or create it with `overwrite=True`")
            _check_collection(client, name, address)
            client.drop_collection(name)
        schema = client.create_schema(auto_id=True)
        schema.add_field("key", DataType.INT64, is_primary=True)
        schema.add_field("kind", DataType.VARCHAR, max_length=16)
        schema.add_field("token", DataType.INT64)
        schema.add_field("number", DataType.INT64)
        schema.add_field("content", DataType.VARCHAR, max_length=MAX_BYTES)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=properties["embedding_size"])
        index = client.prepare_index_params()
        index.add_index("embedding", index_type="FLAT", metric_type="L2")
        client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
        rows = [*_parts("encoder", base64.b64encode(archive).decode()), _commit_row(stored)]
        _insert(client, name, rows, _new_token(), properties["embedding_size"])


class MilvusStore:
    """A gallery in a collection of Milvus. See `Store` for the methods without a description."""

    def __init__(self, url: str, name: str, timeout: float):
        self._url, self._name, self._timeout = url, name, timeout
        self._lock = threading.RLock()
        self._commits: list[Commit] = []  # those that were read and not applied, and the last one
        self._items: dict[int, Item] = {}
        self._rows: dict[int, int] = {}  # of the temporary file, by id
        self._keys: dict[int, list[int]] = {}  # of the rows in Milvus, by id
        self._contents: Contents | None = None
        self._file = tempfile.TemporaryFile()  # noqa: SIM115, closed by `close`
        try:
            with _input_errors("open", self.address):
                self._client = _connect(url, timeout)
                _check_collection(self._client, name, self.address)
            self.properties()
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """URL of the gallery without user and password."""
        return address_of(self._url, self._name)

    def close(self) -> None:
        """Close the connection, and delete the temporary file."""
        self._file.close()
        if hasattr(self, "_client"):
            self._client.close()

    def load_encoder(self) -> Encoder:
        with self._calling("read"):
            text = self._joined("kind == 'encoder'")
        return load_archived_encoder(base64.b64decode(text), self._name, self.address)

    def properties(self) -> Properties:
        with self._calling("read"):
            return self._read_commits()

    def count(self) -> int:
        return len(self.contents().ids)

    def count_identities(self) -> int:
        with self._calling("read"):
            self._refresh()
            return len({item.identity for item in self._items.values()} - {None})

    def contents(self, where: Where = None) -> Contents:
        conditions = list(values_of(where))
        with self._calling("read"):
            found = self._refresh()
            if where is None:
                return found
            return _selected(found, [_matches(item, conditions) for item in self._items.values()])

    def named_contents(self) -> Contents:
        with self._calling("read"):
            return _selected(self._refresh(), [item.identity is not None for item in self._items.values()])

    def items_by_id(self, ids: Iterable[int]) -> dict[int, Item]:
        with self._calling("read"):
            self._refresh()
            return {i: self._items[i] for i in ids if i in self._items}

    def items(self, where: Where = None) -> Iterator[Item]:
        conditions = list(values_of(where))
        with self._calling("read"):
            self._refresh()
            found = list(self._items.values())
        return (item for item in found if _matches(item, conditions))

    def known_paths(self, paths: Iterable[str]) -> set[str]:
        with self._calling("read"):
            self._refresh()
            return set(paths) & {item.path for item in self._items.values() if item.path is not None}

    def enrolled(self, names: Iterable[str | None] | None = None) -> list[str]:
        if names is None:
            calibration = self.calibration()
            names = calibration.identities if calibration else []
        with self._calling("read"):
            self._refresh()
            return sorted(set(names) & {item.identity for item in self._items.values()} - {None})  # type: ignore[type-var]

    def calibration(self) -> StoredCalibration | None:
        with self._calling("read"):
            properties = self._read_commits()
            if "calibration" not in properties:
                return None
            found = json.loads(self._joined(f"kind == 'calibration' and token == {properties['calibration']}"))
        arrays = {name: base64.b64decode(array) for name, array in found["arrays"].items()}
        return read_calibration(arrays, json.dumps(found["description"]), found["identities"], self.address)

    def add(self, batches: Iterable[NewItems], last_id: int = 0) -> list[int]:
        positions: list[int] = []

        def rows() -> Iterator[Row]:
            for new in batches:
                start = len(positions)
                own = range(start, start + len(new.embeddings)) if new.ids is None else [i - first for i in new.ids]
                positions.extend(own)
                columns = zip(own, new.identities, new.paths, new.metadata, new.embeddings, strict=True)
                for position, identity, path, metadata, embedding in columns:
                    content = _as_json([identity, path, json.loads(metadata)])
                    yield {"kind": "item", "number": position, "content": content, "embedding": embedding}

        def change(properties: Properties, token: int) -> None:
            nonlocal first
            first = properties["last_id"] + 1
            properties["last_id"] = max([properties["last_id"], last_id, *(first + n for n in positions[-1:])])

        with self._calling("write"):
            first = self._read_commits()["last_id"] + 1
            self._write(rows(), change)
        return [first + position for position in positions]

    def update(self, ids: Iterable[int], values: Mapping[str, str | None]) -> None:
        wanted = list(ids)
        content = {name: json.loads(v) if name == "metadata" and v else v for name, v in values.items()}
        self._rewrite("update", lambda: self._existing(wanted), content)

    def remove(self, ids: Iterable[int]) -> int:
        wanted = list(ids)
        return self._rewrite("remove", lambda: self._existing(wanted))

    def remove_identity(self, name: str) -> int:
        return self._rewrite("remove", lambda: [i for i, item in self._items.items() if item.identity == name])

    def save_calibration(self, calibration: StoredCalibration) -> None:
        arrays = {name: base64.b64encode(as_npy(array)).decode() for name, array in calibration.arrays.items()}
        names = sorted(set(calibration.identities))
        text = json.dumps({"arrays": arrays, "description": calibration.description, "identities": names})

        def change(properties: Properties, token: int) -> None:
            properties |= {"calibration": token, "calibrated": properties["transaction"] + 1}

        with self._calling("write"):
            earlier = self._read_commits().get("calibration")
            self._write(_parts("calibration", text), change)
            if earlier is not None:
                self._client.delete(self._name, filter=f"kind == 'calibration' and token == {earlier}")

    def _rewrite(self, kind: str, select: Callable[[], list[int]], content: Any = None) -> int:
        """Update or remove the items that `select` returns after the gallery was read, and return their number."""

        def change(properties: Properties, token: int) -> None:
            properties["last_rewrite"] = properties["transaction"] + 1

        with self._calling("write"):
            while True:  # until no other process has written meanwhile
                seen = self._refresh().properties["transaction"]
                ids = sorted(set(select()))
                rows = [{"kind": kind, "number": i, "content": _as_json(content)} for i in ids]
                if self._write(rows, change, seen):
                    break
            if kind == "remove":
                keys = [key for i in ids for key in self._keys[i]]
                for start in range(0, len(keys), ROWS_PER_CALL):
                    self._client.delete(self._name, ids=keys[start : start + ROWS_PER_CALL])
            return len(ids)

    def _existing(self, ids: list[int]) -> list[int]:
        for i in ids:
            if i not in self._items:
                raise InputError(f"ids: the gallery has no item {i}; nothing was changed")
        return ids

    def _write(self, rows: Iterable[Row], change: Callable[[Properties, int], None], seen: int | None = None) -> bool:
        """Write rows and their commit.

        Args:
            rows: Rows without token, and without an embedding if that is 0.
            change: Changes the properties, and gets the token of the rows.
            seen: Write nothing and return False if there was a transaction after this one.
        """
        token, size = _new_token(), self._read_commits()["embedding_size"]
        is_committed = False
        try:
            _insert(self._client, self._name, rows, token, size)
            with self._locked():
                properties = dict(self._read_commits())
                if seen in (None, properties["transaction"]):
                    change(properties, token)
                    properties["transaction"] += 1
                    is_committed = True  # or it may be, if the server ends now
                    _insert(self._client, self._name, [_commit_row(properties)], token, size)
        finally:
            if not is_committed:
                with contextlib.suppress(MilvusException):
                    self._client.delete(self._name, filter=f"token == {token}")
        return is_committed

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the collection NAME_lock, which only one process can create; its key is named after the process."""
        name, token = f"{self._name}_lock", f"held_by_{uuid.uuid4().hex}"
        schema = self._client.create_schema()
        schema.add_field(token, DataType.INT64, is_primary=True)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=2)
        end, other, since = time.monotonic() + self._timeout, "", time.monotonic()
        while True:
            with contextlib.suppress(MilvusException):  # it exists
                self._client.create_collection(name, schema=schema)
            holder = self._holder(name)
            if holder == token:
                break
            if holder != other:
                other, since = holder, time.monotonic()
            if holder and time.monotonic() - since > LEASE:
                self._client.drop_collection(name)
            if time.monotonic() > end:
                raise InputError(f"another process is writing {self.address}; try again later")
            time.sleep(0.05)
        try:
            yield
        finally:
            with contextlib.suppress(MilvusException):
                self._client.drop_collection(name)

    def _holder(self, name: str) -> str:
        """Return the name of the key of the lock, or an empty text if nobody holds it."""
        try:
            return _fields(self._client, name)[0]
        except MilvusException:
            return ""

    @contextlib.contextmanager
    def _calling(self, action: str) -> Iterator[None]:
        with self._lock, _input_errors(action, self.address):
            if self._file.closed:
                raise InputError(f"{self.address}: the gallery was closed")
            self._client.load_collection(self._name)  # the server may have been restarted
            yield

    def _read_commits(self) -> Properties:
        """Read new commits, and return the properties after the last one."""
        last = self._commits[-1].properties if self._commits else {"transaction": 0, "last_id": 0}
        found = self._query(f"kind == 'commit' and number >= {last['transaction']}", "token", "number", "content")
        rows = sorted(found, key=lambda row: row["number"])
        if self._commits and (not rows or rows.pop(0)["token"] != self._commits[-1].token):
            raise InputError(f"{self.address} was replaced by another gallery; open it again")
        for row in rows:
            properties = check_properties(json.loads(row["content"]), INTEGERS, self.address)
            self._commits.append(Commit(row["token"], last["last_id"] + 1, properties))
            last = properties
        if not self._commits:
            raise InputError(f"{self.address}: the gallery is damaged: its creation was interrupted")
        return last

    def _refresh(self) -> Contents:
        """Return all items. Only rows of new commits are read."""
        self._read_commits()
        while self._contents is None or len(self._commits) > 1:
            # Again if there are new commits: a process deletes rows of removed items after its commit.
            self._apply(self._commits if self._contents is None else self._commits[1:])
            self._read_commits()
        return self._contents

    def _apply(self, commits: list[Commit]) -> None:
        """Read the rows of commits, and apply their changes in order."""
        properties = commits[-1].properties
        size, earlier = properties["embedding_size"], self._contents
        first_row = count = earlier.properties["rows"] if earlier else 0
        changes: dict[int, list[tuple[int, Row]]] = {commit.token: [] for commit in commits}
        tokens = "" if earlier is None or len(commits) > MAX_TOKENS else f" and token in {list(changes)}"
        self._file.seek(count * size * 4)
        fields = ("key", "kind", "token", "number", "content", "embedding")
        for row in self._query(f"kind in ['item', 'update', 'remove']{tokens}", *fields):
            if row["token"] in changes:
                embedding = row.pop("embedding")
                changes[row["token"]].append((count, row))
                if row["kind"] == "item":
                    self._file.write(np.asarray(embedding, "<f4").data)
                    count += 1
        self._file.flush()
        for commit in commits:
            for place, row in sorted(changes[commit.token], key=lambda change: change[1]["number"]):
                self._apply_row(row, commit.first_id, place)
        embeddings = np.empty((0, size), np.float32)
        if count:
            embeddings = np.memmap(self._file, "<f4", "r+", shape=(count, size))
            self._sort_rows(embeddings, first_row)
        n = len(self._items)
        self._contents = Contents(
            np.fromiter(self._items, np.int64, n),
            np.fromiter((self._rows[i] for i in self._items), np.int64, n),
            np.asarray(embeddings),
            {**properties, "rows": count},
        )
        self._commits = [commits[-1], *self._commits[self._commits.index(commits[-1]) + 1 :]]

    def _apply_row(self, row: Row, first_id: int, place: int) -> None:
        content, i = json.loads(row["content"]), row["number"]
        if row["kind"] == "item":
            i += first_id
            self._items[i], self._rows[i] = Item(i, *content), place
        elif i in self._items:
            if row["kind"] == "update":
                self._items[i] = self._items[i]._replace(**content)
            else:
                del self._items[i], self._rows[i], self._keys[i]
                return
        self._keys.setdefault(i, []).append(row["key"])

    def _sort_rows(self, embeddings: np.memmap, first_row: int) -> None:
        """Bring new rows into the order of the ids; processes may have inserted them at once."""
        new = {i: row for i, row in self._rows.items() if row >= first_row}
        order = np.fromiter(new.values(), np.int64, len(new))
        if np.any(np.diff(order) < 0):
            embeddings[first_row : first_row + len(order)] = embeddings[order]
            self._rows |= {i: first_row + n for n, i in enumerate(new)}

    def _joined(self, condition: str) -> str:
        rows = self._query(condition, "number", "content")
        return "".join(row["content"] for row in sorted(rows, key=lambda row: row["number"]))

    def _query(self, condition: str, *fields: str) -> Iterator[Row]:
        found = self._client.query_iterator(
            self._name, batch_size=ROWS_PER_CALL, filter=condition, output_fields=list(fields)
        )
        with contextlib.closing(found):
            while rows := found.next():
                yield from rows


def open_gallery(url: str, name: str, timeout: float) -> MilvusStore:
    """Open a gallery; see `open_store`."""
    return MilvusStore(url, name, timeout)


def address_of(url: str, name: str) -> str:
    """Return the URL of a gallery without user and password."""
    scheme, credentials, place = _split(url)
    return f"{scheme}{place}?gallery={name}"


def _split(url: str) -> tuple[str, str, str]:
    """Return "milvus:" or "milvus://", "USER:PASSWORD" or nothing, and the file or HOST:PORT/DATABASE."""
    if not url.startswith("milvus://"):
        return "milvus:", "", url.removeprefix("milvus:")
    credentials, _, place = url.removeprefix("milvus://").rpartition("@")
    return "milvus://", credentials, place


def _connect(url: str, timeout: float, *, create: bool = False) -> MilvusClient:
    for library in ("pymilvus", "milvus_lite", "grpc"):  # they print a traceback for each error that they raise
        logging.getLogger(library).setLevel(logging.CRITICAL)
    scheme, credentials, place = _split(url)
    if scheme == "milvus:":
        path = Path(place).expanduser().absolute()
        if path.suffix != ".db":
            raise InputError(f"expected a file that ends in .db, got {path}")
        if not create and not path.exists():  # it would be created
            raise InputError(f"{path}: no such gallery")
        try:
            return MilvusClient(str(path))
        except MilvusException as error:
            reason = f"damaged, or another process has opened it ({error.message})"
            raise InputError(f"cannot open {path}: it is {reason}") from error
    host, _, database = place.partition("/")
    return MilvusClient(f"http://{host}", token=credentials, db_name=database, timeout=timeout)


@contextlib.contextmanager
def _input_errors(action: str, address: str) -> Iterator[None]:
    """Raise errors of Milvus as InputErrors; see `_postgres_sql.input_errors`."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InputError(f"expected Unicode text ({error})") from error
    except MilvusException as error:
        raise InputError(f"cannot {action} {address}: {' '.join(error.message.split())}") from error


def _check_collection(client: MilvusClient, name: str, address: str) -> None:
    if not client.has_collection(name):
        raise InputError(f"{address}: no such gallery")
    if sorted(_fields(client, name)) != sorted(FIELDS):
        raise InputError(f"{address} is not a gallery: it is of something else")


def _fields(client: MilvusClient, name: str) -> list[str]:
    """Return the names of the fields of a collection."""
    description: Any = client.describe_collection(name)
    return [field["name"] for field in description["fields"]]


def _insert(client: MilvusClient, name: str, rows: Iterable[Row], token: int, size: int) -> None:
    """Insert rows with a token; those without an embedding get 0."""
    zero, remaining = [0.0] * size, iter(rows)
    while batch := [{"token": token, "embedding": zero, **row} for row in itertools.islice(remaining, ROWS_PER_CALL)]:
        client.insert(name, batch)


def _parts(kind: str, text: str) -> Iterator[Row]:
    """Yield rows with the parts of an ASCII text."""
    for number, start in enumerate(range(0, len(text), MAX_BYTES)):
        yield {"kind": kind, "number": number, "content": text[start : start + MAX_BYTES]}


def _commit_row(properties: Properties) -> Row:
    return {"kind": "commit", "number": properties["transaction"], "content": _as_json(properties)}


def _as_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if len(text.encode()) > MAX_BYTES:
        raise InputError(f"expected at most {MAX_BYTES:,} bytes of metadata, identity and path, got {len(text):,}")
    return text


def _new_token() -> int:
    return uuid.uuid4().int >> 65  # a positive number of 63 bits


def _selected(contents: Contents, is_selected: list[bool]) -> Contents:
    mask = np.array(is_selected, bool)
    return contents._replace(ids=contents.ids[mask], rows=contents.rows[mask])


def _matches(item: Item, conditions: Iterable[tuple[str, list[Any]]]) -> bool:
    """Return whether an item has these values of metadata or identity, which compare as in `_sql.condition`."""
    for key, values in conditions:
        if key == "identity":
            is_found = item.identity in [None if value is None else str(value) for value in values]
        else:
            stored = item.metadata.get(key, ...)
            is_found = any(isinstance(v, bool) == isinstance(stored, bool) and v == stored for v in values)
        if not is_found:
            return False
    return True
