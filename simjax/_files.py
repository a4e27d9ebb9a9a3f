"""Atomic writes of files, and the cache folder of the user."""

import os
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
