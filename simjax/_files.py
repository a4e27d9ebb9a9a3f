"""Atomic writes of files and folders, and the cache folder of the user."""

import ctypes
import os
import shutil
import sys
from pathlib import Path

from simjax.core import InputError


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file atomically: write a temporary file in the same folder, then rename it to `path`.

    Raises:
        InputError: If the file cannot be written, for instance because the disk is full. An existing file at `path` is
            then unchanged.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")  # another process may write the same file
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def replace_folder(new: Path, folder: Path) -> None:
    """Rename the folder `new` to `folder`, and delete the folder that had this path. Both have the same parent.

    Linux exchanges both in one system call, so `folder` exists even if the process is killed. Other systems, and file
    systems that cannot exchange, need two renames; a process killed between them leaves the earlier folder under the
    hidden name `.NAME.PID.old`.

    Raises:
        OSError: If a folder cannot be renamed. `folder` is then unchanged.
    """
    if not folder.exists():
        new.rename(folder)
        return
    if _exchange(new, folder):
        shutil.rmtree(new, ignore_errors=True)
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange the paths of two folders by renameat2(2); return False where this is impossible."""
    if sys.platform != "linux":
        return False
    working_directory, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of linux/fcntl.h and linux/fs.h
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(a), os.fsencode(b)
    return renameat2 is not None and renameat2(working_directory, names[0], working_directory, names[1], exchange) == 0


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
