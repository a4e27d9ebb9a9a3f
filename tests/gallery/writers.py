"""Processes that write to a gallery, to be killed.

Each line on stdin, `task output arguments...`, is run in a process of its own, whose number is printed. They are forked
from this one, which has imported everything. What a task returns is written to its output as JSON.
"""

import ctypes
import itertools
import json
import os
import resource
import signal
import sqlite3
import sys
import time
import traceback
import zlib
from pathlib import Path

import numpy as np

from simjax.cli import main as run_command
from simjax.core import InputError
from simjax.encoder import load_encoder
from simjax.gallery import Gallery, _folder, _folder_store
from simjax.gallery._store import NewItems

GROUP = 3


def embeddings_of(group: str) -> np.ndarray:
    """The embeddings of the items of a group, which are added in one transaction."""
    return np.random.default_rng(zlib.crc32(group.encode())).normal(size=(GROUP, 5)).astype(np.float32)


def add_and_remove(path: str, seed: str) -> None:
    """Add and remove groups until killed."""
    _folder_store.MIN_DEAD_ROWS = 6  # the embeddings are rewritten often
    random = np.random.default_rng(int(seed))
    with Gallery.open(path) as gallery:
        for i in itertools.count():
            groups = sorted({str(item.identity) for item in gallery.items()})
            if len(groups) > random.integers(0, 8):
                gallery.remove_identity(groups[random.integers(len(groups))])
            else:
                gallery.add(embeddings_of(f"{seed}.{i}"), f"{seed}.{i}", {"seed": int(seed)})


def add_groups(path: str, name: str, count: str) -> list[int]:
    """Add groups, one transaction each."""
    with Gallery.open(path) as gallery:
        return [i for n in range(int(count)) for i in gallery.add(embeddings_of(f"{name}{n}"), f"{name}{n}")]


def hold_lock(path: str) -> None:
    """Hold the lock of a writer until killed."""
    connection = sqlite3.connect(f"{path}/items.sqlite", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    time.sleep(600)


def use_read_only(path: str) -> list:
    """Use a gallery that this process cannot write."""
    if os.getuid() == 0:
        drop_right_to_write_everywhere()
    with Gallery.open(path) as gallery:
        found: list = [len(gallery), gallery.search(1, 1)[0].hits[0].id]
        for write in (lambda: gallery.add(embeddings_of("x")), lambda: gallery.remove(1)):
            found.append(error_of(write))
    found.append(error_of(lambda: Gallery.create(f"{path}/../other", gallery.encoder)))
    return found


def drop_right_to_write_everywhere() -> None:
    """Make permissions of files apply to the superuser, by dropping CAP_DAC_OVERRIDE, the capability number 1."""
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    system = ctypes.CDLL(None)
    assert system.capget(header, sets) == 0
    sets[0] &= ~2
    sets[1] &= ~2
    assert system.capset(header, sets) == 0


def fill_disk(path: str, limit: str) -> list:
    """Write to a gallery where no file may be larger than a limit."""
    with Gallery.open(path) as gallery:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
        many = np.ones((400, 5), np.float32)
        found = [error_of(lambda: gallery.add(many, "many")), len(gallery)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return [*found, os.path.getsize(f"{path}/embeddings-0.f32"), len(gallery.add(many, "many"))]


def create_at_once(folder: str, encoder: str, name: str, other: str, count: str) -> list[str]:
    """Create galleries at the same times as the process with the other name."""
    loaded, found = load_encoder(encoder), []
    for number in range(int(count)):
        Path(folder, f"{name}-{number}").touch()
        wait_for(Path(folder, f"{other}-{number}"))

        def create_and_add(path: str = f"{folder}/gallery-{number}") -> None:
            with Gallery.create(path, loaded) as gallery:
                gallery.add(embeddings_of(name), name)

        found.append(error_of(create_and_add))
    return found


def save_at_once(folder: str, encoder: str, name: str, other: str, count: str) -> list[str]:
    """Save encoders at the same times as the process with the other name."""
    loaded, found = load_encoder(encoder), []
    for number in range(int(count)):
        Path(folder, f"{name}-{number}").touch()
        wait_for(Path(folder, f"{other}-{number}"))
        found.append(error_of(lambda path=f"{folder}/encoder-{number}": loaded.save(path)))
    return found


def overwrite_slowly(path: str, encoder: str, signals: str) -> str:
    """Replace a gallery whose database `overwrite_late` has opened, and add items until that process is done."""
    loaded = load_encoder(encoder)
    wait_for(Path(signals, "opened"))

    def batches():
        yield as_items("slow0")
        Path(signals, "in transaction").touch()
        wait_for(Path(signals, "done"), seconds=2)  # if the lock works, the other process waits for this one
        yield as_items("slow1")

    with Gallery.create(path, loaded, overwrite=True) as gallery:
        return error_of(lambda: gallery._store.add(batches()))


def overwrite_late(path: str, encoder: str, signals: str) -> str:
    """Replace a gallery that `overwrite_slowly` replaces after this process opened its database."""
    connect = _folder.connect

    def connect_and_wait(*arguments):
        connection = connect(*arguments)
        Path(signals, "opened").touch()
        wait_for(Path(signals, "in transaction"))
        return connection

    _folder.connect = connect_and_wait
    with Gallery.create(path, load_encoder(encoder), overwrite=True) as gallery:
        for name in ("late0", "late1"):
            gallery.add(embeddings_of(name), name)
    Path(signals, "done").touch()
    return "done"


def overwrite_and_die(path: str, encoder: str, images: str) -> None:
    """Replace a gallery by one of images, and be killed when the images are added."""

    def die(*arguments, **options):
        os.kill(os.getpid(), signal.SIGKILL)

    _folder_store.FolderStore.add = die  # pyright: ignore[reportAttributeAccessIssue]
    run_command(["gallery", "create", path, "--encoder", encoder, "--images", images, "--overwrite"])


def as_items(name: str) -> NewItems:
    """The items of a group."""
    return NewItems(embeddings_of(name), [name] * GROUP, [None] * GROUP, ["{}"] * GROUP)


def wait_for(path: Path, seconds: float = 60) -> None:
    """Wait until a file exists."""
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.001)


def error_of(write) -> str:
    try:
        return f"no error: {write()}"
    except InputError as error:
        return str(error)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes
    for line in sys.stdin:
        task, output, *arguments = json.loads(line)
        if (number := os.fork()) == 0:
            status = 1
            try:
                result = globals()[task](*arguments)
                with open(output, "w") as file:
                    json.dump(result, file)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
