"""Where galleries are: paths of folders, and URLs of databases."""

import contextlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from simjax._files import absolute_path
from simjax.core import InputError
from simjax.gallery._folder import check_replaceable
from simjax.gallery._folder_store import FolderStore, create_folder_store
from simjax.gallery._sql import input_errors
from simjax.gallery._store import NewItems, NoGalleryError, Properties, Store, is_unicode

GALLERY = "gallery"
"""Parameter of a URL that names the gallery, and the default name."""

MAX_TIMEOUT = 1e6
"""Seconds. PostgreSQL limits its own to 24 days."""

EXPECTED = "expected a folder, postgresql://USER@HOST:PORT/DATABASE?gallery=NAME or milvus://HOST:PORT?gallery=NAME"


def create_store(
    location: str | os.PathLike[str],
    properties: Properties,
    save_encoder: Callable[[Path], None],
    items: Sequence[NewItems] = (),
    *,
    overwrite: bool,
    timeout: float,
) -> Store:
    """Create a gallery with its first items, and open it. If this raises an error, nothing was changed.

    Milvus has no transactions: see `_milvus_create` for what remains if the process dies.

    Args:
        location: Path or URL.
        properties: `ENCODER_PROPERTIES`.
        save_encoder: Writes the encoder to a folder.
        items: The first items, with ids from 1 on.
        overwrite: Replace a gallery that is there.
        timeout: Seconds to wait for processes that use the gallery.
    """
    _check_timeout(timeout)
    if (url := split_url(location)) is None:
        options = {"overwrite": overwrite, "timeout": timeout}
        return create_folder_store(absolute_path(location), properties, save_encoder, items, **options)
    database = _database_of(*url)
    database.create_gallery(*url, properties, save_encoder, items, overwrite=overwrite, timeout=timeout)
    return database.store(*url, timeout)


def check_place(location: str | os.PathLike[str], *, overwrite: bool, timeout: float) -> None:
    """Raise an InputError if a new gallery cannot have this path or URL, before the work for it is done."""
    if split_url(location) is None:
        path = absolute_path(location)
        with input_errors("open", path):
            check_replaceable(path, overwrite=overwrite)
        return
    if overwrite:
        return
    with contextlib.suppress(NoGalleryError):
        store = open_store(location, timeout)
        store.close()
        raise InputError(f"{store.address} exists; choose another name, or create it with `overwrite=True`")


def open_store(location: str | os.PathLike[str], timeout: float) -> Store:
    """Open a gallery.

    Args:
        location: Path or URL.
        timeout: Seconds to wait for processes that use the gallery.
    """
    _check_timeout(timeout)
    if (url := split_url(location)) is None:
        return FolderStore(absolute_path(location), timeout)
    return _database_of(*url).store(*url, timeout)


def without_credentials(location: str) -> str:
    """Return a path as it is, and a URL without its password."""
    if (url := split_url(location)) is None:
        return location
    return _database_of(*url).address_of(*url)


def split_url(location: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Return the URL of a database and the name of the gallery in it, or None for the path of a folder."""
    scheme = re.match("([A-Za-z][A-Za-z0-9+.-]*)://|milvus:", str(location))
    if scheme is None:
        return None
    if scheme[0] not in ("postgresql://", "postgres://", "milvus://", "milvus:"):
        raise InputError(f"{EXPECTED}, got a URL that starts with {scheme[0]}")
    url, _, query = str(location).partition("?")
    if "\0" in str(location) or not is_unicode(str(location)):
        raise InputError(f"{EXPECTED}, of Unicode text without NUL")
    if "@" in query:  # the ? is of the password
        raise InputError(f"{EXPECTED}; special characters of a password are written as %XX, such as %40 for @")
    parameters = query.split("&") if query else []
    names = [value for value in parameters if value.startswith(f"{GALLERY}=")]
    name = names[-1].removeprefix(f"{GALLERY}=") if names else GALLERY
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,62}", name):
        raise InputError(f"{GALLERY}: expected a name of letters, digits and _ in the URL, got {name!r}")
    others = "&".join(value for value in parameters if value not in names)
    return url + (f"?{others}" if others else ""), name


class _Database(NamedTuple):
    """A kind of database: its function that creates a gallery, its store, and the function that returns addresses."""

    create_gallery: Callable[..., None]
    store: Callable[[str, str, float], Store]
    address_of: Callable[[str, str], str]


def _database_of(url: str, name: str) -> _Database:
    """Return the kind of database of a URL; an InputError if its package is not installed."""
    extra = "milvus" if url.startswith("milvus:") else "postgres"
    try:
        if extra == "milvus":
            from simjax.gallery._milvus import MilvusStore, address_of
            from simjax.gallery._milvus_create import create_gallery

            return _Database(create_gallery, MilvusStore, address_of)
        from simjax.gallery._postgres import PostgresStore, address_of
        from simjax.gallery._postgres_create import create_gallery

        return _Database(create_gallery, PostgresStore, address_of)
    except ImportError as error:
        raise InputError(f"this gallery needs the command pip install 'simjax[{extra}]' ({error})") from error


def _check_timeout(timeout: float) -> None:
    if not 0 <= timeout <= MAX_TIMEOUT:
        raise InputError(f"timeout: expected seconds from 0 to {MAX_TIMEOUT:,.0f}, got {timeout}")
