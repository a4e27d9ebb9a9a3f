"""Files and folders are replaced whole, also if the process is killed or renaming fails."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simjax import _files
from simjax._files import move_folder, replace_folder, temporary_folder, write_file
from simjax.core import InputError

REPLACE_FOREVER = """
import sys
from pathlib import Path
from simjax._files import replace_folder
folder = Path(sys.argv[1])
print("ready", flush=True)
while True:
    new = folder.with_name(".new")
    new.mkdir()
    for name in "ab":
        (new / name).write_text("new")
    replace_folder(new, folder)
"""


HOLD_TEMPORARY_FOLDER = """
import sys
from pathlib import Path
from simjax._files import temporary_folder
with temporary_folder(Path(sys.argv[1])) as work:
    (work / "a").write_text("work")
    print(work, flush=True)
    input()
"""


def folder_with(path, content):
    path.mkdir()
    (path / "a").write_text(content)
    return path


def test_a_folder_replaces_another_or_none(tmp_path):
    out = tmp_path / "out"
    for content in ("first", "second"):
        replace_folder(folder_with(tmp_path / "new", content), out)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        assert (out / "a").read_text() == content


def test_without_an_exchange_two_renames_replace_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    replace_folder(folder_with(tmp_path / "new", "new"), folder_with(tmp_path / "out", "old"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "a").read_text() == "new"


def test_a_folder_that_cannot_be_replaced_is_unchanged(tmp_path, monkeypatch):
    out = folder_with(tmp_path / "out", "old")
    for exchange in (_files._exchange, lambda a, b: False):
        monkeypatch.setattr(_files, "_exchange", exchange)
        with pytest.raises(OSError, match="No such file"):
            replace_folder(tmp_path / "missing", out)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        assert (out / "a").read_text() == "old"


def test_a_folder_is_moved_to_nothing_or_an_empty_folder_only(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty"):
        move_folder(folder_with(tmp_path / "new", name), tmp_path / name)
        assert (tmp_path / name / "a").read_text() == name
    new, out = folder_with(tmp_path / "new", "new"), folder_with(tmp_path / "out", "old")
    (tmp_path / "file").write_text("old")
    for taken in (out, tmp_path / "file"):
        with pytest.raises(OSError, match="not empty|Not a directory|exists"):
            move_folder(new, taken)
    assert (out / "a").read_text() == "old"
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the name of an open file is found on Linux only")
@pytest.mark.parametrize("old", ["folder", "none"])
def test_a_folder_is_on_the_disk_before_it_replaces_another_and_before_that_is_deleted(tmp_path, monkeypatch, old):
    new, out = folder_with(tmp_path / "new", "new"), tmp_path / "out"
    folder_with(new / "inner", "inner")
    if old == "folder":
        folder_with(out, "old")
    sync, synced = os.fsync, []

    def note_and_sync(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        state = (out / "inner").exists(), (new / "a").exists()
        synced.append((str(path.relative_to(tmp_path)), *state))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note_and_sync)
    replace_folder(new, out)
    *before, after = synced
    assert sorted(name for name, *_ in before) == ["new", "new/a", "new/inner", "new/inner/a"]
    assert all(not is_replaced for _, is_replaced, _ in before)
    assert after == (".", True, old == "folder")  # the earlier folder is under the other path until then
    synced.clear()
    write_file(tmp_path / "file", "new")
    assert [Path(name).suffix for name, *_ in synced] == [".part", ""]


def test_temporary_folders_of_killed_processes_are_deleted_and_those_of_others_stay(tmp_path):
    out, mine = tmp_path / "out", tmp_path / ".out.2024.part"
    mine.mkdir()
    command = [sys.executable, "-c", HOLD_TEMPORARY_FOLDER, str(out)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(2)
    ]
    killed, alive = (Path(process.stdout.readline().strip()) for process in processes if process.stdout)
    processes[0].kill()
    processes[0].communicate()
    assert killed.exists()
    with temporary_folder(out) as work:
        assert set(tmp_path.iterdir()) == {work, alive, mine}
        assert (alive / "a").read_text() == "work"
    processes[1].communicate("\n")
    assert set(tmp_path.iterdir()) == {mine}


DIES_BETWEEN_TWO_RENAMES = """
import os, sys
from pathlib import Path
from simjax import _files

_files._exchange = lambda a, b: False
rename = Path.rename

def rename_once(path, target):
    rename(path, target)
    Path.rename = lambda path, target: os.kill(os.getpid(), 9)

Path.rename = rename_once
out = Path(sys.argv[1])
with _files.temporary_folder(out) as work:
    (work / "a").write_text("new")
    _files.replace_folder(work, out)
"""


def test_the_only_copy_of_a_folder_is_never_deleted(tmp_path):
    """A process is killed between the two renames that replace a folder where folders cannot be exchanged."""
    out = folder_with(tmp_path / "out", "old")
    killed = subprocess.run([sys.executable, "-c", DIES_BETWEEN_TWO_RENAMES, str(out)])
    assert killed.returncode == -9
    with temporary_folder(out):
        pass
    (copy,) = tmp_path.iterdir()
    assert copy.suffix == ".old"
    assert (copy / "a").read_text() == "old"


def test_a_file_of_any_allowed_name_is_written_and_others_are_one_error(tmp_path):
    for name in ("x" * 255, "ü" * 127):
        write_file(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "new"
    for name in ("x" * 256, "a\0b", f"{'x' * 256}/a", "a\0b/a"):
        with pytest.raises(InputError, match="cannot write"):
            write_file(tmp_path / name, "new")
    assert {path.name for path in tmp_path.iterdir()} == {"x" * 255, "ü" * 127}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="folders are exchanged on Linux only")
def test_a_killed_process_leaves_a_whole_folder(tmp_path):
    for attempt in range(10):
        out = tmp_path / str(attempt) / "out"
        out.parent.mkdir()
        folder_with(out, "old")
        (out / "b").write_text("old")
        command = [sys.executable, "-c", REPLACE_FOREVER, str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.003 * attempt)
            process.kill()
        assert {path.read_text() for path in out.iterdir()} in ({"old"}, {"new"})
        assert {path.name for path in out.iterdir()} == {"a", "b"}
