"""Fetch published files over the network: first see whether there is one, then verify what came."""

import hashlib
import http.client
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from simjax.core import InputError

Progress = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done and how much there is of it."""

REACH_SECONDS = 6.0
READ_SECONDS = 30.0
BLOCK = 2**18
FAILURES = (OSError, http.client.HTTPException)


def unreachable(url: str) -> str | None:
    """Why the host of a URL cannot be reached, or None if it answers within `REACH_SECONDS`."""
    answer: list[str | None] = ["no answer"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=REACH_SECONDS):
                answer[0] = None
        except FAILURES as error:
            answer[0] = str(error).strip("<>")

    # In a thread, since no time-out bounds the look-up of a host's name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    return answer[0]


def download(url: str, target: Path, size: int, sha256: str, progress: Progress) -> None:
    """Fetch a file and verify it.

    Args:
        url: of the file.
        target: where to.
        size: of the file, in bytes.
        sha256: its published checksum.
        progress: is told how many bytes have come.

    Raises:
        InputError: if the connection fails or what came is not the published file.
    """
    digest, done = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=READ_SECONDS) as response, target.open("wb") as file:
            while block := response.read(BLOCK):
                digest.update(block)
                file.write(block)
                done += len(block)
                progress(f"downloading {host(url)}/{target.name}", done, size)
    except FAILURES as error:
        raise InputError(f"{url}: the download failed ({error}); nothing of it was kept") from error
    if digest.hexdigest() != sha256:
        raise InputError(f"{url}: what came is not the published file (SHA-256 differs); nothing of it was kept")


def host(url: str) -> str:
    """The host's name in a URL."""
    return urllib.parse.urlsplit(url).hostname or url
