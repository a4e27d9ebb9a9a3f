"""Writing files so that a reader, or a crash, never meets half of one, and the folder of caches."""

import os
import sys
from pathlib import Path

from simjax.core import InputError


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: into a temporary file beside it, which then takes its name.

    Raises:
        InputError: if it cannot be written, a full disk for instance; what was there before stays.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def user_cache() -> Path | None:
    """Return the folder of simjax in the user's cache folder, or None if the user has no home.

    $XDG_CACHE_HOME/simjax where that is an absolute path, otherwise ~/Library/Caches/simjax on macOS,
    %LOCALAPPDATA%/simjax on Windows and ~/.cache/simjax elsewhere.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # the specification tells to ignore a relative path
        return Path(given) / "simjax"
    local = os.environ.get("LOCALAPPDATA")
    if sys.platform == "win32" and local:
        return Path(local) / "simjax"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "simjax"
