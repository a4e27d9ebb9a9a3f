"""A gallery in Milvus: a collection to which rows are appended, and which is replayed.

Milvus has no transactions. A change is therefore written as rows that nobody reads, and then a row of the kind "commit"
makes them count. Rows without a commit are of a process that died. A commit is written while the collection NAME_lock
exists, which one process creates and drops. The rows are

    kind         number                        content (JSON but for the encoder)         embedding
    encoder      position of the part          part of a ZIP archive in Base64            0
    calibration  position of the part          part of a JSON object                      0
    item         position in the transaction   [identity, path, metadata]                 the embedding
    update       id                            new identity and metadata by name          0
    remove       id                            null                                       0
    commit       number of the transaction     token, count of its rows, and properties   0

The key of a commit is "commit NUMBER", that of another row is "TOKEN POSITION". So all rows are read by their keys, which
does not take longer in a large collection. The id of a new item is the highest id before the transaction, plus one, plus
the position. After the commit of a removal, the rows of the items are deleted.
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

FIELDS = ("key", "kind", "number", "content", "embedding")
INTEGERS = ("embedding_size", "transaction", "last_rewrite", "calibrated", "last_id")
MAX_BYTES = 65_535
"""Largest size of a text in Milvus."""

ROWS_PER_CALL, COMMITS_PER_CALL = 2000, 100
LEASE = 10.0
"""Seconds after which a lock is taken from a process that has died. It is held for the insertion of one row."""

Row = dict[str, Any]


class Commit(NamedTuple):
    """A transaction.

    Attributes:
        token: Beginning of the keys of its rows.
        rows: Their number.
        properties: Of the gallery after it.
    """

    token: str
    rows: int
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
    with input_errors("write", address), contextlib.closing(connect(url, timeout, create=True)) as client:
        if client.has_collection(name):
            if not overwrite:
                raise InputError(f"{address} exists; choose another name, or create it with `overwrite=True`")
            _check_collection(client, name, address)
            client.drop_collection(name)
        schema = client.create_schema()
        schema.add_field("key", DataType.VARCHAR, max_length=64, is_primary=True)
        schema.add_field("kind", DataType.VARCHAR, max_length=16)
        schema.add_field("number", DataType.INT64)
        schema.add_field("content", DataType.VARCHAR, max_length=MAX_BYTES)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=properties["embedding_size"])
        index = client.prepare_index_params()
        index.add_index("embedding", index_type="FLAT", metric_type="L2")
        client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
        token, size = _new_token(), properties["embedding_size"]
        count = _insert(client, name, token, _parts("encoder", base64.b64encode(archive).decode()), size)
        _insert_commit(client, name, Commit(token, count, stored), size)


class MilvusStore:
    """A gallery in a collection of Milvus. See `Store` for the methods without a description."""

    def __init__(self, url: str, name: str, timeout: float):
        self._url, self._name, self._timeout = url, name, timeout
        self._lock = threading.RLock()
        self._commits: list[Commit] = []
        self._applied = 0  # number of commits whose rows were read
        self._items: dict[int, Item] = {}
        self._rows: dict[int, int] = {}  # of the temporary file, by id
        self._keys: dict[int, list[str]] = {}  # of the rows in Milvus, by id
        self._contents: Contents | None = None
        self._file = tempfile.TemporaryFile()  # noqa: SIM115, closed by `close`
        try:
            with input_errors("open", self.address):
                self._client = connect(url, timeout)
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
            self._read_commits()
            text = self._joined(self._commits[0])
        return load_archived_encoder(base64.b64decode(text), self._name, self.address)

    def properties(self) -> Properties:
        with self._calling("read"):
            return self._read_commits()

    def count(self) -> int:
        return len(self.contents().ids)

    def count_identities(self) -> int:
        with self._reading():
            return len({item.identity for item in self._items.values()} - {None})

    def contents(self, where: Where = None) -> Contents:
        conditions = list(values_of(where))
        with self._reading() as found:
            if where is None:
                return found
            return _selected(found, [_matches(item, conditions) for item in self._items.values()])

    def named_contents(self) -> Contents:
        with self._reading() as found:
            return _selected(found, [item.identity is not None for item in self._items.values()])

    def items_by_id(self, ids: Iterable[int]) -> dict[int, Item]:
        with self._reading():
            return {i: self._items[i] for i in ids if i in self._items}

    def items(self, where: Where = None) -> Iterator[Item]:
        conditions = list(values_of(where))
        with self._reading():
            found = list(self._items.values())
        return (item for item in found if _matches(item, conditions))

    def known_paths(self, paths: Iterable[str]) -> set[str]:
        with self._reading():
            return set(paths) & {item.path for item in self._items.values() if item.path is not None}

    def enrolled(self, names: Iterable[str | None] | None = None) -> list[str]:
        if names is None:
            calibration = self.calibration()
            names = calibration.identities if calibration else []
        with self._reading():
            enrolled = {item.identity for item in self._items.values() if item.identity is not None}
        return sorted(enrolled.intersection(names))

    def calibration(self) -> StoredCalibration | None:
        with self._calling("read"):
            number = self._read_commits()["calibrated"]
            if not number:
                return None
            found = json.loads(self._joined(self._commits[number]))
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

        def change(properties: Properties) -> None:
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

        def change(properties: Properties) -> None:
            properties["calibrated"] = properties["transaction"] + 1

        with self._calling("write"):
            earlier = self._read_commits()["calibrated"]
            self._write(_parts("calibration", text), change)
            if earlier:
                self._delete(_keys(self._commits[earlier]))

    def _rewrite(self, kind: str, select: Callable[[], list[int]], content: Any = None) -> int:
        """Update or remove the items that `select` returns after the gallery was read, and return their number."""

        def change(properties: Properties) -> None:
            properties["last_rewrite"] = properties["transaction"] + 1

        with self._calling("write"):
            while True:  # until no other process has written meanwhile
                seen = self._refresh().properties["transaction"]
                ids = sorted(set(select()))
                rows = [{"kind": kind, "number": i, "content": _as_json(content)} for i in ids]
                if self._write(rows, change, seen):
                    break
            if kind == "remove":
                self._delete(key for i in ids for key in self._keys[i])
            return len(ids)

    def _existing(self, ids: list[int]) -> list[int]:
        for i in ids:
            if i not in self._items:
                raise InputError(f"ids: the gallery has no item {i}; nothing was changed")
        return ids

    def _write(self, rows: Iterable[Row], change: Callable[[Properties], None], seen: int | None = None) -> bool:
        """Write rows and their commit.

        Args:
            rows: Rows without keys; without an embedding it is 0.
            change: Changes the properties.
            seen: Write nothing and return False if there was a transaction after this one.
        """
        token, size = _new_token(), self._read_commits()["embedding_size"]
        count, is_committed = 0, False
        try:
            count = _insert(self._client, self._name, token, rows, size)
            with self._locked():
                properties = dict(self._read_commits())
                if seen in (None, properties["transaction"]):
                    change(properties)
                    properties["transaction"] += 1
                    is_committed = True  # or it may be, if the server ends now
                    _insert_commit(self._client, self._name, Commit(token, count, properties), size)
        finally:
            if not is_committed:
                with contextlib.suppress(MilvusException):
                    self._client.delete(self._name, filter=f"key like '{token}%'")
        return is_committed

    def _delete(self, keys: Iterable[str]) -> None:
        for batch in _batches(keys, ROWS_PER_CALL):
            self._client.delete(self._name, ids=batch)

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
    def _reading(self) -> Iterator[Contents]:
        with self._calling("read"):
            yield self._refresh()

    @contextlib.contextmanager
    def _calling(self, action: str) -> Iterator[None]:
        with self._lock, input_errors(action, self.address):
            if self._file.closed:
                raise InputError(f"{self.address}: the gallery was closed")
            self._client.load_collection(self._name)  # the server may have been restarted
            yield

    def _read_commits(self) -> Properties:
        """Read new commits, and return the properties after the last one."""
        known = len(self._commits)
        count = COMMITS_PER_CALL
        while count == COMMITS_PER_CALL:
            start = max(len(self._commits) - 1, 0)  # the last one again, to notice that the gallery was replaced
            rows = self._get([_key_of_commit(number) for number in range(start, start + COMMITS_PER_CALL)])
            commits = [Commit(*json.loads(row["content"])) for row in rows.values()]
            if known and (not commits or commits[0].token != self._commits[-1].token):
                raise InputError(f"{self.address} was replaced by another gallery; open it again")
            self._commits[start:] = commits
            count = len(commits)
        if not self._commits:
            raise InputError(f"{self.address}: the gallery is damaged: its creation was interrupted")
        return check_properties(self._commits[-1].properties, INTEGERS, self.address)

    def _refresh(self) -> Contents:
        """Return all items. Only rows of new commits are read."""
        properties = self._read_commits()
        while self._contents is None or self._applied < len(self._commits):
            # Again if there are new commits: a process deletes rows of removed items after its commit.
            self._contents = self._apply(properties)
            properties = self._read_commits()
        return self._contents

    def _apply(self, properties: Properties) -> Contents:
        """Read the rows of new commits, and apply their changes."""
        size, earlier = properties["embedding_size"], self._contents
        count = earlier.properties["rows"] if earlier else 0
        self._file.seek(count * size * 4)
        first_ids = {}
        for before, commit in itertools.pairwise(self._commits[max(self._applied - 1, 0) :]):
            first_ids[commit.token] = before.properties["last_id"] + 1
        new = self._commits[max(self._applied, 1) :]
        for batch in _batches(itertools.chain.from_iterable(map(_keys, new)), ROWS_PER_CALL):
            for key, row in self._get(batch).items():
                if row["kind"] == "item":
                    i = row["number"] + first_ids[key.split()[0]]
                    self._items[i], self._rows[i] = Item(i, *json.loads(row["content"])), count
                    self._keys[i] = [key]
                    self._file.write(np.asarray(row["embedding"], "<f4").data)
                    count += 1
                elif row["kind"] == "update" and row["number"] in self._items:
                    changed = json.loads(row["content"])
                    self._items[row["number"]] = self._items[row["number"]]._replace(**changed)
                    self._keys[row["number"]].append(key)
                elif row["kind"] == "remove":
                    for table in (self._items, self._rows, self._keys):
                        table.pop(row["number"], None)
        self._file.flush()
        self._applied = len(self._commits)
        embeddings = np.empty((0, size), np.float32)
        if count:
            embeddings = np.asarray(np.memmap(self._file, "<f4", "r", shape=(count, size)))
        ids, rows = (np.fromiter(values, np.int64, len(self._items)) for values in (self._items, self._rows.values()))
        return Contents(ids, rows, embeddings, {**properties, "rows": count})

    def _joined(self, commit: Commit) -> str:
        """Return the text whose parts a commit has."""
        parts = (self._get(batch) for batch in _batches(_keys(commit), ROWS_PER_CALL))
        return "".join(row["content"] for rows in parts for row in rows.values())

    def _get(self, keys: list[str]) -> dict[str, Row]:
        """Return those of these rows that exist, in this order."""
        rows: Any = self._client.get(self._name, keys, output_fields=list(FIELDS))
        found = {row["key"]: row for row in rows}
        return {key: found[key] for key in keys if key in found}


def open_gallery(url: str, name: str, timeout: float) -> MilvusStore:
    """Open a gallery; see `open_store`."""
    return MilvusStore(url, name, timeout)


def address_of(url: str, name: str) -> str:
    """Return the URL of a gallery without user and password."""
    scheme, _, place = _split(url)
    return f"{scheme}{place}?gallery={name}"


def _split(url: str) -> tuple[str, str, str]:
    """Return "milvus:" or "milvus://", "USER:PASSWORD" or nothing, and the file or HOST:PORT/DATABASE."""
    if not url.startswith("milvus://"):
        return "milvus:", "", url.removeprefix("milvus:")
    credentials, _, place = url.removeprefix("milvus://").rpartition("@")
    return "milvus://", credentials, place


def connect(url: str, timeout: float, *, create: bool = False) -> MilvusClient:
    """Return a client.

    Args:
        url: URL of the database.
        timeout: Seconds to wait for the server.
        create: Create the file if it does not exist.
    """
    for library in ("pymilvus", "milvus_lite", "grpc"):  # they print a traceback for each error that they raise
        logging.getLogger(library).setLevel(logging.CRITICAL)
    scheme, credentials, place = _split(url)
    if scheme == "milvus:":
        path = Path(place).expanduser().absolute()
        if path.suffix != ".db":
            raise InputError(f"expected a file that ends in .db, got {path}")
        if not create and not path.exists():
            raise InputError(f"{path}: no such gallery")
        try:
            return MilvusClient(str(path))
        except MilvusException as error:
            reason = f"damaged, or another process has opened it ({error.message})"
            raise InputError(f"cannot open {path}: it is {reason}") from error
    host, _, database = place.partition("/")
    return MilvusClient(f"http://{host}", token=credentials, db_name=database, timeout=timeout)


@contextlib.contextmanager
def input_errors(action: str, address: str) -> Iterator[None]:
    """Raise errors of Milvus as InputErrors; see `_postgres_sql.input_errors`."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InputError(f"expected Unicode text ({error})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{address}: the gallery is damaged ({error})") from error
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


