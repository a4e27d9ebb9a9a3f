"""The reader of PyTorch's tensors: it executes nothing and refuses every other file in little time."""

import hashlib
import io
import os
import pickle
import sys
import tracemalloc
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from simjax.core import InputError
from simjax.encoder._torch_tensors import read_tensors

VALUES = {"a": np.arange(6, dtype=np.float32), "b": np.array([7], np.int64)}
BEGIN = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})  # magic number, version, machine
TENSORS = {"a": ("a", 1, (2, 2), (1, 2)), "b": ("b", 0, (), ())}  # name: storage, offset, shape and strides


class Reference:
    """A storage in a pickled tensor."""

    def __init__(self, key: str, kind: type, size: int):
        self.id = ("storage", kind, key, "cpu", size, None)


class ReferencePickler(pickle.Pickler):
    def persistent_id(self, obj):
        return obj.id if isinstance(obj, Reference) else None


class Call:
    """Is unpickled by calling a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def torch_names(monkeypatch):
    """The names of PyTorch that a file of tensors has."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def rebuild(*arguments):
        raise AssertionError("the reader must not call PyTorch")

    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = "torch._utils", *2 * ["_rebuild_tensor_v2"]
    utils.__dict__["_rebuild_tensor_v2"] = rebuild
    for name in ("FloatStorage", "LongStorage"):
        torch.__dict__[name] = type(name, (), {"__module__": "torch"})
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch, rebuild


def content_of(torch_names, tensors=TENSORS, *, extra=None) -> bytes:
    torch, rebuild = torch_names
    kinds = {"a": torch.FloatStorage, "b": torch.LongStorage}
    storages = {key: Reference(key, kinds[key], len(values)) for key, values in VALUES.items()}
    state = OrderedDict(
        (name, Call(rebuild, storages[key], offset, shape, strides, False, OrderedDict()))
        for name, (key, offset, shape, strides) in tensors.items()
    )
    state.update(extra or {})
    file = io.BytesIO()
    for part in (*BEGIN, state, list(VALUES)):
        ReferencePickler(file, protocol=2).dump(part)
    for values in VALUES.values():
        file.write(len(values).to_bytes(8, "little") + values.tobytes())
    return file.getvalue()


def read(content: bytes, folder: Path) -> dict[str, np.ndarray]:
    path = folder / "weights.pth"
    path.write_bytes(content)
    return read_tensors(path, sha256=hashlib.sha256(content).hexdigest())


def test_tensors_are_views_of_their_storages(torch_names, tmp_path):
    found = read(content_of(torch_names), tmp_path)
    np.testing.assert_array_equal(found["a"], [[1, 3], [2, 4]])
    assert found["a"].dtype == np.float32
    assert found["b"] == 7


def test_a_malicious_file_runs_nothing(torch_names, tmp_path):
    victim = tmp_path / "victim"
    for function, arguments in (
        (os.mkdir, (str(victim),)),
        (eval, (f"__import__('pathlib').Path({str(victim)!r}).mkdir()",)),
    ):
        with pytest.raises(InputError, match="only tensors are read"):
            read(content_of(torch_names, extra={"x": Call(function, *arguments)}), tmp_path)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(InputError, match="only tensors are read"):
                read(pickle.dumps(Call(function, *arguments), protocol), tmp_path)
    by_name = b"cos\nsystem\n(S'mkdir " + str(victim).encode() + b"'\ntR."
    with pytest.raises(InputError, match=r"os\.system; only tensors are read"):
        read(by_name, tmp_path)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": ("a", 3, (2, 2), (1, 2))}, "outside of its storage"),
        ({"a": ("a", 0, (3,), (-1,))}, "outside of its storage"),
        ({"a": ("a", 0, (10**9,), (0,))}, "outside of its storage"),
        ({"a": ("a", 0, (1,) * 65, (1,) * 65)}, "not a file of PyTorch tensors"),
        ({"a": ("a", 0, (2, 2), (1,))}, "not a file of PyTorch tensors"),
    ],
)
def test_tensors_outside_of_their_storage_are_refused(torch_names, tmp_path, tensors, message):
    with pytest.raises(InputError, match=message):
        read(content_of(torch_names, TENSORS | tensors), tmp_path)


def test_damaged_and_foreign_files_are_refused(torch_names, tmp_path):
    whole = content_of(torch_names)
    for length in (0, 1, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        with pytest.raises(InputError, match=r"weights\.pth: (it|a tensor) "):
            read(whole[:length], tmp_path)
    with pytest.raises(InputError, match="not a file of PyTorch tensors"):
        read(content_of(torch_names, extra={"x": 1}), tmp_path)
    with pytest.raises(InputError, match="expected the file with the SHA-256 00, got another one"):
        read_tensors(tmp_path / "weights.pth", sha256="00")
    with pytest.raises(InputError, match="cannot be read"):
        read_tensors(tmp_path / "absent.pth", sha256="00")
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(InputError, match="It is a pipe"):
        read_tensors(tmp_path / "pipe.pth", sha256="00")


TUPLES = b")" + b"2\x86" * 60  # each of two copies of the one before, made by DUP
SHARED_TUPLES = b")" + b"q\x00h\x00\x86" * 60  # and made by the memo; a hash of them would take for ever
STORAGE = b"X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
NOT_TENSORS = "not a file of PyTorch tensors"


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"}" + TUPLES + b"K\x01s.", "operation DUP; only tensors are read"),
        (b"}" + SHARED_TUPLES + b"K\x01s.", "keys that are strings"),
        (b"}(" + SHARED_TUPLES + b"K\x01u.", "keys that are strings"),
        (
            b"}X\x01\x00\x00\x00a(" + STORAGE + SHARED_TUPLES + b"X\x03\x00\x00\x00cpuK\x01NtQs.",
            "a key that is a string",
        ),
        (b"(" + SHARED_TUPLES + b"NNNNNtQ.", NOT_TENSORS),
        (SHARED_TUPLES + b")R.", NOT_TENSORS),
        (SHARED_TUPLES + b".", NOT_TENSORS),
        (b"]" * 200_000 + b"a" * 199_999 + b".", "operation APPEND; only"),
        (b")" + b"\x85" * 200_000 + b".", NOT_TENSORS),
        (b"ctorch\nFloatStorage\n)R.", "calls a function with arguments; only tensors are read"),
        (b"\x82\x01.", "operation EXT1; only tensors are read"),
        (b"", NOT_TENSORS),
        (b".", NOT_TENSORS),
        (b"K\x01K\x02.", NOT_TENSORS),
        (b"u.", NOT_TENSORS),
    ],
)
def test_a_program_that_makes_anything_but_tensors_is_refused(tmp_path, pickled, message):
    begin = b"".join(pickle.dumps(part, 2) for part in BEGIN)
    with pytest.raises(InputError, match=message):
        read(begin + b"\x80\x02" + pickled + pickle.dumps([], 2), tmp_path)


def test_the_keys_of_storages_are_those_of_the_tensors(tmp_path):
    begin = b"".join(pickle.dumps(part, 2) for part in (*BEGIN, {}))
    with pytest.raises(InputError, match="the keys of its storages are not those of its tensors"):
        read(begin + b"\x80\x02](" + SHARED_TUPLES + b"e.", tmp_path)


def test_a_large_index_of_the_memo_takes_no_memory(tmp_path):
    tracemalloc.start()
    with pytest.raises(InputError, match=NOT_TENSORS):
        read(b"\x80\x02]r\xff\xff\xff\x07.", tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
