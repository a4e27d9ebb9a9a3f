"""Read the tensors of a file in PyTorch's format before version 1.6, without PyTorch and without unpickling.

The file has a magic number, a version, a description of the machine, a dictionary of tensors and the keys of their
storages, each pickled, and then the numbers of each storage. A pickle is a program for a stack machine, which can call
any function. The reader here takes only a file with a known hash, and interprets only the operations that a dictionary
of tensors needs: they make numbers, strings, tuples, lists, dictionaries with keys that are strings, and tensors. It
refuses everything else, so nothing of the file is executed.
"""

import hashlib
import io
import math
import pickletools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simjax._reading import check_regular_file
from simjax.core import InputError

EMPTY_DICT, TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
DTYPES = {"torch FloatStorage": np.dtype("<f4"), "torch LongStorage": np.dtype("<i8")}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
MARK = object()  # on the stack before the first of several values


class _Name(NamedTuple):
    """The name of a function or a class of the file, one of those above."""

    name: str


class _Storage(NamedTuple):
    """A reference to numbers that follow the pickled part of the file."""

    key: str
    dtype: np.dtype[Any]
    size: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_tensors(path: Path, *, sha256: str) -> dict[str, np.ndarray]:
    """Read the tensors of a file in PyTorch's format before version 1.6.

    Args:
        path: A state dictionary saved by `torch.save`.
        sha256: Hash of the file, in hexadecimal digits; another file is refused before it is parsed.

    Raises:
        InputError: If the file cannot be read, is another one, is damaged, or has anything but tensors.
    """
    try:
        check_regular_file(path)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise InputError(f"expected the file with the SHA-256 {sha256}, got another one; install its package again")
        return _tensors(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # another file can raise any error of a stack machine
        raise InputError(f"{path}: it is not a file of PyTorch tensors ({error!r})") from error


def _tensors(content: bytes) -> dict[str, np.ndarray]:
    file = io.BytesIO(content)
    _magic, _version, _machine, tensors, keys = (_value(file) for _ in range(5))
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if keys != sorted(storages):
        raise InputError("the keys of its storages are not those of its tensors")
    numbers: dict[str, np.ndarray] = {}
    for key in sorted(storages):
        dtype, size = storages[key].dtype, storages[key].size
        file.seek(8, io.SEEK_CUR)  # the size once more
        numbers[key] = np.frombuffer(file.read(size * dtype.itemsize), dtype)
    return {name: _array(tensor, numbers[tensor.storage.key]) for name, tensor in tensors.items()}


def _value(file: io.BytesIO) -> Any:
    """Return the value of the pickle at the position of a file, with references to tensors, and go to its end."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for operation, argument, _ in pickletools.genops(file):
        match operation.name:
            case "PROTO":
                pass
            case "STOP":
                break
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                stack.append(CONSTANTS[operation.name])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                stack.append(MARK)
            case "TUPLE":
                stack.append(tuple(_pop_to_mark(stack)))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(_pop(stack, TUPLES[operation.name])))
            case "APPENDS":
                values = _pop_to_mark(stack)
                stack[-1].extend(values)
            case "SETITEM":
                _update(_pop(stack, 2), stack)
            case "SETITEMS":
                _update(_pop_to_mark(stack), stack)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL" if argument in (EMPTY_DICT, TENSOR, *DTYPES):
                stack.append(_Name(argument))
            case "GLOBAL":
                raise InputError(f"it asks for {argument.replace(' ', '.')[:80]}; only tensors are read")
            case "REDUCE":
                function, arguments = _pop(stack, 2)
                stack.append(_result(function, arguments))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "BUILD":  # attributes of the dictionary, which are not needed
                stack.pop()
            case name:
                raise InputError(f"it has the operation {name}; only tensors are read")
    (value,) = stack
    return value


def _pop(stack: list[Any], count: int) -> list[Any]:
    """Remove and return the last values of the stack."""
    values = stack[-count:]
    del stack[-count:]
    return values


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    """Remove the last mark and the values after it, and return these values."""
    values: list[Any] = []
    while (value := stack.pop()) is not MARK:
        values.append(value)
    return values[::-1]


def _update(items: list[Any], stack: list[Any]) -> None:
    """Add keys and values, in turn, to the last dictionary of the stack."""
    # Only strings, because the hash of nested tuples can take for ever.
    if not all(type(key) is str for key in items[::2]):
        raise ValueError("expected keys that are strings")
    stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _result(function: Any, arguments: Any) -> Any:
    """Return the dictionary or the tensor that a function named in the file would return."""
    if function.name == EMPTY_DICT and arguments == ():
        return {}
    if function.name != TENSOR:
        raise InputError("it calls a function with arguments; only tensors are read")
    storage, offset, shape, strides, _requires_grad, _hooks = arguments
    return _Tensor(storage, offset, shape, strides)


def _storage(reference: Any) -> _Storage:
    """Return the storage that a tensor refers to."""
    _kind, name, key, _device, size, _view = reference
    if type(key) is not str:  # see `_update`
        raise ValueError("expected a key that is a string")
    return _Storage(key, DTYPES[name.name], size)


def _array(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    """Return a copy of the numbers of a tensor, after checking that all of them are in its storage."""
    shape, strides = tensor.shape, tensor.strides
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if min((tensor.offset, *shape, *strides)) < 0 or math.prod(shape) > len(numbers) or last >= len(numbers):
        raise InputError("a tensor has numbers outside of its storage")
    steps = [stride * numbers.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], shape, steps, writeable=False).copy()