def _insert(client: MilvusClient, name: str, token: str, rows: Iterable[Row], size: int) -> int:
    """Insert rows with the keys of a token, and return their number. An embedding of a row that has none is 0."""
    count, zero = 0, [0.0] * size
    for batch in _batches(rows, ROWS_PER_CALL):
        keyed = [{"key": f"{token} {count + n}", "embedding": zero, **row} for n, row in enumerate(batch)]
        client.insert(name, keyed)
        count += len(keyed)
    return count


def _insert_commit(client: MilvusClient, name: str, commit: Commit, size: int) -> None:
    number = commit.properties["transaction"]
    row = {"key": _key_of_commit(number), "kind": "commit", "number": number, "content": _as_json(commit)}
    client.insert(name, [{**row, "embedding": [0.0] * size}])


def _key_of_commit(number: int) -> str:
    return f"commit {number}"


def _keys(commit: Commit) -> Iterator[str]:
    return (f"{commit.token} {position}" for position in range(commit.rows))


def _new_token() -> str:
    return uuid.uuid4().hex


def _parts(kind: str, text: str) -> Iterator[Row]:
    """Yield rows with the parts of an ASCII text."""
    for number, start in enumerate(range(0, len(text), MAX_BYTES)):
        yield {"kind": kind, "number": number, "content": text[start : start + MAX_BYTES]}


def _batches(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    remaining = iter(values)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


def _as_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if (size := len(text.encode())) > MAX_BYTES:
        raise InputError(f"expected at most {MAX_BYTES:,} bytes of metadata, identity and path, got {size:,}")
    return text


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
