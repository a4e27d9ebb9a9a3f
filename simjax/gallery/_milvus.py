"""A gallery in Milvus: a collection to which rows are appended, and which is replayed.

Milvus has no transactions. A change is therefore written as rows that are ignored until a row of the kind "commit"
names them. Rows without a commit are of a process that died. One process at a time writes a commit, see `_milvus_lock`.
The rows are

    kind         number                        content (JSON but for the encoder)         embedding
    encoder      position of the part          part of a ZIP archive in Base64            0
    calibration  position of the part          part of a JSON object                      0
    item         position in the transaction   [identity, path, metadata]                 the embedding
    update       id                            new identity and metadata by name          0
    remove       id                            null                                       0
    commit       number of the transaction     token, count of its rows, and properties   0

The key of a commit is "commit NUMBER", that of another row is "TOKEN POSITION". Rows are read by their keys, because a
filter scans the whole collection. The id of a new item is the highest id before the transaction, plus one, plus the
position. After the commit of a removal, the rows of the items are deleted.
"""

import base64
import contextlib
import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from pymilvus import MilvusException

from simjax.core import InputError
from simjax.encoder import Encoder
from simjax.gallery._milvus_lock import locked
from simjax.gallery._milvus_rows import (
    FIELDS,
    ROWS_PER_CALL,
    Commit,
    Row,
    address_of,
    as_json,
    batches_of,
    check_collection,
    commit_of,
    connect,
    from_base64,
    input_errors,
    insert,
    insert_commit,
    item_rows,
    key_of_commit,
    keys_of,
    new_token,
    parts_of,
)
from simjax.gallery._results import Item
from simjax.gallery._store import (
    Contents,
    DamageError,
    EmbeddingFile,
    NewItems,
    Properties,
    StoredCalibration,
    Where,
    as_npy,
    checked_item,
    load_archived_encoder,
    matches,
    read_calibration,
    values_of,
)

