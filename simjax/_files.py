"""Atomic and durable writes of files and folders, and the cache folder of the user."""

import contextlib
import ctypes
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from simjax.core import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def absolute_path(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path without symbolic links; an InputError if no file can have it."""
    try:
        found = Path(path).expanduser().resolve()
        found.exists()  # an OSError if a name is too long
    except (OSError, ValueError, RuntimeError) as error:  # a NUL character, the home of an unknown user
        raise InputError(f"{str(path)!r} cannot be the path of a file: {reason_of(error)}") from error
    return found


def reason_of(error: Exception) -> str:
    """Return the message of an error, without the number and the path that an OSError has."""
    return getattr(error, "strerror", None) or str(error)


def is_regular(path: Path) -> bool:
    """Return whether a path is that of a file, and not of a link to one."""
    return path.is_file() and not path.is_symlink()


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file atomically: write a temporary file in the same folder, then rename it to `path`.

    The file is on the disk when this returns.

    Raises:
        InputError: If the file cannot be written, for instance because the disk is full. An existing file at `path` is
            then unchanged.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.parent / _hidden_name(path.name)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise InputError(f"cannot write {path}: {reason_of(error)}") from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextlib.contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Create a hidden folder beside `folder` for its new content. It is deleted at the end if it still exists.

    The process holds a lock of the hidden folder. Hidden folders of `folder` without a lock are of processes that were
    killed, and are deleted first.

    Raises:
        OSError: If the folder cannot be created.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _delete_leftovers(folder)
    while True:
        work = folder.with_name(_hidden_name(folder.name))
        work.mkdir()
        lock = _lock_folder(work, wait=True)
        if work.exists():  # otherwise another process took it for a leftover before it was locked
            break
        _unlock(lock)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        _unlock(lock)


def move_folder(new: Path, folder: Path) -> None:
    """Rename the folder `new` to `folder`, where nothing or an empty folder is. Both have the same parent.

    Raises:
        OSError: If there is a file or a folder with content, which is then unchanged, or `new` cannot be renamed.
    """
    _sync_tree(new)
    if sys.platform == "win32":  # its `rename` does not replace an empty folder
        with contextlib.suppress(OSError):
            folder.rmdir()
    new.rename(folder)
    sync_folder(folder.parent)


def replace_folder(new: Path, folder: Path) -> None:
    """Rename the folder `new` to `folder`, and delete the folder that had this path. Both have the same parent.

    Linux exchanges both in one system call, so `folder` exists even if the process is killed. Other systems, and file
    systems that cannot exchange, need two renames; a process killed between them leaves the earlier folder under the
    hidden name `.NAME.NUMBER.old`.

    Raises:
        OSError: If a folder cannot be renamed. `folder` is then unchanged.
    """
    if not folder.exists():
        move_folder(new, folder)
        return
    _sync_tree(new)
    if not _exchange(new, folder):
        old = folder.with_name(_hidden_name(folder.name, ".old"))
        folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            old.rename(folder)
            raise
        old.rename(new)
    sync_folder(folder.parent)  # before the earlier folder is deleted: the power may fail in between
    shutil.rmtree(new, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk. File systems that cannot do this are ignored, as by SQLite."""
    if os.name == "posix":  # other systems do not open folders
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    """Wait until all files in a folder, at any depth, and their names are on the disk."""
    for path, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(path, name), "r+b") as file:
                os.fsync(file.fileno())
        sync_folder(Path(path))


def _exchange(a: Path, b: Path) -> bool:
    """Exchange the paths of two folders by renameat2(2); return False where this is impossible."""
    if sys.platform != "linux":
        return False
    working_directory, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of linux/fcntl.h and linux/fs.h
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(a), os.fsencode(b)
    return renameat2 is not None and renameat2(working_directory, names[0], working_directory, names[1], exchange) == 0


def _hidden_name(name: str, suffix: str = ".part") -> str:
    """Return an unused name for temporary content of a file. 50 characters are at most 200 of the 255 bytes allowed."""
    return f".{name[:50]}.{secrets.token_hex(8)}{suffix}"


def _delete_leftovers(folder: Path) -> None:
    """Delete the hidden folders that `temporary_folder` created in processes that were killed."""
    pattern = re.escape(f".{folder.name[:50]}.") + r"[0-9a-f]{16}\.part"
    with contextlib.suppress(OSError):
        for path in list(folder.parent.iterdir()):
            if re.fullmatch(pattern, path.name) and (lock := _lock_folder(path, wait=False)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                _unlock(lock)


def _lock_folder(folder: Path, *, wait: bool) -> int | None:
    """Lock a folder until its descriptor is closed or the process ends. Return the descriptor, or None if it is not.

    Unlike a number of a process in the name, a lock is right for processes of other containers, and numbers are reused.
    """
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # locked, or the file system has no such locks
        os.close(descriptor)
        return None
    return descriptor


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def user_cache() -> Path | None:
    """Return the cache folder of simjax, or None if the user has no home folder.

    The folder is $XDG_CACHE_HOME/simjax if the variable is an absolute path, else ~/Library/Caches/simjax on macOS,
    %LOCALAPPDATA%/simjax on Windows and ~/.cache/simjax on other systems.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # the specification says that relative paths are ignored
        return Path(given) / "simjax"
    local = os.environ.get("LOCALAPPDATA")
    if sys.platform == "win32" and local:
        return Path(local) / "simjax"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "simjax"