COMMITS_PER_CALL = 100


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
        with input_errors("open", self.address):
            self._client = connect(url, timeout)
        self._embeddings = EmbeddingFile()
        try:
            with input_errors("open", self.address):
                check_collection(self._client, name, self.address)
            self.properties()
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """URL of the gallery without user and password, or the file."""
        return address_of(self._url, self._name)

    def close(self) -> None:
        """Close the connection, and delete the temporary file."""
        self._embeddings.close()
        self._client.close()

    def load_encoder(self) -> Encoder:
        with self._calling("read"):
            self._read_commits()
            archive = from_base64(self._joined(self._commits[0]))
        return load_archived_encoder(archive, self._name, self.address)

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
            return _selected(found, [matches(item, conditions) for item in self._items.values()])

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
        return (item for item in found if matches(item, conditions))

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
            text, number = "", None
            while (latest := self._read_commits()["calibrated"]) != number:  # its rows may be deleted meanwhile
                number = latest
                text = self._joined(self._commits[number]) if number else ""
            if not number:
                return None
            match json.loads(text):
                case {"arrays": dict() as arrays, "description": description, "identities": list() as identities}:
                    decoded = {name: from_base64(array) for name, array in arrays.items()}
                case _:
                    raise DamageError(f"commit {number} has no calibration")
        return read_calibration(decoded, json.dumps(description), identities, self.address)

    def add(self, batches: Iterable[NewItems], last_id: int = 0) -> list[int]:
        positions: list[int] = []

        def change(properties: Properties) -> None:
            nonlocal first
            first = properties["last_id"] + 1
            properties["last_id"] = max([properties["last_id"], last_id, *(first + n for n in positions[-1:])])

        with self._calling("write"):
            first = self._read_commits()["last_id"] + 1
            self._write(item_rows(batches, first, positions), change)
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
            self._write(parts_of("calibration", text), change)
            if earlier:
                self._delete_ignored(keys_of(self._commits[earlier]))

    def _rewrite(self, kind: str, select: Callable[[], list[int]], content: Any = None) -> int:
        """Update or remove the items that `select` returns after the gallery was read, and return their number."""

        def change(properties: Properties) -> None:
            properties["last_rewrite"] = properties["transaction"] + 1

        with self._calling("write"):
            while True:  # until no other process has written meanwhile
                seen = self._refresh().properties["transaction"]
                ids = sorted(set(select()))
                rows = [{"kind": kind, "number": i, "content": as_json(content)} for i in ids]
                if self._write(rows, change, seen):
                    break
            if kind == "remove":
                self._delete_ignored(key for i in ids for key in self._keys[i])
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
        token, size = new_token(), self._read_commits()["embedding_size"]
        count, is_committed = 0, False
        try:
            count = insert(self._client, self._name, token, rows, size)
            with locked(self._client, self._url, self._name, self._timeout) as check_lock:
                properties = dict(self._read_commits())
                if seen in (None, properties["transaction"]):
                    change(properties)
                    properties["transaction"] += 1
                    check_lock()
                    is_committed = True  # or it may be, if the server ends now
                    insert_commit(self._client, self._name, Commit(token, count, properties), size)
        finally:
            if not is_committed:
                with contextlib.suppress(MilvusException):
                    self._client.delete(self._name, filter=f"key like '{token}%'")
        return is_committed

    def _delete_ignored(self, keys: Iterable[str]) -> None:
        """Delete rows that readers ignore since a commit. The transaction is complete also if this fails."""
        with contextlib.suppress(MilvusException):
            for batch in batches_of(keys, ROWS_PER_CALL):
                self._client.delete(self._name, ids=batch)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Contents]:
        with self._calling("read"):
            yield self._refresh()

    @contextlib.contextmanager
    def _calling(self, action: str) -> Iterator[None]:
        with self._lock, input_errors(action, self.address):
            if self._embeddings.closed:
                raise InputError(f"{self.address}: the gallery was closed")
            self._client.load_collection(self._name)  # the server may have been restarted
            yield

    def _read_commits(self) -> Properties:
        """Read new commits, and return the properties after the last one."""
        known = len(self._commits)
        count = COMMITS_PER_CALL
        while count == COMMITS_PER_CALL:
            start = max(len(self._commits) - 1, 0)  # the last one again, to notice that the gallery was replaced
            rows = self._get([key_of_commit(number) for number in range(start, start + COMMITS_PER_CALL)])
            commits = [
                commit_of(row["content"], number, self.address) for number, row in enumerate(rows.values(), start)
            ]
            if known and (not commits or commits[0].token != self._commits[-1].token):
                raise InputError(f"{self.address} was replaced by another gallery; open it again")
            self._commits[start:] = commits
            count = len(commits)
        if not self._commits:
            raise DamageError("its creation was interrupted")
        return self._commits[-1].properties

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
        first_ids = {}
        for before, commit in itertools.pairwise(self._commits[max(self._applied - 1, 0) :]):
            first_ids[commit.token] = before.properties["last_id"] + 1
        new = self._commits[max(self._applied, 1) :]
        for batch in batches_of(itertools.chain.from_iterable(map(keys_of, new)), ROWS_PER_CALL):
            embeddings = []
            for key, row in self._get(batch).items():
                if row["kind"] == "item":
                    i = row["number"] + first_ids[key.split()[0]]
                    self._items[i] = checked_item(i, json.loads(row["content"]))
                    self._rows[i] = count + len(embeddings)
                    self._keys[i] = [key]
                    embeddings.append(row["embedding"])
                elif row["kind"] == "update" and row["number"] in self._items:
                    self._items[row["number"]] = _changed(self._items[row["number"]], json.loads(row["content"]))
                    self._keys[row["number"]].append(key)
                elif row["kind"] == "remove":
                    for table in (self._items, self._rows, self._keys):
                        table.pop(row["number"], None)
            if any(len(embedding) != size for embedding in embeddings):
                raise DamageError(f"its embedding_size is {size}, its embeddings have {len(embeddings[0])} numbers")
            if embeddings:
                self._embeddings.write(count, np.asarray(embeddings, np.float32))
            count += len(embeddings)
        self._applied = len(self._commits)
        ids, rows = (np.fromiter(values, np.int64, len(self._items)) for values in (self._items, self._rows.values()))
        return Contents(ids, rows, self._embeddings.map(count, size), {**properties, "rows": count})

    def _joined(self, commit: Commit) -> str:
        """Return the text whose parts a commit has."""
        parts = (self._get(batch) for batch in batches_of(keys_of(commit), ROWS_PER_CALL))
        return "".join(row["content"] for rows in parts for row in rows.values())

    def _get(self, keys: list[str]) -> dict[str, Row]:
        """Return those of these rows that exist, in this order."""
        rows: Any = self._client.get(self._name, keys, output_fields=list(FIELDS))
        found = {row["key"]: row for row in rows}
        return {key: found[key] for key in keys if key in found}


def _changed(item: Item, values: Any) -> Item:
    """Return an item with new values by name; a DamageError if they are of something else."""
    if not isinstance(values, dict) or not set(values) <= {"identity", "metadata"}:
        raise DamageError(f"an update of item {item.id} has another form")
    return checked_item(item.id, (item._replace(**values))[1:])


def _selected(contents: Contents, is_selected: list[bool]) -> Contents:
    mask = np.array(is_selected, bool)
    return contents._replace(ids=contents.ids[mask], rows=contents.rows[mask])
